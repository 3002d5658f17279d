"""Metering from Python: prepared checks, reservations and arrays, against limits in the same run; and shared quota."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import limits
import numpy as np

from creto.metering import Leases, QuotaEnforcer, StoreAuthority
from creto.store import Store

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

    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerHour(2**62)
    keys = [PATH[: place + 1] for place in range(len(PATH))]
    theirs, _ = timed(lambda: [limiter.hit(item, *key) for key in keys], 200, 101)

    def reserve() -> None:
        prepared.reserve(1).commit()

    ours, spread = timed(reserve)
    peer = ("limits", version("limits"), theirs)
    note = "reserve and commit on 4 levels, no ledger record; the peer: four hits in memory, which it cannot give back"
    row("python/reserve_commit", "ns", ours, 301_000, spread, note, peer)


def arrays() -> None:
    """Checks in arrays."""
    for case, keys in (("numpy/1000", 1_000), ("numpy/1M/uniform", 1_000_000)):
        quota = QuotaEnforcer(RULES)
        chains = quota.chains("requests", (("acme", f"t{key // 100}", f"a{key}", "lead") for key in range(keys)))
        which = np.random.default_rng(1).integers(0, keys, 100_000, dtype=np.uint32)
        ns, spread = timed(lambda chains=chains, which=which: chains.take(which), 1, 101)
        rate = len(which) / ns * 1e9
        row(case, "checks/s", rate, 10_100_000, spread, "arrays of 100,000 checks on 4 levels, uniform keys")


def shared() -> None:
    """How often a shared quota asks its authority: one process of four, at its share of a limit that lasts a minute."""
    rules = [{"scope": "team", "meter": "requests", "limit": 6_000_000, "window": "1h", "share": "store", "soft": []}]
    quota = QuotaEnforcer(rules)
    with Store(tempfile.mkdtemp()) as store, Leases(quota, StoreAuthority(store)) as leases:
        usage = {"requests": 1}
        checks = 1_500_000
        leases.supply(lambda: quota.consume_nowait(PATH, usage))
        prepared = quota.prepare(PATH, ["requests"])
        for _ in range(checks):
            if not prepared.take():
                leases.supply(lambda: quota.consume_nowait(PATH, usage))
        note = "1.5 million checks of one process, a quarter of what the window allows; leases of 1/32 of the limit"
        row("shared/sqlite/authority_share", "%", leases.asked / checks * 100, checks, 0.0, note)


if __name__ == "__main__":
    single()
    arrays()
    shared()
