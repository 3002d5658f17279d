"""What comes in for one agent: verified, opened, and handed out one at a time."""

from __future__ import annotations

import logging
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio

from creto._in_thread import in_thread
from creto._wake import Wake
from creto.errors import CretoError, ForkedError, UnauthorizedError
from creto.messaging import _rows
from creto.messaging._message import Message
from creto.store._faults import passing

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.nhi import Agent

__all__ = ["Inbox"]

_log = logging.getLogger("creto.messaging")

_NET = 0.5  # seconds between looks at the store where no wake-up came
_DIRECT = 256  # messages that wait in memory before their senders do


class Inbox(AsyncIterator[Message]):
    """The messages for an agent; iterate it, and close it when done.

    A message that does not verify is refused, recorded, and never handed out. `Mailbox.inbox` opens one.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> list[str]:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         writer, reader = identities.agent("writer"), identities.agent("reader")
        ...         await mailbox.send(writer, "reader", "in order")
        ...         await mailbox.send(writer, "reader", "before it", priority="urgent")
        ...         async with mailbox.inbox(reader) as inbox:
        ...             messages = [await anext(inbox), await anext(inbox)]
        ...             for message in messages:
        ...                 await message.ack()
        ...             return [message.text for message in messages]
        >>> anyio.run(main)
        ['before it', 'in order']
    """

    def __init__(self, mailbox: Mailbox, agent: Agent, hold: int) -> None:
        self._mailbox = mailbox
        self._agent = agent
        self._hold = hold
        self._direct: deque[tuple[bytes, bytes]] = deque()
        self._seen: dict[tuple[str, str], int] = {}
        self._wake = Wake()
        self._ended = False
        self._outlasts = False
        self._pid = os.getpid()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while True:
            if self._pid != os.getpid():
                raise ForkedError("this inbox belongs to the parent process; open one in the child")
            if self._ended:
                raise StopAsyncIteration
            message = await self._outlasting(self.ready)
            if message is not None:
                return message
            await self._wait()

    async def _outlasting(self, look: Callable[[], Awaitable[Message | None]]) -> Message | None:
        """What a look finds; who waits for messages waits out a store that is away too, which has them afterwards."""
        try:
            found = await look()
            self._outlasts = False
            return found
        except CretoError as error:
            if not passing(error):
                raise
            if not self._outlasts:
                _log.warning("the inbox of `%s` waits: %s", self._agent.id, error)
            self._outlasts = True
            await anyio.sleep(random.uniform(_NET, 4 * _NET))  # noqa: S311 - so that not all come back at once
            return None

    async def ready(self) -> Message | None:
        """The next message that is here already, or None.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         return await mailbox.inbox(reader).ready()
            >>> anyio.run(main)
        """
        message = await self._next_direct()
        if message is None:
            # What comes from here on wakes again, and is seen by the looks below or after them.
            self._wake.clear()
            message = await self._next_direct() or await self._next_stored()
        return message

    async def _next_direct(self) -> Message | None:
        while self._direct:
            envelope, digest = self._direct.popleft()
            try:
                message = await self._mailbox._receiving.open_direct(self._agent, envelope, digest, self._seen)
            except CretoError:
                self._direct.appendleft((envelope, digest))
                raise
            if message is not None:
                return message
        return None

    async def _next_stored(self, reply: tuple[str, str] | None = None) -> Message | None:
        receiving = self._mailbox._receiving
        while True:
            take = partial(receiving.take, self._agent, self._hold, reply)
            message = await in_thread(take, undo=self._give_back)
            if message is None:
                return None
            try:
                await receiving.authorize(self._agent, message)
            except BaseException as error:
                if isinstance(error, UnauthorizedError) and not passing(error):
                    if message._held is not None:
                        await receiving.deny(self._agent, message._held, str(error))
                    continue
                with anyio.CancelScope(shield=True):
                    await in_thread(partial(self._give_back, message))
                raise
            return message

    def _give_back(self, message: Message | None) -> None:
        """Puts a message back that nobody has seen yet, as it was."""
        if message is not None and message._held is not None:
            with self._mailbox._store.begin() as tx:
                _rows.give_back(tx, message._held, False)

    async def _wait(self) -> None:
        with anyio.move_on_after(_NET):
            await self._wake.wait()

    @property
    def _is_full(self) -> bool:
        return len(self._direct) >= _DIRECT

    def _put_direct(self, handed: tuple[bytes, bytes]) -> None:
        """Hands over an envelope, and its digest, in memory."""
        self._direct.append(handed)
        self._wake.set()

    def close(self) -> None:
        """Ends the iteration."""
        self._mailbox._closed(self)
        self._ended = True
        self._wake.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()
