"""`creto mcp`: an MCP server on stdio whose tool calls are decided, charged and recorded."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from creto.cli._frame import Frame, pass_frame

if TYPE_CHECKING:
    from creto.config import Settings

__all__ = ["command"]


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--agent", metavar="NAME", default="default", show_default=True, help="Who calls the tools.")
@click.option("--name", metavar="NAME", help="The server's name in resources; the program's own by default.")
@click.argument("argv", metavar="-- SERVER...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_frame
def command(frame: Frame, agent: str, name: str | None, argv: tuple[str, ...]) -> int:
    """Put an MCP server behind creto: every tool call is an act.

    Write this command where your client's configuration has the server's own. A call that policy denies comes back as
    a tool error that says why; one that needs a human waits for the answer. Policies know the tool `read` of this
    example as `Tool::"files/read"`.

    \b
    Example:
      creto mcp --agent researcher --name files -- npx -y @modelcontextprotocol/server-filesystem .
    """
    return frame.run(_serve, frame, agent, name or PurePath(argv[0]).name, argv)


async def _serve(frame: Frame, agent: str, name: str, argv: tuple[str, ...]) -> int:
    import anyio

    import creto
    from creto.adapters.mcp import proxy
    from creto.errors import NotFoundError

    async with creto.open(frame.state, config=frame.config) as layer:
        try:
            process = await anyio.open_process(list(argv), stderr=None, env=_theirs(layer.parts.settings))
        except FileNotFoundError as missing:
            raise NotFoundError(f"there is no program `{argv[0]}`") from missing
        async with process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                client = (_Standard(sys.stdin.fileno()), _Standard(sys.stdout.fileno()))
                await proxy(layer, layer.agent(agent), name, client, (process.stdout, process.stdin))
            finally:
                with anyio.CancelScope(shield=True):
                    for harder in (process.terminate, process.kill):
                        with anyio.move_on_after(5):
                            await process.wait()
                            break
                        with suppress(ProcessLookupError):
                            harder()
        return process.returncode or 0


def _theirs(settings: Settings) -> dict[str, str]:
    """The server's environment: this process's, without what creto's settings take from it: passphrases, addresses."""
    from creto.config._settings import PREFIX

    ours = settings.secret_variables
    return {n: v for n, v in os.environ.items() if not (n in ours or (n.upper().startswith(PREFIX) and "__" in n))}


class _Standard:
    """Standard input or output as a stream of bytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def receive(self, max_bytes: int = 65536) -> bytes:
        import anyio

        # On no thread: one that is left in a read would keep this process until its client writes again.
        with suppress(OSError):  # a file, which can always be read and not be waited for
            await anyio.wait_readable(self._descriptor)
        taken = os.read(self._descriptor, max_bytes)
        if not taken:
            raise anyio.EndOfStream
        return taken

    async def send(self, item: bytes) -> None:
        import anyio.to_thread

        left = memoryview(item)
        while left:
            left = left[await anyio.to_thread.run_sync(os.write, self._descriptor, left) :]

    async def aclose(self) -> None:
        """Standard input and output outlive the session."""
