"""Checks an invoice with what an outsider has: the file, the ledger's public tiles and batches, and its public keys."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from creto import _core
from creto._count import counted
from creto.errors import CretoError, IntegrityError
from creto.metering._evidence import LedgerEvidence, stretches_of, through
from creto.metering._invoice import FORMAT, digest, line_amount, price_of, total_of
from creto.metering._price import PricePeriod
from creto.metering._rate import Rated, Sums, exact, micros, sums

__all__ = ["Finding", "tiles", "verify_invoice"]

_NUMBERS = {"amount", "due", "quantity", "share", "total", "whole"}
# As an invoice writes them: a decimal or a fraction. What is reckoned with exactly must not say `1e999999999`.
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,2})?(/[0-9]{1,400})?")
_MISSHAPEN = (AttributeError, KeyError, ValueError, TypeError, IndexError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Args:
        what: What.
        ok: Whether it holds.
        detail: What was found.
    """

    what: str
    ok: bool
    detail: str


def guarded(what: str, check: Any) -> Finding:
    """What a check found, or why it failed."""
    try:
        return Finding(what, True, check())
    except (CretoError, StopIteration, *_MISSHAPEN) as error:
        return Finding(what, False, str(error) or type(error).__name__)


def tiles(ledger: Path, name: str, keys: Sequence[_core.VerifyingKey] | None) -> tuple[_core.LedgerShard, int]:
    """A shard as an outsider reads it, once its signed checkpoint has been checked; and how many records that covers.

    Args:
        ledger: The ledger's folder.
        name: The shard's.
        keys: The ledger's public keys; none where the ledger is one's own, and is not checked.

    Raises:
        IntegrityError: There is no such shard, or nobody known signed it.
    """
    if "/" in name or name not in _core.ledger_shards(str(ledger)):
        raise IntegrityError(f"the ledger has no shard `{name}`")
    shard = _core.LedgerShard(str(ledger / name))
    checkpoint = shard.checkpoint() if keys is None else shard.verify(list(keys))
    return shard, int(checkpoint["size"]) if checkpoint else 0


class _Books:
    """The sums of an invoice's period and of those that it adjusts, worked out anew from the ledger."""

    def __init__(self, document: Mapping[str, Any], ledger: Path) -> None:
        self._document = document
        self._evidence = LedgerEvidence(ledger, stretches=stretches_of(document["evidence"]))
        self._made: dict[str, tuple[Sums, Rated, list[Mapping[str, Any]]]] = {}

    def of(self, line: Mapping[str, Any]) -> tuple[Sums, Rated, list[Mapping[str, Any]]]:
        """The sums behind a line, what falls under each line of the same period, and these lines."""
        before = line.get("before")
        name = before["invoice"] if before else ""
        if name not in self._made:
            document = self._document
            lines = [one for one in document["lines"] if (one.get("before") or {}).get("invoice", "") == name]
            periods = [PricePeriod(price_of(one), micros(one["start"]), micros(one["end"])) for one in lines]
            customer = str(document["customer"])
            own = sums(
                self._evidence,
                [int(at) for at in (before or document)["cuts"]],
                [found.price for found in periods],
                customers=[customer],
                after=before["after"] if before else None,
            )
            self._made[name] = own, Rated(own, customer, periods), lines
        return self._made[name]


def verify_invoice(document: Mapping[str, Any], ledger: Path, keys: Sequence[_core.VerifyingKey]) -> list[Finding]:
    """Works out every line of an invoice anew from the ledger, and the arithmetic of all of it.

    Args:
        document: The invoice, as `creto invoice show --json` prints it.
        ledger: The folder of the ledger's public tiles and batches.
        keys: The ledger's public keys.

    Returns:
        What was checked; the invoice holds where every finding does.

    Example:
        >>> from pathlib import Path
        >>> [finding] = verify_invoice({"format": "of another program"}, Path("ledger"), [])
        >>> finding.ok, finding.detail
        (False, '`of another program` is not `creto-invoice/1`')
    """
    if document.get("format") != FORMAT:
        return [Finding("format", False, f"`{document.get('format')}` is not `{FORMAT}`")]
    try:
        _require_numbers(document)
        return _findings(document, ledger, keys)
    except _MISSHAPEN as error:
        return [Finding("format", False, f"it is not shaped like an invoice: {str(error) or type(error).__name__}")]


def _require_numbers(value: Any, name: str = "") -> None:
    """Does nothing where every number of a document can be reckoned with.

    Raises:
        ValueError: One cannot.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _require_numbers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            _require_numbers(inner)
    elif name in _NUMBERS and not _NUMBER.fullmatch(str(value)):
        raise ValueError(f"`{name}` is no number that an invoice holds")


def _findings(document: Mapping[str, Any], ledger: Path, keys: Sequence[_core.VerifyingKey]) -> list[Finding]:
    findings = [guarded("ledger", lambda: _check_ledger(document, ledger, keys))]
    if findings[0].ok:
        books = _Books(document, ledger)
        for line in document["lines"]:
            findings.append(guarded(f"line {line.get('line')}", lambda line=line: _check_line(document, line, books)))
        if document["kind"] == "invoice":
            findings.append(guarded("unpriced", lambda: _check_unpriced(document, books)))
    findings.append(guarded("total", lambda: _check_total(document)))
    if findings[0].ok:
        findings.append(guarded("recorded", lambda: _check_recorded(document, ledger, keys)))
    return findings


def _check_ledger(document: Mapping[str, Any], ledger: Path, keys: Sequence[_core.VerifyingKey]) -> str:
    for shard, ends in document["evidence"].items():
        if ends[0] != 0 or any(end <= start for start, end in itertools.pairwise(ends)):
            raise IntegrityError(f"the records of shard `{shard}` that it counts do not follow one another from 0 on")
    reach = through(document["evidence"])
    if document["cuts"] and (document["cuts"][0], document["cuts"][-1]) != (
        micros(document["start"]),
        micros(document["end"]),
    ):
        raise IntegrityError("the times that it counts between are not its own")
    for shard, end in reach.items():
        _, size = tiles(ledger, shard, keys)
        if end > size:
            raise IntegrityError(f"record {end - 1} of shard `{shard}` is not covered by its checkpoint of {size}")
    return f"signed checkpoints cover all of the {counted(sum(reach.values()), 'record')} that it counts"


def _check_line(document: Mapping[str, Any], line: Mapping[str, Any], books: _Books) -> str:
    price = price_of(line)
    stated = str(line["quantity"])
    if price.model == "commitment":
        others = [one for one in document["lines"] if "before" not in one and price_of(one).model != "commitment"]
        used = exact(sum((Fraction(one["amount"]) for one in others), Fraction(0)))
        if "before" not in line and stated != used:
            raise IntegrityError(f"the other lines make {used}, and the line says {stated}")
        events, found = 0, stated
    else:
        own, rated, lines = books.of(line)
        place = next(place for place, one in enumerate(lines) if one is line)
        quantity, events, root = own.line(rated.assigned[place], price.aggregation)
        found = exact(quantity)
        if root != line["commitment"] or events != line["events"]:
            raise IntegrityError(
                f"{counted(events, 'event')} in the ledger make the commitment {root}, and the line says "
                f"{line['events']} and {line['commitment']}"
            )
    if stated != found:
        raise IntegrityError(f"the events add up to {found}, and the line says {stated}")
    cost = line_amount(line, document["currency"])
    if cost != Decimal(line["amount"]):
        raise IntegrityError(f"{stated} of `{line['meter']}` cost {cost}, and the line says {line['amount']}")
    more = f" more, after {line['before']['amount']} by {line['before']['invoice']}" if "before" in line else ""
    return f"{counted(events, 'event')} in the ledger make {stated} of `{line['meter']}`, which cost {cost}{more}"


def _check_unpriced(document: Mapping[str, Any], books: _Books) -> str:
    own, rated, _ = books.of({})
    found = [
        {"meter": meter, "quantity": exact(quantity), "events": events}
        for meter, (quantity, events, _) in sorted(
            (meter, own.line(parts, "sum")) for meter, parts in rated.unpriced.items()
        )
    ]
    if found != document["unpriced"]:
        raise IntegrityError(f"what has no price is {found}, and the invoice says {document['unpriced']}")
    return "no usage of this customer and time is left out"


def _check_total(document: Mapping[str, Any]) -> str:
    if document["kind"] == "credit_note":
        return f"credit of {document['total']} on {document['credits_invoice']}"
    total = total_of(document)
    if total != Decimal(document["total"]):
        raise IntegrityError(f"the lines add up to {total}, and the invoice says {document['total']}")
    due = total - sum((Decimal(credit["amount"]) for credit in document["credits"]), Decimal(0))
    if due != Decimal(document["due"]):
        raise IntegrityError(f"with its credits {due} is due, and the invoice says {document['due']}")
    return f"the lines add up to {total} {document['currency']}, of which {due} is due"


def _check_recorded(document: Mapping[str, Any], ledger: Path, keys: Sequence[_core.VerifyingKey]) -> str:
    if not document["number"]:
        return "a draft is not recorded"
    own = digest(document)
    what = "invoice:credit" if document["kind"] == "credit_note" else "invoice:finalize"
    for name in _core.ledger_shards(str(ledger)):
        shard, size = tiles(ledger, name, keys)
        for record in shard.records(0, size, size) if size else ():
            if record["what"] == what and record["resource"] == document["number"]:
                if record["digest"] == own:
                    return f"record {record['index']} of shard `{name}` holds the invoice's digest"
                raise IntegrityError(f"the ledger recorded {document['number']} with another digest")
    raise IntegrityError(f"no checkpoint covers a record of {document['number']} yet")
