"""Quota as Python sees it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anyio
import numpy as np
import pytest

from creto.config._sections import Quota
from creto.errors import InvalidInputError, QuotaExceededError
from creto.metering import QuotaEnforcer

PATH = ("acme", "research", "spiffe://acme.test/agent/reader")
DAY = {"scope": "team", "meter": "m", "limit": 10, "window": "day"}


def used(quota: QuotaEnforcer) -> int:
    return int(quota.counters()[0]["used"])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_check_quota_takes_nothing_and_names_what_has_no_room(backend: str) -> None:
    quota = QuotaEnforcer([DAY])
    anyio.run(quota.check_quota, PATH, {"m": 10}, backend=backend)
    assert used(quota) == 0
    with pytest.raises(
        QuotaExceededError, match="11 more of `m` \\(day\\) by team `research`: quota exceeded: 0 of 10 used"
    ):
        anyio.run(quota.check_quota, PATH, {"m": 11}, backend=backend)


def test_a_refusal_says_when_there_is_room_again() -> None:
    quota = QuotaEnforcer([{**DAY, "window": "1m"}])
    quota.consume_nowait(PATH, {"m": 10})
    with pytest.raises(QuotaExceededError) as refused:
        quota.consume_nowait(PATH, {"m": 1})
    assert (refused.value.limit, refused.value.used) == (10, 10)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 60


def test_a_reservation_commits_at_the_end_of_its_block_and_releases_on_an_exception() -> None:
    quota = QuotaEnforcer([DAY])
    with quota.reserve_nowait(PATH, {"m": 4}):
        assert used(quota) == 4
    assert used(quota) == 4
    with pytest.raises(KeyError), quota.reserve_nowait(PATH, {"m": 4}):
        raise KeyError("the act failed")
    assert used(quota) == 4


def test_a_forgotten_reservation_gives_back_what_it_held() -> None:
    quota = QuotaEnforcer([DAY])
    held = quota.reserve_nowait(PATH, {"m": 10})
    assert quota.open_reservations() == 1
    del held
    assert (used(quota), quota.open_reservations()) == (0, 0)


def test_committing_twice_counts_once() -> None:
    quota = QuotaEnforcer([DAY])
    held = quota.reserve_nowait(PATH, {"m": 4})
    held.commit({"m": 6})
    held.commit({"m": 6})
    held.release()
    assert used(quota) == 6


def test_a_thousand_racing_threads_get_exactly_500_units() -> None:
    quota = QuotaEnforcer([{"scope": "organisation", "meter": "m", "limit": 500}])
    got: list[int] = []
    gate = threading.Barrier(50)

    def race(number: int) -> None:
        gate.wait()
        for _ in range(20):
            try:
                quota.consume_nowait(("acme", "t", f"agent-{number}"), {"m": 1})
                got.append(1)
            except QuotaExceededError:
                pass

    threads = [threading.Thread(target=race, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 500


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        ({"m": -1}, "usage of `m`: -1"),
        ({"m": 1.5}, "usage of `m`: 1.5"),
        ({"m": float("nan")}, "usage of `m`: nan"),
        ({"m": 2**63}, "write a whole number from 0 to 2\\^63-1"),
        ({"m": "many"}, "usage of `m`: many"),
        ({3: 1}, "a meter is a name, not 3"),
    ],
)
def test_a_bad_quantity_is_refused_and_nothing_is_taken(usage: Mapping[Any, Any], text: str) -> None:
    quota = QuotaEnforcer([DAY])
    with pytest.raises(InvalidInputError, match=text):
        quota.consume_nowait(PATH, {"m": 1, **usage})
    with pytest.raises(InvalidInputError):
        quota.consume_nowait("acme", {"m": 1})
    assert all(counter["used"] == 0 for counter in quota.counters())


def test_arrays_of_checks_agree_with_single_ones() -> None:
    rules = [{"scope": "team", "meter": "m", "limit": 700}, {"scope": "agent", "meter": "m", "limit": 9}]
    paths = [("o", f"t{n % 3}", f"a{n}") for n in range(100)]
    chains = QuotaEnforcer(rules).chains("m", paths)
    single = QuotaEnforcer(rules)
    random = np.random.default_rng(1)
    which = random.integers(0, 100, 3000, dtype=np.uint32)
    units = random.integers(0, 4, 3000).astype(np.uint64)

    def one(number: int, amount: int) -> bool:
        try:
            single.consume_nowait(paths[number], {"m": amount})
        except QuotaExceededError:
            return False
        return True

    expected = [one(int(n), int(u)) for n, u in zip(which, units, strict=True)]
    assert chains.take(which, units).tolist() == expected
    with pytest.raises(InvalidInputError, match="chain 100: this batch has 100"):
        chains.take(np.array([100], dtype=np.uint32))
    with pytest.raises(InvalidInputError, match="1 chains, 2 amounts"):
        chains.take(np.array([1], dtype=np.uint32), np.array([1, 1], dtype=np.uint64))


def test_settings_describe_quotas_and_a_bad_one_says_what_to_write() -> None:
    from creto.metering._rules import rule

    money = Quota(scope="organisation", limit="2.50", kind="money", window="month", currency="CHF")
    assert rule(money, "Europe/Zurich", "USD") == {
        "scope": "organisation",
        "meter": "spent:CHF",
        "limit": 2_500_000_000,
        "window": "month",
        "kind": "money",
        "time_zone": "Europe/Zurich",
        "soft": [50, 80, 100],
        "overage": "deny",
        "share": "store",
    }
    with pytest.raises(ValueError, match="needs a `window`"):
        Quota(scope="team", meter="m", limit=1, kind="gcra")
    with pytest.raises(ValueError, match="only money can have a fraction"):
        Quota(scope="team", meter="m", limit="1.5", window="1m")


def test_quota_is_rebuilt_from_the_records_of_acts_each_counted_once() -> None:
    quota = QuotaEnforcer([DAY])
    now = 1_795_521_600_000_000 << 12
    records = [
        (PATH, {"m": 3}, now, bytes(16)),
        (PATH, {"m": 3}, now, bytes(16)),
        (PATH, {"m": 2}, now + 4096, b"1" * 16),
    ]
    assert quota.replay(records) == 2
    assert quota.counters(now=now + 8192)[0]["used"] == 5
