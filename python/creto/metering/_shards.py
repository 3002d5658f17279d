"""The shards of a ledger as an outsider has them: public tiles and batches, checked against public keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creto import _core
from creto._progress import Progress, watched
from creto.audit._reading import intact
from creto.errors import IntegrityError
from creto.metering._usage import covered

__all__ = ["Shards"]

_MOST = 1 << 40
Found = tuple[str, int, Mapping[str, Any]]
"""A shard, the index of a record in it, and what that says."""


class Shards:
    """The shards of a ledger as an outsider reads them: each is checked once, when it is first asked for.

    Args:
        ledger: The ledger's folder.
        keys: The ledger's public keys; none where the ledger is one's own, and is not checked.
        progress: Called on another thread with shard, records checked and records in all.
    """

    def __init__(
        self, ledger: Path, keys: Sequence[_core.VerifyingKey] | None, progress: Progress | None = None
    ) -> None:
        self.folder = ledger
        self._keys, self._progress = keys, progress
        self._checked: dict[str, tuple[_core.LedgerShard, int]] = {}
        self._recorded: dict[tuple[str, str], Found] = {}

    @property
    def names(self) -> list[str]:
        """Of all that a checkpoint says something of."""
        return [name for name in _core.ledger_shards(str(self.folder)) if covered(self.folder, name)]

    def of(self, name: str) -> tuple[_core.LedgerShard, int]:
        """A shard, and how many records its signed checkpoint covers.

        Raises:
            IntegrityError: There is no such shard, or it was changed.
            SignatureVerificationFailedError: Nobody known signed it.
        """
        if name not in self._checked:
            if "/" in name or name not in self.names:
                raise IntegrityError(f"the ledger has no shard `{name}`")
            shard, size = _core.LedgerShard(str(self.folder / name)), covered(self.folder, name)
            if self._keys is not None:
                with watched(self._progress, name, size) as counter:
                    size = int(intact(shard, self._keys, (), counter)["size"])
            self._checked[name] = shard, size
        return self._checked[name]

    def recorded(self, what: str, number: str) -> Found:
        """The first record of an invoice, looked for once.

        Args:
            what: `invoice:finalize` or `invoice:credit`.
            number: The invoice's, or the note's.

        Raises:
            IntegrityError: No checkpoint covers one.
        """
        if (what, number) not in self._recorded:
            self._recorded[what, number] = self._first(what, number)
        return self._recorded[what, number]

    def _first(self, what: str, number: str) -> Found:
        for name in self.names:
            shard, size = self.of(name)
            for record in shard.query(action=what, resource=number, limit=_MOST) if size else ():
                # What is looked for may end in a star; what is found is compared.
                if record["resource"] == number and int(record["index"]) < size:
                    return name, int(record["index"]), record
        raise IntegrityError(f"no checkpoint covers a record of {number} yet")
