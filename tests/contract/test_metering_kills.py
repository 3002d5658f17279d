"""Processes that share a quota are killed while they hold leases: nothing is spent twice, and nothing stays lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import creto
from creto import _core
from creto.config import load
from creto.errors import QuotaExceededError
from creto.metering import open_quota
from creto.metering._usage import acts_of, shard_records
from creto.store import Store
from desks import wait_until

PATH = ("creto.local", "spiffe://creto.local/agent/worker")
LEASE_SECONDS = 1.0
ACT = """
import os, sys, creto
with creto.open_blocking(config=[sys.argv[1]]) as layer:
    agent = layer.agent("worker")
    for number in range(int(sys.argv[2])):
        try:
            layer.perform_blocking(agent, "tool:call", "add", lambda: 1, usage={"calls": 1})
        except creto.QuotaExceededError:
            print("full", flush=True)
            break
        print(number + 1, flush=True)
    os.kill(os.getpid(), 9)
"""


class Worker:
    """A process that acts until it is killed, and at the latest when the quota is used up."""

    def __init__(self, config: Path, most: int) -> None:
        command = [sys.executable, "-c", ACT, str(config), str(most)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.done = 0
        """How many acts it was told are done."""
        self.full = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == "full":
                self.full = True
            elif line.endswith("\n"):
                self.done = int(line)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert self.process.wait(timeout=90) == -signal.SIGKILL
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


BUDGET = """
[[quotas]]
scope = "organisation"
kind = "money"
limit = 80
window = "day"
[[prices]]
meter = "calls"
unit_price = "0.25"
"""


def configured(tmp_path: Path, limit: int, store_url: str = "", quota: str = "") -> Path:
    common = f'[common]\nstore_url = "{store_url}"\n' if store_url else ""
    quota = quota or f'[[quotas]]\nscope = "organisation"\nmeter = "calls"\nlimit = {limit}\nwindow = "day"\n'
    file = tmp_path / "house.toml"
    file.write_text(f"{common}[metering]\nquota_cache_ttl_seconds = {LEASE_SECONDS}\n{quota}")
    return file


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


def drain(layer: creto.EnablementLayer) -> int:
    """Acts until the quota refuses; how often."""
    agent = layer.agent("worker")
    for done in range(100_000):
        try:
            layer.perform_blocking(agent, "tool:call", "add", lambda: 1, usage={"calls": 1})
        except QuotaExceededError:
            return done
    raise AssertionError("there is no end to it")


def drain_all(layer: creto.EnablementLayer, state: Path, limit: int) -> int:
    """Acts until all is used, what the dead had leased too: as soon as their leases have run out; how often."""
    done = 0

    def all_of_it() -> int | None:
        nonlocal done
        time.sleep(LEASE_SECONDS)
        done += drain(layer)
        return done if recorded(state) >= limit else None

    return wait_until(all_of_it)


def recorded(state: Path, meter: str = "calls") -> int:
    """What the ledger says was used, acts included of which it does not say how they ended."""
    ledger = state / "ledger"
    shards = _core.ledger_shards(str(ledger))
    return sum(usage[meter] for shard in shards for _, usage, _, _ in acts_of(shard_records(ledger, shard)))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_running_neighbour_gets_all_that_a_killed_process_had_leased_and_not_spent(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, workers: list[Worker]
) -> None:
    limit, spent = 320, 3
    url = request.getfixturevalue("postgres") if kind == "postgresql" else ""
    config = configured(tmp_path, limit, url)
    with creto.open_blocking(config=[config]) as layer:
        workers.append(Worker(config, spent))
        workers[0].wait()
        assert workers[0].done == spent
        stranded = layer.parts.quota.leases.authority.usage(0)[0]["held"] - spent
        assert 0 < stranded <= limit * 5 // 100
        done = drain(layer)
        assert spent + done <= limit
        # No process came, and none went: the one that ran all the time finds the rest when it needs it.
        assert spent + done + drain_all(layer, tmp_path / "state", limit) == limit
    assert recorded(tmp_path / "state") == limit


def test_a_budget_in_money_is_shared_by_processes_of_which_one_is_killed_to_the_last_act_that_it_pays_for(
    tmp_path: Path, workers: list[Worker]
) -> None:
    config = configured(tmp_path, 0, quota=BUDGET)
    with creto.open_blocking(config=[config]) as layer:
        workers.append(Worker(config, 3))
        workers[0].wait()
        assert workers[0].done == 3
        workers.append(Worker(config, 10_000))
        drain_some(layer, 20)
        while workers[1].done < 10 and workers[1].process.poll() is None:
            time.sleep(0.002)
        workers[1].kill()
        done = drain(layer)
        assert 3 + 20 + workers[1].done + done <= 320
        drain_all(layer, tmp_path / "state", 320)
    assert recorded(tmp_path / "state") == 320
    assert recorded(tmp_path / "state", "spent:USD") == 80 * 10**9


def test_an_idle_neighbour_settles_what_a_killed_process_left(tmp_path: Path, workers: list[Worker]) -> None:
    config = configured(tmp_path, 320)
    with creto.open_blocking(config=[config]) as layer:
        workers.append(Worker(config, 3))
        workers[0].wait()
        authority = layer.parts.quota.leases.authority
        wait_until(lambda: None if authority.usage(0)[0]["held"] else True)  # the dead one's units are settled
        assert authority.usage(0)[0]["used"] == 3


def test_processes_killed_at_random_never_use_more_than_the_limit_and_leave_nothing_stranded(
    tmp_path: Path, workers: list[Worker]
) -> None:
    limit, kills = 1_500, 8
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    config = configured(tmp_path, limit)
    with creto.open_blocking(config=[config]) as layer:
        done = drain_some(layer, 20)
        running = [Worker(config, 10_000) for _ in range(3)]
        workers += running
        for _ in range(kills):
            victim = chance.randrange(len(running))
            enough = running[victim].done + chance.randrange(1, 80)
            while running[victim].done < enough and running[victim].process.poll() is None:
                time.sleep(0.002)
            running[victim].kill()
            running[victim] = Worker(config, 10_000)
            workers.append(running[victim])
            assert done + sum(worker.done for worker in workers) <= limit
        for worker in running:
            worker.wait()
            assert worker.full
        told = done + sum(worker.done for worker in workers)
        assert told <= limit
        rest = drain_all(layer, tmp_path / "state", limit)
        # An act whose end a killed process did not live to tell is used all the same.
        assert told + rest <= limit
        assert recorded(tmp_path / "state") == limit


def drain_some(layer: creto.EnablementLayer, times: int) -> int:
    agent = layer.agent("worker")
    for _ in range(times):
        layer.perform_blocking(agent, "tool:call", "add", lambda: 1, usage={"calls": 1})
    return times


def test_a_process_of_another_machine_whose_shard_has_the_same_name_frees_nothing_of_the_living(tmp_path: Path) -> None:
    settings = load([configured(tmp_path, 320)], system=False)
    with Store(tmp_path / "shared") as store:
        clock = _core.HybridLogicalClock(str(tmp_path / "clock"))
        ledgers = [_core.Ledger(str(tmp_path / name), clock, _core.SigningKey.generate()) for name in ("here", "there")]
        assert [ledger.shard for ledger in ledgers] == ["0000", "0000"]

        def use(quota: object) -> int:
            for done in range(1_000):
                try:
                    quota.leases.supply(lambda: quota.consume_nowait(PATH, {"calls": 1}))  # type: ignore[attr-defined]
                except QuotaExceededError:
                    return done
            raise AssertionError("there is no end to it")

        here = open_quota(settings, store, shard=ledgers[0].shard, ledger=tmp_path / "here")
        here.leases.supply(lambda: here.consume_nowait(PATH, {"calls": 1}))
        there = open_quota(settings, store, shard=ledgers[1].shard, ledger=tmp_path / "there")
        assert use(there) + 1 + use(here) == 320
        for quota, ledger in zip((here, there), ledgers, strict=True):
            quota.close()
            ledger.close_blocking()


def test_a_forked_childs_leases_are_not_settled_by_its_parents_records(tmp_path: Path) -> None:
    config = configured(tmp_path, 64)
    with creto.open_blocking(config=[config]) as layer:
        quota = layer.parts.quota
        path = layer.parts.quota_path(layer.agent("worker"))
        child = os.fork()
        if child == 0:
            quota.leases.supply(lambda: quota.consume_nowait(path, {"calls": 5}))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        time.sleep(LEASE_SECONDS * 2)
        held = quota.leases.authority.usage(0)[0]["held"]
        assert drain(layer) == 64 - held
