"""The shards of a ledger as an outsider has them: public tiles and batches, checked against public keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from creto import _core
from creto._progress import Progress, watched
from creto.audit._reading import intact
from creto.errors import IntegrityError
from creto.metering._usage import covered

__all__ = ["Shards"]


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
