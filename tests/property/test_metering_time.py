"""Laws of time in metering: periods and windows of every zone, and what is charged by the month or by its days."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creto._core import usage_window
from creto.config import Price
from creto.errors import InvalidInputError
from creto.metering import EventEvidence, PriceBook, Usage, UsageEvent
from creto.metering._invoice import drafts
from creto.metering._period import parse_period

# With an hour left out at midnight, half-hour steps, a day that was left out as a whole, and no such things.
ZONES = st.sampled_from(
    [
        *("Europe/Zurich", "America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo"),
        *("Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Apia", "Asia/Kathmandu", "UTC"),
    ]
)
MONTHS = st.tuples(st.integers(1971, 2037), st.integers(1, 12))
SECOND = 1_000_000


def month(year: int, number: int, zone: str) -> tuple[int, int]:
    return parse_period(f"{year + (number - 1) // 12}-{(number - 1) % 12 + 1:02}", zone, 0)


def days(start: int, end: int, zone: str) -> list[tuple[int, int]]:
    """The days of a period, one after the other, as windows of usage cut them."""
    found = []
    at = start
    while at < end:
        found.append(usage_window("day", at, zone))
        at = found[-1][1]
    return found


@given(MONTHS, ZONES)
def test_months_follow_one_another_and_their_days_fill_them_without_a_gap(which: tuple[int, int], zone: str) -> None:
    year, number = which
    start, end = month(year, number, zone)
    assert month(year, number + 1, zone)[0] == end
    # Two implementations of time zones agree: that of the periods, and that of the windows.
    assert usage_window("month", start, zone) == usage_window("month", end - 1, zone) == (start, end)
    filled = days(start, end, zone)
    assert filled[0][0] == start
    assert filled[-1][1] == end
    assert all(one[1] == other[0] for one, other in itertools.pairwise(filled))
    first = date(year, number, 1)
    length = ((first + timedelta(days=32)).replace(day=1) - first).days
    for day in range(length):
        name = f"{first + timedelta(days=day)}"
        if (zone, name) == ("Pacific/Apia", "2011-12-30"):
            # There was no such day on Samoa.
            with pytest.raises(InvalidInputError, match="period `2011-12-30`"):
                parse_period(name, zone, 0)
        else:
            assert parse_period(name, zone, 0) in filled


@settings(max_examples=60)
@given(
    MONTHS,
    ZONES,
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6)), min_size=1, max_size=30),
)
def test_what_a_month_is_charged_is_what_its_days_are_charged_and_what_its_events_cost_one_by_one(
    which: tuple[int, int], zone: str, used: list[tuple[float, int]]
) -> None:
    """At a price of whole cents nothing is rounded: not a cent may come or go where days have 23 or 25 hours."""
    start, end = month(*which, zone)
    events = [
        UsageEvent("s", str(n), "acme", "m", quantity, start + int(part * (end - start)))
        for n, (part, quantity) in enumerate(used)
    ]
    evidence, book = EventEvidence(events), PriceBook([Price(meter="m", unit_price="0.03")], "USD")

    def charged(first: int, last: int) -> Fraction:
        return Fraction(drafts(book, first, last, zone, evidence, customers=["acme"])["acme"]["total"])

    one_by_one = sum((quantity * Fraction(3, 100) for _, quantity in used), Fraction(0))
    assert charged(start, end) == sum(charged(*day) for day in days(start, end, zone)) == one_by_one
    usage = Usage(events)
    for window in ("minute", "hour", "day", "week", "month", "year", "15m"):
        buckets = usage.aggregate("m", window=window, time_zone=zone)
        assert sum(bucket.value for bucket in buckets) == sum(quantity for _, quantity in used)
        for bucket in buckets:
            assert bucket.events == sum(bucket.start <= event.at < bucket.end for event in events)


@pytest.mark.parametrize("at", ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60.5+01:00", "2016-12-31 23:59:60.999Z"])
def test_a_leap_second_is_charged_in_the_month_that_it_ends(at: str) -> None:
    event = {"id": "1", "source": "s", "subject": "acme", "time": at, "data": {"meter": "m", "quantity": "5"}}
    taken = UsageEvent.from_cloudevent(event)
    assert datetime.fromtimestamp(taken.at / SECOND, UTC).isoformat() == "2016-12-31T23:59:59.999999+00:00"
    totals = {
        name: int(sum(bucket.value for bucket in Usage([taken]).aggregate("m", start=start, end=end)))
        for name in ("2016-12", "2017-01")
        for start, end in [parse_period(name, "UTC", 0)]
    }
    assert totals == {"2016-12": 5, "2017-01": 0}
    # Any other sixtieth second is none.
    with pytest.raises(InvalidInputError, match="usage event `1`"):
        UsageEvent.from_cloudevent({**event, "time": "2016-12-31T23:59:61Z"})


def test_every_zone_that_is_known_here_can_be_invoiced_in() -> None:
    for zone in sorted(available_timezones()):
        start, end = parse_period("2026-03", zone, 0)
        assert usage_window("month", start, zone) == (start, end), zone
