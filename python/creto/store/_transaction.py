"""One transaction: statements, the records that go to the ledger with it, and whom to wake when it has committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Executable, Row, Table, delete, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql.dml import UpdateBase

from creto.errors import ForkedError, InternalError
from creto.store import _outbox
from creto.store.tables import epochs, notices, numbers

__all__ = ["Transaction"]

_KEPT = 8192  # notices that a slow process can still read one by one
_PRUNED = 1024  # how many may be added before old ones go
_TELL = plain_insert(notices)
_TELL_LAST = plain_insert(notices).returning(notices.c.seq)


class Transaction:
    """What runs between `begin` and its end; all of it counts, or nothing does.

    Example:
        >>> import tempfile
        >>> from creto.store import Store, tables
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     with store.begin() as tx:
        ...         first = tx.insert_once(tables.meta, name="colour", value="blue")
        ...         again = tx.insert_once(tables.meta, name="colour", value="red")
        >>> first, again
        (True, False)
    """

    def __init__(self, connection: Connection, *, writes: bool, clock: Callable[[], int], place: str) -> None:
        self._connection = connection
        self._writes = writes
        self._clock = clock
        self._place = place
        self._pid = os.getpid()
        self._now: int | None = None
        self.records: list[dict[str, Any]] = []
        self.notices: list[tuple[str, str]] = []
        self.in_doubt = False
        """True where its commit was not answered, and nobody could say whether it counts."""

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's own connection, for what this class has no method for."""
        self.check()
        return self._connection

    @property
    def forked(self) -> bool:
        """True in a child of the process that began it."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Does nothing, but in a child of the process that began it.

        Raises:
            ForkedError: There.
        """
        if self.forked:
            raise ForkedError(
                f"the transaction on `{self._place}` belongs to the parent process; begin one in the child"
            )

    @property
    def now(self) -> int:
        """The transaction's time, a hybrid logical word: read once, the same for every row and record in it."""
        if self._now is None:
            self._now = self._clock()
        return self._now

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Runs a statement.

        Raises:
            InternalError: It writes, and the transaction was begun for reading.
        """
        if isinstance(statement, UpdateBase) and not self._writes:
            raise InternalError("a transaction begun by `read` cannot write; use `begin`")
        result: CursorResult[Any] = self.connection.execute(statement, parameters)
        return result

    def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        return self.execute(statement).scalar()

    def first(self, statement: Executable) -> Row[Any] | None:
        """The first row, or None."""
        return self.execute(statement).first()

    def all(self, statement: Executable) -> list[Row[Any]]:
        """Every row."""
        return list(self.execute(statement).all())

    def insert(self, table: Table, **values: Any) -> CursorResult[Any]:
        """Inserts a row; one with the same key makes the whole transaction fail with AlreadyExistsError."""
        return self.execute(plain_insert(table).values(**values))

    def insert_once(self, table: Table, **values: Any) -> bool:
        """Inserts a row unless one with the same key exists.

        Returns:
            True where this call made it: among racing transactions exactly one gets True.
        """
        insert: Any = sqlite_insert if self.connection.dialect.name == "sqlite" else postgres_insert
        # By what comes back, not by `rowcount`: psycopg has none for an insert.
        made = insert(table).values(**values).on_conflict_do_nothing().returning(*table.primary_key.columns)
        return self.execute(made).first() is not None

    def insert_all_once(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts many rows by one statement, but those whose key exists; each names the same columns."""
        if rows:
            insert: Any = sqlite_insert if self.connection.dialect.name == "sqlite" else postgres_insert
            self.execute(insert(table).on_conflict_do_nothing(), list(rows))

    def swap(self, table: Table, where: ColumnElement[bool], **values: Any) -> bool:
        """Changes the one row that still is as `where` says.

        Returns:
            True where a row was, and is now changed: among racing transactions exactly one gets True.

        Raises:
            InternalError: More than one row fits.
        """
        changed = self.execute(update(table).where(where).values(**values)).rowcount
        if changed > 1:
            raise InternalError(f"a swap on `{table.name}` was meant for one row and fits {changed}")
        return changed == 1

    def number(self, series: str, count: int = 1) -> int:
        """The next number of a series: 1, 2, 3, ... with no gap, since it is given back if the transaction fails.

        Args:
            series: Name, such as `invoice/2026`.
            count: How many numbers are taken; the first is returned.
        """
        return self._count(numbers, numbers.c.series, numbers.c.last, series, count) - count + 1

    def bump(self, epoch: str) -> int:
        """Moves an epoch on by one and returns it; what was decided under an older one no longer counts.

        Args:
            epoch: Name, such as `revocation`.
        """
        return self._count(epochs, epochs.c.name, epochs.c.value, epoch)

    def _count(self, table: Table, key: Any, value: Any, name: str, step: int = 1) -> int:
        insert: Any = sqlite_insert if self.connection.dialect.name == "sqlite" else postgres_insert
        statement = insert(table).values({key.name: name, value.name: step})
        statement = statement.on_conflict_do_update(index_elements=[key], set_={value.name: value + step}).returning(
            value
        )
        return int(self.execute(statement).scalar_one())

    def publish(self, topic: str, *keys: str) -> None:
        """Tells every process on the folder, once this has committed, that something of `topic` changed.

        Args:
            topic: What kind of thing, such as `oversight`.
            keys: Which ones, such as requests' ids.
        """
        if not keys:
            return
        told = [{"topic": topic, "key": key} for key in keys]
        if len(told) > 1:
            self.execute(_TELL, told[:-1])
        seq = int(self.execute(_TELL_LAST, told[-1]).scalar_one())
        if seq % _PRUNED < len(told):
            self.execute(delete(notices).where(notices.c.seq <= seq - _KEPT))
        self.notices += [(topic, key) for key in keys]

    def outbox(self, record: Mapping[str, Any]) -> str:
        """Has a record appended to the ledger if, and only if, this transaction commits; exactly once whatever crashes.

        Args:
            record: Fields of `AuditRecord` by name: who, delegation_chain, what, resource, why, outcome, kind, act,
                digest, policy, usage (meter to units), detail; id, act and timestamp are given where missing.

        Returns:
            The record's id, 32 hexadecimal digits.

        Raises:
            InvalidInputError: A field that no record has.
        """
        whole = _outbox.normal(record, self.now)
        self.records.append(whole)
        return str(whole["id"])
