"""The invoice as a document: lines from usage and prices, each bound to its events by a Merkle commitment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.metering._currency import added, money
from creto.metering._evidence import Evidence, bounds, through
from creto.metering._heads import HEADS
from creto.metering._price import PriceBook, PricePeriod, amount
from creto.metering._rate import (
    Offer,
    Rated,
    Sums,
    commitment_line,
    cuts_of,
    exact,
    instant,
    line_of,
    micros,
    price_data,
    sums,
)

if TYPE_CHECKING:
    from creto.config._sections import Price

__all__ = [
    "FORMAT",
    "canonical",
    "credit_note",
    "digest",
    "drafts",
    "line_amount",
    "lines_of",
    "price_of",
    "reach_of",
    "sealed",
    "total_of",
]

FORMAT = "creto-invoice/1"
_NONE: Mapping[str, Decimal] = {}


def canonical(document: Mapping[str, Any]) -> bytes:
    """RFC 8785 JSON of a document that holds only texts, whole numbers, lists and objects."""
    return bytes(_core.canonical_json(dict(document)))


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of an invoice: of all of it but its state, which changes when it is paid or void."""
    return hashlib.sha256(_core.canonical_json(dict(document), "state")).hexdigest()


def sealed(document: dict[str, Any]) -> tuple[str, str]:
    """An invoice as JSON, and its digest, by one walk through it."""
    told = _core.canonical_json(document, "state")
    # A JSON object's names may stand in any order: the state goes in front of what is digested.
    return f'{{"state":{json.dumps(document["state"])},{told[1:].decode()}', hashlib.sha256(told).hexdigest()


def price_of(line: Mapping[str, Any]) -> Price:
    """The price that a line of an invoice states."""
    from creto.config._sections import Price

    return Price.model_validate(line["price"])


def line_amount(line: Mapping[str, Any], currency: str) -> Decimal:
    """What a line costs by its own quantity and price: for whoever checks it."""
    before = line.get("before")
    share = Fraction(line["share"])
    price = price_of(line)
    if before is None:
        return money(amount(price, Fraction(line["quantity"]), share=share), currency)
    whole = amount(price, Fraction(before["whole"]), share=share)
    return money(whole, currency) - Decimal(before["amount"])


def total_of(document: Mapping[str, Any]) -> Decimal:
    """The sum of the lines."""
    return added([money(Fraction(0), document["currency"]), *(Decimal(line["amount"]) for line in document["lines"])])


def drafts(
    book: PriceBook,
    start: int,
    end: int,
    time_zone: str,
    evidence: Evidence,
    *,
    customers: Sequence[str] | None = None,
    closed: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Invoices of a period, without numbers, by customer.

    Args:
        book: The prices.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        time_zone: In which the period was meant.
        evidence: The usage; what came too late for a closed period becomes an adjustment.
        customers: These only, whether they used anything or not; by default every one that did.
        closed: By customer, finalized invoices of earlier periods, not void.

    Raises:
        InvalidInputError: An event fits two prices alike, or corrections took away more than there was.
    """
    own = sums(evidence, cuts_of(start, end, book.prices), book.prices, customers=customers)
    late = _adjustments(book, evidence, closed or {})
    names = sorted({*own.parts, *late}) if customers is None else customers
    stretches = bounds(evidence.stretches)
    made = {}
    offer = Offer((), end - start)
    for customer in names:
        currency = book.currency_of(customer)
        periods = book.of(customer, start, end)
        if periods is not offer.periods:
            offer = Offer(periods, end - start)
        lines, unpriced = lines_of(own, customer, offer, currency)
        lines += late.get(customer, [])
        for number, line in enumerate(lines, 1):
            line["line"] = number
        document = {
            "format": FORMAT,
            "kind": "invoice",
            "state": "draft",
            "number": "",
            "customer": customer,
            "currency": currency,
            "start": instant(start),
            "end": instant(end),
            "time_zone": time_zone,
            "lines": lines,
            "unpriced": unpriced,
            "evidence": stretches,
            "cuts": list(own.cuts),
            "credits": [],
        }
        document["total"] = document["due"] = str(total_of(document))
        made[customer] = document
    return made


def credit_note(document: Mapping[str, Any], number: str, reason: str, total: Decimal) -> dict[str, Any]:
    """A credit note on an invoice.

    Args:
        document: The invoice.
        number: The note's own.
        reason: For the one who reads it.
        total: How much is credited, in whole smallest coins.
    """
    return {
        **{name: document[name] for name in ("customer", "currency", "start", "end", "time_zone")},
        **{name: document[name] for name in HEADS if name in document},
        "format": FORMAT,
        "kind": "credit_note",
        "state": "finalized",
        "number": number,
        "credits_invoice": document["number"],
        "reason": reason,
        "lines": [],
        "unpriced": [],
        "evidence": {},
        "cuts": [],
        "credits": [],
        "total": str(-total),
        "due": str(-total),
    }


def lines_of(
    own: Sums, customer: str, offer: Offer, currency: str, uncharged: Mapping[str, Decimal] = _NONE
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of one customer and period, and by meter what has no price.

    Args:
        own: What its events add up to.
        customer: The organisation of a path.
        offer: Its prices.
        currency: Of the invoice.
        uncharged: By identity of a line, what of it is not charged, and so counts for no commitment.
    """
    rated = Rated(own, customer, offer)
    lines, commitments = [], []
    for place, (found, parts) in enumerate(zip(offer.periods, rated.assigned, strict=True)):
        if found.price.model == "commitment":
            commitments.append(place)
        elif parts or found.price.model == "flat" or found.price.minimum > 0:
            lines.append(line_of(offer, place, own, parts, currency))
    if commitments:
        used = sum((Fraction(line["amount"]) for line in lines), Fraction(0))
        used -= sum((Fraction(uncharged.get(_identity(line), 0)) for line in lines), Fraction(0))
        lines += [commitment_line(offer, place, used, currency) for place in commitments]
    unpriced = []
    for meter, parts in sorted(rated.unpriced.items()):
        quantity, events, _ = own.line(parts, "sum", own.cuts[-1])
        unpriced.append({"meter": meter, "quantity": exact(quantity), "events": events})
    return lines, unpriced


def reach_of(document: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """By shard, up to which record a closed invoice's period was charged: by itself, or by adjustments since.

    Args:
        document: The closed invoice.
        documents: All invoices of the customer that stand.
    """
    reach = through(document["evidence"])
    for other in documents:
        if any(line["before"]["invoice"] == document["number"] for line in other["lines"] if "before" in line):
            for shard, record in through(other["evidence"]).items():
                reach[shard] = max(reach.get(shard, 0), record)
    return reach


def _adjustments(
    book: PriceBook, evidence: Evidence, closed: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Lines for events that came after their period was invoiced: it is rated anew, less what was invoiced."""
    # One look at the ledger for all who were invoiced for the same time by the same records.
    alike: dict[tuple[int, int, tuple[tuple[str, int], ...]], dict[str, Mapping[str, Any]]] = {}
    for customer, documents in closed.items():
        for document in documents:
            reach = reach_of(document, documents)
            key = micros(document["start"]), micros(document["end"]), tuple(sorted(reach.items()))
            alike.setdefault(key, {})[customer] = document
    found: dict[str, list[dict[str, Any]]] = {}
    for (start, end, reached), alike_documents in sorted(alike.items()):
        after = dict(reached)
        late = sums(evidence, (start, end), (), customers=list(alike_documents), after=after)
        if not late.parts:
            continue
        names = sorted(late.parts)
        standing = [line for name in names for line in alike_documents[name]["lines"] if "before" not in line]
        prices = [*book.prices, *(price_of(line) for line in standing)]
        cuts = cuts_of(start, end, prices)
        late = sums(evidence, cuts, prices, customers=names, after=after)
        whole = sums(evidence, cuts, prices, customers=names)
        for name in names:
            paid = _Paid(alike_documents[name], closed[name], evidence, after, cuts, prices)
            found.setdefault(name, []).extend(_late_lines(book, name, alike_documents[name], paid, late, whole, after))
    return found


class _Paid:
    """What was invoiced for a closed period: by its invoice, and by adjustments since."""

    def __init__(
        self,
        document: Mapping[str, Any],
        documents: Sequence[Mapping[str, Any]],
        evidence: Evidence,
        after: Mapping[str, int],
        cuts: Sequence[int],
        prices: Sequence[Price],
    ) -> None:
        self._document, self._evidence, self._after = document, evidence, after
        self._cuts, self._prices = cuts, prices
        self._known = {_identity(line): Decimal(line["amount"]) for line in document["lines"] if "before" not in line}
        self._own = set(self._known)
        for other in documents:
            for line in other["lines"]:
                if "before" in line and line["before"]["invoice"] == document["number"]:
                    name = _identity(line)
                    # Of one that the invoice had no line for, the ledger says what was there before: see `of`.
                    if name in self._own:
                        self._known[name] += Decimal(line["amount"])

    def of(self, line: Mapping[str, Any], offer: Offer, currency: str) -> Decimal:
        """What a line has cost so far; usage that had no price then stays uncharged, so that it counts as paid."""
        name = _identity(line)
        if name not in self._known:
            for one, cost in self._costs(self._after, offer, currency).items():  # of all lines: read once
                self._known.setdefault(one, cost)
        return self._known.setdefault(name, Decimal(0))

    def uncharged(self, offer: Offer, currency: str) -> dict[str, Decimal]:
        """What was there without a price when the period was invoiced, by line."""
        if all(found.price.model != "commitment" for found in offer.periods):
            return {}
        costs = self._costs(through(self._document["evidence"]), offer, currency)
        return {name: cost for name, cost in costs.items() if name not in self._own and cost}

    def _costs(self, reach: Mapping[str, int], offer: Offer, currency: str) -> dict[str, Decimal]:
        customer = str(self._document["customer"])
        own = sums(self._evidence.until(reach), self._cuts, self._prices, customers=[customer])
        return {_identity(one): Decimal(one["amount"]) for one in lines_of(own, customer, offer, currency)[0]}


def _late_lines(
    book: PriceBook,
    customer: str,
    document: Mapping[str, Any],
    paid: _Paid,
    late: Sums,
    whole: Sums,
    after: Mapping[str, int],
) -> list[dict[str, Any]]:
    start, end = micros(document["start"]), micros(document["end"])
    currency = str(document["currency"])
    # A closed period keeps the prices that it was invoiced at; what it was not invoiced for has those of the book.
    periods = [
        PricePeriod(price_of(line), micros(line["start"]), micros(line["end"]))
        for line in document["lines"]
        if "before" not in line
    ]
    known = {(found.price.meter, tuple(sorted(found.price.when.items()))) for found in periods}
    periods += [
        found
        for found in book.of(customer, start, end)
        if (found.price.meter, tuple(sorted(found.price.when.items()))) not in known
        and found.price.model != "commitment"
    ]
    offer = Offer(periods, end - start)
    uncharged = paid.uncharged(offer, currency)
    now, _ = lines_of(whole, customer, offer, currency, uncharged)
    rated = Rated(late, customer, offer)
    lines: list[dict[str, Any]] = []
    shown: set[int] = set()
    for line in now:
        place = next(
            place
            for place, found in enumerate(periods)
            if (instant(found.start), instant(found.end)) == (line["start"], line["end"])
            and _identity({**line, "price": price_data(found.price)}) == _identity(line)
        )
        parts = rated.assigned[place]
        if not parts and line["price"]["model"] != "commitment":
            continue
        had = paid.of(line, offer, currency)
        more = Decimal(line["amount"]) - had
        if not parts and not more:
            continue
        shown.add(place)
        quantity, events, commitment = late.line(parts, line["price"]["aggregation"], periods[place].end)
        before: dict[str, Any] = {
            "invoice": document["number"],
            "whole": line["quantity"],
            "amount": str(had),
            "after": dict(after),
            "cuts": list(late.cuts),
        }
        if line["price"]["model"] == "commitment":
            # Whoever checks has to know what counts for it, and since when what had no price is charged.
            before["first"] = through(document["evidence"])
            before["counted"] = [
                {
                    **{name: one[name] for name in ("start", "end", "price")},
                    **({"uncharged": str(uncharged[_identity(one)])} if _identity(one) in uncharged else {}),
                }
                for one in now
                if one["price"]["model"] != "commitment"
            ]
        lines.append(
            {
                **line,
                "description": f"{line['description']}: late usage of {document['number']}",
                "quantity": exact(quantity),
                "before": before,
                "amount": str(more),
                "events": events,
                "commitment": commitment,
            }
        )
    # Whoever checks has to know what else of the same meter was priced then, or would count it to these lines.
    for line in lines:
        beside = [
            {"start": instant(found.start), "end": instant(found.end), "price": price_data(found.price)}
            for place, found in enumerate(periods)
            if place not in shown and found.price.meter == line["meter"] and found.price.model != "commitment"
        ]
        if beside:
            line["before"]["beside"] = beside
    return lines


def _identity(line: Mapping[str, Any]) -> str:
    return canonical({"price": line["price"], "start": line["start"], "end": line["end"]}).decode()
