"""Laws of reservations: whatever is held, committed, given back or forgotten, counts are sums of what was used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creto.errors import QuotaExceededError
from creto.metering import QuotaEnforcer, Reservation

AGENTS = ("a", "b", "c")
LIMITS = {"organisation": 40, "team": 30, "agent": 15}
NOW = 1_795_521_600_000_000 << 12
KINDS = ["cumulative", "fixed", "calendar", "money"]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("consume"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("reserve"), st.integers(0, 2), st.integers(0, 9)),
        # Less than was held, as much, or more: what was used was used.
        st.tuples(st.just("commit"), st.integers(0, 9), st.integers(0, 12)),
        st.tuples(st.just("release"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("again"), st.integers(0, 9), st.integers(0, 12)),
        st.tuples(st.just("forget"), st.integers(0, 9), st.just(0)),
    ),
    max_size=60,
)


def quota_of(kind: str) -> QuotaEnforcer:
    window = {"fixed": {"window": "366d"}, "calendar": {"window": "year"}}.get(kind, {})
    return QuotaEnforcer(
        [{"scope": scope, "meter": "m", "limit": limit, "kind": kind, **window} for scope, limit in LIMITS.items()]
    )


@given(STEPS, st.sampled_from(KINDS))
def test_every_level_counts_what_was_used_and_holds_of_what_is_under_way_and_nothing_else(
    steps: list[tuple[str, int, int]], kind: str
) -> None:
    quota = quota_of(kind)
    used = dict.fromkeys(AGENTS, 0)
    open_: list[tuple[Reservation, str, int]] = []
    settled: list[Reservation] = []

    def fits(agent: str, units: int) -> bool:
        whole = sum(used.values()) + units
        return whole <= LIMITS["organisation"] and whole <= LIMITS["team"] and used[agent] + units <= LIMITS["agent"]

    def taken(act: Callable[[], object]) -> bool:
        try:
            act()
        except QuotaExceededError:
            return False
        return True

    for what, which, units in steps:
        agent = AGENTS[which % len(AGENTS)]
        path = ("acme", "research", agent)
        if what == "consume":
            expected = fits(agent, units)
            assert taken(lambda path=path, units=units: quota.consume_nowait(path, {"m": units}, now=NOW)) is expected
            used[agent] += units * expected
        elif what == "reserve":
            expected = fits(agent, units)
            found: list[Reservation] = []
            assert taken(
                lambda path=path, units=units, found=found: found.append(
                    quota.reserve_nowait(path, {"m": units}, now=NOW)
                )
            ) is bool(expected)
            if expected:
                used[agent] += units
                open_.append((found.pop(), agent, units))
        elif what == "again":
            for held in settled:
                held.commit({"m": units})
                held.release()
        elif open_:
            held, owner, amount = open_.pop(which % len(open_))
            if what == "commit":
                held.commit({"m": units})
                used[owner] += units - amount
            else:
                used[owner] -= amount
                if what == "release":
                    held.release()
            if what != "forget":
                settled.append(held)
            del held
        counted = {counter["name"]: counter["used"] for counter in quota.counters(now=NOW)}
        whole = sum(used.values())
        assert counted.get("acme", 0) == counted.get("research", 0) == whole
        assert {name: counted.get(name, 0) for name in AGENTS} == used
        assert quota.open_reservations() == len(open_)


@given(STEPS)
def test_what_is_held_at_once_is_what_is_under_way(steps: list[tuple[str, int, int]]) -> None:
    """A concurrent quota gives every unit back when the act ends, however many it says that it used."""
    quota = QuotaEnforcer([{"scope": "team", "meter": "m", "limit": 20, "kind": "concurrent"}])
    held: list[tuple[Reservation, int]] = []
    for what, which, units in steps:
        under_way = sum(amount for _, amount in held)
        if what == "reserve":
            try:
                held.append((quota.reserve_nowait(("acme", "research", "a"), {"m": units}, now=NOW), units))
                assert under_way + units <= 20
            except QuotaExceededError:
                assert under_way + units > 20
        elif what in {"commit", "release"} and held:
            one, _ = held.pop(which % len(held))
            one.commit({"m": units}) if what == "commit" else one.release()
        counters = quota.counters(now=NOW)
        assert sum(counter["used"] for counter in counters) == sum(amount for _, amount in held)


def test_an_act_that_used_more_than_there_was_leaves_no_room_until_the_window_ends() -> None:
    quota = quota_of("fixed")
    path = ("acme", "research", "a")
    with quota.reserve_nowait(path, {"m": 1}, now=NOW) as held:
        held.commit({"m": 25})
    with pytest.raises(QuotaExceededError) as refused:
        quota.consume_nowait(path, {"m": 1}, now=NOW)
    assert (refused.value.limit, refused.value.used) == (15, 25)
    # Others have what is left on the levels above: 30 - 25.
    quota.consume_nowait(("acme", "research", "b"), {"m": 5}, now=NOW)
    with pytest.raises(QuotaExceededError, match="team `research`"):
        quota.consume_nowait(("acme", "research", "b"), {"m": 1}, now=NOW)
