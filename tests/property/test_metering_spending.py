"""The law of budgets in money: acts counted one by one never come to less than they are invoiced at together."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from creto.config import Price
from creto.metering import EventEvidence, PriceBook, UsageEvent
from creto.metering._invoice import drafts
from creto.metering._price import amount
from creto.metering._spending import Spending

AGENT = "spiffe://acme.test/agent/reader"
PATH = ["acme", "research", AGENT]
START, END = 0, 1_000_000
NANO = 10**9
AMOUNTS = st.decimals(0, 1000, places=6, allow_nan=False)
USED = st.lists(st.tuples(st.integers(0, 10**7), st.integers(START, END - 1)), min_size=1, max_size=20)


@st.composite
def prices(draw: Callable[..., Any]) -> Price:
    model = draw(st.sampled_from(["per_unit", "flat", "package", "percentage", "dynamic", "graduated", "volume"]))
    steps = sorted(draw(st.sets(st.integers(1, 10**6), min_size=1, max_size=4)))
    tiers = [{"up_to": step, "unit_price": draw(AMOUNTS), "flat": draw(AMOUNTS)} for step in steps]
    return Price(
        meter="m",
        model=model,
        unit_price=draw(AMOUNTS),
        per=draw(st.integers(1, 10**4)),
        included=draw(st.integers(0, 1000)),
        minimum=draw(AMOUNTS),
        discount=draw(st.integers(0, 100)),
        aggregation=draw(st.sampled_from(["sum", "count", "min", "max", "avg", "latest", "unique"])),
        tiers=[*tiers, {"unit_price": draw(AMOUNTS), "flat": draw(AMOUNTS)}]
        if model in {"graduated", "volume"}
        else [],
    )


def invoiced(price: Price, used: list[tuple[int, int]]) -> Fraction:
    """What the invoice's line for these events costs beyond what the period costs without any, exactly."""
    events = [UsageEvent("s", str(n), "acme", "m", quantity, at) for n, (quantity, at) in enumerate(used)]
    book = PriceBook([price], "USD")
    (line,) = drafts(book, START, END, "UTC", EventEvidence(events), customers=["acme"])["acme"]["lines"]
    return amount(price, Fraction(line["quantity"])) - amount(price, Fraction(0))


def counted(price: Price, used: list[tuple[int, int]]) -> int:
    spending = Spending(PriceBook([price], "USD"), {"USD"})
    return sum(spending.of(PATH, {"agent": AGENT}, {"m": units}, at).get("spent:USD", 0) for units, at in used)


@given(prices(), USED)
def test_acts_never_count_less_than_they_are_invoiced_at(price: Price, used: list[tuple[int, int]]) -> None:
    assert counted(price, used) >= invoiced(price, used) * NANO


@given(AMOUNTS, st.integers(1, 10**4), st.integers(0, 100), USED)
def test_where_every_unit_costs_the_same_they_count_what_is_invoiced(
    unit: Any, per: int, discount: int, used: list[tuple[int, int]]
) -> None:
    price = Price(meter="m", unit_price=unit, per=per, discount=discount)
    exact = invoiced(price, used) * NANO
    # Each act is rounded up to a billionth, and nothing else.
    assert exact <= counted(price, used) < exact + len(used)
