"""What the database refuses, said as one of creto's own errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import exc

from creto.errors import (
    AlreadyExistsError,
    ConnectionFailedError,
    CretoError,
    IntegrityError,
    InternalError,
    InvalidInputError,
    TimeoutError,
    UnauthorizedError,
)

__all__ = ["InDoubtError", "passing", "translated"]

# PostgreSQL's states, whole or by the class that they begin with: https://www.postgresql.org/docs/current/errcodes-appendix.html
_BUSY = ("40P01", "55P03", "40001", "57014")  # deadlock, lock, serialization, time-out: the next try can succeed
_GONE = ("08", "57P", "25P")  # the connection is lost, or was ended by the server: an end of it is that of its work
_STANDBY = ("25006", "55000")
_FULL = ("too many clients", "too many connections", "connection slots are reserved")
_REFUSED = ("password", "authentication failed", "pg_hba.conf", "does not exist", "not support SSL", "certificate")


class InDoubtError(InternalError):
    """Whether a transaction counts is not known: its commit was not answered, and the database did not come back."""


def passing(error: CretoError) -> bool:
    """True where the store may do better later, so that what waits for it goes on waiting.

    It is unreachable, busy, or went away in the midst of a commit; or acts are denied for as long as it is.

    Args:
        error: Of the store, or of an act.
    """
    denied = isinstance(error, UnauthorizedError) and error.retry_after is not None
    return error.should_retry or denied or isinstance(error, InDoubtError)


@contextmanager
def translated(place: str, kind: type[Exception] = exc.SQLAlchemyError) -> Iterator[None]:
    """Raises creto's error in place of the database's: SQLAlchemy's, unless statements go past that."""
    try:
        yield
    except kind as error:
        raise _fault(place, error) from error


def _fault(place: str, error: Exception) -> CretoError:
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    if isinstance(error, exc.IntegrityError):
        return AlreadyExistsError(f"the store `{place}` has such a row already, or lacks one it points to: {text}")
    if "psycopg" in type(cause).__module__:
        return _postgresql(place, error, getattr(cause, "sqlstate", None), text)
    if "database is locked" in text or isinstance(error, exc.TimeoutError):
        return TimeoutError(f"the store `{place}` stayed busy: {text}")
    if "malformed" in text or "not a database" in text:
        return IntegrityError(f"the store `{place}` is damaged: {text}; restore it from a backup")
    if "disk is full" in text or ("disk I/O error" in text and _full(place)):
        return InternalError(f"the disk that holds the store `{place}` is full; free some room and try again")
    if "unable to open" in text or "readonly database" in text:
        return InvalidInputError(f"the store `{place}` cannot be opened for writing: {text}")
    return InternalError(f"the store `{place}` refused a statement: {text}")


def _full(place: str) -> bool:
    """SQLite says no more than "I/O error" where its shared memory, 32 KiB at a time, finds no room any more."""
    with suppress(OSError):
        return shutil.disk_usage(Path(place).parent).free < 65_536
    return False


def _postgresql(place: str, error: Exception, state: str | None, text: str) -> CretoError:
    if state is None:
        return _unconnected(place, error, text)
    if state in _BUSY:
        return TimeoutError(f"the store `{place}` stayed busy: {text}")
    if state == "53300" or state.startswith(_GONE):
        return ConnectionFailedError(f"the database at `{place}` ended the connection: {text}; try again")
    if state in _STANDBY and ("read-only" in text or "recovery" in text):
        return ConnectionFailedError(
            f"the database at `{place}` takes no writes: {text}; where it is a standby, give the address of the "
            "primary, or all of them with `target_session_attrs=read-write`"
        )
    if state == "42501":
        return InvalidInputError(
            f"the role that opens the database at `{place}` lacks a right: {text}; `docs/guide.md` has the grants"
        )
    if state == "3F000":
        return InvalidInputError(f"the database at `{place}` lacks the schema that `search_path` names: {text}")
    if state == "53100":
        return InternalError(f"the disk of the database at `{place}` is full; free some room and try again: {text}")
    if state == "54000":
        return InvalidInputError(f"the store `{place}` cannot keep something as long as this under an index: {text}")
    return InternalError(f"the store `{place}` refused a statement: {text}")


def _unconnected(place: str, error: Exception, text: str) -> CretoError:
    """What has no state: PostgreSQL's client could not connect, lost its connection, or sent nothing at all."""
    if "NUL" in text:
        return InvalidInputError(f"the store `{place}` cannot keep text with a NUL character in it")
    if any(word in text for word in _FULL):
        return ConnectionFailedError(
            f"the database at `{place}` has no connection left: {text}; a process of creto uses up to 16 of them: "
            "raise `max_connections`, or run fewer processes"
        )
    connecting = text.startswith("connection failed")  # later the same words are those of a line that broke
    if "connection option" in text or (connecting and any(word in text for word in _REFUSED)):
        return InvalidInputError(f"the database at `{place}` cannot be opened: {text}; correct `common.store_url`")
    if isinstance(error, exc.OperationalError):
        return ConnectionFailedError(f"the database at `{place}` could not be reached: {text}")
    return InternalError(f"the store `{place}` refused a statement: {text}")
