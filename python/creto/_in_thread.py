"""Plain functions on worker threads, each waited for to its end, whoever cancels the caller meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

__all__ = ["in_thread"]

T = TypeVar("T")
_LOOK = 0.005  # seconds between looks whether a thread has ended whose caller was cancelled


async def in_thread(
    call: Callable[[], T],
    limiter: anyio.CapacityLimiter | None = None,
    *,
    undo: Callable[[T], object] | None = None,
    surely: bool = False,
) -> T:
    """Runs a plain function on a worker thread: one that begins is waited for, so that it never runs on unseen.

    anyio's shields hold only anyio's own cancellation off: `asyncio.wait_for`, `asyncio.timeout` and `Task.cancel` end
    the wait for a thread all the same, and the thread goes on.

    Args:
        call: What is run.
        limiter: How many such run at once; anyio's own where none is given.
        undo: Run likewise, with what came out of it, where its caller was cancelled and never gets that.
        surely: Also run where its caller is cancelled before it begins: for what has to be said, such as an end.

    Example:
        >>> anyio.run(in_thread, lambda: 1 + 1)
        2
    """
    lock, ended = threading.Lock(), threading.Event()
    begun = abandoned = False
    came: list[T] = []

    def work() -> None:
        nonlocal begun
        with lock:
            if abandoned:
                raise InterruptedError
            begun = True
        try:
            came.append(call())
        finally:
            ended.set()

    cancelled = anyio.get_cancelled_exc_class()
    try:
        with anyio.CancelScope(shield=surely):
            await anyio.to_thread.run_sync(work, limiter=limiter)
        return came[0]
    except cancelled:
        with lock:
            abandoned = True
        with anyio.CancelScope(shield=True):
            while begun and not ended.is_set():
                with suppress(cancelled):
                    await anyio.sleep(_LOOK)
            if surely and not begun:
                await in_thread(call, limiter, surely=True)
            elif came and undo is not None:
                await in_thread(partial(undo, came[0]), limiter, surely=True)
        raise
