"""Processes that share a quota: units are moved, never copied, so nothing is spent twice, whoever dies."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import numpy
import pytest

from creto.errors import ConnectionFailedError, QuotaExceededError
from creto.metering import Leases, QuotaEnforcer, StoreAuthority
from creto.store import Store
from desks import wait_until

PATH = ("acme", "research", "spiffe://acme.test/agent/reader")
RULES = [{"scope": "team", "meter": "m", "limit": 500, "share": "store"}]
SPEND = """
import sys
from creto.errors import QuotaExceededError
from creto.metering import Leases, QuotaEnforcer, StoreAuthority
from creto.store import Store
place, most, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 500, "share": "store"}])
leases = Leases(quota, StoreAuthority(Store(place)), ttl=float(sys.argv[4]))
spent = 0
try:
    while spent < most:
        leases.supply(lambda: quota.consume_nowait(("acme", "research", "a"), {"m": 1}))
        spent += 1
        print(spent, flush=True)
except QuotaExceededError:
    pass
if end == "die":
    import os
    os.kill(os.getpid(), 9)
if end == "close":
    leases.close()
"""


def spender(place: object, most: int, end: str = "close", ttl: float = 60.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SPEND, str(place), str(most), end, str(ttl)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def spent(process: subprocess.Popen[str]) -> int:
    lines = process.communicate(timeout=120)[0].split()
    return int(lines[-1]) if lines else 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as made:
        yield made


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_race_for_500_units_one_of_them_killed_get_no_more(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = tmp_path if kind == "sqlite" else request.getfixturevalue("postgres")
    with Store(place) as store:
        doomed = spender(place, 60, "die", ttl=2)
        racers = [spender(place, 1000) for _ in range(2)]
        by_doomed = spent(doomed)
        total = by_doomed + sum(spent(racer) for racer in racers)
        assert total <= 500
        authority = StoreAuthority(store)

        def settled() -> bool | None:
            for lease in authority.dead(time.time_ns() // 1000):
                authority.settle(lease, by_doomed)
            return None if authority.usage(0)[0]["held"] else True

        wait_until(settled)
        # Who met the end first may have missed what others gave back after: the rest is still there, to the unit.
        total += spent(spender(place, 1000))
        assert total == 500
        assert authority.usage(0)[0]["used"] == 500


def test_what_a_killed_process_had_leased_is_never_spent_again_until_its_records_settle_it(
    store: Store, tmp_path: Path
) -> None:
    dead = spender(tmp_path, 7, "die", ttl=2)
    by_dead = spent(dead)
    assert dead.returncode == -signal.SIGKILL
    assert by_dead == 7
    others = spent(spender(tmp_path, 1000))
    stranded = 500 - by_dead - others
    assert 0 <= stranded <= 500 * 5 // 100

    authority = StoreAuthority(store)
    lost = wait_until(lambda: authority.dead(time.time_ns() // 1000) or None)
    assert [lease.units - 7 for lease in lost] == [stranded]
    assert authority.settle(lost[0], by_dead) == stranded
    assert authority.settle(lost[0], by_dead) == 0
    assert by_dead + others + spent(spender(tmp_path, 1000)) == 500


def test_what_relaxed_records_may_have_lost_stays_spent(store: Store) -> None:
    authority = StoreAuthority(store)
    quota = QuotaEnforcer(RULES)
    with pytest.raises(QuotaExceededError, match="no units leased"):
        quota.consume_nowait(PATH, {"m": 1})
    now = time.time_ns() // 1000
    needs = quota.lease_needs()
    for holder, relaxed in (("strict", False), ("relaxed", True)):
        authority.lease(holder, needs, now - 1, relaxed=relaxed)
    freed = {lease.holder: authority.settle(lease, 1) for lease in authority.dead(now)}
    assert freed == {"strict": needs[0]["want"] - 1, "relaxed": 0}


def test_an_idle_lease_goes_back_and_an_expired_one_is_not_spent(store: Store) -> None:
    authority = StoreAuthority(store)
    quota = QuotaEnforcer(RULES)
    with Leases(quota, authority, ttl=30.0) as leases:
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
        leases.tick()
        leases.tick()
        assert authority.usage(0)[0]["held"] == 0
        assert authority.usage(0)[0]["used"] == 1


class Broken:
    """An authority behind a line that is down."""

    def lease(self, *_: object, **__: object) -> list[object]:
        raise ConnectionFailedError("the store does not answer")

    report = give_back = dead = settle = lease


def test_an_outage_denies_what_is_not_leased_unless_told_otherwise() -> None:
    quota = QuotaEnforcer(RULES)
    leases = Leases(quota, Broken())
    with pytest.raises(ConnectionFailedError, match="the store does not answer"):
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
    assert isinstance(leases.failure, ConnectionFailedError)
    leases.close()

    quota = QuotaEnforcer(RULES)
    leases = Leases(quota, Broken(), on_outage="allow")
    leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
    assert leases.beyond >= 1
    quota.leases = None


def test_a_forked_child_has_none_of_its_parents_units(store: Store, tmp_path: Path) -> None:
    quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 64000, "share": "store"}])
    with Leases(quota, StoreAuthority(store)) as leases:
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
        child = os.fork()
        if child == 0:
            try:
                quota.consume_nowait(PATH, {"m": 1})
            except QuotaExceededError as error:
                os._exit(0 if quota.short(error) else 3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        quota.consume_nowait(PATH, {"m": 1})


def test_acts_that_race_for_small_leases_of_three_quotas_are_refused_only_when_there_is_no_more(store: Store) -> None:
    rules = [
        {"scope": scope, "meter": "m", "limit": limit, "share": "store"}
        for scope, limit in (("organisation", 60), ("team", 50), ("agent", 40))
    ]
    quota = QuotaEnforcer(rules)
    done: list[int] = []
    refused: list[QuotaExceededError] = []

    def act(number: int) -> None:
        for _ in range(10):
            try:
                leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
                done.append(number)
            except QuotaExceededError as error:
                refused.append(error)

    with Leases(quota, StoreAuthority(store)) as leases:
        threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 40
    assert [str(error) for error in refused if quota.short(error)] == []
    assert all("40 of 40 used" in str(error) for error in refused)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thousand_racing_tasks_get_exactly_500_units_of_a_shared_quota(store: Store, backend: str) -> None:
    quota = QuotaEnforcer(RULES)
    got: list[int] = []

    async def act(number: int) -> None:
        try:
            held = await quota.reserve(("acme", "research", f"agent-{number % 7}"), {"m": 1})
        except QuotaExceededError:
            return
        with held:
            await anyio.lowlevel.checkpoint()
            got.append(number)

    async def race() -> None:
        async with anyio.create_task_group() as group:
            for number in range(1_000):
                group.start_soon(act, number)

    authority = StoreAuthority(store)
    with Leases(quota, authority):
        anyio.run(race, backend=backend)
        assert len(got) == len(set(got)) == 500
    assert [(row["used"], row["held"]) for row in authority.usage(0)] == [(500, 0)]


def test_nothing_is_taken_for_a_caller_that_asyncio_itself_cancels_while_units_are_asked_for(store: Store) -> None:
    quota = QuotaEnforcer(RULES)

    async def main(leases: Leases) -> None:
        with leases.asking:  # so long, no units come
            act = asyncio.create_task(quota.enter(lambda: quota.consume_nowait(PATH, {"m": 1})))
            await asyncio.sleep(0.05)
            act.cancel()
            await asyncio.sleep(0.05)
            assert not act.done()  # whoever asks for it is waited for
        with pytest.raises(asyncio.CancelledError):
            await act

    with Leases(quota, StoreAuthority(store)) as leases:
        asyncio.run(main(leases))
        time.sleep(0.1)
        assert [row["used"] for row in quota.counters()] in ([], [0])
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
        assert quota.counters()[0]["used"] == 1


def test_what_another_process_gives_back_is_found_by_the_next_act(store: Store) -> None:
    quota, other = QuotaEnforcer(RULES), QuotaEnforcer(RULES)
    with Leases(quota, StoreAuthority(store)) as leases:
        with Leases(other, StoreAuthority(store)) as hoard:
            held = hoard.supply(lambda: other.reserve_nowait(PATH, {"m": 500}))
            with pytest.raises(QuotaExceededError, match="500 of 500 used"):
                leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
            held.release()
        # The authority's word that there is no more holds for a tenth of a second.
        time.sleep(0.15)
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))


def test_a_holder_that_slept_and_was_taken_for_dead_spends_no_more_than_was_left_to_it(store: Store) -> None:
    authority = StoreAuthority(store)
    quota, other = QuotaEnforcer(RULES), QuotaEnforcer(RULES)

    def drain(leases: Leases, enforcer: QuotaEnforcer) -> int:
        for spent in range(501):
            try:
                leases.supply(lambda: enforcer.consume_nowait(PATH, {"m": 1}))
            except QuotaExceededError:
                return spent
        raise AssertionError("more than there is")

    with Leases(quota, authority, ttl=2) as leases, Leases(other, authority) as rest:
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
        with leases.asking:  # so long, its thread can renew nothing
            lost = wait_until(lambda: authority.dead(time.time_ns() // 1000) or None)
            assert authority.settle(lost[0], 1) == 14
        assert 1 + drain(rest, other) + drain(leases, quota) == 500


def test_a_fork_beside_a_thread_that_counts_in_arrays_leaves_no_lock_taken() -> None:
    quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 2**60}])
    chains = quota.chains("m", [PATH])
    which = numpy.zeros(20_000, dtype=numpy.uint32)
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            chains.take(which)  # without the interpreter's lock, so the fork can come at any moment

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                quota.consume_nowait(PATH, {"m": 1})
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


def test_units_are_asked_for_before_the_last_are_gone(store: Store) -> None:
    quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 3_200_000, "window": "day", "share": "store"}])
    with Leases(quota, StoreAuthority(store)) as leases:
        leases.supply(lambda: quota.consume_nowait(PATH, {"m": 1}))
        waited = 0
        for number in range(40_000):
            if number % 100 == 0:  # its thread has had a processor, however busy the machine
                while select.select([leases._wake], [], [], 0)[0] or leases.asking.locked():
                    time.sleep(0.0005)
            try:
                quota.consume_nowait(PATH, {"m": 10})
            except QuotaExceededError:
                waited += 1
                leases.supply(lambda: quota.consume_nowait(PATH, {"m": 10}))
        assert leases.asked <= 40
        assert quota.counters()[0]["used"] == 400_001
        assert waited <= 4
