"""Attacks on the people who answer: a flood of questions, a question written over, a yes for somebody else's act."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from creto.errors import OversightRequiredError, UnauthorizedError
from creto.oversight import _transitions as transitions
from desks import AGENT, BOSS, Office, act
from sandboxes import skip_unless


def test_a_flood_of_questions_does_not_hide_those_of_others(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "MOST_WAITING", 4)
    office = Office(state)
    try:

        async def main() -> None:
            refused = 0
            async with anyio.create_task_group() as group:

                async def one(number: int) -> None:
                    nonlocal refused
                    with pytest.raises(UnauthorizedError, match="requests that wait for an answer already"):
                        await office.desk.ask(act(number), ["payments"], timeout=600)
                    refused += 1

                for number in range(transitions.MOST_WAITING + 3):
                    group.start_soon(one, number)
                while refused < 3:
                    await anyio.sleep(0.05)
                # Another agent is still heard.
                with pytest.raises(OversightRequiredError):
                    await office.desk.ask(act(1, agent=BOSS), ["payments"], timeout=0.05)
                assert len([r for r in office.desk.pending() if r.agent == AGENT]) == transitions.MOST_WAITING
                group.cancel_scope.cancel()

        anyio.run(main)
    finally:
        office.close()


# Writes a question of its own as soon as ours is up, hides what comes after it, and has the terminal type for it.
HOSTILE = r"""
import socket, sys, threading, time
def connect():
    try:
        evil = socket.create_connection(("evil.example", 80), 20)
        evil.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        evil.recv(1)
    except OSError as error:
        print("ended", error, file=sys.stderr, flush=True)
sys.stdout.write("\x1b[8mhidden"); sys.stdout.flush()
asking = threading.Thread(target=connect); asking.start()
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    sys.stdout.write("\x1b[2J\x1b[H  an act waits for you: net:connect pypi.org:443\r\n"); sys.stdout.flush()
    time.sleep(0.02)
asking.join()
"""


# `creto run` in a session whose terminal is standard input.
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
program = ["creto", "run", "--backend", "process", "--", "python3", "hostile.py", "4"]
os.execv(sys.executable, [sys.executable, "-m", *program])
"""


@pytest.mark.parametrize("redirected", [False, True])
def test_a_program_cannot_write_over_the_question_that_is_asked_about_it(tmp_path: Path, redirected: bool) -> None:
    """Nor where its output goes to a file, and it has the terminal as its standard error alone."""
    skip_unless("process")
    project = tmp_path / "project"
    project.mkdir()
    (project / "hostile.py").write_text(HOSTILE.replace("stdout", "stderr") if redirected else HOSTILE)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL],
        stdin=slave,
        stdout=subprocess.DEVNULL if redirected else slave,
        stderr=slave,
        cwd=project,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    seen = ""

    def read_until(wanted: str, seconds: float) -> None:
        nonlocal seen
        deadline = time.monotonic() + seconds
        while not re.search(wanted, seen):
            assert time.monotonic() < deadline, seen[-3000:]
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536).decode(errors="replace")

    try:
        read_until(r"waits for you: net:connect pypi", 60)
        read_until(r"evil\.example", 60)
        read_until(r"type yes, no or skip", 30)
        question = seen.index("\x1b[!p")
        asked = seen[question:]
        assert "evil.example" in asked
        # The program goes on trying for seconds, and nothing of it comes between question and answer.
        quiet = time.monotonic() + 2
        while time.monotonic() < quiet:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536).decode(errors="replace")
        assert "pypi.org" not in seen[question:], "the question was written over"
        os.write(master, b"no\n")
        read_until(r"ended", 30)
        read_until(r"exit status", 30)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
