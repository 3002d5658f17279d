"""What dead holders of leases spent, by their records in the ledger: the rest of their units goes back.

A holder is dead when nobody holds the shard that it recorded in. It is settled while that shard is held, so that
nothing is recorded there meanwhile: by whoever takes the shard over, or by a neighbour once its leases have run out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from creto import _core
from creto.metering._period import window_began
from creto.metering._usage import acts_of, shard_records

if TYPE_CHECKING:
    from creto.metering._authority import Authority, DeadLease
    from creto.metering._quota import QuotaEnforcer

__all__ = ["Settlement"]

_FOREVER = 2**63 - 1
_Act = tuple[list[str], dict[str, int], int, bytes]


class Settlement:
    """Settles the leases of dead holders that recorded in one ledger folder; those of other machines stay as they are.

    Args:
        authority: Who handed the units out.
        folder: The ledger's folder.

    Example:
        >>> import tempfile
        >>> from creto.metering import StoreAuthority
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     Settlement(StoreAuthority(store), Path(tempfile.mkdtemp()))([])
        0
    """

    def __init__(self, authority: Authority, folder: Path) -> None:
        self._authority, self._folder = authority, folder

    def origin(self, shard: str) -> str:
        """What sets a shard apart from those of all other folders and machines.

        Args:
            shard: Its name.
        """
        return (self._folder / shard / "origin").read_text()

    def take_over(self, quota: QuotaEnforcer, shard: str, holder: str) -> None:
        """Settles what earlier holders of a shard left, and counts its acts where processes count alone.

        Args:
            quota: Of this process.
            shard: Which this process holds, and has recorded nothing in yet.
            holder: This process.
        """
        left = self._authority.left_in(self.origin(shard), holder)
        if any(rule["share"] == "process" for rule in quota.rules_in_force()):
            acts = list(acts_of(shard_records(self._folder, shard)))
            quota.replay(acts)
        else:
            acts = self._acts(shard, left)
        self._settle(left, acts, sure=True)

    def __call__(self, lost: Sequence[DeadLease]) -> int:
        """Settles leases that have run out, as far as their holders are dead; how many units that freed.

        Args:
            lost: As `Authority.dead` tells them.
        """
        freed = 0
        places = {self.origin(name): name for name in _core.ledger_shards(str(self._folder)) if self._begun(name)}
        by_shard = attrgetter("shard")
        for origin, group in groupby(sorted(lost, key=by_shard), key=by_shard):
            shard, leases = places.get(origin), list(group)
            if shard is None:
                continue

            def settle(shard: str = shard, leases: list[DeadLease] = leases) -> None:
                nonlocal freed
                freed += self._settle(leases, self._acts(shard, leases))

            _core.ledger_while_vacant(str(self._folder), shard, settle)
        return freed

    def _begun(self, shard: str) -> bool:
        return (self._folder / shard / "origin").exists()

    def _acts(self, shard: str, leases: Sequence[DeadLease]) -> list[_Act]:
        if not leases:
            return []
        since = min(lease.began for lease in leases) >> 12
        return list(acts_of(shard_records(self._folder, shard, since=since)))

    def _settle(self, leases: Iterable[DeadLease], acts: Sequence[_Act], *, sure: bool = False) -> int:
        return sum(self._authority.settle(lease, spent(lease, acts), sure=sure) for lease in leases)


def spent(lease: DeadLease, acts: Iterable[_Act]) -> int:
    """What the acts of a shard took of the count that a lease is for, in its window; at most what was leased.

    What later holders of the shard used in this window is taken as this one's, which frees too little, never too much;
    what earlier ones used is not, since the lease says when it began.

    Args:
        lease: Of a holder that recorded in the shard.
        acts: Of the shard.
    """
    organisation, level, name, meter, window = lease.key.split("\x1f")
    units = 0
    for path, usage, word, _ in acts:
        at = word >> 12
        if word < lease.began or at >= lease.end or path[0] != organisation or name not in path or meter not in usage:
            continue
        if lease.end < _FOREVER and at < window_began(window, lease.end - 1):
            continue
        if level_of(path, name) == level:
            units += usage[meter]
    return min(units, lease.units)


def level_of(path: list[str], name: str) -> str:
    """On which floor a name of a path stands.

    Example:
        >>> path = ["acme", "research", "spiffe://acme.test/agent/reader"]
        >>> [level_of(path, name) for name in path]
        ['organisation', 'team', 'agent']
    """
    place = path.index(name)
    if name.startswith("spiffe://") or place >= 2:
        return "agent"
    return "organisation" if place == 0 else "team"
