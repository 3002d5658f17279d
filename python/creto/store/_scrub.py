"""What was changed or deleted is made unreadable in the database's files too, and not only in its tables."""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, text

from creto.errors import InvalidInputError, TimeoutError
from creto.store._faults import translated
from creto.store.tables import metadata

__all__ = ["scrub"]


def scrub(engine: Engine, place: str, timeout: float) -> None:
    """Overwrites what is no more.

    Args:
        engine: The database's.
        place: Its name, for people.
        timeout: Seconds to wait for transactions that still see it.

    Raises:
        TimeoutError: Such a one stays open.
        InvalidInputError: The role may not have it overwritten (PostgreSQL).
    """
    wait = _Wait(place, timeout)
    if engine.dialect.name == "sqlite":
        with translated(place, sqlite3.Error):
            _file(engine, wait)
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _tables(connection, wait)


class _Wait:
    """For others, and no longer than a time."""

    def __init__(self, place: str, timeout: float) -> None:
        self.place = place
        self.timeout = timeout
        self._end = time.monotonic() + timeout

    def a_little(self) -> None:
        if time.monotonic() > self._end:
            raise TimeoutError(
                f"the store `{self.place}` is being read: what was erased is still in its log of changes; "
                "erase again once other processes have ended"
            )
        time.sleep(0.05)


def _file(engine: Engine, wait: _Wait) -> None:
    raw = engine.raw_connection()
    try:
        raw.execute("VACUUM")  # pages from before deletions were overwritten
        # The changes are in the write-ahead log still: they go to the file, and the log is cut to nothing.
        while raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            wait.a_little()
    finally:
        raw.close()


def _tables(connection: Connection, wait: _Wait) -> None:
    newest = connection.exec_driver_sql("SELECT txid_snapshot_xmax(txid_current_snapshot()) & 4294967295").scalar_one()
    # Rows that an older transaction can still see would be written anew with the others.
    older = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND age(backend_xmin) > age(CAST(CAST(:newest AS text) AS xid))"
    )
    while connection.execute(older, {"newest": str(newest)}).scalar_one():
        wait.a_little()
    told: list[str] = []
    raw: Any = connection.connection.dbapi_connection
    raw.add_notice_handler(lambda notice: told.append(notice.message_primary))
    connection.exec_driver_sql(f"SET lock_timeout = {int(wait.timeout * 1000)}")
    patience, raw.patience = raw.patience, math.inf  # a table may be large
    try:
        for table in metadata.sorted_tables:
            # FULL: a plain one leaves the old rows' bytes where they were.
            connection.exec_driver_sql(f'VACUUM (FULL) "{table.name}"')
    finally:
        raw.patience = patience
    connection.exec_driver_sql("RESET lock_timeout")
    if told:
        raise InvalidInputError(
            f"what was erased is still in the files of `{wait.place}`: {told[0]}; have the role that owns the tables "
            "open the store, and erase again"
        )
