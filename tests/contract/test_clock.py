"""The clock of a state folder under steps of the time of day, and causality between processes that write to each other.

Time is stepped by libfaketime, under whole processes: what they read is what the C library tells them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from creto.audit import AuditClient

DAY = 86_400
_WORKER = """
import sys
from creto import _core

clock = _core.HybridLogicalClock(sys.argv[1])
for line in sys.stdin:
    taken = clock.observe(int(line)) if line.strip() else True
    print(int(taken), clock.now(), clock.jumps()[0], flush=True)
"""


class Process:
    """A process that holds a folder's clock, with a time of day of its own."""

    def __init__(self, library: str, clock: Path, time_of_day: Path) -> None:
        self._time_of_day = time_of_day
        self.step(0)
        environment = {
            **os.environ,
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(time_of_day),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(clock)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def step(self, seconds: int) -> None:
        """Sets the time of day so many seconds from what it really is."""
        fresh = self._time_of_day.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._time_of_day)

    def now(self, heard: int | None = None) -> tuple[bool, int, int]:
        """Whether the word that was heard was taken, a word of its own, and the steps that it has noticed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{'' if heard is None else heard}\n")
        self._process.stdin.flush()
        taken, word, jumps = self._process.stdout.readline().split()
        return taken == "1", int(word), int(jumps)

    def end(self) -> None:
        """Ends it, as a kill would."""
        self._process.kill()
        self._process.communicate()


Start = Callable[[str], Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not here: apt-get install libfaketime")
    begun: list[Process] = []

    def process(folder: str) -> Process:
        (tmp_path / folder).mkdir(exist_ok=True)
        begun.append(Process(str(found[0]), tmp_path / folder / "clock", tmp_path / f"time-{len(begun)}"))
        return begun[-1]

    yield process
    for one in begun:
        one.end()


def test_a_day_forth_and_a_day_back_leave_no_word_earlier_than_another(start: Start) -> None:
    words = []
    one, other = start("folder"), start("folder")
    for seconds in (0, DAY, -DAY, 2 * DAY, 0):
        one.step(seconds)
        for process in (one, other, one):
            words.append(process.now()[1])
        one.end()
        one = start("folder")  # a restart in the middle of it
        words.append(one.now()[1])
    assert words == sorted(set(words))


def test_a_step_is_noticed_and_a_word_from_a_stepped_machine_is_not_taken(start: Start) -> None:
    here, elsewhere = start("here"), start("elsewhere")
    _, before, _ = here.now()
    _, _, none = elsewhere.now()
    elsewhere.step(DAY)
    _, far, noticed = elsewhere.now()
    assert (none, noticed) == (0, 1)
    taken, after, _ = here.now(heard=far)
    assert not taken
    assert before < after < far


@pytest.mark.parametrize("seed", range(6))
def test_no_message_arrives_before_it_was_sent_whatever_the_clocks_say(start: Start, seed: int) -> None:
    """A random graph of messages between two folders of two processes each, whose clocks differ and are stepped.

    The order is the one of Lamport (Time, clocks and the ordering of events, 1978): an event is later than the one
    before it in its process, and the receipt of a message is later than its sending.
    """
    chosen = random.Random(seed)
    processes = [start(folder) for folder in ("a", "a", "b", "b")]
    last = [0] * len(processes)
    on_their_way: list[int] = []
    for _ in range(300):
        which = chosen.randrange(len(processes))
        if chosen.random() < 0.1:
            processes[which].step(chosen.randrange(-25, 25))
        heard = (
            on_their_way.pop(chosen.randrange(len(on_their_way))) if on_their_way and chosen.random() < 0.5 else None
        )
        taken, word, _ = processes[which].now(heard)
        assert taken
        assert word > last[which]
        assert heard is None or word > heard
        last[which] = word
        if chosen.random() < 0.5:
            on_their_way.append(word)


LAYER = r"""
import pathlib, select, sys, time
import creto
state, times = sys.argv[1:]
pathlib.Path(times).write_text("+0\n")
with creto.open_blocking(state) as layer:
    pathlib.Path(times).write_text("+86400\n")
    deadline = time.monotonic() + 60
    while not layer.parts.clock.jumps()[0] and time.monotonic() < deadline:
        select.select([], [], [], 0.05)  # sleeping is what the steps upset
    layer.parts.clock.observe(layer.parts.clock.now() + (3600 * 10**6 << 12))
print("closed")
"""


def test_a_step_is_an_alarm_that_is_told_and_recorded(tmp_path: Path) -> None:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not here: apt-get install libfaketime")
    times = tmp_path / "time"
    times.write_text("+0\n")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(times),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-c", LAYER, str(tmp_path / "state"), str(times)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.stdout == "closed\n", run.stderr
    assert "the wall clock was stepped by +86400 s; `creto doctor` says" in run.stderr
    told = anyio.run(lambda: AuditClient.reading(tmp_path / "state").query(action="clock:*"))
    assert {(one.what, one.why) for one in told} == {
        ("clock:step", "the wall clock was stepped by +86400 s"),
        ("clock:refused", "not taken over from elsewhere, more than a minute ahead: 1 times"),
    }
