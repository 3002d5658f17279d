"""How those who wait hear of something, from whatever thread or event loop it comes: by descriptors, never by turns."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from creto.messaging._receipt import Receipt

__all__ = ["News", "Wake"]


class Wake:
    """Wakes the one task that waits."""

    def __init__(self) -> None:
        # A fork shares it with its parent: at worst one of the two wakes for the other, and each looks by itself too.
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._descriptor)

    def set(self) -> None:
        """Wakes it, or keeps it from the next sleep."""
        os.eventfd_write(self._descriptor, 1)

    async def wait(self) -> None:
        """Sleeps until woken."""
        await anyio.wait_readable(self._descriptor)
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)


class News:
    """What this process has heard of a message since it was composed here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptors: list[int] = []
        self.receipts: dict[str, Receipt] = {}
        """By recipient: verified, and for the very bytes that were sent."""
        self.changed = False
        """Something became of it that only the store can tell."""

    def tell(self, receipt: Receipt | None = None) -> None:
        """Wakes whoever waits: a receipt is here, or there is something to see in the store."""
        with self._lock:
            if receipt is None or receipt.outcome == "refused":
                self.changed = True
                if receipt is not None:
                    self.receipts.pop(receipt.recipient, None)  # it had been received before that
            else:
                self.receipts[receipt.recipient] = receipt
            for descriptor in self._descriptors:
                os.eventfd_write(descriptor, 1)

    @contextmanager
    def awaited(self) -> Iterator[int]:
        """A descriptor that becomes readable with the next news."""
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._lock:
            self._descriptors.append(descriptor)
        try:
            yield descriptor
        finally:
            with self._lock:
                self._descriptors.remove(descriptor)
            os.close(descriptor)
