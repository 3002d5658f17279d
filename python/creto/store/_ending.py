"""How a transaction ends: committed or rolled back, in a forked child neither, and never in doubt without a word."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from creto.store._engine import WRITE, XID
from creto.store._faults import InDoubtError
from creto.store._transaction import Transaction

__all__ = ["ended", "leave"]


def leave(thing: Any) -> None:
    """Keeps a thing of the parent's for ever, even through the child's exit.

    To close a connection there would end the parent's session (PostgreSQL), or could take its locks away (SQLite).
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@contextmanager
def ended(connection: Connection, tx: Transaction, timeout: float) -> Iterator[None]:
    """Begins, and commits or rolls back; in a forked child neither: a word from there would end the parent's.

    Args:
        connection: Which the transaction is on.
        tx: The transaction.
        timeout: Seconds to wait for a database that went away in the midst of the commit.

    Raises:
        InDoubtError: It did not come back to say whether that counts; the transaction is `in_doubt`.
    """
    inner = connection.begin()
    number = connection.info.pop(XID, None)
    try:
        yield
        tx.check()
        try:
            inner.commit()
        except DBAPIError as error:
            if not (error.connection_invalidated and number and _counts(connection.engine, tx, number, timeout, error)):
                raise
    except BaseException:
        if tx.forked:
            leave(inner)
            tx.check()
        inner.rollback()
        raise


def _counts(engine: Engine, tx: Transaction, number: int, timeout: float, error: DBAPIError) -> bool:
    """Whether the transaction whose commit was not answered counts, by the database's own word.

    PostgreSQL's `txid_status` is made for this: https://www.postgresql.org/docs/current/functions-info.html
    """
    end, wait = time.monotonic() + timeout, 0.05
    while time.monotonic() < end:
        with suppress(DBAPIError), engine.execution_options(**{WRITE: False}).connect() as asking:
            state = asking.exec_driver_sql(f"SELECT txid_status({number})").scalar()
            if state in {"committed", "aborted"}:
                return bool(state == "committed")
        time.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - so that not all ask at once
        wait = min(2 * wait, 1.0)
    tx.in_doubt = True
    raise InDoubtError(
        "the connection to the database was lost in the midst of a commit, and it did not come back within "
        f"{timeout:g} s to say whether that counts; look before you try again"
    ) from error
