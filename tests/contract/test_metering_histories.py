"""Histories of processes that share a quota and are killed at random moments: each is one that the promise explains."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import histories
from histories import LARGEST, LIMITS, Call, explained, leased

TEAM = LIMITS["team"]


def run(folder: Path, rounds: int, authority: str, url: str = "") -> list[list[list[Call]]]:
    folder.mkdir(exist_ok=True)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    command = [sys.executable, histories.__file__, str(folder), str(rounds), str(seed), authority, url]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    return [histories.read(place) for place in sorted(folder.glob("round-*"))]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_history_of_processes_that_are_killed_at_random_is_explained(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres") if kind == "postgresql" else ""
    rounds = run(tmp_path, 10, "real", url)
    calls = [call for history in rounds for process in history for call in process]
    # Calls that raced to the end of what there is, and calls that a kill cut short: else this shows nothing.
    assert sum(call.fitted for call in calls) > 500
    assert sum(not call.fitted and call.ended is not None for call in calls) > 100
    assert any(call.ended is None for call in calls)
    for number, history in enumerate(rounds):
        assert explained(history), f"round {number} of {tmp_path}"


@pytest.mark.parametrize("authority", ["copying", "mean", "forgetful"])
def test_an_authority_with_a_fault_is_found_out_by_a_history_that_nothing_explains(
    authority: str, tmp_path: Path
) -> None:
    # A unit that was handed out again shows only where its killed holder had spent it.
    tries = (run(tmp_path / str(number), 2, authority) for number in range(20))
    assert any(not explained(history) for histories in tries for history in histories)


def taken(began: int, amount: int, team: str = "t") -> Call:
    return Call(began, began + 5, team, amount, True)


def refused(began: int, amount: int = LARGEST, team: str = "t") -> Call:
    return Call(began, began + 5, team, amount, False)


def cut_short(began: int, amount: int) -> Call:
    return Call(began, None, "t", amount, False)


def test_one_unit_too_many_is_explained_by_no_order() -> None:
    assert explained([[taken(0, TEAM - 5)], [taken(3, 5)]])
    assert not explained([[taken(0, TEAM - 5)], [taken(3, 6)]])
    # Of the organisation too: neither team has had too much.
    assert explained([[taken(0, 300), taken(10, 300, "u")]])
    assert not explained([[taken(0, 300), taken(10, 301, "u")]])


def test_a_refusal_needs_a_moment_of_its_call_at_which_there_was_no_room() -> None:
    assert explained([[taken(0, TEAM)], [refused(3)]])
    assert explained([[taken(0, 1), taken(10, TEAM - 1)], [refused(9)]])
    # It was over before the units were asked for that would have been in its way.
    assert not explained([[taken(0, 1), taken(20, TEAM - 1)], [refused(9)]])


def test_what_others_may_have_leased_counts_as_spent_and_no_more_than_that() -> None:
    spent = TEAM - leased(TEAM)
    assert explained([[taken(0, spent)], [refused(10)]])
    assert not explained([[taken(0, spent - LARGEST)], [refused(10)]])
    # Nobody else has leased anything: a process spends its own units before it is refused.
    assert not explained([[taken(0, spent), refused(10)]])


def test_a_call_that_a_kill_cut_short_has_happened_or_has_not() -> None:
    assert explained([[taken(0, TEAM - 7)], [cut_short(1, 7)], [taken(10, 7)]])
    room = TEAM - 2 * leased(TEAM) - LARGEST
    assert explained([[taken(0, room - 1)], [cut_short(1, 7)], [refused(10)]])
    assert not explained([[taken(0, room - 1)], [cut_short(30, 7)], [refused(10)]])
