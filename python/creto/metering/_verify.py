"""Checks an invoice with what an outsider has: the file, the ledger's public tiles, and its public keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import CretoError, IntegrityError
from creto.metering._ingest import batch_line
from creto.metering._invoice import FORMAT, canonical, digest, line_amount, measure, price_of, total_of
from creto.metering._price import matches
from creto.metering._usage import BATCH, UsageEvent, events_of

__all__ = ["Finding", "prove_event", "verify_event", "verify_invoice"]


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


class _Tiles:
    """The ledger as an outsider reads it: each shard's records, once its signed checkpoint has been checked."""

    def __init__(self, folder: Path, keys: Sequence[_core.VerifyingKey] | None) -> None:
        self._folder = folder
        self._keys = keys  # none: the ledger is one's own, and is not checked
        self._sizes: dict[str, int] = {}
        self._shards: dict[str, _core.LedgerShard] = {}
        self._read: dict[tuple[str, int], dict[tuple[str, int], UsageEvent]] = {}

    def shard(self, name: str) -> tuple[_core.LedgerShard, int]:
        if name not in self._sizes:
            if "/" in name or name not in _core.ledger_shards(str(self._folder)):
                raise IntegrityError(f"the ledger has no shard `{name}`")
            shard = _core.LedgerShard(str(self._folder / name))
            checkpoint = shard.checkpoint() if self._keys is None else shard.verify(list(self._keys))
            self._shards[name], self._sizes[name] = shard, int(checkpoint["size"]) if checkpoint else 0
        return self._shards[name], self._sizes[name]

    def event(self, place: Sequence[Any], meter: str) -> UsageEvent:
        shard, size = self.shard(str(place[0]))
        index = int(place[1])
        if not 0 <= index < size:
            raise IntegrityError(f"record {index} of shard `{place[0]}` is not covered by its checkpoint of {size}")
        found = self._read.get((str(place[0]), index))
        if found is None:
            record = shard.records(index, index + 1, size)[0]
            found = {(event.meter, event.place[2]): event for event in events_of(record, self._folder)}
            self._read[str(place[0]), index] = found
        event = found.get((meter, int(place[2])))
        if event is None:
            raise IntegrityError(f"record {index} of shard `{place[0]}` holds no usage of `{meter}`")
        return event

    def all_shards(self) -> Iterable[tuple[_core.LedgerShard, int]]:
        for name in _core.ledger_shards(str(self._folder)):
            yield self.shard(name)


def verify_invoice(document: Mapping[str, Any], ledger: Path, keys: Sequence[_core.VerifyingKey]) -> list[Finding]:
    """Checks every line of an invoice against the ledger, and the arithmetic of all of it.

    Args:
        document: The invoice, as `creto invoice show --json` prints it.
        ledger: The folder of the ledger's public tiles.
        keys: The ledger's public keys.

    Returns:
        What was checked; the invoice holds where every finding does.
    """
    if document.get("format") != FORMAT:
        return [Finding("format", False, f"`{document.get('format')}` is not `{FORMAT}`")]
    tiles = _Tiles(ledger, keys)
    findings: list[Finding] = []
    seen: set[tuple[Any, ...]] = set()
    for line in document["lines"]:
        findings.append(
            _guarded(f"line {line.get('line')}", lambda line=line: _check_line(document, line, tiles, seen))
        )
    findings.append(_guarded("total", lambda: _check_total(document)))
    findings.append(_guarded("recorded", lambda: _check_recorded(document, tiles)))
    return findings


def _guarded(what: str, check: Any) -> Finding:
    try:
        return Finding(what, True, check())
    except (CretoError, KeyError, ValueError, TypeError, IndexError, ArithmeticError) as error:
        return Finding(what, False, str(error) or type(error).__name__)


def _check_line(document: Mapping[str, Any], line: Mapping[str, Any], tiles: _Tiles, seen: set[tuple[Any, ...]]) -> str:
    from creto.metering._invoice import _micros

    price = price_of(line)
    start, end = _micros(line["start"]), _micros(line["end"])
    events = []
    for place in line["evidence"]:
        name = (*place, line["meter"])
        if name in seen:
            raise IntegrityError(f"the event at {place} is charged twice")
        seen.add(name)
        event = tiles.event(place, line["meter"])
        if event.customer != document["customer"]:
            raise IntegrityError(f"the event at {place} is usage of `{event.customer}`")
        if not start <= event.at < end:
            raise IntegrityError(f"the event at {place} is not of this time")
        if not matches(price, {**event.dimensions, "customer": event.customer}):
            raise IntegrityError(f"the event at {place} does not fit the price's conditions")
        events.append(event)
    root = _core.merkle_root([event.leaf() for event in events]).hex()
    if root != line["commitment"] or len(events) != line["events"]:
        raise IntegrityError(f"the events make the commitment {root}, and the line says {line['commitment']}")
    quantity = measure(price.aggregation, events)
    stated = str(line["quantity"])
    if stated != (str(quantity.numerator) if quantity.denominator == 1 else str(quantity)):
        raise IntegrityError(f"the events add up to {quantity}, and the line says {stated}")
    cost = line_amount(line, document["currency"])
    if cost != Decimal(line["amount"]):
        raise IntegrityError(f"{stated} of `{line['meter']}` cost {cost}, and the line says {line['amount']}")
    return f"{len(events)} events in the ledger make {stated} of `{line['meter']}`, which cost {cost}"


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


def _check_recorded(document: Mapping[str, Any], tiles: _Tiles) -> str:
    if not document["number"]:
        return "a draft is not recorded"
    own = digest(document)
    what = "invoice:credit" if document["kind"] == "credit_note" else "invoice:finalize"
    for shard, size in tiles.all_shards():
        for record in shard.records(0, size, size) if size else ():
            if record["what"] == what and record["resource"] == document["number"]:
                if record["digest"] == own:
                    return f"record {record['index']} of shard `{record['shard']}` holds the invoice's digest"
                raise IntegrityError(f"the ledger recorded {document['number']} with another digest")
    raise IntegrityError(f"no checkpoint covers a record of {document['number']} yet")


def prove_event(document: Mapping[str, Any], line: int, event: int, ledger: Path) -> dict[str, Any]:
    """A proof that one event is in a line's commitment and in the ledger, to be checked without either.

    Args:
        document: The invoice.
        line: The line's number, from 1.
        event: The event's place in the line, from 1.
        ledger: The ledger's folder.

    Raises:
        IntegrityError: There is no such line or event, or the ledger does not hold it.
    """
    found = next((item for item in document["lines"] if item["line"] == line), None)
    if found is None or not 1 <= event <= len(found["evidence"]):
        raise IntegrityError(f"the invoice has no event {event} in line {line}")
    tiles = _Tiles(ledger, None)
    events = [tiles.event(place, found["meter"]) for place in found["evidence"]]
    leaves = [one.leaf() for one in events]
    proved = events[event - 1]
    name, index, position = proved.place
    shard, size = tiles.shard(name)
    entry = shard.entry(index, size)
    proof = {
        "format": "creto-usage-proof/1",
        "invoice": document["number"],
        "digest": digest(document),
        "line": line,
        "commitment": found["commitment"],
        "event": leaves[event - 1].decode(),
        "place": event - 1,
        "size": len(leaves),
        "path": [step.hex() for step in _core.merkle_path(leaves, event - 1)],
        "entry": entry.hex(),
        "ledger": shard.prove(index),
    }
    record = _core.ledger_decode(entry, name, index)
    if record["what"] == BATCH:
        lines = [batch_line(one) for one in events_of(record, ledger)]
        path = [step.hex() for step in _core.merkle_path(lines, position)]
        proof["batch"] = {"size": len(lines), "path": path}
    return proof


def verify_event(proof: Mapping[str, Any], keys: Sequence[_core.VerifyingKey]) -> list[Finding]:
    """Checks what `prove_event` made, with the ledger's public keys alone.

    Args:
        proof: The proof.
        keys: The ledger's public keys; one of them signed.
    """
    import json

    def in_commitment() -> str:
        path = [bytes.fromhex(step) for step in proof["path"]]
        root = _core.merkle_path_root(proof["event"].encode(), int(proof["place"]), int(proof["size"]), path)
        if root is None or root.hex() != proof["commitment"]:
            raise IntegrityError("the event does not lead to the line's commitment")
        return f"event {int(proof['place']) + 1} of {proof['size']} is in the line's commitment"

    def in_ledger() -> str:
        entry = bytes.fromhex(proof["entry"])
        failure: CretoError | None = None
        for key in keys:
            try:
                checkpoint = _core.ledger_verify_proof(proof["ledger"], entry, key)
            except CretoError as error:
                failure = error
                continue
            return f"its record is in the ledger {checkpoint['origin']} of {checkpoint['size']} records"
        raise failure or IntegrityError("no key was given")

    def same() -> str:
        event = json.loads(proof["event"])
        shard, index, position = event["place"]
        record = _core.ledger_decode(bytes.fromhex(proof["entry"]), shard, index)
        if record["what"] == BATCH:
            stated = {name: value for name, value in event.items() if name != "place"}
            path = [bytes.fromhex(step) for step in proof["batch"]["path"]]
            root = _core.merkle_path_root(canonical(stated), int(position), int(proof["batch"]["size"]), path)
            if root is None or root.hex() != record["digest"]:
                raise IntegrityError("the event does not lead to the root of the recorded batch")
        elif proof["event"].encode() not in [found.leaf() for found in events_of(record)]:
            raise IntegrityError("the record does not hold this event")
        return f"the record holds {event['quantity']} of `{event['meter']}` by `{event['customer']}`"

    return [_guarded("commitment", in_commitment), _guarded("ledger", in_ledger), _guarded("event", same)]
