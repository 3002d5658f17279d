"""Every example in the README and the docs runs as it stands there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(python|console)([^\n]*)\n(.*?)^```", re.M | re.S)


def examples(language: str) -> list[object]:
    """The fenced blocks of one language; a fence marked `no-run` shows a form, not an example."""
    found = []
    for page in PAGES:
        if not page.exists():
            continue
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[1] == language and "no-run" not in match[2]:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[3], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("code", examples("python"))
def test_a_python_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    compiled = compile(textwrap.dedent(code), "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "example"}
    outcome = eval(compiled, names)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


@pytest.mark.parametrize("session", examples("console"))
def test_a_console_example_runs(session: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CRETO_STATE": str(tmp_path / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    (tmp_path / "work").mkdir()
    for command, expected in _commands(session):
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            stdin=subprocess.DEVNULL,
        )
        output = ran.stdout + ran.stderr
        for line in expected:
            pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
            assert re.search(pattern, output), f"`{command}` printed no `{line}`:\n{output}"


def _commands(session: str) -> list[tuple[str, list[str]]]:
    """`$ command` lines with the lines shown under each; `...` in a shown line stands for anything."""
    commands: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line.strip() and line.strip() != "..." and commands:
            commands[-1][1].append(line)
    return commands
