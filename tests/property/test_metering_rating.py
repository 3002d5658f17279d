"""Laws of rating: parts and wholes, order, and the same sums by another way."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from creto.config import Price
from creto.metering import EventEvidence, PriceBook, Usage, UsageEvent
from creto.metering._currency import round_half_even
from creto.metering._invoice import drafts, line_amount, total_of
from creto.metering._price import amount

PRICES = st.decimals(0, 1000, places=6, allow_nan=False)
QUANTITIES = st.integers(0, 10**9)
START, END = 0, 1_000_000


@st.composite
def prices(draw: Callable[..., object]) -> Price:
    model = draw(st.sampled_from(["per_unit", "package", "percentage", "dynamic", "graduated"]))
    steps = sorted(draw(st.sets(st.integers(1, 10**6), min_size=1, max_size=4)))  # type: ignore[type-var]
    tiers = [{"up_to": step, "unit_price": draw(PRICES)} for step in steps] + [{"unit_price": draw(PRICES)}]
    return Price(
        meter="m",
        model=model,
        unit_price=draw(PRICES),
        per=draw(st.integers(1, 1000)),
        included=draw(st.integers(0, 1000)),
        minimum=draw(PRICES),
        discount=draw(st.integers(0, 100)),
        tiers=tiers if model == "graduated" else [],
    )


@given(prices(), QUANTITIES, QUANTITIES)
def test_more_usage_never_costs_less(price: Price, one: int, more: int) -> None:
    assert amount(price, Fraction(one)) <= amount(price, Fraction(one + more))


@given(st.lists(st.tuples(QUANTITIES, st.integers(START, END - 1)), max_size=40), PRICES)
def test_an_invoice_is_the_sum_of_its_events_priced_one_by_one(used: list[tuple[int, int]], unit: Decimal) -> None:
    events = [UsageEvent("s", str(n), "acme", "m", quantity, at) for n, (quantity, at) in enumerate(used)]
    book = PriceBook([Price(meter="m", unit_price=unit)], "USD")
    document = drafts(book, START, END, "UTC", EventEvidence(events), customers=["acme"])["acme"]
    by_event = sum((Fraction(quantity) * Fraction(unit) for quantity, _ in used), Fraction(0))
    assert Decimal(document["total"]) == total_of(document) == round_half_even(by_event, 2)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(START, END - 1)), min_size=1, max_size=30),
    st.lists(prices(), min_size=1, max_size=1),
    st.randoms(use_true_random=False),
)
def test_retries_and_reorderings_leave_an_invoice_as_it_is(
    used: list[tuple[int, int]], book: list[Price], chance: random.Random
) -> None:
    events = [
        UsageEvent("s", str(n), "acme", "m", quantity, at, place=("0", n, 0)) for n, (quantity, at) in enumerate(used)
    ]
    again = [*events, *chance.choices(events, k=len(events))]
    chance.shuffle(again)
    documents = [
        drafts(PriceBook(book, "USD"), START, END, "UTC", EventEvidence(Usage(offered).events), customers=["acme"])
        for offered in (events, again)
    ]
    assert documents[0] == documents[1]
    for line in documents[0]["acme"]["lines"]:
        assert line_amount(line, "USD") == Decimal(line["amount"])


@given(
    st.lists(st.tuples(QUANTITIES, st.sampled_from("abc"), st.integers(START, END - 1)), max_size=40),
    st.integers(1, 400_000),
)
def test_parts_make_the_whole_over_every_grouping(used: list[tuple[int, str, int]], milliseconds: int) -> None:
    usage = Usage(
        UsageEvent("s", str(n), "acme", "m", quantity, at, {"team": team})
        for n, (quantity, team, at) in enumerate(used)
    )
    whole = sum(quantity for quantity, _, _ in used)
    for by in ([], ["team"], ["customer", "team"]):
        for window in (None, f"{milliseconds}ms", "minute"):
            buckets = usage.aggregate("m", by=by, window=window)
            assert sum(bucket.value for bucket in buckets) == whole
            assert sum(bucket.events for bucket in buckets) == len(used)


@given(st.fractions(), st.integers(0, 4))
def test_rounding_is_to_the_nearest_and_of_two_to_the_even(value: Fraction, places: int) -> None:
    rounded = Fraction(round_half_even(value, places))
    step = Fraction(1, 10**places)
    assert abs(rounded - value) <= step / 2
    if abs(rounded - value) == step / 2:
        assert (rounded / step) % 2 == 0
