"""The store of one state folder, as one process sees it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.lowlevel
from sqlalchemy import Connection, Engine

from creto._in_thread import in_thread
from creto.errors import CretoError, InternalError, TimeoutError
from creto.store import _outbox, _schema
from creto.store._ending import ended, leave
from creto.store._engine import WRITE, engine_for_file, engine_for_url, shown
from creto.store._faults import translated
from creto.store._folder import open_folder
from creto.store._outbox import LedgerPort
from creto.store._scrub import scrub
from creto.store._transaction import Transaction

__all__ = ["Commit", "Store"]

P = ParamSpec("P")
T = TypeVar("T")
_THREADS = 8
_BATCH = 1000


@dataclass(frozen=True)
class Commit:
    """What one transaction did that others want to know of.

    Example:
        >>> import tempfile
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     store.listeners.append(lambda commit: print(commit.notices))
        ...     with store.begin() as tx:
        ...         tx.publish("policy", "installed")
        (('policy', 'installed'),)
    """

    notices: tuple[tuple[str, str], ...]
    records: int


class Store:
    """The relational store of a state folder; many processes and threads may use it at once.

    Args:
        place: The state folder, made where it is missing, or a `postgresql://` URL.
        clock: Gives the folder's time as a hybrid logical word; the wall clock, never going back, where there is none.
        timeout: Seconds to wait for the transaction of another process.

    Raises:
        InvalidInputError: The place cannot be used, or a version that this one does not know wrote it.
        UnauthorizedError: Other users can get at the folder.
        ConnectionFailedError: The database cannot be reached.

    Example:
        >>> import tempfile
        >>> from sqlalchemy import select
        >>> from creto.store import tables
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     with store.begin() as tx:
        ...         _ = tx.insert(tables.meta, name="colour", value="blue")
        ...     with store.read() as tx:
        ...         print(tx.scalar(select(tables.meta.c.value)))
        blue
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], int] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._timeout = timeout
        self._url = place if isinstance(place, str) and "://" in place else None
        self.folder: Path | None = None if self._url else open_folder(place)
        self.clock = clock or _WallClock()
        self.listeners: list[Callable[[Commit], None]] = []
        self._ledger: LedgerPort | None = None
        self._closed = False
        self._open()
        try:
            with translated(self.place):
                _schema.migrate(self._engine, self.place)
        except BaseException:
            self._engine.dispose()
            raise

    def _open(self) -> None:
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._writer: int | None = None
        self._settling = threading.Lock()
        self._appended: list[str] = []
        self._unsettled = False
        self._engine = self._connect()
        self._write_engine = self._engine.execution_options(**{WRITE: True})
        self.place = shown(self._engine)
        self._limiter = anyio.lowlevel.RunVar[anyio.CapacityLimiter](f"creto-store-{id(self)}-{self._pid}")

    def _connect(self) -> Engine:
        if self._url:
            return engine_for_url(self._url, self._timeout)
        assert self.folder is not None
        return engine_for_file(self.folder / "creto.db", self._timeout)

    def _here(self) -> Engine:
        """The engine, opened anew where this process is a fork of the one that opened it."""
        if self._closed:
            raise InternalError(f"the store `{self.place}` is closed")
        if self._pid != os.getpid():
            leave(self._engine)
            self._ledger = None  # the parent's shard is the parent's
            self._open()
        return self._engine

    # --- transactions -----------------------------------------------------------------------------------------------

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Begins a transaction that may write; commits at the end of the block, rolls back where it raises.

        Writers of one store run one after the other, so what was read in the block still holds when it commits.

        Raises:
            TimeoutError: Another writer did not end in time.
            AlreadyExistsError: A row with the same key is there.
            LedgerFullError: Records of earlier transactions cannot reach the ledger, so no more are taken.
        """
        self._here()
        if self._unsettled and self._ledger is not None:
            self.settle()
        with self._alone():
            done = list(self._appended)
            with self._transaction(writes=True) as tx:
                _outbox.forget(tx.connection, done)
                yield tx
                _outbox.write(tx.connection, tx.records, self._ledger.origin if self._ledger else None)
            del self._appended[: len(done)]  # in place: another thread may be adding to it
        self._after(tx)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Begins a transaction that only reads: one unchanging view, and waits for nobody."""
        with self._transaction(writes=False) as tx:
            yield tx

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Transaction]:
        engine = self._here()
        with translated(self.place):
            connection = (self._write_engine if writes else engine).connect()
            tx = Transaction(connection, writes=writes, clock=self.clock, place=self.place)
            try:
                with ended(connection, tx, self._timeout):
                    yield tx
            finally:
                if tx.in_doubt:
                    self._unsettled = True  # if it counts, it is on record before anything else is decided
                if tx.forked:
                    leave(connection)
                else:
                    connection.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Threads of one process queue here: SQLite's own waiting is by sleeping, up to 100 ms at a time.
        me = threading.get_ident()
        if self._writer == me:
            raise InternalError(
                "a transaction is open in this thread already; pass it on in place of beginning another"
            )
        lock = self._writing
        if not lock.acquire(timeout=self._timeout):
            raise TimeoutError(
                f"the store `{self.place}` stayed busy: another thread's transaction is open for too long"
            )
        self._writer = me
        try:
            yield
        finally:
            self._writer = None
            lock.release()

    async def run(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function(tx, ...)` in a transaction that may write, on a worker thread.

        A cancelled caller waits for the transaction's end: it is committed or rolled back, never in between.

        Args:
            function: A plain function; it must not wait for anything but the database.

        Returns:
            What the function returned, after the commit, with its records on disk where a ledger is attached.
        """
        return await self._in_thread(partial(self._call, self.begin, function, *args, **kwargs))

    async def surely(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`run`, also where its caller is cancelled before it begins: for what has to be said, such as an end."""
        return await self._in_thread(partial(self._call, self.begin, function, *args, **kwargs), surely=True)

    async def fetch(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function(tx, ...)` in a transaction that only reads, on a worker thread."""
        return await self._in_thread(partial(self._call, self.read, function, *args, **kwargs))

    @staticmethod
    def _call(open_: Callable[[], Any], function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        with open_() as tx:
            return function(tx, *args, **kwargs)

    async def _in_thread(self, call: Callable[[], T], *, surely: bool = False) -> T:
        self._here()
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(_THREADS)
            self._limiter.set(limiter)
        return await in_thread(call, limiter, surely=surely)

    # --- outbox -----------------------------------------------------------------------------------------------------

    def attach(self, ledger: LedgerPort) -> int:
        """Sends the records of this process's transactions to a ledger from now on, and what its shard was left first.

        Args:
            ledger: The process's ledger, with its shard held.

        Returns:
            How many records were left by others and are now settled.
        """
        self._here()
        self._ledger = ledger
        return self.settle()

    def settle(self, ledger: LedgerPort | None = None) -> int:
        """Appends committed records that wait for this process's shard, or for any, and removes their rows.

        Args:
            ledger: In place of the attached one.

        Returns:
            How many records were appended.

        Raises:
            LedgerFullError: The ledger takes no more; the rows stay.
        """
        self._here()
        ledger = ledger or self._ledger
        if ledger is None:
            return 0
        settled = 0
        with self._settling:
            while True:
                with self._alone_writing() as connection:
                    records = _outbox.claim(connection, ledger.origin, _BATCH)
                if not records:
                    break
                ledger.append_records(records)
                with self._alone_writing() as connection:
                    _outbox.forget(connection, [record["id"] for record in records])
                settled += len(records)
            self._unsettled = False
        return settled

    @contextmanager
    def _alone_writing(self) -> Iterator[Connection]:
        with self._alone(), self._transaction(writes=True) as tx:
            yield tx.connection

    def _after(self, tx: Transaction) -> None:
        ledger = self._ledger
        if tx.records and ledger is not None:
            try:
                ledger.append_records(tx.records)
            except BaseException:
                # Committed all the same: the rows wait, and no further transaction begins until they are in.
                self._unsettled = True
                raise
            # Their rows go with the next transaction: one more here would cost one more fsync.
            self._appended.extend(record["id"] for record in tx.records)
        if tx.records or tx.notices:
            commit = Commit(tuple(tx.notices), len(tx.records))
            for listener in tuple(self.listeners):
                listener(commit)

    def scrub(self) -> None:
        """Makes what was changed or deleted unreadable in the database's files too, and not only in its tables.

        Raises:
            TimeoutError: A transaction of another process stays open; the old bytes may still be in the log of changes.
        """
        engine = self._here()
        with translated(self.place):
            scrub(engine, self.place, self._timeout)

    # --- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes every connection; a second call does nothing."""
        if self._closed or self._pid != os.getpid():
            return
        # Where the database has gone they stay, and whoever settles the shard next finds them in its ledger.
        with suppress(CretoError):
            if self._appended:
                with self._alone_writing() as connection:
                    _outbox.forget(connection, self._appended)
                self._appended = []
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _WallClock:
    """The wall clock as hybrid logical words, for a store that no folder clock was given to."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._last = max(time.time_ns() // 1000 << 12, self._last + 1)
            return self._last
