"""Every example in the README and the docs runs as it stands there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([a-z]+)([^\n]*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    note: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks that run, and those that are files because they name one; a block marked `no-run` shows a form."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(text[: match.start()].count("\n") + 1, match[1], match[2].strip(), match[3])
        for match in FENCE.finditer(text)
    ]
    return [
        each for each in found if "no-run" not in each.note and (each.note or each.language in {"python", "console"})
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES if page.exists() and blocks(page)])
def test_the_examples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is one session: its blocks share a working folder and a state folder, as those of a reader do."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "160")
    for block in blocks(page):
        place = f"{page.name}:{block.line}"
        if block.note:
            (work / block.note).parent.mkdir(parents=True, exist_ok=True)
            (work / block.note).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            _run_python(block.text, place)
        else:
            _run_console(block.text, place)


def _run_python(code: str, place: str) -> None:
    compiled = compile(textwrap.dedent(code), place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(compiled, {"__name__": "example"})
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


def _run_console(session: str, place: str) -> None:
    """`$ command` lines with the lines shown under each; `...` in a shown line stands for anything.

    A command that ends in ` &` runs beside those that follow, as in another terminal: each of them is given again
    until it shows what it should, and what the first shows is looked at when it has ended.
    """
    beside: list[tuple[subprocess.Popen[str], str, list[str]]] = []
    try:
        for command, expected in _commands(session):
            if command.endswith(" &"):
                beside.append((_start(command.removesuffix(" &")), command, expected))
                continue
            deadline = time.monotonic() + (60 if beside else 0)
            while True:
                output = _start(command).communicate(timeout=300)[0]
                missing = _missing(expected, output)
                if not missing or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
            assert not missing, f"{place}: `{command}` printed no `{missing}`:\n{output}"
        for running, command, expected in beside:
            output = running.communicate(timeout=120)[0]
            missing = _missing(expected, output)
            assert not missing, f"{place}: `{command}` printed no `{missing}`:\n{output}"
    finally:
        for running, _, _ in beside:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()


def _start(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _missing(expected: list[str], output: str) -> str | None:
    """The first shown line that was not printed; runs of spaces count as one."""
    printed = [" ".join(line.split()) for line in output.splitlines()]
    for line in expected:
        parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
        pattern = r"\s*.*\s*".join(parts)
        if not any(re.search(pattern, each) for each in printed):
            return line
    return None


def _commands(session: str) -> list[tuple[str, list[str]]]:
    commands: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line.strip() and line.strip() != "..." and commands:
            commands[-1][1].append(line)
    return commands


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in [*PAGES, ROOT / "CONTRIBUTING.md"]])
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lost = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert lost == []


def test_the_configuration_page_is_that_of_the_settings() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tests" / "renew_configuration.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_the_page_of_figures_is_that_of_the_report() -> None:
    import tomllib

    sys.path.insert(0, str(ROOT / "benches"))
    try:
        from figures import page
    finally:
        sys.path.pop(0)
    report = json.loads((ROOT / "benches" / "report.json").read_text())
    made = page(report, tomllib.loads((ROOT / "benches" / "goals.toml").read_text()))
    assert (ROOT / "docs" / "figures.md").read_text(encoding="utf-8") == made, "run `make plots`"
    assert made.count("\n## ") == len({row["area"] for row in report}), "every area of the report has its part"


def test_every_direct_dependency_has_its_line() -> None:
    """What Cargo.toml and pyproject.toml name is in docs/dependencies.md, and nothing else is."""
    import tomllib

    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([^`]+)`", page.partition("## Tools")[0], re.M))
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["dependencies"]
    rust = {name for name in cargo if not name.startswith("creto-")}
    for manifest in [
        *ROOT.glob("rust/*/Cargo.toml"),
        *ROOT.glob("tests/fuzz/**/Cargo.toml"),
        ROOT / "benches" / "Cargo.toml",
    ]:
        crate = tomllib.loads(manifest.read_text())
        for section in ("dependencies", "dev-dependencies"):
            rust |= {name for name in crate.get(section, {}) if not name.startswith("creto-")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *project["dependency-groups"]["dev"],
        *project["dependency-groups"]["bench"],
    ]
    python = {match[0] for one in wanted if (match := re.match(r"[A-Za-z0-9_.-]+", one))}
    assert told == rust | python
