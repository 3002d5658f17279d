"""What is heard of messages that were sent, and how whoever waits for one hears of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from creto._wake import Wake

if TYPE_CHECKING:
    from creto.messaging._receipt import Receipt

__all__ = ["News"]


class News:
    """What this process has heard of a message since it was composed here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Wake] = []
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
            for wake in self._waiting:
                wake.set()

    @contextmanager
    def awaited(self) -> Iterator[Wake]:
        """What the next news wakes."""
        wake = Wake()
        with self._lock:
            self._waiting.append(wake)
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting.remove(wake)
