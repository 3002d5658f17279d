"""From sums to lines: which price each series of events falls under, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from creto import _core
from creto._count import SPENT
from creto.errors import InvalidInputError
from creto.metering._currency import money, round_half_even
from creto.metering._price import PricePeriod, amount, known, matches

if TYPE_CHECKING:
    from creto.config._sections import Price
    from creto.metering._evidence import Evidence

__all__ = [
    "NO_EVENTS",
    "Offer",
    "Rated",
    "Sums",
    "commitment_line",
    "cuts_of",
    "exact",
    "instant",
    "line_of",
    "micros",
    "price_data",
    "sums",
]

NO_EVENTS = _core.merkle_root([]).hex()
"""The commitment to none."""
Part = tuple[int, int]
"""The number of a series, and that of an interval."""
_prices: dict[int, tuple[Price, dict[str, Any]]] = {}


@lru_cache(10_000)
def instant(at: int) -> str:
    """Microseconds since the epoch, as an invoice writes a time."""
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat().replace("+00:00", "Z")


def micros(text: str) -> int:
    """What `instant` wrote, in microseconds since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def exact(value: Fraction) -> str:
    """A number as an invoice writes it: a decimal where one says it exactly, else a fraction.

    Example:
        >>> exact(Fraction(5)), exact(Fraction(5, 2)), exact(Fraction(1, 3))
        ('5', '2.5', '1/3')
    """
    if value.denominator == 1:
        return str(value.numerator)
    for digits in range(1, 19):
        if 10**digits % value.denominator == 0:
            return str(round_half_even(value, digits))
    return f"{value.numerator}/{value.denominator}"


def price_data(price: Price) -> dict[str, Any]:
    """A price as an invoice states it."""
    known = _prices.get(id(price))
    if known is None or known[0] is not price:
        data = price.model_dump(mode="json", exclude_defaults=True)
        data.pop("customer", None)
        if len(_prices) > 10_000:
            _prices.clear()
        known = _prices[id(price)] = price, {"model": price.model, "aggregation": price.aggregation, **data}
    return known[1]


def describe(price: Price) -> str:
    """A price's name on an invoice."""
    conditions = ", ".join(f"{name} {value}" for name, value in sorted(price.when.items()))
    return price.description or (f"{price.meter} ({conditions})" if conditions else price.meter)


class Sums:
    """What every series of one customer adds up to, by interval; several customers share the totals behind it."""

    def __init__(self, totals: _core.UsageTotals, cuts: Sequence[int]) -> None:
        self._totals = totals
        self.cuts = cuts
        self.series = totals.series()
        self.parts: dict[str, list[Part]] = {}
        for part in totals.parts():
            self.parts.setdefault(self.series[part[0]][1], []).append(part)

    def line(self, parts: Sequence[Part], aggregation: str, end: int) -> tuple[Fraction, int, str]:
        """Quantity, number of events and commitment of parts; what is weighted by time is, until `end`."""
        numerator, denominator, events, commitment = self._totals.line(list(parts), aggregation, end)
        return Fraction(numerator, denominator), events, commitment

    def proof(self, parts: Sequence[Part]) -> tuple[bytes, list[tuple[int, int, list[str]]]] | None:
        """The traced event's leaf and its way to the commitment of parts; none where it is not among them."""
        return self._totals.proof(list(parts))


def cuts_of(start: int, end: int, prices: Iterable[Price]) -> list[int]:
    """The times that bound the intervals of a period: its own, and those from which a price holds.

    Args:
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        prices: All that may hold.
    """
    starts = {round(price.start.timestamp() * 1_000_000) for price in prices if price.start is not None}
    return sorted({start, end, *(at for at in starts if start < at < end)})


def sums(
    evidence: Evidence,
    cuts: Sequence[int],
    prices: Iterable[Price],
    *,
    customers: Sequence[str] | None = None,
    after: Mapping[str, int] | None = None,
) -> Sums:
    """Adds up a period, interval by interval.

    Args:
        evidence: Where from.
        cuts: Microseconds since the epoch, rising: they bound the intervals.
        prices: All that may hold.
        customers: Of these only.
        after: By shard, from which record on events are counted.
    """
    keep = sorted({price.meter for price in prices if price.aggregation in {"unique", "weighted"}})
    return Sums(evidence.totals(cuts, customers=customers, keep=keep, after=after), cuts)


class Offer:
    """The prices of a period, found by what they are for; made once for all customers who share them.

    Args:
        periods: The prices.
        whole: How long the billing period is, in microseconds; 0 where no lines are made.
    """

    def __init__(self, periods: Sequence[PricePeriod], whole: int = 0) -> None:
        self.periods = periods
        self._whole = whole
        self._heads: dict[int, tuple[Fraction, dict[str, Any]]] = {}
        # By meter and model: a table of models has thousands of prices for one meter.
        self._places: dict[tuple[str, str | None], list[int]] = {}
        for place, found in enumerate(periods):
            self._places.setdefault((found.price.meter, found.price.when.get("model")), []).append(place)

    def head(self, place: int) -> tuple[Fraction, dict[str, Any]]:
        """Which part of the billing period a price is in force for, and what its line says before it says how much."""
        head = self._heads.get(place)
        if head is None:
            found = self.periods[place]
            share = Fraction(found.end - found.start, self._whole)
            head = self._heads[place] = (
                share,
                {
                    "meter": found.price.meter,
                    "description": describe(found.price),
                    "start": instant(found.start),
                    "end": instant(found.end),
                    "share": exact(share),
                    "price": price_data(found.price),
                },
            )
        return head

    def fitting(self, meter: str, dimensions: Mapping[str, str], customer: str, start: int, end: int) -> list[int]:
        """Which prices hold for a series in an interval: those with the most conditions that fit, one in general.

        Args:
            meter: Of the series.
            dimensions: Of the series.
            customer: Who pays.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
        """
        dimensions = known(dimensions)
        candidates = self._places.get((meter, None), ())
        if "model" in dimensions:
            candidates = [*candidates, *self._places.get((meter, dimensions["model"]), ())]
        best: list[int] = []
        most = -1
        for place in candidates:
            found = self.periods[place]
            when = found.price.when
            if len(when) < most or not found.start <= start or not end <= found.end:
                continue
            if when and not matches(found.price, {**dimensions, "customer": customer}):
                continue
            best = [*best, place] if len(when) == most else [place]
            most = len(when)
        return best

    def place(self, meter: str, dimensions: Mapping[str, str], customer: str, start: int, end: int) -> int | None:
        """The one price that holds, found as `fitting` does; None if none does.

        Raises:
            InvalidInputError: Two of them hold alike.
        """
        best = self.fitting(meter, dimensions, customer, start, end)
        if len(best) > 1:
            names = " and ".join(describe(self.periods[place].price) for place in best)
            raise InvalidInputError(f"an event of `{meter}` is priced by both {names}: give one more conditions")
        return best[0] if best else None


class Rated:
    """Which parts of one customer fall under which of its prices.

    Args:
        own: The sums.
        customer: Of whom.
        offer: The customer's prices.

    Raises:
        InvalidInputError: An event is priced by two of them alike.
    """

    def __init__(self, own: Sums, customer: str, offer: Offer) -> None:
        self.assigned: list[list[Part]] = [[] for _ in offer.periods]
        self.unpriced: dict[str, list[Part]] = {}
        cuts = own.cuts
        for part in own.parts.get(customer, ()):
            number, interval = part
            _, _, meter, dimensions = own.series[number]
            place = offer.place(meter, dimensions, customer, cuts[interval], cuts[interval + 1])
            if place is None:
                if meter.startswith(SPENT):
                    continue  # what prices made of the act's other usage: no usage of its own
                self.unpriced.setdefault(meter, []).append(part)
            else:
                self.assigned[place].append(part)


def line_of(offer: Offer, place: int, own: Sums, parts: Sequence[Part], currency: str) -> dict[str, Any]:
    """A line of an invoice.

    Args:
        offer: The prices.
        place: Which of them.
        own: The sums.
        parts: What falls under it.
        currency: Of the invoice.
    """
    found, (share, head) = offer.periods[place], offer.head(place)
    quantity, events, commitment = own.line(parts, found.price.aggregation, found.end)
    cost = money(amount(found.price, quantity, share=share), currency)
    return {**head, "quantity": exact(quantity), "amount": str(cost), "events": events, "commitment": commitment}


def commitment_line(offer: Offer, place: int, used: Fraction, currency: str) -> dict[str, Any]:
    """The line that tops an invoice up to what was committed to.

    Args:
        offer: The prices.
        place: Which of them, of the model `commitment`.
        used: What all other lines of the period cost.
        currency: Of the invoice.
    """
    share, head = offer.head(place)
    cost = money(amount(offer.periods[place].price, used, share=share), currency)
    return {**head, "quantity": exact(used), "amount": str(cost), "events": 0, "commitment": NO_EVENTS}
