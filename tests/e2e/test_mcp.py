"""`creto mcp` between the official SDK's own client and server: neither knows of it, and every call is an act."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client

import creto

SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("sums")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def erase(path: str) -> str:
    open(path, "w").close()
    return "erased"

@server.resource("notes://today")
def today() -> str:
    return "private"

server.run("stdio")
"""
POLICY = """
@id("sums") permit (principal, action == Action::"tool:call", resource == Tool::"sums/add");
"""


def test_a_call_that_policy_allows_goes_through_and_one_that_it_denies_never_reaches_the_server(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "rules.cedar").write_text(POLICY)
    (tmp_path / "rules.toml").write_text('[authz]\npolicies = ["rules.cedar"]\n')
    (tmp_path / "precious").write_text("kept")
    options = ["--state", str(tmp_path / "state"), "--config", str(tmp_path / "rules.toml")]
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[
            *("-m", "creto", *options, "mcp", "--agent", "a", "--name", "sums", "--"),
            *(sys.executable, str(tmp_path / "server.py")),
        ],
        env=dict(os.environ),
    )

    async def main() -> None:
        with anyio.fail_after(60):
            async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
                await session.initialize()
                assert {tool.name for tool in (await session.list_tools()).tools} == {"add", "erase"}
                summed = await session.call_tool("add", {"a": 2, "b": 3})
                assert summed.content[0].text == "5"
                refused = await session.call_tool("erase", {"path": str(tmp_path / "precious")})
                assert refused.is_error
                assert "no policy permits it" in refused.content[0].text
                with pytest.raises(MCPError, match="no policy permits it"):
                    await session.read_resource("notes://today")
        async with creto.open(tmp_path / "state", config=[tmp_path / "rules.toml"]) as layer:
            found = await layer.parts.audit.query(action="tool:call")
            assert [(r.kind, r.resource) for r in found] == [
                ("intent", "sums/add"),
                ("outcome", "sums/add"),
                ("refusal", "sums/erase"),
                ("refusal", "sums/resources/read"),
            ]

    anyio.run(main)
    assert (tmp_path / "precious").read_text() == "kept"
