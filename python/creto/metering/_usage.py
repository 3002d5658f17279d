"""What was used, read from the ledger, each event once; and what the events add up to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from creto import _core
from creto._progress import Progress, watched
from creto.metering._event import UsageEvent, check_event
from creto.metering._period import require_time

__all__ = [
    "Bucket",
    "Usage",
    "acts_of",
    "covered",
    "ledger_events",
    "path_of",
    "read_events",
    "read_usage",
    "shard_records",
]

_CHUNK = 4096
_EVENTS = 50_000


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
    def of_ledger(cls, folder: Path, start: int = 0, end: int = 2**62, progress: Progress | None = None) -> Usage:
        """The usage that a ledger holds, also what no checkpoint covers yet, which cannot be proved yet.

        Args:
            folder: The ledger's folder.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            progress: Called on another thread with shard, records read and records in all.

        Raises:
            IntegrityError: A batch of the ledger was changed.
            InvalidInputError: A time is no whole number, or lies before 1970.
        """
        require_time("start", start, 2**63)
        require_time("end", end, 2**63)
        made = cls()
        if folder.exists():
            for name in _core.ledger_shards(str(folder)):
                with watched(progress, name, covered(folder, name)) as counter:
                    made._table.read(str(folder), name, start, end, counter)
            made._ledger = folder, start, end
        return made

    @property
    def events(self) -> list[UsageEvent]:
        """Every event, in the order in which they came."""
        if self._ledger is not None and not self._events:
            folder, start, end = self._ledger
            self._events = list(read_events(folder, start=start, end=end))
        return self._events

    def add(self, event: UsageEvent) -> bool:
        """Takes an event.

        Returns:
            False where one of the same source and id was taken before.

        Raises:
            InvalidInputError: It cannot be added up.
        """
        check_event(event)
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
        require_time("start", start, 2**63)
        require_time("end", end, 2**63)
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
    until = covered(folder, shard) if end is None else end
    many = 64
    while start < until:
        last = min(start + many, until)
        found = _core.usage_events(str(folder), shard, start, last)
        yield from map(_event, found)
        # A record holds from none to 10,000 events: so many records are read at once that memory is never full of them.
        many = min(2 * many, 1 << 16) if len(found) < _EVENTS else max(1, many // 2)
        start = last
    if end is None:
        yield from map(_event, _core.usage_events(str(folder), shard, start))


def _event(told: tuple[Any, ...]) -> UsageEvent:
    source, id, customer, meter, quantity, at, own, name, record, position = told
    return UsageEvent(source, id, customer, meter, quantity, at, own, (name, record, position))


def read_events(
    folder: Path, *, start: int = 0, end: int = 2**62, progress: Progress | None = None
) -> Iterator[UsageEvent]:
    """The usage events of a ledger, each once, one after the other, in the order in which they were recorded.

    Args:
        folder: The ledger's folder.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        progress: Called with shard, records read and records in all.

    Raises:
        IntegrityError: A batch of the ledger was changed.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     agent = layer.agent("researcher")
        ...     _ = layer.perform_blocking(agent, "tool:call", "add", lambda: 1 + 1, usage={"tool_calls": 1})
        ...     ledger = layer.parts.folder / "ledger"
        >>> [(event.meter, event.quantity) for event in read_events(ledger)]
        [('tool_calls', 1)]
    """
    names = _core.ledger_shards(str(folder)) if folder.exists() else []
    seen: set[tuple[str, str]] = set()
    for name in names:
        size = told = covered(folder, name)
        for count, event in enumerate(ledger_events(folder, name)):
            if progress is not None and count % 1_000 == 0:
                told = max(size, event.place[1] + 1)
                progress(name, event.place[1] + 1, told)
            # What came through the way in is in one shard once; an act's own, or one of two shards, may stand again.
            if len(names) > 1 or event.source == "ledger":
                if (event.source, event.id) in seen:
                    continue
                seen.add((event.source, event.id))
            if start <= event.at < end:
                yield event
        if progress is not None:
            progress(name, told, told)


def covered(folder: Path, name: str) -> int:
    """How many records of a shard its checkpoint covers."""
    checkpoint = _core.LedgerShard(str(folder / name)).checkpoint()
    return int(checkpoint["size"]) if checkpoint else 0


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
    first = size = covered(folder, name)
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


def read_usage(folder: Path, *, start: int = 0, end: int = 2**62, progress: Progress | None = None) -> Usage:
    """The usage that a ledger holds, each event once: what acts used, and what was taken in from elsewhere.

    Args:
        folder: The ledger's folder.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
        progress: Called on another thread with shard, records read and records in all.

    Raises:
        IntegrityError: A batch of the ledger was changed.
        InvalidInputError: A time is no whole number, or lies before 1970.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     agent = layer.agent("researcher")
        ...     _ = layer.perform_blocking(agent, "tool:call", "add", lambda: 1 + 1, usage={"tool_calls": 1})
        ...     ledger = layer.parts.folder / "ledger"
        >>> read_usage(ledger).meters
        ['tool_calls']
    """
    return Usage.of_ledger(folder, start, end, progress)
