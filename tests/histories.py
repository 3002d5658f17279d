"""Processes that share a quota, some of them killed at random; each writes down what it asks and what it is told.

usage: histories.py FOLDER ROUNDS SEED AUTHORITY [URL]     one folder a round, one file a process; `real` or a planted
fault; the store in PostgreSQL where there is a URL

A history is held against what was promised: there must be an order of the calls, which no two calls contradict of which
one ended before the other began (Herlihy and Wing, 1990), in which no quota ever exceeds its limit, and nothing is
refused that would have fitted had all other processes spent what they may have leased. A call whose process was killed
before it was answered has happened, or has not.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from creto.errors import QuotaExceededError
from creto.metering import Leases, QuotaEnforcer, StoreAuthority
from creto.store import Store

LIMITS = {"organisation": 600, "team": 400}
LARGEST = 7
COUNTS = {"t": (LIMITS["team"], "t"), "u": (LIMITS["team"], "u"), "both": (LIMITS["organisation"], "tu")}
"""What counts: a limit, and the teams that it is for."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a process asked for, and what it was told.

    Args:
        began: By the machine's monotonic clock, in nanoseconds.
        ended: None where its process was killed before.
        team: Whose units.
        amount: How many.
        fitted: True where they were taken; says nothing where the call did not end.
    """

    began: int
    ended: int | None
    team: str
    amount: int
    fitted: bool


def explained(history: Sequence[Sequence[Call]]) -> bool:
    """True where some order of the calls explains every answer.

    Each process makes one call after the other, so an order is a walk, and where it stands is how many calls of each
    process it has passed: depth first, each of these places once.

    Args:
        history: The calls of each process, in its order.
    """
    processes = [calls for calls in history if calls]
    # What each process has taken of each count, by how many of its calls are passed; one that did not end has taken.
    taken = [{count: _taken(calls, teams) for count, (_, teams) in COUNTS.items()} for calls in processes]
    place = (0,) * len(processes)
    seen, waiting = {place}, [place]
    while waiting:
        place = waiting.pop()
        coming = {p: calls[at] for p, (calls, at) in enumerate(zip(processes, place, strict=True)) if at < len(calls)}
        ends = [call.ended for call in coming.values() if call.ended is not None]
        if not ends:
            return True
        for process, call in coming.items():
            if call.began > min(ends):
                continue
            counts = [count for count, (_, teams) in COUNTS.items() if call.team in teams]
            after = {
                count: call.amount + sum(had[count][at] for had, at in zip(taken, place, strict=True))
                for count in counts
            }
            if call.fitted or call.ended is None:
                right = all(units <= COUNTS[count][0] for count, units in after.items())
            else:
                others = sum(calls[0].began <= call.ended for calls in processes) - 1
                right = any(
                    units > COUNTS[count][0] - others * leased(COUNTS[count][0]) for count, units in after.items()
                )
            following = (*place[:process], place[process] + 1, *place[process + 1 :])
            if right and following not in seen:
                seen.add(following)
                waiting.append(following)
    return False


def leased(limit: int) -> int:
    """What one process may have leased and not spent: a twentieth, and what one act wanted that failed elsewhere.

    Args:
        limit: Of the count.
    """
    return limit // 20 + LARGEST


def _taken(calls: Sequence[Call], teams: str) -> list[int]:
    counted = (call.amount if call.team in teams and (call.fitted or call.ended is None) else 0 for call in calls)
    return list(accumulate(counted, initial=0))


def read(folder: Path) -> list[list[Call]]:
    """The history that the processes of a round wrote down.

    Args:
        folder: Of the round.
    """
    return [_calls(file.read_text()) for file in sorted(folder.iterdir())]


def _calls(text: str) -> list[Call]:
    lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    calls = []
    for asked, told in zip(lines[::2], [*lines[1::2], None], strict=False):
        ended, answer = (int(told[0]), told[1]) if told is not None else (None, "")
        assert answer in ("", "taken", "refused"), answer
        calls.append(Call(int(asked[0]), ended, asked[1], int(asked[2]), answer == "taken"))
    return calls


class Copying(StoreAuthority):
    """Hands out each unit twice."""

    def lease(self, holder: str, needs: Sequence[Any], until: int, **rest: Any) -> list[Any]:
        grants = super().lease(holder, needs, until, **rest)
        return [type(grant)(grant.need, grant.units * 2, grant.held * 2, grant.total) for grant in grants]


class Mean(StoreAuthority):
    """Says that there is no more when half is spent."""

    def lease(self, holder: str, needs: Sequence[Any], until: int, **rest: Any) -> list[Any]:
        half = [{**need, "limit": need["limit"] // 2} for need in needs]
        grants = super().lease(holder, half, until, **rest)
        return [
            type(grant)(need, grant.units, grant.held, grant.total if grant.units else need["limit"])
            for grant, need in zip(grants, needs, strict=True)
        ]


class Forgetful(StoreAuthority):
    """Takes what a killed process had leased for unspent, and hands it out again."""

    def lease(self, holder: str, needs: Sequence[Any], until: int, **rest: Any) -> list[Any]:
        for lease in self.dead(2**61):
            if not Path(f"/proc/{lease.holder.partition('-')[0]}").exists():
                self.settle(lease, 0, sure=True)
        return super().lease(holder, needs, until, **rest)


AUTHORITIES = {"real": StoreAuthority, "copying": Copying, "mean": Mean, "forgetful": Forgetful}


def act(store: Path | str, organisation: str, file: Path, seed: int, authority: str) -> None:
    """One process: asks until it was refused a few times in a row, and gives nothing back."""
    chance = random.Random(seed)
    rules = [{"scope": s, "meter": "m", "limit": limit, "share": "store", "soft": []} for s, limit in LIMITS.items()]
    quota = QuotaEnforcer(rules)
    leases = Leases(quota, AUTHORITIES[authority](Store(store)))
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    refused = 0
    while refused < 5:
        team, amount = chance.choice("tu"), chance.randint(1, LARGEST)
        path = (organisation, team, "agent")
        os.write(out, f"{time.monotonic_ns()} {team} {amount}\n".encode())
        try:
            leases.supply(lambda path=path, amount=amount: quota.consume_nowait(path, {"m": amount}))
            answer, refused = "taken", 0
        except QuotaExceededError as error:
            answer, refused = "short" if quota.short(error) else "refused", refused + 1
        os.write(out, f"{time.monotonic_ns()} {answer}\n".encode())


def race(store: Path | str, folder: Path, chance: random.Random, authority: str) -> None:
    """One round: processes race for the units of one organisation, and some are killed and replaced."""
    folder.mkdir()
    living: list[int] = []

    def start(number: int) -> None:
        seed = chance.randrange(2**32)
        child = os.fork()
        if child == 0:
            try:
                act(store, folder.name, folder / f"{number:02}", seed, authority)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        living.append(child)

    for number in range(3):
        start(number)
    for number in range(3, 3 + chance.randrange(1, 4)):
        time.sleep(chance.uniform(0, 0.2))
        victim = living.pop(chance.randrange(len(living)))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        start(number)
    for process in living:
        if status := os.waitpid(process, 0)[1]:
            raise RuntimeError(f"process {process} ended with {os.waitstatus_to_exitcode(status)}")


def main(folder: str, rounds: str, seed: str, authority: str, url: str = "") -> None:
    """Runs the rounds, all on one store."""
    chance, store = random.Random(int(seed)), url or Path(folder) / "store"
    Store(store).close()
    for number in range(int(rounds)):
        race(store, Path(folder) / f"round-{number:02}", chance, authority)


if __name__ == "__main__":
    main(*sys.argv[1:])
