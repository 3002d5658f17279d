"""What asking at the terminal promises: all that matters is shown, and only a typed word answers."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from creto.errors import InvalidInputError, OversightRequiredError
from creto.oversight import Terminal
from creto.oversight._show import panel
from desks import Office, act, wait_for_request, wait_until

_PROGRAM = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.path.insert(0, {tests!r})
import anyio, os
from pathlib import Path
from creto.oversight import Terminal
from desks import AGENT, BOSS, Office, act
office = Office(Path(os.environ["CRETO_STATE"]))
async def main():
    terminal = Terminal(office.desk, office.ann)
    async with anyio.create_task_group() as group:
        group.start_soon(terminal.serve)
        print("noise of the program that owns standard output", flush=True)
        for n in range({acts}):
            try:
                asked = act(1000 + n, chain=(BOSS, AGENT))
                clearance = await office.desk.ask(asked, ["payments"], preview="-old\\n+new", cost="0.25 EUR")
                print("cleared by", clearance.approvers[0], clearance.grants[0].reason, flush=True)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
        group.cancel_scope.cancel()
anyio.run(main, backend={backend!r})
"""


class Screen:
    """A program at a terminal of its own, and a person there who reads and types."""

    def __init__(self, state: Path, out: Path, acts: int = 1, backend: str = "asyncio") -> None:
        self._master, slave = pty.openpty()
        tests = str(Path(__file__).parent.parent)
        self._out = out
        with out.open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(tests=tests, acts=acts, backend=backend)],
                stdin=slave,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "CRETO_STATE": str(state), "COLUMNS": "100"},
            )
        os.close(slave)
        self._seen = ""

    def read_until(self, wanted: str, seconds: float = 60) -> str:
        """What the terminal shows up to, and with, a text; without colours."""
        deadline = time.monotonic() + seconds
        while wanted not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} is not in {self._seen!r}; standard output: {self.stdout()!r}"
            if select.select([self._master], [], [], left)[0]:
                raw = os.read(self._master, 65536).decode(errors="replace")
                self._seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
        shown, found, self._seen = self._seen.partition(wanted)
        return shown + found

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def stdout(self) -> str:
        return self._out.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


_PROMPT = "type yes, no or skip (a reason may follow): "


@pytest.fixture
def office(state: Path) -> Iterator[Office]:
    opened = Office(state)
    yield opened
    opened.close()


@pytest.fixture
def screen(office: Office, state: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Screen]:
    opened = Screen(state, tmp_path / "stdout", **getattr(request, "param", {}))
    yield opened
    opened.close()


@pytest.mark.parametrize("screen", [{"backend": "asyncio"}, {"backend": "trio"}], indirect=True)
def test_the_act_is_shown_whole_and_a_typed_yes_agrees_once(screen: Screen) -> None:
    shown = screen.read_until(_PROMPT)
    for part in (
        "assistant",
        "boss → assistant",
        "tool:call",
        "send_money",
        "1000",
        "DE89",
        "payments",
        "0.25 EUR",
        "+new",
    ):
        assert part in shown, part
    assert "noise" not in shown, "standard output is the other program's"
    screen.type("yes, checked\n")
    screen.read_until("approved, once")
    assert screen.process.wait(60) == 0
    assert "cleared by spiffe://creto.local/approver/ann checked" in screen.stdout()


def test_enter_is_never_a_yes_and_neither_is_anything_else(screen: Screen, office: Office) -> None:
    screen.read_until(_PROMPT)
    for typed in ("\n", "\n", "y\n", "YESS\n", "ok\n", " \n", "1\n", "\x1b[A\n", "yesno\n"):
        screen.type(typed)
        screen.read_until("that is no answer; ENTER alone never is one")
        screen.read_until(_PROMPT)
    assert len(office.desk.pending()) == 1
    screen.type("no because of the amount\n")
    assert screen.process.wait(60) == 0
    assert "was denied by `spiffe://creto.local/approver/ann`: because of the amount" in screen.stdout()


def test_the_end_of_input_is_no_answer_and_the_question_stays(screen: Screen) -> None:
    screen.read_until(_PROMPT)
    screen.type("\x04")
    screen.read_until("that is no answer; ENTER alone never is one")
    screen.read_until(_PROMPT)
    screen.type("no\n")
    assert screen.process.wait(60) == 0
    assert "was denied" in screen.stdout()


@pytest.mark.anyio
async def test_a_terminal_that_hangs_up_leaves_the_question_to_others(office: Office) -> None:
    master, slave = pty.openpty()
    terminal = Terminal(office.desk, office.ann, device=os.ttyname(slave))
    os.close(slave)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(terminal.serve)

            async def elsewhere() -> None:
                (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
                await anyio.wait_readable(master)
                await anyio.sleep(0.2)
                os.close(master)
                await anyio.sleep(0.2)
                await anyio.to_thread.run_sync(office.desk.approve, request, office.ann, "from the inbox")

            group.start_soon(elsewhere)
            clearance = await office.desk.ask(act(1000), ["payments"])
            assert clearance.grants[0].reason == "from the inbox"
            group.cancel_scope.cancel()
    terminal.close()


def test_what_was_typed_before_the_question_answers_nothing(office: Office, state: Path, tmp_path: Path) -> None:
    screen = Screen(state, tmp_path / "stdout")
    screen.type("yes\nyes\n")  # meant for another program, before anything was asked
    screen.read_until(_PROMPT)
    time.sleep(0.3)
    assert len(office.desk.pending()) == 1
    screen.type("no\n")
    assert screen.process.wait(60) == 0
    assert "was denied" in screen.stdout()
    screen.close()


def test_an_answer_given_elsewhere_ends_the_question(screen: Screen, office: Office) -> None:
    (request,) = wait_for_request(office.desk)
    screen.read_until(_PROMPT)
    office.desk.approve(request, office.ann, "from the inbox")
    screen.read_until("approved by ann, not here")
    assert screen.process.wait(60) == 0


@pytest.mark.parametrize("screen", [{"acts": 2}], indirect=True)
def test_acts_are_asked_about_one_after_the_other_with_what_was_decided_before(screen: Screen) -> None:
    screen.read_until(_PROMPT)
    screen.type("yes known supplier\n")
    shown = screen.read_until(_PROMPT)
    assert "1001" in shown
    assert re.search(r"approved\s+\d+% alike\s+tool:call send_money .*by ann", shown), shown
    screen.type("skip\n")
    screen.read_until("skipped; it still waits: creto approve ")


def test_the_terminal_is_given_back_as_it_was(office: Office, state: Path, tmp_path: Path) -> None:
    """The program that owns the terminal may have turned lines and echo off; the question turns them on, for itself."""
    screen = Screen(state, tmp_path / "stdout")
    raw: list[Any] = termios.tcgetattr(screen._master)
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(screen._master, termios.TCSANOW, raw)
    screen.read_until(_PROMPT)
    assert termios.tcgetattr(screen._master)[3] & termios.ICANON
    screen.type("skip\n")
    screen.read_until("skipped")
    wait_until(lambda: termios.tcgetattr(screen._master)[3] == raw[3] or None)
    screen.close()


def test_without_a_terminal_there_is_a_clear_error(office: Office, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no terminal to ask at: No such file or directory"):
        Terminal(office.desk, office.ann, device=str(tmp_path / "none"))


def test_lines_that_are_not_shown_are_counted_however_long_one_before_them_is(office: Office) -> None:
    """A line of blanks as long as what is shown would else end the count, and with it what the reader asks for."""
    preview = "+a\n" * 60 + "+" + " " * 30_000 + "\n+evil" * 5_000

    async def ask() -> None:
        await office.desk.ask(act(), ["payments"], preview=preview, hold=0)

    with pytest.raises(OversightRequiredError):
        anyio.run(ask)
    (request,) = office.desk.pending()
    out = io.StringIO()
    Console(file=out, width=100).print(panel(request))
    assert "… 5001 more lines: `creto inbox` shows all" in out.getvalue()
