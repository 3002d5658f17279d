"""What usage costs, row by row: the lines that an invoice of the same time would have, each divided among its rows.

Rows of one line cost the same per unit, so that they add up to the line, also where a price has steps, included units
or a fee. A line without usage has no rows, and is left out; so is what was paid in advance.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from creto.metering._price import PriceBook, amount
from creto.metering._rate import Offer, Part, Rated, Sums, cuts_of, sums

if TYPE_CHECKING:
    from creto.metering._evidence import Evidence

__all__ = ["Row", "amounts"]

Row = tuple[str, int, tuple[str, ...]]
"""A meter, when its window starts in microseconds since the epoch, and the values that it is grouped by."""
_GROWING = {"sum", "count", "unique", "weighted"}


def amounts(
    evidence: Evidence,
    book: PriceBook,
    start: int,
    end: int,
    *,
    windows: Collection[int] = (),
    by: Sequence[str] = (),
    only: Mapping[str, str] | None = None,
    scales: Sequence[Fraction] = (Fraction(1),),
) -> list[dict[Row, dict[str, Fraction]]]:
    """For each scale, exact amounts by row, and in it by currency; rows of which nothing is priced are not there.

    Args:
        evidence: The usage.
        book: The prices.
        start: Of the time, rated as a billing period, in microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        windows: When those start that rows are of; one of all of it where there are none.
        by: Dimensions to group by, `customer` among them.
        only: Rows of events with these dimensions; the lines that are divided are of all.
        scales: How many times as much is used.

    Raises:
        InvalidInputError: The usage cannot be priced.

    Example:
        >>> from creto.config import Price
        >>> from creto.metering import EventEvidence, UsageEvent
        >>> used = [UsageEvent("app", str(n), "acme", "pages", 10, n, {"team": "ab"[n % 2]}) for n in range(4)]
        >>> book = PriceBook([Price(meter="pages", unit_price=1, included=20)], "EUR")
        >>> once, twice = amounts(EventEvidence(used), book, 0, 10, by=["team"], scales=[Fraction(1), Fraction(2)])
        >>> once["pages", 0, ("a",)], twice["pages", 0, ("a",)]
        ({'EUR': Fraction(10, 1)}, {'EUR': Fraction(30, 1)})
    """
    starts = sorted(windows) or [start]
    cuts = sorted({*cuts_of(start, end, book.prices), *(at for at in starts if start < at < end)})
    own = sums(evidence, cuts, book.prices)
    found: list[dict[Row, dict[str, Fraction]]] = [{} for _ in scales]
    offer = Offer((), end - start)
    for customer in own.parts:
        periods = book.of(customer, start, end)
        if periods is not offer.periods:
            offer = Offer(periods, end - start)
        currency = book.currency_of(customer)
        for place, parts in enumerate(Rated(own, customer, offer).assigned):
            price = offer.periods[place].price
            if not parts or price.model == "commitment":
                continue
            quantity = own.line(parts, price.aggregation, offer.periods[place].end)[0]
            grows = price.aggregation in _GROWING
            costs = [amount(price, quantity * (scale if grows else 1), share=offer.head(place)[0]) for scale in scales]
            for part, share in zip(parts, _shares(own, parts, price.aggregation), strict=True):
                _, _, meter, told = own.series[part[0]]
                dimensions = {**told, "customer": customer}
                if any(dimensions.get(name) != value for name, value in (only or {}).items()):
                    continue
                window = starts[bisect_right(starts, cuts[part[1]]) - 1]
                key = (meter, window, tuple(dimensions.get(name, "") for name in by))
                for rows, cost in zip(found, costs, strict=True):
                    row = rows.setdefault(key, {})
                    row[currency] = row.get(currency, Fraction(0)) + cost * share
    return found


def _shares(own: Sums, parts: Sequence[Part], aggregation: str) -> list[Fraction]:
    """Which part of a line each of its parts is: by quantity where quantities are added up, else by events."""
    lines = [own.line([part], "sum", 0) for part in parts]
    weights = [line[0] for line in lines] if aggregation == "sum" else [Fraction(line[1]) for line in lines]
    if not sum(weights):
        weights = [Fraction(line[1]) for line in lines]
    whole = sum(weights)
    return [weight / whole for weight in weights]
