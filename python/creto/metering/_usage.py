"""Usage events: what was used, by whom, when; read from the ledger, each once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import InvalidInputError

__all__ = [
    "Bucket",
    "Place",
    "Usage",
    "UsageEvent",
    "acts_of",
    "ledger_events",
    "path_of",
    "read_usage",
    "shard_records",
]

Place = tuple[str, int, int]
"""Where an event stands in the ledger: shard, index of the record, position in its batch, or among its meters."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What was used of one meter by one act, or as someone else says.

    Args:
        source: Who says so; ids are unique within a source.
        id: Unique within the source; of what an act used, the act's and the meter's.
        customer: Who pays: the organisation of the path.
        meter: Of what.
        quantity: How much, in the meter's smallest unit; negative for a correction.
        at: Microseconds since the epoch.
        dimensions: What it can be grouped and priced by.
        place: Where it stands in the ledger.

    Example:
        >>> event = UsageEvent("gateway", "req-1", "acme", "pages", 3, 1_764_000_000_000_000, {"team": "research"})
        >>> event.to_cloudevent()["type"], UsageEvent.from_cloudevent(event.to_cloudevent()) == event
        ('creto.usage.pages', True)
    """

    source: str
    id: str
    customer: str
    meter: str
    quantity: int
    at: int
    dimensions: Mapping[str, str] = field(default_factory=dict)
    place: Place = ("", 0, 0)

    def leaf(self) -> bytes:
        """The bytes that a batch and an invoice line commit to: RFC 8785 JSON of all that the event says."""
        own = dict(self.dimensions)
        return bytes(_core.usage_leaf(self.source, self.id, self.customer, self.meter, self.quantity, self.at, own))

    def to_cloudevent(self) -> dict[str, Any]:
        """As a CloudEvents 1.0 event in JSON."""
        from datetime import UTC, datetime

        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": f"creto.usage.{self.meter}",
            "subject": self.customer,
            "time": datetime.fromtimestamp(self.at / 1e6, UTC).isoformat().replace("+00:00", "Z"),
            "data": {"meter": self.meter, "quantity": str(self.quantity), "dimensions": dict(self.dimensions)},
        }

    @classmethod
    def from_cloudevent(cls, event: Mapping[str, Any]) -> UsageEvent:
        """From a CloudEvents 1.0 event in JSON.

        Args:
            event: With `id`, `source`, `subject` (who pays), `time`, and data of `meter`, `quantity`, `dimensions`.

        Raises:
            InvalidInputError: Something is missing or has no valid reading; the text names it.

        Example:
            >>> event = UsageEvent("app", "1", "acme", "pages", 3, 1_795_521_600_000_000, {"team": "research"})
            >>> UsageEvent.from_cloudevent(event.to_cloudevent()) == event
            True
        """
        from datetime import datetime

        data = event.get("data") or {}
        try:
            quantity = _quantity(data["quantity"])
            time = datetime.fromisoformat(event["time"])
            dimensions = {_text(name): _text(str(value)) for name, value in (data.get("dimensions") or {}).items()}
            made = cls(
                source=_text(event["source"]),
                id=_text(event["id"]),
                customer=_text(event["subject"]),
                meter=_text(data["meter"]),
                quantity=quantity,
                at=round(time.timestamp() * 1_000_000),
                dimensions=dimensions,
            )
        except KeyError as error:
            raise InvalidInputError(f"usage event without `{error.args[0]}`") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"usage event `{event.get('id')}`: {error}") from error
        if time.tzinfo is None:
            raise InvalidInputError(f"usage event `{made.id}`: `time` needs a zone, such as `2026-01-01T00:00:00Z`")
        return made


def _text(value: Any) -> str:
    """Text as it was sent: an id made of nothing is every nothing's, and an event that shares its id is not charged."""
    if not isinstance(value, str):
        raise TypeError(f"`{value}` is not text")
    value.encode()  # half a surrogate pair has no bytes to record
    return value


def _quantity(value: Any) -> int:
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(written, str) or not re.fullmatch(r"-?[0-9]{1,30}", written):
        raise ValueError(f"the quantity `{str(value)[:40]}` is no whole number in decimal digits")
    return int(written)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the events of one window and group add up to.

    Args:
        start: Microseconds since the epoch.
        end: Microseconds since the epoch.
        group: The values of the dimensions grouped by.
        value: Exact.
        events: How many.

    Example:
        >>> usage = Usage([UsageEvent("app", str(n), "acme", "pages", n, n) for n in (1, 2)])
        >>> usage.aggregate("pages", start=0, end=60_000_000)
        [Bucket(start=0, end=60000000, group=(), value=Fraction(3, 1), events=2)]
    """

    start: int
    end: int
    group: tuple[str, ...]
    value: Fraction
    events: int


class Usage:
    """Usage events, each once, and what they add up to.

    Args:
        events: To begin with.

    Example:
        >>> usage = Usage([UsageEvent("app", str(n), "acme", "pages", n, n, {"team": "ab"[n % 2]}) for n in range(5)])
        >>> usage.add(UsageEvent("app", "4", "acme", "pages", 4, 4))
        False
        >>> [(bucket.group, int(bucket.value)) for bucket in usage.aggregate("pages", by=["team"])]
        [(('a',), 6), (('b',), 4)]
    """

    def __init__(self, events: Iterable[UsageEvent] = ()) -> None:
        self._table = _core.UsageTable()
        self._events: list[UsageEvent] = []
        self._ledger: tuple[Path, int, int] | None = None
        for event in events:
            self.add(event)

    @classmethod
    def of_ledger(cls, folder: Path, start: int = 0, end: int = 2**62) -> Usage:
        """The usage that a ledger holds, also what no checkpoint covers yet, which cannot be proved yet.

        Args:
            folder: The ledger's folder.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.

        Raises:
            IntegrityError: A batch of the ledger was changed.
        """
        made = cls()
        if folder.exists():
            made._table.read(str(folder), start, end)
            made._ledger = folder, start, end
        return made

    @property
    def events(self) -> list[UsageEvent]:
        """Every event, in the order in which they came."""
        if self._ledger is not None and not self._events:
            folder, start, end = self._ledger
            seen: set[tuple[str, str]] = set()
            for shard in _core.ledger_shards(str(folder)):
                for event in ledger_events(folder, shard):
                    if start <= event.at < end and (event.source, event.id) not in seen:
                        seen.add((event.source, event.id))
                        self._events.append(event)
        return self._events

    def add(self, event: UsageEvent) -> bool:
        """Takes an event.

        Returns:
            False where one of the same source and id was taken before.
        """
        dimensions = {**event.dimensions, "customer": event.customer}
        fresh = self._table.add(event.source, event.id, event.meter, event.quantity, event.at, dimensions)
        if fresh:
            self.events.append(event)
        return fresh

    def __len__(self) -> int:
        return len(self._table)

    @property
    def duplicates(self) -> int:
        """How many events were offered again."""
        return int(self._table.duplicates)

    @property
    def meters(self) -> list[str]:
        """The meters that were used, sorted."""
        return list(self._table.meters())

    def select(self, meter: str, start: int, end: int, only: Mapping[str, str] | None = None) -> list[UsageEvent]:
        """The events of a meter and a time, in the order in which they came.

        Args:
            meter: Of what.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            only: With these dimensions.
        """
        return [self.events[row] for row in self._table.select(meter, start, end, dict(only or {}))]

    def aggregate(
        self,
        meter: str,
        aggregation: str = "sum",
        *,
        start: int = 0,
        end: int = 2**62,
        of: str | None = None,
        window: str | None = None,
        time_zone: str = "UTC",
        by: Sequence[str] = (),
        only: Mapping[str, str] | None = None,
    ) -> list[Bucket]:
        """What the events of a meter add up to.

        Args:
            meter: Of what.
            aggregation: `sum`, `count`, `min`, `max`, `avg`, `latest`, `unique` or `weighted` (times seconds).
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            of: For `unique`: of which dimension.
            window: `minute`, `hour`, `day`, `week`, `month`, `year`, or a length such as `15m`; all of it
                where there is none.
            time_zone: Of calendar windows.
            by: Dimensions to group by.
            only: With these dimensions.

        Raises:
            InvalidInputError: There is no such aggregation, window or zone, or the sum is beyond 128 bits.
        """
        rows = self._table.aggregate(
            meter,
            aggregation,
            start,
            end,
            of=of,
            window=window,
            time_zone=time_zone,
            by=list(by),
            only=dict(only or {}),
        )
        return [Bucket(s, e, tuple(g), Fraction(n, d), events) for s, e, g, n, d, events in rows]


def ledger_events(folder: Path, shard: str, start: int = 0, end: int | None = None) -> Iterator[UsageEvent]:
    """The usage events that records of the ledger hold: one for each meter of an act that ended, and those of batches.

    Args:
        folder: The ledger's folder.
        shard: The shard's name.
        start: Index of the first record.
        end: Index after the last; by default all that is on disk is read.

    Raises:
        IntegrityError: A batch is not the one that was recorded.
    """
    for source, id, customer, meter, quantity, at, own, name, record, position in _core.usage_events(
        str(folder), shard, start, end
    ):
        yield UsageEvent(source, id, customer, meter, quantity, at, own, (name, record, position))


def path_of(record: Mapping[str, Any]) -> list[str]:
    """The quota path that a record holds, organisation first; empty where it holds none.

    Args:
        record: As `_core.LedgerShard.records` gives them.
    """
    try:
        path = json.loads((record.get("detail") or {}).get("path", "[]"))
    except ValueError:
        return []
    return [str(name) for name in path] if isinstance(path, list) else []


def shard_records(folder: Path, name: str, *, since: int = 0, tail: bool = True) -> Iterator[dict[str, Any]]:
    """The records of one shard, in order, from the first one at `since` or later on.

    Args:
        folder: The ledger's folder.
        name: Of the shard.
        since: Microseconds since the epoch; a shard's records are in the order of time.
        tail: True to read what no checkpoint covers yet.
    """
    shard = _core.LedgerShard(str(folder / name))
    checkpoint = shard.checkpoint()
    size = int(checkpoint["size"]) if checkpoint else 0
    first = size
    while since and first > 0:
        start = max(0, first - _CHUNK)
        if (int(shard.records(start, start + 1, size)[0]["timestamp"]) >> 12) < since:
            break
        first = start
    first = max(0, first - _CHUNK) if since else 0
    for start in range(first, size, _CHUNK):
        yield from shard.records(start, min(start + _CHUNK, size), size)
    if tail:
        for record in shard.tail(size):
            record.setdefault("shard", name)
            yield record


def acts_of(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[list[str], dict[str, int], int, bytes]]:
    """What acts used, as `QuotaEnforcer.replay` takes it: as their outcome says, or their intent where there is none.

    Args:
        records: Of the ledger, in order.
    """
    found: dict[str, tuple[list[str], dict[str, int], int, bytes]] = {}
    for record in records:
        if record.get("kind") not in {"intent", "outcome"}:
            continue
        path, usage = path_of(record), dict(record.get("usage") or {})
        if path:
            found[record["act"]] = (path, usage, int(record["timestamp"]), bytes.fromhex(record["act"]))
    yield from (act for act in found.values() if act[1])


def read_usage(folder: Path, *, start: int = 0, end: int = 2**62) -> Usage:
    """The usage that a ledger holds, each event once.

    Args:
        folder: The ledger's folder.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     agent = layer.agent("researcher")
        ...     _ = layer.perform_blocking(agent, "tool:call", "add", lambda: 1 + 1, usage={"tool_calls": 1})
        >>> read_usage(layer.parts.folder / "ledger").meters
        ['tool_calls']
    """
    return Usage.of_ledger(folder, start, end)
