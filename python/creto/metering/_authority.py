"""Who hands out the units that several processes share: at most a window's limit, each unit to one holder.

A holder spends only what it was handed, so no history overshoots. What a dead holder had counts as spent until it is
settled from its records in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from creto.errors import IntegrityError

if TYPE_CHECKING:
    from creto.store import Store, Transaction

__all__ = ["Authority", "DeadLease", "Grant", "StoreAuthority", "lease_key"]

_FOREVER = 2**63 - 1
Need = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grant:
    """Units handed out.

    Args:
        need: What was asked for.
        units: How many units.
        held: How many units this holder has of the window now, these included: it spends no more, whatever it thought.
        total: How many units all holders of this window have together, spent or not.
    """

    need: Need
    units: int
    held: int
    total: int


@dataclass(frozen=True, slots=True)
class DeadLease:
    """A lease whose holder did not renew it.

    Args:
        holder: Who had it.
        key: Of which count.
        end: End of the window, microseconds since the epoch.
        units: How many units.
        spent: How many the holder said were spent when it was last heard of.
        shard: Origin of the ledger's shard where its acts are recorded; empty where they are not.
        began: Timestamp word; none of its acts was recorded before.
        relaxed: True where its records may be lost, so that nothing of it can come back.
    """

    holder: str
    key: str
    end: int
    units: int
    spent: int
    shard: str
    began: int
    relaxed: bool


class Authority(Protocol):
    """What hands out units. Every method is one transaction, and may wait.

    Example:
        >>> import tempfile
        >>> from creto.metering import StoreAuthority
        >>> from creto.store import Store
        >>> need = {"organisation": "acme", "level": "team", "name": "research", "meter": "m", "window": "day"}
        >>> need |= {"end": 2**62, "limit": 100, "want": 80, "leased": 0, "used": 0}
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/store") as store:
        ...     authority = StoreAuthority(store)
        ...     [[one], [other]] = (authority.lease(holder, [need], 2**62) for holder in ("a", "b"))
        >>> 0 < one.units and 0 < other.units and one.units + other.units <= 100
        True
    """

    def lease(
        self, holder: str, needs: Sequence[Need], until: int, *, shard: str = "", relaxed: bool = False
    ) -> list[Grant]:
        """Hands out units; an answer for each need, of 0 units where there are none left."""
        ...

    def report(self, holder: str, leases: Sequence[Need], until: int) -> list[int]:
        """Notes what was spent of leases that are kept, and keeps them until `until` (microseconds since the epoch).

        For each, how many units the holder has: fewer than it thought where it was taken for dead and settled.
        """
        ...

    def give_back(self, holder: str, leases: Iterable[tuple[Need, int]]) -> None:
        """Takes back units that were not spent, with what was spent of the rest."""

    def dead(self, now: int) -> list[DeadLease]:
        """Leases that nobody renewed, of windows that have not ended."""
        ...

    def left_in(self, shard: str, holder: str) -> list[DeadLease]:
        """Leases that others than `holder` had who recorded in `shard`: whoever holds the shard now knows them dead."""
        ...

    def settle(self, lease: DeadLease, spent: int, *, sure: bool = False) -> int:
        """Frees what a dead holder did not spend, by its records; how many units. A second settlement frees nothing.

        `sure` where the holder is known to be dead, before its lease has run out.
        """
        ...


def lease_key(need: Need) -> str:
    """The name of a count, the same in every process.

    Args:
        need: A dict of `lease_needs`.
    """
    return "\x1f".join(str(need[part]) for part in ("organisation", "level", "name", "meter", "window"))


def _end(need: Need) -> int:
    return min(int(need["end"]), _FOREVER)


def _dead(row: Any) -> DeadLease:
    return DeadLease(row.holder, row.key, row.end, row.units, row.spent, row.shard, row.began, row.relaxed)


class StoreAuthority:
    """The authority in the store: SQLite for the processes of one machine, PostgreSQL beyond.

    Args:
        store: The store.

    Example:
        >>> import tempfile
        >>> from creto.metering import StoreAuthority
        >>> from creto.store import Store
        >>> need = {"organisation": "acme", "level": "team", "name": "t", "meter": "m", "window": "day",
        ...         "end": 2**62, "limit": 10, "want": 8, "leased": 0, "used": 0}
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     authority = StoreAuthority(store)
        ...     [authority.lease(holder, [need], 2**62)[0].units for holder in ("one", "two", "three")]
        [8, 2, 0]
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def lease(
        self, holder: str, needs: Sequence[Need], until: int, *, shard: str = "", relaxed: bool = False
    ) -> list[Grant]:
        """Hands out units, as the protocol says."""
        with self._store.begin() as tx:
            return [self._lease(tx, holder, need, until, shard, relaxed) for need in needs]

    @staticmethod
    def _lease(tx: Transaction, holder: str, need: Need, until: int, shard: str, relaxed: bool) -> Grant:
        from sqlalchemy import select, update

        from creto.store.tables import leases, quota_windows

        key, end, limit = lease_key(need), _end(need), int(need["limit"])
        tx.insert_once(quota_windows, key=key, end=end, granted=0, quota_limit=limit)
        window = (quota_windows.c.key == key) & (quota_windows.c.end == end)
        granted = int(tx.scalar(select(quota_windows.c.granted).where(window)))
        units = max(0, min(int(need["want"]), limit - granted))
        tx.execute(update(quota_windows).where(window).values(granted=granted + units, quota_limit=limit))
        mine = (leases.c.holder == holder) & (leases.c.key == key) & (leases.c.end == end)
        kept = {"spent": int(need["used"]), "expires": until, "relaxed": relaxed, "shard": shard}
        had = tx.scalar(select(leases.c.units).where(mine))
        if had is None:
            tx.insert(leases, holder=holder, key=key, end=end, units=units, began=tx.now, **kept)
        else:
            tx.execute(update(leases).where(mine).values(units=int(had) + units, **kept))
        return Grant(need, units, int(had or 0) + units, granted + units)

    def report(self, holder: str, leases: Sequence[Need], until: int) -> list[int]:
        """Notes what was spent, as the protocol says; a lease that was settled meanwhile stays lost."""
        from sqlalchemy import select, update

        from creto.store.tables import leases as table

        held = []
        with self._store.begin() as tx:
            for lease in leases:
                mine = (table.c.holder == holder) & (table.c.key == lease_key(lease)) & (table.c.end == _end(lease))
                tx.execute(update(table).where(mine).values(spent=int(lease["used"]), expires=until))
                held.append(int(tx.scalar(select(table.c.units).where(mine)) or 0))
        return held

    def give_back(self, holder: str, leases: Iterable[tuple[Need, int]]) -> None:
        """Takes units back, as the protocol says."""
        from sqlalchemy import select, update

        from creto.store.tables import leases as table
        from creto.store.tables import quota_windows

        with self._store.begin() as tx:
            for lease, units in leases:
                key, end = lease_key(lease), _end(lease)
                mine = (table.c.holder == holder) & (table.c.key == key) & (table.c.end == end)
                had = tx.scalar(select(table.c.units).where(mine))
                if had is None:
                    continue
                if units > had:
                    raise IntegrityError(f"`{holder}` gives back {units} units of `{key}` and was handed {had}")
                tx.execute(update(table).where(mine).values(units=had - units, spent=had - units))
                window = (quota_windows.c.key == key) & (quota_windows.c.end == end)
                tx.execute(update(quota_windows).where(window).values(granted=quota_windows.c.granted - units))

    def dead(self, now: int) -> list[DeadLease]:
        """Leases that nobody renewed, as the protocol says."""
        from sqlalchemy import select

        from creto.store.tables import leases as table

        lost = select(table).where(table.c.expires < now, table.c.end > now, table.c.units > table.c.spent)
        with self._store.read() as tx:
            return [_dead(row) for row in tx.all(lost)]

    def left_in(self, shard: str, holder: str) -> list[DeadLease]:
        """Leases of those who recorded in a shard before, as the protocol says."""
        from sqlalchemy import select

        from creto.store.tables import leases as table

        left = select(table).where(table.c.shard == shard, table.c.holder != holder, table.c.units > table.c.spent)
        with self._store.read() as tx:
            return [_dead(row) for row in tx.all(left)]

    def settle(self, lease: DeadLease, spent: int, *, sure: bool = False) -> int:
        """Frees what was not spent, as the protocol says."""
        from sqlalchemy import update

        from creto.store.tables import leases as table
        from creto.store.tables import quota_windows

        spent = lease.units if lease.relaxed else min(max(spent, lease.spent), lease.units)
        with self._store.begin() as tx:
            same = (
                (table.c.holder == lease.holder)
                & (table.c.key == lease.key)
                & (table.c.end == lease.end)
                & (table.c.units == lease.units)
                & (table.c.spent == lease.spent)
            )
            if not sure:
                same &= table.c.expires < time.time_ns() // 1000
            if not tx.swap(table, same, units=spent, spent=spent):
                return 0
            free = lease.units - spent
            window = (quota_windows.c.key == lease.key) & (quota_windows.c.end == lease.end)
            tx.execute(update(quota_windows).where(window).values(granted=quota_windows.c.granted - free))
            return free

    def usage(self, now: int) -> list[dict[str, Any]]:
        """What is granted and spent of every window that has not ended.

        Args:
            now: Microseconds since the epoch.
        """
        from sqlalchemy import func, select

        from creto.store.tables import leases as table
        from creto.store.tables import quota_windows

        unspent = (
            select(table.c.key, table.c.end, func.sum(table.c.units - table.c.spent).label("unspent"))
            .group_by(table.c.key, table.c.end)
            .subquery()
        )
        joined = select(quota_windows, unspent.c.unspent).join(
            unspent, (quota_windows.c.key == unspent.c.key) & (quota_windows.c.end == unspent.c.end), isouter=True
        )
        with self._store.read() as tx:
            rows = tx.all(joined.where(quota_windows.c.end > now))
        names = ("organisation", "level", "name", "meter", "window")
        return [
            {
                **dict(zip(names, row.key.split("\x1f"), strict=True)),
                "limit": row.quota_limit,
                "used": row.granted - int(row.unspent or 0),
                "held": int(row.unspent or 0),
                "resets_at": None if row.end == _FOREVER else row.end,
            }
            for row in rows
        ]
