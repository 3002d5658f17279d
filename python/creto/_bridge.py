"""Awaits what ends on a Rust thread: one queue and one eventfd for each event loop, drained by that loop's thread."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

import sniffio

from creto import _core

__all__ = ["wait"]

_tokens = itertools.count(1)
_asyncio_queues: weakref.WeakKeyDictionary[Any, _Queue] = weakref.WeakKeyDictionary()


class _Queue:
    """The completions of one event loop."""

    def __init__(self) -> None:
        self.bridge = _core.Bridge()
        self.waiting: dict[int, Callable[[Any, BaseException | None], None]] = {}
        self.pid = os.getpid()

    def drain(self) -> None:
        for token, value, error in self.bridge.drain():
            resolve = self.waiting.pop(token, None)
            if resolve is not None:
                resolve(value, error)


async def wait(start: Callable[[_core.Bridge, int], Any]) -> Any:
    """Calls `start(bridge, token)` and returns what the work completes with.

    Args:
        start: Starts work on a Rust thread that completes `token` on `bridge`; called at once, on this thread.

    Returns:
        The value of the completion.

    Raises:
        CretoError: What the work failed with, or what `start` raised.
    """
    if sniffio.current_async_library() == "trio":
        return await _wait_trio(start)
    return await _wait_asyncio(start)


async def _wait_asyncio(start: Callable[[_core.Bridge, int], Any]) -> Any:
    import asyncio

    loop = asyncio.get_running_loop()
    queue = _asyncio_queues.get(loop)
    if queue is None or queue.pid != os.getpid():
        queue = _asyncio_queues[loop] = _Queue()
        loop.add_reader(queue.bridge.fileno(), queue.drain)
    future: asyncio.Future[Any] = loop.create_future()

    def resolve(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    token = next(_tokens)
    queue.waiting[token] = resolve
    try:
        start(queue.bridge, token)
        return await future
    finally:
        queue.waiting.pop(token, None)


async def _wait_trio(start: Callable[[_core.Bridge, int], Any]) -> Any:
    import trio

    queue = _trio_queue.get(None)
    if queue is None or queue.pid != os.getpid():
        queue = _Queue()
        _trio_queue.set(queue)
        trio.lowlevel.spawn_system_task(_drain_trio, queue)
    done = trio.Event()
    outcome: list[Any] = []

    def resolve(value: Any, error: BaseException | None) -> None:
        outcome.extend((value, error))
        done.set()

    token = next(_tokens)
    queue.waiting[token] = resolve
    try:
        start(queue.bridge, token)
        await done.wait()
    finally:
        queue.waiting.pop(token, None)
    value, error = outcome
    if error is not None:
        raise error
    return value


async def _drain_trio(queue: _Queue) -> None:
    import trio

    while True:
        await trio.lowlevel.wait_readable(queue.bridge.fileno())
        queue.drain()


class _TrioRun:
    """The queue of the running trio loop; made when trio is first seen, so that trio stays optional."""

    def __init__(self) -> None:
        self._var: Any = None

    def _run_var(self) -> Any:
        if self._var is None:
            import trio

            self._var = trio.lowlevel.RunVar("creto-bridge")
        return self._var

    def get(self, default: _Queue | None) -> _Queue | None:
        queue: _Queue | None = self._run_var().get(default)
        return queue

    def set(self, queue: _Queue) -> None:
        self._run_var().set(queue)


_trio_queue = _TrioRun()
