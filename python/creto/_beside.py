"""Work that goes on beside a block, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

__all__ = ["beside"]


@asynccontextmanager
async def beside() -> AsyncIterator[TaskGroup]:
    """Tasks that are cancelled when the block ends; what that raises comes out as it is, and not in a group.

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
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - raised below
            raised = error
        finally:
            tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
