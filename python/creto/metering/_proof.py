"""The proof of one charged event: that it is in an invoice's line and in the ledger, to be checked without either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creto import _core
from creto._count import counted
from creto.audit._reading import check
from creto.errors import IntegrityError
from creto.metering._books import alike, period_of
from creto.metering._event import UsageEvent
from creto.metering._evidence import LedgerEvidence, stretches_of
from creto.metering._invoice import digest
from creto.metering._price import matches
from creto.metering._rate import Offer, Rated, sums
from creto.metering._shards import Shards
from creto.metering._usage import ledger_events
from creto.metering._verify import Finding, guarded

__all__ = ["PROOF", "line_events", "prove_event", "verify_event"]

PROOF = "creto-usage-proof/2"


def _found(document: Mapping[str, Any], line: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = next((one for one in document["lines"] if one["line"] == line), None)
    if found is None:
        raise IntegrityError(f"the invoice has no line {line}")
    return found


def line_events(document: Mapping[str, Any], line: int, ledger: Path) -> list[UsageEvent]:
    """The events that a line is for, in the order of time.

    Args:
        document: The invoice.
        line: The line's number, from 1.
        ledger: The ledger's folder.

    Raises:
        IntegrityError: There is no such line, or the ledger was changed.
    """
    found = _found(document, line)
    after = (found.get("before") or {}).get("after", {})
    prices = [(period_of(one), one is found) for one in alike(document, found)]
    seen: set[tuple[str, str]] = set()
    events = []
    for shard, first, last in stretches_of(document["evidence"]):
        for event in ledger_events(ledger, shard, first, last):
            if (event.source, event.id) in seen:
                continue
            seen.add((event.source, event.id))
            if event.customer != document["customer"] or event.place[1] < after.get(shard, 0):
                continue
            own = {**event.dimensions, "customer": event.customer}
            fitting = [
                (len(one.price.when), mine)
                for one, mine in prices
                if one.price.meter == event.meter and one.start <= event.at < one.end and matches(one.price, own)
            ]
            if fitting and max(fitting)[1] is True:
                events.append(event)
    return sorted(events, key=lambda event: (event.at, event.place))


def prove_event(document: Mapping[str, Any], line: int, event: int, ledger: Path) -> dict[str, Any]:
    """A proof that one event is in a line's commitment and in the ledger, to be checked without either.

    Args:
        document: The invoice.
        line: The line's number, from 1.
        event: The event's place in the line, from 1, as `line_events` orders them.
        ledger: The ledger's folder.

    Raises:
        IntegrityError: There is no such line or event, or the ledger does not hold it.
    """
    found = _found(document, line)
    events = line_events(document, line, ledger)
    if not 1 <= event <= len(events):
        raise IntegrityError(f"line {line} has {counted(len(events), 'event')}, and none is number {event}")
    proved = events[event - 1]
    lines = alike(document, found)
    periods = [period_of(one) for one in lines]
    own = sums(
        _Traced(document, ledger, (proved.source, proved.id)),
        (found.get("before") or document)["cuts"],
        [period.price for period in periods],
        customers=[str(document["customer"])],
        after=(found.get("before") or {}).get("after"),
    )
    rated = Rated(own, str(document["customer"]), Offer(periods))
    place = next(place for place, one in enumerate(lines) if one is found)
    proof = own.proof(rated.assigned[place])
    if proof is None:
        raise IntegrityError(f"event {event} is not in line {line}")
    leaf, steps = proof
    name, index, position = proved.place
    shard, size = Shards(ledger, None).of(name)
    entry = shard.entry(index, size)
    made: dict[str, Any] = {
        "format": PROOF,
        "invoice": document["number"],
        "digest": digest(document),
        "line": line,
        "commitment": found["commitment"],
        "event": leaf.decode(),
        "steps": [{"index": at, "size": count, "path": path} for at, count, path in steps],
        "entry": entry.hex(),
        "ledger": shard.prove(index),
    }
    if not _core.usage_leaves(entry):
        leaves = [one.leaf() for one in ledger_events(ledger, name, index, index + 1)]
        path = [step.hex() for step in _core.merkle_path(leaves, position)]
        made["batch"] = {"index": position, "size": len(leaves), "path": path}
    return made


class _Traced(LedgerEvidence):
    """Evidence that remembers the way of one event."""

    def __init__(self, document: Mapping[str, Any], ledger: Path, event: tuple[str, str]) -> None:
        super().__init__(ledger, stretches=stretches_of(document["evidence"]))
        self._event = event

    def totals(self, cuts: Sequence[int], **which: Any) -> _core.UsageTotals:
        return super().totals(cuts, **{**which, "trace": self._event})


def verify_event(proof: Mapping[str, Any], keys: Sequence[_core.VerifyingKey]) -> list[Finding]:
    """Checks what `prove_event` made, with the ledger's public keys alone.

    Args:
        proof: The proof.
        keys: The ledger's public keys; one of them signed.
    """
    leaf = str(proof.get("event")).encode()

    def in_commitment() -> str:
        # Three trees, each one's root a leaf of the next: a stretch's events, its stretches, the line's series.
        reached = _climb(leaf, proof["steps"])
        if len(proof["steps"]) != 3 or reached != proof["commitment"]:
            raise IntegrityError("the event does not lead to the line's commitment")
        return f"the event is in the commitment of line {int(proof['line'])} of {proof['invoice'] or 'the draft'}"

    def in_ledger() -> str:
        entry = bytes.fromhex(proof["entry"])
        checkpoint = check(proof["ledger"], entry, keys)
        return f"its record is in the ledger {checkpoint['origin']} of {checkpoint['size']} records"

    def same() -> str:
        entry = bytes.fromhex(proof["entry"])
        if "batch" in proof:
            record = _core.ledger_decode(entry)
            if record["what"] != "usage:batch" or _climb(leaf, [proof["batch"]]) != record["digest"]:
                raise IntegrityError("the event does not lead to the root of the recorded batch")
        elif leaf not in _core.usage_leaves(entry):
            raise IntegrityError("the record does not hold this event")
        event = json.loads(leaf)
        return f"the record holds {event['quantity']} of `{event['meter']}` by `{event['customer']}`"

    return [guarded("commitment", in_commitment), guarded("ledger", in_ledger), guarded("event", same)]


def _climb(leaf: bytes, steps: Sequence[Mapping[str, Any]]) -> str:
    """Where a leaf's way leads: the first step hashes it, the others take the root before them as a leaf's hash."""
    root = _core.merkle_leaf(leaf)
    for step in steps:
        path = [bytes.fromhex(one) for one in step["path"]]
        above = _core.merkle_hash_root(root, int(step["index"]), int(step["size"]), path)
        if above is None:
            raise IntegrityError("a path does not fit its place")
        root = above
    return root.hex()
