"""Metering from Python: prepared checks, reservations and arrays, against other limiters in the same run; shared quota.

usage: metering.py           every row
       metering.py share URL_OR_FOLDER START     one process of the shared rows, from a moment on
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import invoices
from creto.metering import Leases, LedgerEvidence, QuotaEnforcer, StoreAuthority
from creto.store import Store
from peers import appends

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "peers" / "billing"
BENCH_PYTHON = ROOT / ".tools" / "bench" / "bin" / "python"
LEVELS = ("organisation", "team", "agent")
RULES = [{"scope": level, "meter": "requests", "limit": 2**62, "window": "1h", "soft": []} for level in LEVELS]
PATH = ("acme", "research", "reader", "lead")


def timed(call: Callable[[], Any], calls: int = 1_000, repeats: int = 301) -> tuple[float, float]:
    """Nanoseconds a call: the median over short batches, and the distance of the quartiles over the median."""
    for _ in range(calls):
        call()
    means = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        means.append((time.perf_counter_ns() - start) / calls)
    low, middle, high = statistics.quantiles(means, n=4)
    return middle, (high - low) / middle


def row(
    case: str, unit: str, ours: float, samples: int, spread: float, note: str, peer: Any = (None, None, None)
) -> None:
    """Prints one line of the report."""
    data = {"area": "metering", "case": case, "unit": unit, "ours": ours, "peer": peer[0], "peer_version": peer[1]}
    print(json.dumps({**data, "peer_value": peer[2], "samples": samples, "spread": spread, "note": note}), flush=True)


def single() -> None:
    """Checks one at a time."""
    quota = QuotaEnforcer(RULES)
    prepared = quota.prepare(PATH, ["requests"])
    usage = {"requests": 1}
    ours, spread = timed(prepared.take)
    row("python/prepared", "ns", ours, 301_000, spread, "take() on 4 levels, in a loop of Python")
    ours, spread = timed(lambda: quota.consume_nowait(PATH, usage))
    row("python/strings", "ns", ours, 301_000, spread, "consume_nowait(path of 4 names, usage), a lambda around it")

    def reserve() -> None:
        prepared.reserve(1).commit()

    ours, spread = timed(reserve)
    note = "reserve and commit on 4 levels, no ledger record; the peer: four hits in a row, which it cannot give back"
    told = subprocess.run([BENCH_PYTHON, PEERS / "limiters.py"], check=True, stdout=subprocess.PIPE, text=True).stdout
    cases = {"limits": "", "pyrate-limiter": "/pyrate", "throttled-py": "/throttled", "limits on Redis": "/redis"}
    for peer in map(json.loads, told.splitlines()):
        case = f"python/reserve_commit{cases[peer['name']]}"
        row(case, "ns", ours, 301_000, spread, note, (peer["name"], peer["version"], peer["value"]))


def arrays() -> None:
    """Checks in arrays."""
    for case, keys in (("numpy/1000", 1_000), ("numpy/1M/uniform", 1_000_000)):
        quota = QuotaEnforcer(RULES)
        chains = quota.chains("requests", (("acme", f"t{key // 100}", f"a{key}", "lead") for key in range(keys)))
        which = np.random.default_rng(1).integers(0, keys, 100_000, dtype=np.uint32)
        ns, spread = timed(lambda chains=chains, which=which: chains.take(which), 1, 101)
        rate = len(which) / ns * 1e9
        row(case, "checks/s", rate, 10_100_000, spread, "arrays of 100,000 checks on 4 levels, uniform keys")


class Counted:
    """An authority that counts what it is asked, whatever for: each use of it is a call of one of its methods."""

    def __init__(self, authority: StoreAuthority) -> None:
        self.requests, self._authority = 0, authority

    def __getattr__(self, method: str) -> Any:
        self.requests += 1
        return getattr(self._authority, method)


RATE, SECONDS, PROCESSES = 25_000, 20, 4


def share(place: str, start: float) -> None:
    """One of the processes that share a quota: its checks, in steps of 10 ms, and what it asked for them."""
    rules = [{"scope": "team", "meter": "requests", "limit": 6_000_000, "window": "1m", "share": "store", "soft": []}]
    quota = QuotaEnforcer(rules)
    usage, step = {"requests": 1}, RATE // 100
    with Store(place) as store:
        authority = Counted(StoreAuthority(store))
        with Leases(quota, authority) as leases:
            prepared = quota.prepare(PATH, ["requests"])
            leases.supply(lambda: quota.consume_nowait(PATH, usage))
            time.sleep(max(0.0, start - time.time()))
            begun, waited = time.perf_counter(), 0
            for tick in range(SECONDS * 100):
                time.sleep(max(0.0, begun + tick / 100 - time.perf_counter()))
                for _ in range(step):
                    if not prepared.take():
                        waited += 1
                        leases.supply(lambda: quota.consume_nowait(PATH, usage))
            seconds = time.perf_counter() - begun
        told = {"checks": SECONDS * 100 * step, "seconds": seconds, "requests": authority.requests, "waited": waited}
        print(json.dumps(told), flush=True)


def shared() -> None:
    """How often a shared quota asks its authority: four processes at 25,000 checks a second each."""
    folder = Path(tempfile.mkdtemp(dir=ROOT / "target"))
    with appends.postgresql(folder) as postgresql:
        places = {"sqlite": str(folder / "store"), "postgresql": postgresql.url if postgresql is not None else ""}
        for kind, place in places.items():
            if not place:
                print("PostgreSQL is not installed: no row of it", file=sys.stderr)
                continue
            with Store(place):
                pass  # so that its tables are there
            command = [sys.executable, __file__, "share", place, str(time.time() + 8)]
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
            told = [json.loads(process.communicate(timeout=180)[0]) for process in running]
            checks = sum(one["checks"] for one in told)
            slowest = min(one["checks"] / one["seconds"] for one in told)
            requests, waited = (sum(one[what] for one in told) for what in ("requests", "waited"))
            note = (
                f"{PROCESSES} processes, {slowest:,.0f} checks/s each or more, for {SECONDS} s; a limit of 6 million a "
            )
            note += f"minute: {requests} requests of any kind to the authority, {waited} checks that waited for one"
            row(f"shared/{kind}/authority_share", "%", requests / checks * 100, checks, 0.0, note)
    shutil.rmtree(folder)


def aggregation() -> None:
    """Sums by customer and meter of a million events, beside DuckDB, Polars and SQLite."""
    folder = Path(tempfile.mkdtemp(dir=ROOT / "target"))
    file = folder / "events.csv"
    invoices.take(folder, 1_000_000)
    with file.open("w") as out:
        out.write("customer,meter,quantity\n")
        for customer, meter, quantity in zip(*invoices.series_of(0, 1_000_000), strict=True):
            out.write(f"customer-{customer:05},{invoices.METERS[meter]},{quantity}\n")
    evidence = LedgerEvidence(folder / "ledger", recount=True)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        totals = evidence.totals([invoices.START, invoices.START + invoices.MONTH])
        times.append(time.perf_counter() - begun)
    ours, whole = statistics.median(times), totals.line(totals.parts(), "sum", 0)[0]
    command = [BENCH_PYTHON, PEERS / "aggregate.py", file]
    peers = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    note = "a million events, 30,000 groups, every row added up again from a segment on disk, with commitments to the "
    note += "events; the peers: group by over a table in memory, the best of three"
    for name, (number, seconds, total) in peers.items():
        assert total == whole, (name, total, whole)
        spread = (max(times) - min(times)) / ours
        row(f"aggregate/1M/{name}", "s", ours, 5, spread, note, (name, number, seconds))
    shutil.rmtree(folder)


def ingest() -> None:
    """Events taken in durably from Python, in columns."""
    import anyio

    from creto import _core
    from creto.metering import Ingest

    size, batches = 1_000, 1_000
    series = [("app", "acme", "requests", {"agent": "reader", "team": team, "region": "eu"}) for team in "abcd"]
    which = (np.arange(size) % 4).astype(np.uint32)
    quantity = np.ones(size, dtype=np.int64)
    offered = [
        (
            which,
            np.arange(n, n + size, dtype=np.uint64),
            quantity,
            [f"{n * size + place:016x}" for place in range(size)],
        )
        for n in range(batches)
    ]
    rates = []
    for _ in range(3):
        folder = Path(tempfile.mkdtemp(dir=ROOT / "target"))
        clock = _core.HybridLogicalClock(str(folder / "clock"))
        ledger = _core.Ledger(str(folder / "ledger"), clock, _core.SigningKey.generate())
        with Ingest(ledger, folder / "ledger", clock) as ingest:

            async def offer(ingest: Ingest = ingest) -> None:
                left = iter(offered)

                async def worker() -> None:
                    for columns in left:
                        taken = await ingest.take_columns(series, *columns)
                        assert taken.taken == size

                async with anyio.create_task_group() as group:
                    for _ in range(32):
                        group.start_soon(worker)

            begun = time.perf_counter()
            anyio.run(offer)
            rates.append(size * batches / (time.perf_counter() - begun))
        ledger.close_blocking()
        shutil.rmtree(folder)
    note = (
        "batches of 1,000 in columns, 32 tasks of one event loop, each acknowledged when record and events are on disk"
    )
    ours = statistics.median(rates)
    row("python/ingest", "events/s", ours, 3 * size * batches, (max(rates) - min(rates)) / ours, note)


def main() -> None:
    """Prints every row of the report."""
    single()
    arrays()
    shared()
    ingest()
    aggregation()
    invoices.main(int(os.environ.get("CRETO_BENCH_EVENTS", invoices.EVENTS)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["share"]:
        share(sys.argv[2], float(sys.argv[3]))
    else:
        main()
