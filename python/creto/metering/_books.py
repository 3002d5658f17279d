"""What stands behind the lines of an invoice, worked out anew from the ledger for whoever checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from creto.metering._currency import money
from creto.metering._evidence import Evidence, LedgerEvidence, stretches_of
from creto.metering._invoice import price_of
from creto.metering._price import PricePeriod, amount
from creto.metering._rate import Offer, Rated, Sums, exact, micros, sums

__all__ = ["Books", "alike", "period_of", "same"]

Line = Mapping[str, Any]


def alike(document: Mapping[str, Any], line: Line) -> list[Line]:
    """All that was priced in the period of a line, so that each event falls under one: its lines, and what they name.

    Args:
        document: The invoice.
        line: One of its lines; one without `before` is of the invoice's own period.
    """
    name = adjusted(line)
    lines = [one for one in document["lines"] if adjusted(one) == name]
    found = list(lines)
    for one in lines:
        before = one.get("before") or {}
        for other in [*before.get("beside", []), *before.get("counted", [])]:
            if not any(same(other, known) for known in found):
                found.append(other)
    return found


def same(one: Line, other: Line) -> bool:
    """True for lines of one price and time."""
    return all(one[name] == other[name] for name in ("price", "start", "end"))


def adjusted(line: Line) -> str:
    """The number of the invoice that a line adjusts; empty where it adjusts none."""
    return str((line.get("before") or {}).get("invoice", ""))


def period_of(line: Line) -> PricePeriod:
    """The price of a line, and when it is in force."""
    return PricePeriod(price_of(line), micros(line["start"]), micros(line["end"]))


class Books:
    """The sums of an invoice's period and of those that it adjusts.

    Args:
        document: The invoice.
        ledger: The ledger's folder.
    """

    def __init__(self, document: Mapping[str, Any], ledger: Path) -> None:
        self._document = document
        self._evidence: Evidence = LedgerEvidence(ledger, stretches=stretches_of(document["evidence"]))
        self._made: dict[tuple[str, str], tuple[Sums, Rated, list[Line]]] = {}

    def of(self, line: Line) -> tuple[Fraction, int, str]:
        """Quantity, number of events and commitment of a line's own events: of an adjustment those that came late."""
        after = (line.get("before") or {}).get("after")
        return self._line("own", line, lambda: self._evidence, after)

    def whole(self, line: Line) -> tuple[Fraction, int, str]:
        """The same of all events of a line's time, whether they came late or not."""
        return self._line("whole", line, lambda: self._evidence)

    def earlier(self, line: Line) -> tuple[Fraction, int, str]:
        """The same of those events of an adjustment's time that were there before."""
        return self._line("earlier", line, lambda: self._evidence.until(line["before"]["after"]))

    def counted(self, line: Line, which: str) -> dict[int, Decimal]:
        """What counts for an adjusted commitment, by its place in `counted`: what it cost.

        Args:
            line: The commitment's.
            which: `whole`, all events of that time; `earlier`, those from before; `first`, those of the invoice's own.
        """
        before = line["before"]
        reach = {"whole": None, "earlier": before["after"], "first": before["first"]}[which]
        own, rated, lines = self._rated(
            which, line, lambda: self._evidence if reach is None else self._evidence.until(reach), None
        )
        costs = {}
        for number, one in enumerate(before["counted"]):
            place = next(place for place, other in enumerate(lines) if same(one, other))
            found = period_of(one)
            quantity, _, _ = own.line(rated.assigned[place], found.price.aggregation, found.end)
            share = Fraction(found.end - found.start, own.cuts[-1] - own.cuts[0])
            costs[number] = money(amount(found.price, quantity, share=share), str(self._document["currency"]))
        return costs

    def unpriced(self) -> list[dict[str, Any]]:
        """What of the invoice's own period falls under no line, by meter."""
        own, rated, _ = self._rated("own", {}, lambda: self._evidence, None)
        found = [(meter, own.line(parts, "sum", own.cuts[-1])) for meter, parts in sorted(rated.unpriced.items())]
        return [{"meter": meter, "quantity": exact(line[0]), "events": line[1]} for meter, line in found]

    def _line(
        self, which: str, line: Line, evidence: Callable[[], Evidence], after: Mapping[str, int] | None = None
    ) -> tuple[Fraction, int, str]:
        own, rated, lines = self._rated(which, line, evidence, after)
        place = next(place for place, one in enumerate(lines) if one is line)
        return own.line(rated.assigned[place], price_of(line).aggregation, micros(line["end"]))

    def _rated(
        self, which: str, line: Line, evidence: Callable[[], Evidence], after: Mapping[str, int] | None
    ) -> tuple[Sums, Rated, list[Line]]:
        name = which, adjusted(line)
        if name not in self._made:
            lines = alike(self._document, line)
            periods = [period_of(one) for one in lines]
            customer = str(self._document["customer"])
            cuts = [int(at) for at in (line.get("before") or self._document)["cuts"]]
            own = sums(evidence(), cuts, [found.price for found in periods], customers=[customer], after=after)
            self._made[name] = own, Rated(own, customer, Offer(periods)), lines
        return self._made[name]
