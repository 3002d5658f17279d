"""What the database refuses, said as one of creto's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from creto.errors import (
    AlreadyExistsError,
    ConnectionFailedError,
    CretoError,
    IntegrityError,
    InternalError,
    InvalidInputError,
    TimeoutError,
)

__all__ = ["translated"]

# Postgres: deadlock detected, lock not available, serialization failure. The next try can succeed.
_BUSY_STATES = {"40P01", "55P03", "40001"}


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
    state = getattr(cause, "sqlstate", None)
    if isinstance(error, exc.IntegrityError):
        return AlreadyExistsError(f"the store `{place}` has such a row already, or lacks one it points to: {text}")
    if state in _BUSY_STATES or "database is locked" in text or isinstance(error, exc.TimeoutError):
        return TimeoutError(f"the store `{place}` stayed busy: {text}")
    if "malformed" in text or "not a database" in text:
        return IntegrityError(f"the store `{place}` is damaged: {text}; restore it from a backup")
    if "disk is full" in text:
        return InternalError(f"the disk that holds the store `{place}` is full; free some room and try again")
    if "unable to open" in text or "readonly database" in text:
        return InvalidInputError(f"the store `{place}` cannot be opened for writing: {text}")
    if isinstance(error, exc.OperationalError) and state is None and "psycopg" in type(cause).__module__:
        return ConnectionFailedError(f"the database at `{place}` could not be reached: {text}")
    return InternalError(f"the store `{place}` refused a statement: {text}")
