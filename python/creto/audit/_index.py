"""Where a ledger's records are, by who, what, on what, when and how it ended: a projection, in one SQLite file.

It can be thrown away at any time, and is made anew from the ledger. It never answers by itself: what it points at is
read from the ledger and compared, so a stale or damaged index costs time, never a wrong record.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import SupportsIndex

from creto import _core
from creto._progress import Progress
from creto.audit._filter import Filter
from creto.audit._places import SIGN, Place, leads, statement
from creto.audit._record import AuditRecord, read
from creto.errors import CretoError

__all__ = ["LedgerIndex", "StaleIndexError"]

_FORMAT = 1
_BATCH = 20_000
# Whoever asks sees what was on disk when they asked; a writer that is faster than the index is followed so far beyond.
_BEYOND_SECONDS = 5
_PAGE = 1_000

# Numbers stand for names (`ledger_term`): an index entry is as long as a time and a place, whatever agents write.
_SCHEMA = f"""
CREATE TABLE shard (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL, last INTEGER NOT NULL
);
CREATE TABLE record (
  time INTEGER NOT NULL, shard INTEGER NOT NULL, at INTEGER NOT NULL, what INTEGER NOT NULL, resource INTEGER NOT NULL,
  act INTEGER NOT NULL, id INTEGER NOT NULL, kind INTEGER NOT NULL, ended INTEGER NOT NULL, subject INTEGER,
  PRIMARY KEY (time, shard, at)
) WITHOUT ROWID;
CREATE TABLE party (
  agent INTEGER NOT NULL, time INTEGER NOT NULL, shard INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (agent, time, shard, at)
) WITHOUT ROWID;
CREATE TABLE text (number INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (number, text)) WITHOUT ROWID;
CREATE INDEX text_start ON text (text);
PRAGMA user_version = {_FORMAT};
"""
# Made once the first records are in: sorting them all at the end is several times faster than finding a place for each.
_LOOKED_UP = """
CREATE INDEX IF NOT EXISTS record_what ON record (what);
CREATE INDEX IF NOT EXISTS record_resource ON record (resource);
CREATE INDEX IF NOT EXISTS record_act ON record (act);
CREATE INDEX IF NOT EXISTS record_id ON record (id) WHERE id <> act;
CREATE INDEX IF NOT EXISTS record_ended ON record (ended) WHERE ended > 1;
CREATE INDEX IF NOT EXISTS record_subject ON record (subject) WHERE subject IS NOT NULL;
"""


class StaleIndexError(Exception):
    """The index points at what the ledger does not hold: it is of another ledger, or was damaged."""


class LedgerIndex:
    """The index of one ledger folder; many processes and threads may use it at once.

    Args:
        ledger: The ledger folder.
        file: Where the index lies; made where it is missing.
    """

    def __init__(self, ledger: Path, file: Path) -> None:
        self._ledger = ledger
        self._file = file
        self._lock = threading.Lock()
        self._followers: dict[str, _core.LedgerFollower] = {}

    # --- following the ledger -----------------------------------------------------------------------------------------

    def catch_up(self, progress: Progress | None = None, stop: threading.Event | None = None) -> int:
        """Takes in what the ledger has got since, and returns how many records that were.

        A batch and how far it reaches go in by one transaction: a process that is killed leaves an index that is whole.

        Args:
            progress: Called with shard, records taken in, and records in all under the shard's checkpoint.
            stop: Once it is set, what is left is left to the next time.
        """
        stop = stop or threading.Event()
        with self._alone(stop), self._opened() as connection:
            taken = sum(self._catch_up(connection, name, progress, stop) for name in _core.ledger_shards(self._ledger))
            if not stop.is_set():
                _sort(connection)
            return taken

    @contextlib.contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[None]:
        while not self._lock.acquire(timeout=0.2):
            if stop.is_set():
                raise InterruptedError("whoever asked is gone")
        try:
            yield
        finally:
            self._lock.release()

    def _catch_up(
        self, connection: sqlite3.Connection, name: str, progress: Progress | None, stop: threading.Event
    ) -> int:
        total, beyond = 0, (int((time.time() + _BEYOND_SECONDS) * 1e6) << 12) - SIGN
        while True:
            try:
                with _all_or_nothing(connection):
                    number, follower = self._follower(connection, name)
                    records, parties, texts = follower.poll_terms(number, _BATCH)
                    if records:
                        connection.executemany("INSERT OR REPLACE INTO record VALUES (?,?,?,?,?,?,?,?,?,?)", records)
                        connection.executemany("INSERT OR IGNORE INTO party VALUES (?,?,?,?)", parties)
                        connection.executemany("INSERT OR IGNORE INTO text VALUES (?,?)", texts)
                        reached = (records[-1][2] + 1, records[-1][6], number)
                        connection.execute("UPDATE shard SET next = ?, last = ? WHERE number = ?", reached)
            except BaseException:
                # The follower has read what the index now lacks.
                self._followers.pop(name, None)
                raise
            total += len(records)
            if progress and records:
                checkpoint = _core.LedgerShard(self._ledger / name).checkpoint()
                progress(name, records[-1][2] + 1, max(checkpoint["size"] if checkpoint else 0, records[-1][2] + 1))
            if len(records) < _BATCH or records[-1][0] > beyond or stop.is_set():
                return total

    def _follower(self, connection: sqlite3.Connection, name: str) -> tuple[int, _core.LedgerFollower]:
        """The shard's number, and a follower that stands where the index ends."""
        row = connection.execute("SELECT number, next, last FROM shard WHERE name = ?", (name,)).fetchone()
        if row is None:
            connection.execute("INSERT INTO shard (name, next, last) VALUES (?, 0, 0)", (name,))
            return self._follower(connection, name)
        number, position, last = row
        follower = self._followers.get(name)
        if follower is not None and follower.next == position:
            return number, follower
        shard = _core.LedgerShard(self._ledger / name)
        if position:
            # Rolled back, put in another's place, or torn by a loss of power: the record before does not say.
            before = shard.pick({position - 1})
            if not before or _core.ledger_term(bytes.fromhex(before[0]["id"])) != last:
                raise StaleIndexError(f"record {position - 1} of shard `{name}` is not the one that was indexed")
        follower = self._followers[name] = shard.follow(position)
        return number, follower

    def discard(self) -> None:
        """Throws the index away; the next use makes it anew."""
        with self._lock:
            self._followers.clear()
            try:
                with self._opened() as connection:
                    _make(connection, anew=True)
            except sqlite3.DatabaseError:
                # No database any more. Where it is one, its files stay: another process may have them open.
                for suffix in ("", "-wal", "-shm"):
                    self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        # One for each use: it costs 0.1 ms, and no thread, fork or thrown-away file has to be thought of.
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                _make(connection, anew=False)
            connection.execute(
                "PRAGMA synchronous = NORMAL"
            )  # what a loss of power takes is read from the ledger again
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cache_size = -65536")
            yield connection
        finally:
            connection.close()

    # --- finding ------------------------------------------------------------------------------------------------------

    def latest(self, wanted: Filter, limit: int) -> list[AuditRecord]:
        """The latest records that match, in order of time.

        Raises:
            StaleIndexError: The ledger does not hold what the index points at.
        """
        with self._opened() as connection:
            return self._read(connection, self._search(connection, wanted, limit, newest=True)[::-1], wanted)

    def each(self, wanted: Filter) -> Iterator[list[AuditRecord]]:
        """All records that match, in order of time, some at a time.

        Raises:
            StaleIndexError: The ledger does not hold what the index points at.
        """
        with self._opened() as connection:
            after: Place | None = None
            while found := self._search(connection, wanted, _PAGE, newest=False, after=after):
                yield self._read(connection, found, wanted)
                after = found[-1]

    def count(self, wanted: Filter) -> int:
        """How many places the index has for records that match."""
        with self._opened() as connection:
            total = 0
            for lead in leads(connection, wanted):
                sql, values = statement(wanted, lead, newest=True)
                total += int(connection.execute(f"SELECT count(*) FROM ({sql})", values).fetchone()[0])  # noqa: S608
            return total

    def _search(
        self, connection: sqlite3.Connection, wanted: Filter, limit: int, *, newest: bool, after: Place | None = None
    ) -> list[Place]:
        found: list[Place] = []
        for lead in leads(connection, wanted):
            sql, values = statement(wanted, lead, newest=newest, after=after)
            rows = connection.execute(f"{sql} LIMIT ?", (*values, min(limit, SIGN - 1)))
            found = list(islice(merge(found, map(Place._make, rows), reverse=newest), min(limit, sys.maxsize)))
        return found

    def _read(self, connection: sqlite3.Connection, found: list[Place], wanted: Filter) -> list[AuditRecord]:
        names = dict(connection.execute("SELECT number, name FROM shard"))
        places: dict[int, set[SupportsIndex]] = {}
        for place in found:
            places.setdefault(place.shard, set()).add(place.at)
        records: dict[tuple[int, int], AuditRecord] = {}
        for number, indexes in places.items():
            try:
                picked = _core.LedgerShard(self._ledger / names[number]).pick(indexes)
            except CretoError as error:
                if not (self._ledger / names[number]).exists():
                    raise StaleIndexError(f"shard `{names[number]}` is not there any more") from error
                raise
            records.update({(number, record["index"]): read(record) for record in picked})
        fitting = []
        for place in found:
            record = records.get((place.shard, place.at))
            # Its time too: one record under two would be found twice, and not where it belongs.
            told = record and (record.timestamp - SIGN, _core.ledger_term(bytes.fromhex(record.id)))
            if record is None or told != (place.time, place.id):
                raise StaleIndexError(f"record {place.at} of shard `{names[place.shard]}` is not the one indexed")
            if wanted.fits(record):  # two names may share a number
                fitting.append(record)
        return fitting


def _sort(connection: sqlite3.Connection) -> None:
    wanted = _LOOKED_UP.count("CREATE INDEX")
    made = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'record' AND sql IS NOT NULL"
    if connection.execute(made).fetchone()[0] == wanted:
        return
    with _all_or_nothing(connection):
        for statement in _LOOKED_UP.split(";"):
            connection.execute(statement)


def _make(connection: sqlite3.Connection, *, anew: bool) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    with _all_or_nothing(connection):
        if anew or connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            # Of an older release, damaged, or of another ledger: a projection is not migrated.
            tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            for (name,) in connection.execute(tables).fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)


@contextlib.contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
