"""Where an invoice's sums come from: stretches of the ledger, added up by the native module, or events in memory."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from creto import _core
from creto._progress import Progress, watched
from creto.metering._event import UsageEvent, check_event
from creto.metering._usage import covered

__all__ = ["EventEvidence", "Evidence", "LedgerEvidence", "Stretch", "bounds", "segments", "stretches_of", "through"]

Stretch = tuple[str, int, int]
"""Records of a shard: its name, the first record, the one after the last."""


def segments(ledger: Path) -> Path:
    """Where the segments of a ledger lie."""
    return ledger.parent / "segments"


class Evidence(Protocol):
    """What events add up to, with commitments to them."""

    @property
    def stretches(self) -> Sequence[Stretch]:
        """Which records the events are of."""
        ...

    def totals(
        self,
        cuts: Sequence[int],
        *,
        customers: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        after: Mapping[str, int] | None = None,
    ) -> _core.UsageTotals:
        """Adds up every series of events.

        Args:
            cuts: Microseconds since the epoch, rising: n + 1 of them bound n intervals.
            customers: Of these only.
            keep: Meters whose aggregation needs each event.
            after: By shard, from which record on events are counted.
        """
        ...

    def until(self, reach: Mapping[str, int]) -> Evidence:
        """The part of it that lies before a record of each shard.

        Args:
            reach: By shard, the first record that is left out.
        """
        ...


class LedgerEvidence:
    """The usage of a ledger, as far as checkpoints cover it: only what can be proved.

    Args:
        ledger: The ledger's folder.
        stretches: Which records, read from the ledger itself; by default all that checkpoints cover now, by the
            segments that lie beside the ledger.
        recount: True to add up every row, and not to rely on what segments say of themselves.
        progress: Called on another thread with what is done, and how many records of how many that was done with.

    Raises:
        IntegrityError: The ledger is damaged.

    Example:
        >>> import tempfile
        >>> from creto.metering import Ingest
        >>> folder = Path(tempfile.mkdtemp())
        >>> clock = _core.HybridLogicalClock(str(folder / "clock"))
        >>> ledger = _core.Ledger(str(folder / "ledger"), clock, _core.SigningKey.generate())
        >>> start = 1_795_521_600_000_000
        >>> with Ingest(ledger, folder / "ledger", clock) as ingest:
        ...     ingest.take_blocking([UsageEvent("app", "1", "acme", "pages", 3, start)])
        Taken(taken=1, duplicates=0)
        >>> ledger.close_blocking()
        >>> totals = LedgerEvidence(folder / "ledger").totals([start, start + 60_000_000])
        >>> numerator, denominator, events, commitment = totals.line(totals.parts(), "sum", 0)
        >>> numerator, denominator, events
        (3, 1, 1)
    """

    def __init__(
        self,
        ledger: Path,
        *,
        stretches: Sequence[Stretch] | None = None,
        recount: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._recount, self._progress = recount, progress
        self.stretches: list[Stretch]
        if stretches is None:
            self._index = _core.UsageIndex(str(ledger), str(segments(ledger)))
            reach = through(bounds(self._index.stretches()))
            left = sum(covered(ledger, name) - reach.get(name, 0) for name in _core.ledger_shards(str(ledger)))
            with watched(progress, "in order", left) as counter:
                self._index.advance(counter)
            self.stretches = self._index.stretches()
        else:
            self._index = _core.UsageIndex(str(ledger))
            self.stretches = list(stretches)

    def totals(
        self,
        cuts: Sequence[int],
        *,
        customers: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        after: Mapping[str, int] | None = None,
        trace: tuple[str, str] | None = None,
    ) -> _core.UsageTotals:
        """Adds up every series of events; `trace` names one to be proved by its source and id."""
        with watched(self._progress, "added up", sum(end - begin for _, begin, end in self.stretches)) as counter:
            return self._index.totals(
                self.stretches,
                list(cuts),
                customers=None if customers is None else list(customers),
                keep=list(keep),
                after=None if after is None else dict(after),
                trace=trace,
                recount=self._recount,
                progress=counter,
            )

    def until(self, reach: Mapping[str, int]) -> LedgerEvidence:
        """The part of it that lies before a record of each shard."""
        made = copy.copy(self)
        ends = [(shard, start, min(end, reach.get(shard, 0))) for shard, start, end in self.stretches]
        made.stretches = [(shard, start, end) for shard, start, end in ends if start < end]
        return made


class EventEvidence:
    """Events in memory, each once.

    Args:
        events: With the places that they have, or none.

    Raises:
        InvalidInputError: One of them cannot be added up.

    Example:
        >>> evidence = EventEvidence([UsageEvent("app", str(n), "acme", "pages", n, n) for n in (3, 4)])
        >>> totals = evidence.totals([0, 10])
        >>> numerator, denominator, events, commitment = totals.line(totals.parts(), "sum", 0)
        >>> numerator, denominator, events
        (7, 1, 2)
    """

    def __init__(self, events: Iterable[UsageEvent]) -> None:
        self._events = list(events)
        for event in self._events:
            check_event(event)
        self._events.sort(key=lambda event: (event.place, event.at, event.id))
        ends: dict[str, int] = {}
        for event in self._events:
            shard, record, _ = event.place
            ends[shard] = max(ends.get(shard, 0), record + 1)
        self.stretches: list[Stretch] = [(shard, 0, end) for shard, end in sorted(ends.items())]

    def totals(
        self,
        cuts: Sequence[int],
        *,
        customers: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        after: Mapping[str, int] | None = None,
    ) -> _core.UsageTotals:
        """Adds up every series of events."""
        counted = [
            event
            for event in self._events
            if (customers is None or event.customer in customers)
            and event.place[1] >= (after or {}).get(event.place[0], 0)
        ]
        rows = [
            (
                *(event.source, event.id, event.customer, event.meter, event.quantity, event.at),
                *(dict(event.dimensions), event.place[0], event.place[1], position),
            )
            for position, event in enumerate(counted)
        ]
        return _core.UsageTotals.of(rows, list(cuts), keep=list(keep))

    def until(self, reach: Mapping[str, int]) -> EventEvidence:
        """The part of it that lies before a record of each shard."""
        return EventEvidence(event for event in self._events if event.place[1] < reach.get(event.place[0], 0))


def bounds(stretches: Iterable[Stretch]) -> dict[str, list[int]]:
    """Stretches as an invoice states them: by shard, where each begins, and where the last ends.

    Example:
        >>> bounds([("0000", 0, 5), ("0000", 5, 9), ("0001", 0, 2)])
        {'0000': [0, 5, 9], '0001': [0, 2]}
    """
    made: dict[str, list[int]] = {}
    for shard, start, end in stretches:
        made.setdefault(shard, [start]).append(end)
    return made


def stretches_of(stated: Mapping[str, Sequence[int]]) -> list[Stretch]:
    """What `bounds` wrote, as stretches."""
    return [
        (str(shard), int(start), int(end)) for shard, ends in stated.items() for start, end in itertools.pairwise(ends)
    ]


def through(stated: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """By shard, how far the stretches that an invoice states reach.

    Example:
        >>> through({"0000": [0, 5, 9]})
        {'0000': 9}
    """
    return {shard: int(ends[-1]) for shard, ends in stated.items()}
