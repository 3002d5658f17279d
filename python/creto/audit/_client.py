"""The ledger as applications use it: append, find, follow, prove, verify."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread

from creto import _bridge, _core
from creto._progress import Progress
from creto.audit import _reading
from creto.audit._filter import Filter, Kind, Outcome
from creto.audit._index import LedgerIndex
from creto.audit._keys import trusted_keys
from creto.audit._reading import Followers, Proof, Verified
from creto.audit._record import AuditRecord, written
from creto.errors import InvalidInputError, NotFoundError

__all__ = ["AuditClient"]

T = TypeVar("T")
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
        self._index = LedgerIndex(self.path, self.folder / "index" / "ledger.db")

    @classmethod
    def reading(cls, folder: Path | str) -> AuditClient:
        """A client that reads the ledger of a state folder and holds no shard.

        Example:
            >>> import tempfile, anyio, creto
            >>> folder = tempfile.mkdtemp()
            >>> with creto.open_blocking(folder) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            >>> [record.kind for record in anyio.run(lambda: AuditClient.reading(folder).query(action="tool:call"))]
            ['intent', 'outcome']
        """
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
    def origin(self) -> str:
        """The shard that this process writes, by what sets it apart from those of all other folders and machines."""
        return self.ledger.origin

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
        """Puts a record in the queue, which never drops, and returns its ticket; waits only where that is full.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     audit = layer.parts.audit
            ...     ticket = audit.log_nowait({"who": "w", "what": "crm:read", "resource": "order 7"})
            ...     layer.call_blocking(audit.durable, ticket)
            ...     [record.resource for record in layer.call_blocking(lambda: audit.query(action="crm:*"))]
            ['order 7']
        """
        return self.ledger.enqueue(written(record))

    def log_blocking(self, record: AuditRecord | Mapping[str, Any], *, timeout: float | None = None) -> None:
        """Appends a record and returns once it is on disk.

        Args:
            record: The record.
            timeout: Seconds to wait at most; for ever by default.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     audit = layer.parts.audit
            ...     audit.log_blocking({"who": "w", "what": "crm:read"}, timeout=30)
            ...     len(layer.call_blocking(lambda: audit.query(action="crm:read")))
            1
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
        """Publishes a signed checkpoint over all that was appended so far, and returns how many records it covers.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     audit = layer.parts.audit
            ...     audit.log_blocking({"who": "w", "what": "crm:read"})
            ...     layer.call_blocking(audit.checkpoint) == layer.call_blocking(audit.query)[-1].index + 1
            True
        """
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
        kind: Kind | None = None,
        outcome: Outcome | None = None,
        subject: str | None = None,
        since: datetime | int | None = None,
        until: datetime | int | None = None,
        limit: int = 1000,
        progress: Progress | None = None,
    ) -> list[AuditRecord]:
        """The latest records that match, over all shards, in order of time.

        An index answers, which lies in the state folder and follows the ledger: the first query makes it, and each
        takes in what has come since. Where the folder cannot be written to, every record is looked at.

        Args:
            agent: SPIFFE id of the acting agent, or of a member of its delegation chain.
            action: `http:get`, or `http:*` for all that begin so.
            resource: Likewise with a `*` at the end.
            act: 32 hexadecimal digits.
            kind: `intent`, `outcome`, `refusal` or `event`.
            outcome: How it ended.
            subject: The pseudonym of a person whom it is about (`Subjects.pseudonym`).
            since: Not before this moment.
            until: Before this moment.
            limit: At most so many, the latest.
            progress: Called on another thread with shard, records indexed and records in all, while there are many.

        Raises:
            InvalidInputError: What is asked for has no valid reading.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     found = layer.call_blocking(lambda: audit.query(action="tool:*", outcome="success"))
            ...     [(record.resource, record.kind, record.ended) for record in found]
            [('search', 'outcome', 'success')]
        """
        wanted = Filter.of(
            agent=agent,
            action=action,
            resource=resource,
            act=act,
            kind=kind,
            outcome=outcome,
            subject=subject,
            since=since,
            until=until,
        )
        if self._ledger is not None:
            await self._settle()
        return await _abandoned_by_cancel(
            lambda stop: _reading.query(self.path, self._index, wanted, limit=limit, progress=progress, stop=stop)
        )

    def pages(self, *, progress: Progress | None = None, **filters: Any) -> tuple[int, Iterator[list[AuditRecord]]]:
        """How many records match, and all of them in order of time, some at a time: for what does not fit in memory.

        Args:
            progress: As for `query`.
            filters: As of `query`, but for `limit`.

        Raises:
            IntegrityError: The ledger was put in another's place while it was read.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     count, pages = audit.pages(action="tool:*")
            ...     count, [record.kind for page in pages for record in page]
            (2, ['intent', 'outcome'])
        """
        return _reading.pages(self.path, self._index, Filter.of(**filters), progress=progress)

    async def reindex(self, progress: Progress | None = None) -> int:
        """Makes the index of queries anew from the ledger, and returns how many records it holds.

        Nothing is lost by it and nothing needs it but doubt: an index that does not fit the ledger is found out.

        Args:
            progress: As for `query`.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     layer.call_blocking(audit.reindex) == len(layer.call_blocking(audit.query))
            True
        """

        def anew(stop: threading.Event) -> int:
            self._index.discard()
            return self._index.catch_up(progress, stop)

        return await _abandoned_by_cancel(anew)

    async def _settle(self) -> None:
        """Waits until what this process has queued is on disk, so that it finds its own records."""
        ledger = self.ledger
        await _bridge.wait(ledger.flushed)

    def follow(self, *, from_start: bool = False, interval: float = 0.1, **filters: Any) -> AsyncGenerator[AuditRecord]:
        """Yields records as they are written, by any process, merged by timestamp within each look.

        Args:
            from_start: Begin with the first record there is, not with what comes after this call.
            interval: Seconds between two looks.
            filters: As of `query`, but for `limit`, `since` and `until`.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     async def first() -> str:
            ...         async for record in audit.follow(from_start=True, action="tool:call"):
            ...             return record.kind
            ...     layer.call_blocking(first)
            'intent'
        """
        unknown = set(filters) - {"agent", "action", "resource", "act", "kind", "outcome", "subject"}
        if unknown:
            raise InvalidInputError(f"records are not followed by `{sorted(unknown)[0]}`")
        fits = Filter(**filters).fits
        # Now, and not when the first record is asked for: what comes between the two is among them.
        return _following(Followers(self.path, from_start=from_start), fits, interval)

    async def find(self, name: str) -> list[AuditRecord]:
        """The records of an act, or one record.

        Args:
            name: The act's or the record's id, 32 hexadecimal digits, or `shard/index`.

        Raises:
            NotFoundError: There is none.
        """
        if self._ledger is not None:
            await self._settle()
        return await anyio.to_thread.run_sync(lambda: _reading.find(self.path, self._index, name))

    async def life(self, name: str) -> list[AuditRecord]:
        """All that the ledger holds of an act.

        Its own records, those of the oversight request that it waited for, and the attestation of the sandbox that it
        came from.

        Args:
            name: As for `find`.

        Raises:
            NotFoundError: There is none.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     [record] = layer.call_blocking(lambda: audit.query(outcome="success"))
            ...     [each.kind for each in layer.call_blocking(audit.life, record.act)]
            ['intent', 'outcome']
        """
        found = await self.find(name)
        if len({record.act for record in found}) == 1:
            found = await self.query(act=found[0].act, limit=100_000) or found
        requests = {record.detail["request"] for record in found if "request" in record.detail}
        for request in sorted(requests - {record.act for record in found}):
            found += await self.query(act=request, limit=1_000)
        own = {record.detail["sandbox"]: record.who for record in found if "sandbox" in record.detail}
        for sandbox, agent in sorted(own.items()):
            found += await self.query(agent=agent, action="sandbox:attest", resource=sandbox, limit=1)
        return sorted(found, key=lambda record: (record.timestamp, record.shard, record.index))

    async def prove(self, record: AuditRecord | str) -> Proof:
        """The proof that a record is in the ledger, by a checkpoint that covers it.

        Args:
            record: The record as it was read, or its id or `shard/index`.

        Raises:
            NotFoundError: There is no such record, or the process that holds its shard does not publish it within 5 s.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     [record] = layer.call_blocking(lambda: audit.query(outcome="success"))
            ...     layer.call_blocking(audit.prove, record).record.resource
            'search'
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
        progress: Progress | None = None,
    ) -> list[Verified]:
        """Checks every shard with nothing but its files and public keys.

        Args:
            keys: Public keys that are trusted; by default those in the state folder.
            seen: Signed checkpoints kept from before, or published elsewhere.
            progress: Called on another thread with shard, records checked and records in all.

        Raises:
            IntegrityError: Something was changed, removed, rolled back or forked.
            SignatureVerificationFailedError: A checkpoint is signed by none of the keys.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     audit = layer.parts.audit
            ...     kept = [shard.note for shard in layer.call_blocking(audit.verify)]
            ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "search", lambda: 3)
            ...     [shard.shard for shard in layer.call_blocking(lambda: audit.verify(seen=kept))]
            ['0000']
        """
        if self._ledger is not None:
            await self.checkpoint()
        trusted = trusted_keys(self.folder) if keys is None else keys
        return await _abandoned_by_cancel(lambda stop: _reading.verify(self.path, trusted, seen, progress, stop))


async def _abandoned_by_cancel(work: Callable[[threading.Event], T]) -> T:
    """Does on a thread what may take minutes; a caller that is cancelled does not wait, and the thread soon stops."""
    stop = threading.Event()
    try:
        return await anyio.to_thread.run_sync(work, stop, abandon_on_cancel=True)
    finally:
        stop.set()


async def _following(
    followers: Followers, fits: Callable[[AuditRecord], bool], interval: float
) -> AsyncGenerator[AuditRecord]:
    while True:
        for record in await anyio.to_thread.run_sync(followers.poll):
            if fits(record):
                yield record
        await anyio.sleep(interval)
