"""Laws of rating: parts and wholes, order, and the same sums by another way."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creto.config import Price
from creto.metering import EventEvidence, PriceBook, Usage, UsageEvent
from creto.metering._amounts import amounts
from creto.metering._currency import round_half_even
from creto.metering._invoice import drafts, line_amount, price_of, total_of
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


@given(
    st.lists(
        st.tuples(QUANTITIES, st.sampled_from("abc"), st.sampled_from(["acme", "corp"]), st.integers(START, END - 1)),
        min_size=1,
        max_size=30,
    ),
    prices(),
    st.sampled_from(["sum", "count", "max", "latest", "unique", "weighted"]),
    st.integers(1, 400_000),
)
def test_the_amounts_of_usage_add_up_to_the_invoice_of_the_same_time_over_every_grouping(
    used: list[tuple[int, str, str, int]], general: Price, aggregation: str, length: int
) -> None:
    evidence = EventEvidence(
        UsageEvent("s", str(n), customer, "m", quantity, at, {"team": team})
        for n, (quantity, team, customer, at) in enumerate(used)
    )
    own = Price(meter="m", unit_price=2, included=7, when={"team": "c"})
    book = PriceBook([general.model_copy(update={"aggregation": aggregation}), own], "USD")
    invoiced = sum(
        amount(price_of(line), Fraction(line["quantity"]))
        for document in drafts(book, START, END, "UTC", evidence).values()
        for line in document["lines"]
        if line["events"]
    )
    for by in ([], ["team"], ["customer", "team"]):
        for windows in ([], range(START, END, length) if length > 10_000 else [START, START + length]):
            found, none = amounts(evidence, book, START, END, windows=windows, by=by, scales=[Fraction(1), Fraction(0)])
            assert none.keys() == found.keys()
            assert sum(row["USD"] for row in found.values()) == invoiced
            of_a = {key: row for key, row in found.items() if "team" in by and key[2][by.index("team")] == "a"}
            if "team" in by:
                assert amounts(evidence, book, START, END, windows=windows, by=by, only={"team": "a"}) == [of_a]


@given(st.fractions(), st.integers(0, 4))
def test_rounding_is_to_the_nearest_and_of_two_to_the_even(value: Fraction, places: int) -> None:
    rounded = Fraction(round_half_even(value, places))
    step = Fraction(1, 10**places)
    assert abs(rounded - value) <= step / 2
    if abs(rounded - value) == step / 2:
        assert (rounded / step) % 2 == 0


def unit_by_unit(price: Price, quantity: int) -> Fraction:
    """A graduated or volume price worked out the slow way: each unit by the step that it falls in."""
    bounds = [None if tier.up_to is None else Fraction(tier.up_to) for tier in price.tiers]
    if price.model == "volume":
        if quantity == 0:
            return Fraction(0)
        place = next(n for n, bound in enumerate(bounds) if bound is None or quantity <= bound)
        return Fraction(price.tiers[place].flat) + sum(
            (Fraction(price.tiers[place].unit_price) for _ in range(quantity)), Fraction(0)
        )
    total, entered = Fraction(0), set()
    for unit in range(1, quantity + 1):
        place = next(n for n, bound in enumerate(bounds) if bound is None or unit <= bound)
        for step in range(place + 1):
            if step not in entered:
                entered.add(step)
                total += Fraction(price.tiers[step].flat)
        total += Fraction(price.tiers[place].unit_price)
    return total


@given(
    st.sampled_from(["graduated", "volume"]),
    st.sets(st.integers(1, 40), max_size=3),
    st.lists(st.tuples(PRICES, PRICES), min_size=4, max_size=4),
    st.integers(0, 60),
)
def test_steps_cost_what_their_units_cost_one_by_one(
    model: str, bounds: set[int], costs: list[tuple[Decimal, Decimal]], quantity: int
) -> None:
    steps: list[int | None] = [*sorted(bounds), None]
    tiers = [
        {"up_to": up_to, "unit_price": unit, "flat": flat} for up_to, (unit, flat) in zip(steps, costs, strict=False)
    ]
    price = Price.model_validate({"meter": "m", "model": model, "tiers": tiers})
    assert amount(price, Fraction(quantity)) == unit_by_unit(price, quantity)


EVENTS = st.lists(
    st.tuples(
        st.integers(1_774_600_000, 1_775_000_000),  # over the night in Zurich on which an hour is left out
        st.one_of(st.integers(-100, 100), st.integers(-(2**90), 2**90)),
        st.sampled_from(["a", "b"]),
    ),
    min_size=1,
    max_size=30,
)
AGGREGATES = {
    "sum": "sum(q)",
    "count": "count(*)",
    "min": "min(q)",
    "max": "max(q)",
    "latest": "arg_max(q, n)",
    "unique": "count(distinct q)",
}


@settings(max_examples=25)
@given(EVENTS, st.sampled_from(["hour", "day", "month"]), st.integers(0, 10**9))
def test_every_aggregation_is_to_the_unit_what_duckdb_makes_of_all_events(
    rows: list[tuple[int, int, str]], window: str, seed: int
) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = sorted(rows)
    usage = Usage(UsageEvent("s", str(n), "acme", "m", q, at * 10**6, {"team": t}) for n, (at, q, t) in enumerate(rows))
    db = duckdb.connect()
    db.execute("set timezone = 'Europe/Zurich'")
    db.execute("create table events (n integer, moment timestamptz, team varchar, q hugeint)")
    db.executemany(
        "insert into events values (?, to_timestamp(?), ?, ?::hugeint)",
        [(n, at, team, str(q)) for n, (at, q, team) in enumerate(rows)],
    )
    for name, made in AGGREGATES.items():
        start = f"(epoch(date_trunc('{window}', moment)) * 1000000)::bigint"
        query = f"select {start}, team, {made} from events group by 1, 2 order by 1, 2"
        theirs = [(start, team, int(value)) for start, team, value in db.execute(query).fetchall()]
        ours = usage.aggregate("m", name, window=window, time_zone="Europe/Zurich", by=["team"])
        assert [(b.start, b.group[0], b.value) for b in ours] == theirs, name
    total, count = db.execute("select sum(q), count(*) from events").fetchone()
    assert usage.aggregate("m", "avg")[0].value == Fraction(int(total), count)
    # And the sums that invoices are made of, however the events were cut into records and shards.
    chance = random.Random(seed)
    events = [
        UsageEvent(
            e.source, e.id, e.customer, e.meter, e.quantity, e.at, e.dimensions, (str(chance.randrange(3)), n, 0)
        )
        for n, e in enumerate(usage.events)
    ]
    totals = EventEvidence(events).totals([0, 2**51], keep=["m"])
    for name in AGGREGATES:
        numerator, denominator, *_ = totals.line(totals.parts(), name, 2**51)
        if name != "latest":
            assert Fraction(numerator, denominator) == usage.aggregate("m", name)[0].value, name


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(-(10**12), 10**12)), min_size=1, max_size=20))
def test_a_sum_weighted_by_time_is_each_quantity_for_as_long_as_it_was_the_last(rows: list[tuple[int, int]]) -> None:
    usage = Usage(UsageEvent("s", str(n), "acme", "m", quantity, at) for n, (at, quantity) in enumerate(rows))
    standing, seconds = Fraction(0), Fraction(1, 1_000_000)
    for moment in range(1_000):
        # Of several at one moment the one that came last counts on.
        known = [(at, n) for n, (at, _) in enumerate(rows) if at <= moment]
        if known:
            standing += rows[max(known)[1]][1] * seconds
    (bucket,) = usage.aggregate("m", "weighted", end=1_000)
    assert bucket.value == standing
