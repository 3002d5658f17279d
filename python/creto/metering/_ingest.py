"""Takes usage events from elsewhere into the ledger: in batches, each event once, and durable when that is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import InvalidInputError
from creto.metering._event import UsageEvent, check_event

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Ingest", "Taken"]

Series = tuple[str, str, str, Mapping[str, str]]
"""Source, customer, meter and dimensions: what many events have in common."""


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
    """The way in for usage events of others. A source belongs to one process, from its first event to `close`.

    Args:
        ledger: Of this process.
        folder: The ledger's folder.
        clock: Of the state folder.
        since: Microseconds since the epoch; ids are known from here on, earlier events are refused.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> clock = _core.HybridLogicalClock(str(folder / "clock"))
        >>> ledger = _core.Ledger(str(folder / "ledger"), clock, _core.SigningKey.generate())
        >>> event = UsageEvent("app", "1", "acme", "pages", 3, 1_795_521_600_000_000)
        >>> with Ingest(ledger, folder / "ledger", clock) as ingest:
        ...     ingest.take_blocking([event, event])
        Taken(taken=1, duplicates=1)
        >>> ledger.close_blocking()
    """

    def __init__(self, ledger: _core.Ledger, folder: Path, clock: _core.HybridLogicalClock, since: int = 0) -> None:
        self._ledger, self._since = ledger, since
        self._ingest = _core.UsageIngest(ledger, str(folder), clock, since)

    def close(self) -> None:
        """Gives its sources free for other processes."""
        self._ingest.close()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self, event: UsageEvent) -> None:
        """Says whether an event could be taken, and takes nothing.

        Args:
            event: To be looked at.

        Raises:
            InvalidInputError: It has no valid reading, or is of a time that is closed.
        """
        columns = _columns([event])
        if event.at < self._since:
            raise InvalidInputError(f"usage event `{event.id}`: it is older than `metering.late_seconds` allows")
        self._ingest.check(*_native(*columns))

    async def take(self, events: Iterable[UsageEvent]) -> Taken:
        """Takes events; returns once those that are new are on disk.

        Args:
            events: At most 10,000; all of them are checked before any is taken.

        Raises:
            InvalidInputError: One of them has no valid reading, or is of a time that is closed.
            AlreadyExistsError: Another process takes in their source.
        """
        return await self.take_columns(*_columns(events))

    def take_blocking(self, events: Iterable[UsageEvent]) -> Taken:
        """As `take`, for code without an event loop."""
        return self.take_columns_blocking(*_columns(events))

    async def take_columns(
        self, series: Sequence[Series], which: Any, at: Any, quantity: Any, ids: Sequence[str]
    ) -> Taken:
        """Takes events in columns, the quick way; several may be under way at once.

        Args:
            series: Source, customer, meter and dimensions, each combination once.
            which: The number of each event's series: a uint32 array, or a list.
            at: Microseconds since the epoch: a uint64 array, or a list.
            quantity: In the meter's smallest unit: an int64 array, or a list.
            ids: Unique within the source.

        Raises:
            InvalidInputError: One of them has no valid reading, or is of a time that is closed.
            AlreadyExistsError: Another process takes in their source.
        """
        from anyio.to_thread import run_sync

        from creto._bridge import wait

        # On a thread: a source that is new to this process is locked and read first.
        taken, duplicates, ticket = await run_sync(self._offer, series, which, at, quantity, ids)
        await wait(lambda bridge, token: self._ledger.durable(ticket, bridge, token))
        return Taken(taken, duplicates)

    def take_columns_blocking(
        self, series: Sequence[Series], which: Any, at: Any, quantity: Any, ids: Sequence[str]
    ) -> Taken:
        """As `take_columns`, for code without an event loop."""
        taken, duplicates, ticket = self._offer(series, which, at, quantity, ids)
        self._ledger.durable_blocking(ticket)
        return Taken(taken, duplicates)

    def _offer(
        self, series: Sequence[Series], which: Any, at: Any, quantity: Any, ids: Sequence[str]
    ) -> tuple[int, int, int]:
        return self._ingest.take(*_native(series, which, at, quantity, ids))


def _native(
    series: Sequence[Series], which: Any, at: Any, quantity: Any, ids: Sequence[str]
) -> tuple[list[tuple[str, str, str, dict[str, str]]], Any, Any, Any, list[str]]:
    named = [(source, customer, meter, dict(own)) for source, customer, meter, own in series]
    return named, which, at, quantity, list(ids)


def _columns(
    events: Iterable[UsageEvent],
) -> tuple[list[Series], list[int], list[int], list[int], list[str]]:
    numbers: dict[tuple[Any, ...], int] = {}
    series: list[Series] = []
    which, at, quantities, ids = [], [], [], []
    if not isinstance(events, Iterable):
        raise InvalidInputError(f"`{events!r}` is one: give events in a list")
    for event in events:
        if not isinstance(event, UsageEvent):
            raise InvalidInputError(f"`{event!r}` is no `UsageEvent`; `UsageEvent.from_cloudevent` reads CloudEvents")
        check_event(event)
        own = (event.source, event.customer, event.meter, tuple(sorted(event.dimensions.items())))
        number = numbers.setdefault(own, len(series))
        if number == len(series):
            series.append((event.source, event.customer, event.meter, event.dimensions))
        which.append(number)
        at.append(event.at)
        quantities.append(event.quantity)
        ids.append(event.id)
    return series, which, at, quantities, ids
