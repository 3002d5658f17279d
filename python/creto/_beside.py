"""Work that goes on beside a block, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

__all__ = ["beside"]


@asynccontextmanager
async def beside() -> AsyncIterator[TaskGroup]:
    """Tasks that are cancelled when the block ends; what that raises, or one of them, comes out as it is, in no group.

    Example:
        >>> async def main():
        ...     async with beside() as tasks:
        ...         tasks.start_soon(anyio.sleep_forever)
        ...         raise KeyError("the block's own")
        >>> anyio.run(main)
        Traceback (most recent call last):
        ...
        KeyError: "the block's own"
    """
    raised: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - raised below
                raised = error
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if raised is not None:
            raise raised  # noqa: B904 - with its own cause; the others are its context
        raised = _only(group)
    if raised is not None:
        raise raised


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
