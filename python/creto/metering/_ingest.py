"""Takes usage events from elsewhere into the ledger: in batches, each event once, and durable when that is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import IntegrityError, InvalidInputError
from creto.metering._usage import BATCH, Usage, UsageEvent, shard_records

__all__ = ["Ingest", "Taken", "batch_events", "batch_line"]

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the events that were offered.

    Args:
        taken: How many are in the ledger now.
        duplicates: How many were there before.
    """

    taken: int
    duplicates: int


class Ingest:
    """The way in for usage events of others. A source belongs to one process at a time.

    Args:
        ledger: Of this process.
        folder: The ledger's folder.
        since: Microseconds since the epoch; ids are known from here on, earlier events are refused.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> clock = _core.HybridLogicalClock(str(folder / "clock"))
        >>> ledger = _core.Ledger(str(folder / "ledger"), clock, _core.SigningKey.generate())
        >>> ingest = Ingest(ledger, folder / "ledger")
        >>> event = UsageEvent("app", "1", "acme", "pages", 3, 1_795_521_600_000_000)
        >>> ingest.take([event, event])
        Taken(taken=1, duplicates=1)
        >>> ledger.close_blocking()
    """

    def __init__(self, ledger: _core.Ledger, folder: Path, since: int = 0) -> None:
        self._ledger = ledger
        self._since = since
        self._seen = Usage()
        for name in _core.ledger_shards(str(folder)):
            for record in shard_records(folder, name):
                for event in batch_events(record, folder):
                    if event.at >= since:
                        self._seen.add(event)

    def take(self, events: Iterable[UsageEvent]) -> Taken:
        """Takes events; returns once those that are new are on disk.

        Args:
            events: At most 10,000; all of them are checked before any is taken.

        Raises:
            InvalidInputError: One of them has no valid reading, or is of a time that is closed.
        """
        offered = list(events)
        if len(offered) > _MOST:
            raise InvalidInputError(f"{len(offered)} events: offer at most {_MOST} at once")
        for event in offered:
            self._check(event)
        batch = Usage()
        fresh = [event for event in offered if not self._seen.has(event) and batch.add(event)]
        if fresh:
            lines = [batch_line(event) for event in fresh]
            root = _core.merkle_root(lines)
            record = {
                "who": "usage",
                "what": BATCH,
                "resource": fresh[0].source,
                "why": "usage taken in",
                "kind": "event",
                "id": root[:16].hex(),
                "act": root[:16].hex(),
                "digest": root.hex(),
                "detail": {"events": str(len(fresh))},
            }
            self._ledger.append_batch(record, root, b"\n".join(lines))
            # Known only once they are durable: a failed batch can be offered again.
            for event in fresh:
                self._seen.add(event)
        return Taken(len(fresh), len(offered) - len(fresh))

    def _check(self, event: UsageEvent) -> None:
        for name in ("source", "id", "customer", "meter"):
            value = getattr(event, name)
            if not isinstance(value, str) or not 0 < len(value) <= 1024:
                raise InvalidInputError(f"usage event `{event.id}`: `{name}` has 1 to 1024 characters")
        if isinstance(event.quantity, bool) or not isinstance(event.quantity, int):
            raise InvalidInputError(f"usage event `{event.id}`: quantity {event.quantity} is not a whole number")
        if not -(2**96) < event.quantity < 2**96:
            raise InvalidInputError(f"usage event `{event.id}`: quantity {event.quantity} is too large")
        if not self._since <= event.at < 2**51:
            raise InvalidInputError(f"usage event `{event.id}`: its time is closed, or is none")


def batch_line(event: UsageEvent) -> bytes:
    """An event as a batch holds it: RFC 8785 JSON, without its place, which is not known before it is recorded."""
    stated = {
        "at": event.at,
        "customer": event.customer,
        "dimensions": dict(event.dimensions),
        "id": event.id,
        "meter": event.meter,
        "quantity": str(event.quantity),
        "source": event.source,
    }
    return json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def batch_events(record: Mapping[str, Any], folder: Path) -> Iterator[UsageEvent]:
    """The events of a batch, once its Merkle root has been checked; none where the record is no batch.

    Args:
        record: As `_core.LedgerShard.records` gives them.
        folder: The ledger's folder.

    Raises:
        IntegrityError: The batch is not the one that was recorded.
    """
    if record.get("what") != BATCH or record.get("kind") != "event":
        return
    lines = _core.ledger_read_batch(str(folder), record["digest"]).split(b"\n")
    if _core.merkle_root(lines).hex() != record["digest"]:
        raise IntegrityError(f"the batch of record {record['index']} of shard `{record['shard']}` was changed")
    for position, line in enumerate(lines):
        stated = json.loads(line)
        yield UsageEvent(
            source=stated["source"],
            id=stated["id"],
            customer=stated["customer"],
            meter=stated["meter"],
            quantity=int(stated["quantity"]),
            at=int(stated["at"]),
            dimensions=stated["dimensions"],
            place=(str(record["shard"]), int(record["index"]), position),
        )
