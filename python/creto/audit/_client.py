"""The ledger as applications use it: append, find, follow, prove, verify."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from creto import _bridge, _core
from creto.audit import _reading
from creto.audit._keys import trusted_keys
from creto.audit._reading import Followers, Proof, Verified
from creto.audit._record import AuditRecord, written
from creto.errors import InvalidInputError, NotFoundError

__all__ = ["AuditClient"]

Durability = Literal["strict", "relaxed"]


class AuditClient:
    """The ledger of a state folder; many tasks, threads and processes may use it at once.

    Args:
        ledger: The ledger, opened for writing; None for reading only.
        folder: The state folder.

    Example:
        >>> import tempfile, anyio
        >>> from pathlib import Path
        >>> from creto import _core
        >>> from creto.audit import AuditClient, AuditRecord, open_ledger
        >>> folder = Path(tempfile.mkdtemp())
        >>> ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), _core.Sealer.ephemeral())
        >>> async def main():
        ...     audit = AuditClient(ledger, folder)
        ...     await audit.log(AuditRecord(who="spiffe://creto.local/agent/a", what="tool:call", resource="search"))
        ...     (record,) = await audit.query(action="tool:*")
        ...     proof = await audit.prove(record)
        ...     await audit.close()
        ...     return record.resource, proof.size
        >>> anyio.run(main)
        ('search', 1)
    """

    def __init__(self, ledger: _core.Ledger | None, folder: Path | str) -> None:
        self._ledger = ledger
        self.folder = Path(folder)
        self.path = self.folder / "ledger"

    @classmethod
    def reading(cls, folder: Path | str) -> AuditClient:
        """A client that reads the ledger of a state folder and holds no shard."""
        return cls(None, folder)

    @property
    def ledger(self) -> _core.Ledger:
        """The native ledger.

        Raises:
            InvalidInputError: The client was made for reading only.
        """
        if self._ledger is None:
            raise InvalidInputError("this client reads only; open the ledger to write to it")
        return self._ledger

    @property
    def shard(self) -> str:
        """The shard that this process writes."""
        return self.ledger.shard

    # --- writing ------------------------------------------------------------------------------------------------------

    async def log(self, record: AuditRecord | Mapping[str, Any], *, durability: Durability = "strict") -> int | None:
        """Appends a record.

        Args:
            record: The record.
            durability: `strict` returns once it is on disk, `relaxed` once it is in the queue, which never drops.

        Returns:
            Its index in this process's shard; None where it is only in the queue, or a record with its id was there.

        Raises:
            LedgerFullError: There is no space; nothing was written.
            InvalidInputError: A field has no valid reading, or the record is longer than 65,535 bytes.
        """
        if durability == "relaxed":
            self.log_nowait(record)
            return None
        ledger, fields = self.ledger, written(record)
        index: int | None = await _bridge.wait(lambda bridge, token: ledger.append(fields, bridge, token))
        return index

    def log_nowait(self, record: AuditRecord | Mapping[str, Any]) -> int:
        """Puts a record in the queue, which never drops, and returns its ticket; waits only where that is full."""
        return self.ledger.enqueue(written(record))

    def log_blocking(self, record: AuditRecord | Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Appends a record and returns once it is on disk.

        Args:
            record: The record.
            timeout: Seconds to wait at most; for ever by default.
        """
        self.ledger.append_blocking(written(record), timeout)

    def append_records(self, records: Sequence[Mapping[str, Any]], /) -> None:
        """Appends records under their fixed ids, skips those that this shard has, and returns once all are on disk."""
        self.ledger.append_records([written(record) for record in records])

    async def durable(self, ticket: int) -> None:
        """Returns once the record with this ticket, and all before it, are on disk."""
        ledger = self.ledger
        await _bridge.wait(lambda bridge, token: ledger.durable(ticket, bridge, token))

    async def checkpoint(self) -> int:
        """Publishes a signed checkpoint over all that was appended so far, and returns how many records it covers."""
        size: int = await _bridge.wait(self.ledger.publish)
        return size

    async def close(self) -> None:
        """Writes and publishes all that was appended, and gives the shard free."""
        if self._ledger is not None:
            await _bridge.wait(self._ledger.close)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def query(
        self,
        *,
        agent: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        act: str | None = None,
        kind: str | None = None,
        outcome: Literal["success", "failure", "refused"] | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        limit: int = 1000,
    ) -> list[AuditRecord]:
        """The latest records that match, over all shards, in order of time.

        Args:
            agent: SPIFFE id of the acting agent, or of a member of its delegation chain.
            action: `http:get`, or `http:*` for all that begin so.
            resource: Likewise with a `*` at the end.
            act: 32 hexadecimal digits.
            kind: `intent`, `outcome`, `refusal` or `event`.
            outcome: How it ended.
            since: Not before this moment.
            until: Before this moment.
            limit: At most so many, the latest.
        """
        if self._ledger is not None:
            await self._settle()
        filters = {
            "agent": agent,
            "action": action,
            "resource": resource,
            "act": act,
            "kind": kind,
            "outcome": outcome,
            "since": _reading.word(since),
            "until": _reading.word(until),
        }
        return await anyio.to_thread.run_sync(lambda: _reading.query(self.path, limit=limit, **filters))

    async def _settle(self) -> None:
        """Waits until what this process has queued is on disk, so that it finds its own records."""
        ledger = self.ledger
        await _bridge.wait(ledger.flushed)

    async def follow(
        self, *, from_start: bool = False, interval: float = 0.1, **filters: Any
    ) -> AsyncGenerator[AuditRecord]:
        """Yields records as they are written, by any process, merged by timestamp within each look.

        Args:
            from_start: Begin with the first record there is, not with what comes next.
            interval: Seconds between two looks.
            filters: As of `query`, but for `limit`, `since` and `until`.
        """
        fits = _fits(filters)
        followers = await anyio.to_thread.run_sync(partial(Followers, self.path, from_start=from_start))
        while True:
            for record in await anyio.to_thread.run_sync(followers.poll):
                if fits(record):
                    yield record
            await anyio.sleep(interval)

    async def find(self, name: str) -> list[AuditRecord]:
        """The records of an act, or one record.

        Args:
            name: The act's or the record's id, 32 hexadecimal digits, or `shard/index`.

        Raises:
            NotFoundError: There is none.
        """
        if self._ledger is not None:
            await self._settle()
        return await anyio.to_thread.run_sync(lambda: _reading.find(self.path, name))

    async def prove(self, record: AuditRecord | str) -> Proof:
        """The proof that a record is in the ledger, by a checkpoint that covers it.

        Args:
            record: The record as it was read, or its id or `shard/index`.

        Raises:
            NotFoundError: There is no such record, or the process that holds its shard does not publish it within 5 s.
        """
        if isinstance(record, str):
            record = (await self.find(record))[-1]
        found = record
        if self._ledger is not None and found.shard == self._ledger.shard and self._ledger.published <= found.index:
            await self.checkpoint()
        with anyio.move_on_after(5):
            while True:
                try:
                    return await anyio.to_thread.run_sync(lambda: _reading.prove(self.path, found))
                except NotFoundError:
                    await anyio.sleep(0.1)
        return await anyio.to_thread.run_sync(lambda: _reading.prove(self.path, found))

    async def verify(
        self,
        keys: Sequence[_core.VerifyingKey] | None = None,
        *,
        seen: Sequence[str] = (),
        progress: Callable[[str, int, int], None] | None = None,
    ) -> list[Verified]:
        """Checks every shard with nothing but its files and public keys.

        Args:
            keys: Public keys that are trusted; by default those in the state folder.
            seen: Signed checkpoints kept from before, or published elsewhere.
            progress: Called on another thread with shard, records checked and records in all.

        Raises:
            IntegrityError: Something was changed, removed, rolled back or forked.
            SignatureVerificationFailedError: A checkpoint is signed by none of the keys.
        """
        if self._ledger is not None:
            await self.checkpoint()
        trusted = trusted_keys(self.folder) if keys is None else keys
        return await anyio.to_thread.run_sync(lambda: _reading.verify(self.path, trusted, seen, progress))


def _fits(filters: Mapping[str, Any]) -> Callable[[AuditRecord], bool]:
    unknown = set(filters) - {"agent", "action", "resource", "act", "kind", "outcome"}
    if unknown:
        raise InvalidInputError(f"records are not followed by `{sorted(unknown)[0]}`")

    def like(pattern: str | None, text: str) -> bool:
        return pattern is None or (text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern)

    def fits(record: AuditRecord) -> bool:
        agent, kind, act, outcome = (filters.get(name) for name in ("agent", "kind", "act", "outcome"))
        return (
            (agent is None or agent == record.who or agent in record.delegation_chain)
            and like(filters.get("action"), record.what)
            and like(filters.get("resource"), record.resource)
            and (act is None or act == record.act)
            and (kind is None or kind == record.kind)
            and (outcome is None or outcome == record.ended)
        )

    return fits
