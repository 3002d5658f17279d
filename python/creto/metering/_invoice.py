"""The invoice as a document: lines from usage and prices, each bound to its events by a Merkle commitment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import InvalidInputError
from creto.metering._currency import money
from creto.metering._price import PriceBook, PricePeriod, amount, matches
from creto.metering._usage import UsageEvent

if TYPE_CHECKING:
    from creto.config._sections import Price

__all__ = ["FORMAT", "canonical", "digest", "draft", "line_amount", "measure", "price_of", "total_of"]

FORMAT = "creto-invoice/1"


def canonical(document: Mapping[str, Any]) -> bytes:
    """RFC 8785 JSON of a document that holds only texts, whole numbers, lists and objects."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of an invoice: of all of it but its state, which changes when it is paid or void."""
    return hashlib.sha256(canonical({name: value for name, value in document.items() if name != "state"})).hexdigest()


def measure(aggregation: str, events: Sequence[UsageEvent]) -> Fraction:
    """What the events of a line add up to.

    Args:
        aggregation: Of the price: `sum`, `count`, `min`, `max`, `avg`, `latest` or `unique`.
        events: In any order.
    """
    quantities = [event.quantity for event in events]
    if not quantities:
        return Fraction(0)
    match aggregation:
        case "sum":
            return Fraction(sum(quantities))
        case "count":
            return Fraction(len(quantities))
        case "min":
            return Fraction(min(quantities))
        case "max":
            return Fraction(max(quantities))
        case "avg":
            return Fraction(sum(quantities), len(quantities))
        case "latest":
            return Fraction(max(events, key=lambda event: (event.at, event.place)).quantity)
        case "unique":
            return Fraction(len(set(quantities)))
        case _:
            raise InvalidInputError(f"aggregation `{aggregation}` cannot be invoiced")


def _instant(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _exact(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _price_data(price: Price) -> dict[str, Any]:
    data = price.model_dump(mode="json", exclude_defaults=True)
    data.pop("customer", None)
    return {"model": price.model, "aggregation": price.aggregation, **data}


def price_of(line: Mapping[str, Any]) -> Price:
    """The price that a line of an invoice states."""
    from creto.config._sections import Price

    return Price.model_validate(line["price"])


def line_amount(line: Mapping[str, Any], currency: str) -> Decimal:
    """What a line costs by its own quantity and price: for whoever checks it."""
    quantity, before = Fraction(line["quantity"]), line.get("before")
    share = Fraction(line["share"])
    price = price_of(line)
    if before is None:
        return money(amount(price, quantity, share=share), currency)
    whole = amount(price, Fraction(before["whole"]), share=share)
    return money(whole, currency) - Decimal(before["amount"])


def total_of(document: Mapping[str, Any]) -> Decimal:
    """The sum of the lines."""
    return money(sum((Fraction(line["amount"]) for line in document["lines"]), Fraction(0)), document["currency"])


def _line(found: PricePeriod, events: Sequence[UsageEvent], share: Fraction, currency: str) -> dict[str, Any]:
    ordered = sorted(events, key=lambda event: (event.at, event.place))
    quantity = measure(found.price.aggregation, ordered)
    cost = money(amount(found.price, quantity, share=share), currency)
    leaves = [event.leaf() for event in ordered]
    return {
        "meter": found.price.meter,
        "description": found.price.description or _describe(found.price),
        "start": _instant(found.start),
        "end": _instant(found.end),
        "share": _exact(share),
        "price": _price_data(found.price),
        "quantity": _exact(quantity),
        "amount": str(cost),
        "events": len(ordered),
        "commitment": _core.merkle_root(leaves).hex(),
        "evidence": [[*event.place] for event in ordered],
    }


def _describe(price: Price) -> str:
    conditions = ", ".join(f"{name} {value}" for name, value in sorted(price.when.items()))
    return f"{price.meter} ({conditions})" if conditions else price.meter


def _assign(
    periods: Sequence[PricePeriod], events: Iterable[UsageEvent]
) -> tuple[dict[int, list[UsageEvent]], dict[str, list[UsageEvent]]]:
    """Gives each event to the price with the most conditions that fit it; what has no price is kept apart by meter."""
    assigned: dict[int, list[UsageEvent]] = {place: [] for place in range(len(periods))}
    unpriced: dict[str, list[UsageEvent]] = {}
    by_meter: dict[str, list[int]] = {}
    for place, found in enumerate(periods):
        by_meter.setdefault(found.price.meter, []).append(place)
    for event in events:
        dimensions = {**event.dimensions, "customer": event.customer}
        fitting = [
            place
            for place in by_meter.get(event.meter, ())
            if periods[place].start <= event.at < periods[place].end and matches(periods[place].price, dimensions)
        ]
        if not fitting:
            unpriced.setdefault(event.meter, []).append(event)
            continue
        most = max(len(periods[place].price.when) for place in fitting)
        best = [place for place in fitting if len(periods[place].price.when) == most]
        if len(best) > 1:
            names = " and ".join(_describe(periods[place].price) for place in best)
            raise InvalidInputError(f"an event of `{event.meter}` is priced by both {names}: give one more conditions")
        assigned[best[0]].append(event)
    return assigned, unpriced


def draft(
    book: PriceBook,
    customer: str,
    start: int,
    end: int,
    time_zone: str,
    events: Iterable[UsageEvent],
    closed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """An invoice of one customer and period, without a number.

    Args:
        book: The prices.
        customer: The organisation of a path.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        time_zone: In which the period was meant.
        events: Usage of this customer, each event once; what came too late for a closed period becomes an adjustment.
        closed: Finalized invoices of earlier periods, not void.

    Raises:
        InvalidInputError: An event fits two prices alike, or corrections took away more than there was.
    """
    currency = book.currency_of(customer)
    own = [event for event in events if event.customer == customer]
    lines, unpriced = _lines(book, customer, start, end, own, currency)
    for invoice in closed:
        lines += _adjustments(book, customer, invoice, own, currency)
    for number, line in enumerate(lines, 1):
        line["line"] = number
    document = {
        "format": FORMAT,
        "kind": "invoice",
        "state": "draft",
        "number": "",
        "customer": customer,
        "currency": currency,
        "start": _instant(start),
        "end": _instant(end),
        "time_zone": time_zone,
        "lines": lines,
        "unpriced": [
            {"meter": meter, "quantity": str(sum(event.quantity for event in found)), "events": len(found)}
            for meter, found in sorted(unpriced.items())
        ],
        "credits": [],
    }
    document["total"] = document["due"] = str(total_of(document))
    return document


def _lines(
    book: PriceBook, customer: str, start: int, end: int, own: Sequence[UsageEvent], currency: str
) -> tuple[list[dict[str, Any]], dict[str, list[UsageEvent]]]:
    periods = book.of(customer, start, end)
    assigned, unpriced = _assign(periods, [event for event in own if start <= event.at < end])
    lines = []
    for place, found in enumerate(periods):
        events = assigned[place]
        if events or found.price.model == "flat" or found.price.minimum > 0:
            lines.append(_line(found, events, Fraction(found.end - found.start, end - start), currency))
    return lines, unpriced


def _adjustments(
    book: PriceBook, customer: str, invoice: Mapping[str, Any], own: Sequence[UsageEvent], currency: str
) -> list[dict[str, Any]]:
    """Lines for events that came after their period was invoiced: it is rated anew, less what was invoiced."""
    start, end = _micros(invoice["start"]), _micros(invoice["end"])
    now, _ = _lines(book, customer, start, end, own, currency)
    billed: dict[str, dict[str, Any]] = {
        _identity(line): dict(line) for line in invoice["lines"] if "before" not in line
    }
    events = {(event.place, event.meter): event for event in own}
    lines = []
    for line in now:
        old = billed.get(_identity(line))
        had = {tuple(place) for place in old["evidence"]} if old else set()
        late = [place for place in line["evidence"] if tuple(place) not in had]
        if not late:
            continue
        fresh = [events[(tuple(place), line["meter"])] for place in late]
        paid = Decimal(old["amount"]) if old else Decimal(0)
        lines.append(
            {
                **line,
                "description": f"{line['description']}: late usage of {invoice['number']}",
                "quantity": _exact(measure(line["price"]["aggregation"], fresh)),
                "before": {"invoice": invoice["number"], "whole": line["quantity"], "amount": str(paid)},
                "amount": str(Decimal(line["amount"]) - paid),
                "events": len(fresh),
                "commitment": _core.merkle_root([event.leaf() for event in fresh]).hex(),
                "evidence": late,
            }
        )
    return lines


def _identity(line: Mapping[str, Any]) -> str:
    return canonical({"price": line["price"], "start": line["start"], "end": line["end"]}).decode()


def _micros(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1_000_000)
