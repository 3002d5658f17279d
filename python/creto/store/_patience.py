"""A connection to PostgreSQL that gives up on a server which takes words and never answers.

TCP finds out only that a machine or a line has gone: a server that hangs acknowledges all the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import Connection, OperationalError

if TYPE_CHECKING:
    from psycopg.abc import PQGen

__all__ = ["PatientConnection"]

T = TypeVar("T")


class PatientConnection(Connection[Any]):
    """It is closed where nothing comes for a time: whether what was under way counts is not known then."""

    patience = 60.0
    """Seconds without a word."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Consumes what a statement, or a part of one, comes to."""
        return super().wait(self._answered(gen), *args, **kwargs)

    def _answered(self, gen: PQGen[T]) -> PQGen[T]:
        due = time.monotonic() + self.patience
        try:
            state = next(gen)
            while True:
                ready = yield state
                if ready:
                    due = time.monotonic() + self.patience
                elif time.monotonic() > due:
                    self.close()
                    raise OperationalError(f"the server has not answered for {self.patience:g} s")
                state = gen.send(ready)
        except StopIteration as end:
            value: T = end.value
            return value
