"""Checks an invoice with what an outsider has: the file, the ledger's public tiles and batches, and its public keys."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from creto import _core
from creto._count import counted
from creto._progress import Progress
from creto.errors import CretoError, IntegrityError
from creto.metering._balance import balances, prepaid_records
from creto.metering._books import Books, same
from creto.metering._currency import added, money
from creto.metering._evidence import through
from creto.metering._invoice import FORMAT, digest, line_amount, price_of, total_of
from creto.metering._price import amount
from creto.metering._rate import NO_EVENTS, exact, micros
from creto.metering._shards import Shards
from creto.metering._usage import ledger_events

__all__ = ["Finding", "guarded", "verify_invoice"]

_NUMBERS = {"amount", "due", "quantity", "share", "total", "uncharged", "whole"}
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


def verify_invoice(
    document: Mapping[str, Any],
    ledger: Path,
    keys: Sequence[_core.VerifyingKey],
    *,
    progress: Progress | None = None,
) -> list[Finding]:
    """Works out every line of an invoice anew from the ledger, and the arithmetic of all of it.

    Args:
        document: The invoice, as `creto invoice show --json` prints it.
        ledger: The folder of the ledger's public tiles and batches.
        keys: The ledger's public keys.
        progress: Called on another thread with shard, records checked and records in all.

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
        return _findings(document, Shards(ledger, keys, progress))
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


def _findings(document: Mapping[str, Any], shards: Shards) -> list[Finding]:
    if document["kind"] not in {"invoice", "credit_note"}:
        raise ValueError(f"`{document['kind']}` is neither an invoice nor a credit note")
    findings = [guarded("ledger", lambda: _check_ledger(document, shards))]
    if findings[0].ok:
        books = Books(document, shards.folder)
        for line in document["lines"]:
            findings.append(guarded(f"line {line.get('line')}", lambda line=line: _check_line(document, line, books)))
        if document["kind"] == "invoice":
            findings.append(guarded("unpriced", lambda: _check_unpriced(document, books)))
    if document["kind"] == "invoice":
        findings.append(guarded("total", lambda: _check_total(document)))
        if findings[0].ok and document["number"]:
            findings.append(guarded("prepaid", lambda: _check_prepaid(document, shards)))
    elif findings[0].ok:
        findings.append(guarded("credit", lambda: _check_credit(document, shards)))
    if findings[0].ok and document["kind"] == "invoice":
        findings.append(guarded("left out", lambda: _check_left_out(document, shards)))
    if findings[0].ok:
        findings.append(guarded("recorded", lambda: _check_recorded(document, shards)))
    return findings


def _check_ledger(document: Mapping[str, Any], shards: Shards) -> str:
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
        _, size = shards.of(shard)
        if end > size:
            raise IntegrityError(f"record {end - 1} of shard `{shard}` is not covered by its checkpoint of {size}")
    return f"signed checkpoints cover all of the {counted(sum(reach.values()), 'record')} that it counts"


def _check_line(document: Mapping[str, Any], line: Mapping[str, Any], books: Books) -> str:
    price = price_of(line)
    stated = str(line["quantity"])
    _check_time(document, line)
    if price.model == "commitment":
        others = [one for one in document["lines"] if "before" not in one and price_of(one).model != "commitment"]
        used = exact(sum((Fraction(one["amount"]) for one in others), Fraction(0)))
        if (line["events"], line["commitment"]) != (0, NO_EVENTS):
            raise IntegrityError("a line that tops up has no events of its own, and this one commits to some")
        if "before" not in line and stated != used:
            raise IntegrityError(f"the other lines make {used}, and the line says {stated}")
        events, found = 0, stated if "before" not in line else "0"
    else:
        quantity, events, root = books.of(line)
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
    if "before" in line:
        check = _check_before if price.model != "commitment" else _check_topped_up
        check(document, line, books)
    more = f" more, after {line['before']['amount']} by {line['before']['invoice']}" if "before" in line else ""
    return f"{counted(events, 'event')} in the ledger make {stated} of `{line['meter']}`, which cost {cost}{more}"


def _check_time(document: Mapping[str, Any], line: Mapping[str, Any]) -> None:
    """A line is of a part of its period, as large a part as it says; an adjusted period ended before this one began."""
    before = line.get("before")
    cuts = before["cuts"] if before else [micros(document["start"]), micros(document["end"])]
    if before and not cuts[0] < cuts[-1] <= micros(document["start"]):
        raise IntegrityError(f"the time of {before['invoice']}, which it adjusts, had not ended before this invoice's")
    start, end = micros(line["start"]), micros(line["end"])
    if not cuts[0] <= start < end <= cuts[-1]:
        raise IntegrityError(f"{line['start']} to {line['end']} does not lie within its period")
    share = exact(Fraction(end - start, cuts[-1] - cuts[0]))
    if share != str(line["share"]):
        raise IntegrityError(f"its time is {share} of the period, and the line says {line['share']}")


def _check_before(document: Mapping[str, Any], line: Mapping[str, Any], books: Books) -> None:
    """What was charged before a late event came follows from the ledger too: its records from before."""
    before = line["before"]
    whole = exact(books.whole(line)[0])
    if whole != str(before["whole"]):
        raise IntegrityError(f"all events of that time add up to {whole}, and the line says {before['whole']}")
    price, share = price_of(line), Fraction(line["share"])
    paid = money(amount(price, books.earlier(line)[0], share=share), str(document["currency"]))
    if paid != Decimal(before["amount"]):
        raise IntegrityError(
            f"what was there before cost {paid}, and the line says that {before['invoice']} charged {before['amount']}"
        )


def _check_topped_up(document: Mapping[str, Any], line: Mapping[str, Any], books: Books) -> None:
    """What an adjusted commitment counts is what the events of that time cost, but for what had no price then."""
    before, currency = line["before"], str(document["currency"])
    counts = before["counted"]
    for place, one in enumerate(counts):
        if any(same(one, other) for other in counts[:place]):
            raise IntegrityError(f"it counts `{price_of(one).meter}` twice")
    first = books.counted(line, "first")
    uncharged = {place: Decimal(one["uncharged"]) for place, one in enumerate(counts) if "uncharged" in one}
    for place, stated in uncharged.items():
        if stated != first[place]:
            raise IntegrityError(
                f"{first[place]} of `{price_of(counts[place]).meter}` was there when {before['invoice']} was made, "
                f"and the line says {stated}"
            )
    less = Fraction(added(uncharged.values()))
    whole = exact(Fraction(added(books.counted(line, "whole").values())) - less)
    if whole != str(before["whole"]):
        raise IntegrityError(f"what is counted makes {whole}, and the line says {before['whole']}")
    used = Fraction(added(books.counted(line, "earlier").values())) - less
    paid = money(amount(price_of(line), used, share=Fraction(line["share"])), currency)
    if paid != Decimal(before["amount"]):
        raise IntegrityError(
            f"what was there before was topped up by {paid}, and the line says that {before['invoice']} charged "
            f"{before['amount']}"
        )


def _check_unpriced(document: Mapping[str, Any], books: Books) -> str:
    found = books.unpriced()
    if found != document["unpriced"]:
        raise IntegrityError(f"what has no price is {found}, and the invoice says {document['unpriced']}")
    return "all usage of this customer and time that has no price is listed"


def _check_left_out(document: Mapping[str, Any], shards: Shards) -> str:
    """Usage of this customer and time that stands elsewhere in the ledger was recorded after what the invoice counts.

    A shard's own later records came later. Those of another shard are held against the time of the last record that is
    counted: an issuer who drops a shard, and with it corrections or cheaper steps, is told of by the tiles themselves.
    """
    reach = through(document["evidence"])
    ends = {name: _time(shards.of(name)[0], end - 1, shards.of(name)[1]) for name, end in reach.items()}
    made = max(ends.values(), default=0)
    if document["number"]:
        with suppress(IntegrityError):  # that it is not there is what `recorded` says
            made = int(shards.recorded("invoice:finalize", str(document["number"]))[2]["timestamp"])
    later = []
    for name in shards.names:
        shard, size = shards.of(name)
        first = reach.get(name, 0)
        until = first + bisect_left(range(first, size), made, key=lambda at: _time(shard, at, size))
        counted_until = max((time for other, time in ends.items() if other != name), default=0)
        found = [
            event.place[1]
            for event in ledger_events(shards.folder, name, first, until)
            if event.customer == document["customer"]
            and micros(document["start"]) <= event.at < micros(document["end"])
        ]
        if not found:
            continue
        told = f"{counted(len(found), 'event')} in records {found[0]} to {found[-1]} of shard `{name}`"
        if _time(shard, found[0], size) < counted_until:
            raise IntegrityError(
                f"it leaves out {told}, which are of this customer and time and were there before others that it counts"
            )
        later.append(told)
    if later:
        return f"{', '.join(later)} came after the last that it counts: the next invoice charges them as late usage"
    return "no usage of this customer and time that was there before it is left out"


def _time(shard: _core.LedgerShard, index: int, size: int) -> int:
    return int(shard.records(index, index + 1, size)[0]["timestamp"])


def _check_total(document: Mapping[str, Any]) -> str:
    if [line["line"] for line in document["lines"]] != list(range(1, len(document["lines"]) + 1)):
        raise IntegrityError("its lines are not numbered from 1 on")
    credits = [Decimal(credit["amount"]) for credit in document["credits"]]
    total = total_of(document)
    if total != Decimal(document["total"]):
        raise IntegrityError(f"the lines add up to {total}, and the invoice says {document['total']}")
    if any(credit <= 0 for credit in credits):
        raise IntegrityError("a credit takes off nothing, or adds to what is due")
    due = total - sum(credits, Decimal(0))
    if due != Decimal(document["due"]):
        raise IntegrityError(f"with its credits {due} is due, and the invoice says {document['due']}")
    return f"the lines add up to {total} {document['currency']}, of which {due} is due"


def _check_credit(document: Mapping[str, Any], shards: Shards) -> str:
    """A credit note is on an invoice of the same customer, as the ledger recorded that, and of no more than it."""
    number, credit = str(document["credits_invoice"]), -Decimal(document["total"])
    told = shards.recorded("invoice:finalize", number)[2].get("detail") or {}
    for name in ("customer", "currency"):
        if told.get(name) != document[name]:
            raise IntegrityError(f"{number} is an invoice of another {name}: of `{told.get(name)}`")
    if document["lines"] or not 0 < credit <= Decimal(told["total"]) or document["due"] != document["total"]:
        raise IntegrityError(f"{document['total']} is no credit on {number} of {told['total']}")
    return f"credit of {document['total']} on {number} of {told['total']}"


def _check_recorded(document: Mapping[str, Any], shards: Shards) -> str:
    if not document["number"]:
        return "a draft is not recorded"
    what = "invoice:credit" if document["kind"] == "credit_note" else "invoice:finalize"
    shard, index, record = shards.recorded(what, str(document["number"]))
    if record["digest"] != digest(document):
        raise IntegrityError(f"the ledger recorded {document['number']} with another digest")
    return f"record {index} of shard `{shard}` holds the invoice's digest"


def _check_prepaid(document: Mapping[str, Any], shards: Shards) -> str:
    """What an invoice takes off was granted to its customer and is recorded, and no more than that is taken off."""
    number = str(document["number"])
    for name in shards.names:
        shards.of(name)
    found = balances(prepaid_records(shards.folder, shards.names))
    stated = [(str(credit["credit"]), Decimal(credit["amount"])) for credit in document["credits"]]
    recorded = {credit: balance.draws[number] for credit, balance in found.items() if number in balance.draws}
    for credit in sorted({*recorded, *dict(stated)}):
        said = sum((amount for name, amount in stated if name == credit), Decimal(0))
        if said != recorded.get(credit, 0):
            raise IntegrityError(
                f"the ledger has {recorded.get(credit, 0)} taken off the prepaid credit `{credit}`, "
                f"and the invoice says {said}"
            )
        balance = found[credit]
        if not balance.granted:
            raise IntegrityError(f"the prepaid credit `{credit}` was never granted")
        if (balance.customer, balance.currency) != (document["customer"], document["currency"]):
            raise IntegrityError(
                f"the prepaid credit `{credit}` is of {balance.customer} in {balance.currency}, not of its customer"
            )
        for fault in balance.faults:
            raise IntegrityError(f"the prepaid credit `{credit}`: {fault}")
    if not stated:
        return "nothing that was paid in advance is taken off it, and the ledger has nothing taken off"
    total = added(amount for _, amount in stated)
    return f"{total} of {counted(len(recorded), 'prepaid credit')} is taken off, which the ledger shows as granted"
