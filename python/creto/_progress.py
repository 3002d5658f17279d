"""How far long work of the native module is, told while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from creto import _core

__all__ = ["Progress", "watched"]

Progress = Callable[[str, int, int], None]
"""Told now and then, on another thread: of what, how many records were done, and how many there are."""
_LOOK = 0.05


@contextmanager
def watched(progress: Progress | None, name: str, total: int) -> Iterator[_core.Progress]:
    """A counter for the native module to count up; how it stands is passed on until the block ends, and then once more.

    Args:
        progress: Who is told; nobody, where there is none.
        name: Of what.
        total: How many records there are.

    Example:
        >>> told = []
        >>> with watched(lambda *one: told.append(one), "0000", 3) as counter:
        ...     counter.count
        0
        >>> told[-1]
        ('0000', 0, 3)
    """
    counter = _core.Progress()
    if progress is None:
        yield counter
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK):
            progress(name, counter.count, total)

    watcher = threading.Thread(target=watch, name="creto-progress", daemon=True)
    watcher.start()
    try:
        yield counter
    finally:
        done.set()
        watcher.join()
        progress(name, counter.count, total)
