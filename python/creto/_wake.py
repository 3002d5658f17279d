"""How one task waits for something, from whatever thread or event loop it comes: by a descriptor, never by turns."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress

import anyio

__all__ = ["Wake"]


class Wake:
    """Wakes the one task that waits.

    Example:
        >>> wake = Wake()
        >>> wake.set()
        >>> anyio.run(wake.wait)  # it was woken before it slept
    """

    def __init__(self) -> None:
        # A fork shares it with its parent: at worst one of the two wakes for the other, and each looks by itself too.
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # With the last who could wake or wait, and not before: the number could be another file's by then.
        weakref.finalize(self, os.close, self._descriptor)

    def set(self) -> None:
        """Wakes it, or keeps it from the next sleep."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Forgets that it was woken."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    async def wait(self) -> None:
        """Sleeps until woken."""
        await anyio.wait_readable(self._descriptor)
        self.clear()
