"""Asking a server through a client library that believes it: one error, whatever comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from creto.errors import ConnectionFailedError, CretoError

__all__ = ["asking"]


@contextmanager
def asking() -> Iterator[None]:
    """Makes one error of whatever goes wrong as a server is asked for something.

    Raises:
        ConnectionFailedError: The server could not be asked, or what it said is no answer.
    """
    try:
        yield
    except CretoError:
        raise
    except Exception as error:
        raise ConnectionFailedError("the NATS server gave no answer, or one that cannot be read") from error
