"""Sending and receiving over the store: durable between processes, or handed over in memory within one."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread

from creto._in_thread import in_thread
from creto._process import here
from creto._wake import Wake
from creto.errors import ConnectionFailedError, TimeoutError
from creto.messaging import _outgoing, _receipt, _rows
from creto.messaging._fate import Fates
from creto.messaging._inbox import Inbox
from creto.messaging._message import Message, Sent
from creto.messaging._receiving import Receiving
from creto.messaging._sending import Draft, Options, Sending
from creto.nhi._agent import require_agent
from creto.reach import EVERYTHING

if TYPE_CHECKING:
    from creto.nhi import Agent, Identities
    from creto.reach import Reach
    from creto.store import Store, Transaction

__all__ = ["Authorize", "Mailbox"]

Authorize = Callable[["Agent", str, Mapping[str, Any]], Awaitable[None]]
"""Decides whether the agent may send to, or receive from, the other; raises UnauthorizedError where it may not."""

_SEALERS = 2  # threads that seal a batch: sealing releases the GIL
_SWEEP_SECONDS = 60
_RECONNECT_SECONDS = 5


class Mailbox:
    """Sends and receives for the agents of a store.

    Args:
        store: Where messages wait.
        identities: The agents, and whom they know.
        reach: Wakes waiting inboxes of other processes at once; without it they look twice a second.
        max_message_size: Bytes of the largest body.
        delivery_timeout: Seconds for which a sender waits for receipts where it asks for them.
        authorize_send: Asked before a message is sealed, for each recipient.
        authorize_receive: Asked before a message is handed out.
        record: Takes the ledger record of a message that is handed over in memory, where no transaction carries it.
        remote: Keeps messages for agents of other machines until a process that runs `carry` has sent them.
        clock: Seconds since the epoch.
        observe: Takes over the time at which a message was written, as a hybrid logical word: what a recipient records
            of it comes later, though the writer's machine is ahead of this one.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> str:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         asker, expert = identities.agent("asker"), identities.agent("expert")
        ...         async with anyio.create_task_group() as tasks:
        ...             async def answer() -> None:
        ...                 question = await anext(mailbox.inbox(expert))
        ...                 await question.reply(f"{question.text} Yes.")
        ...                 await question.ack()
        ...             tasks.start_soon(answer)
        ...             reply = await mailbox.request(asker, "expert", "Is it done?", timeout=30)
        ...             await reply.ack()
        ...             return reply.text
        >>> anyio.run(main)
        'Is it done? Yes.'
    """

    def __init__(
        self,
        store: Store,
        identities: Identities,
        reach: Reach | None = None,
        *,
        max_message_size: int = 1_048_576,
        delivery_timeout: float = 30.0,
        authorize_send: Authorize | None = None,
        authorize_receive: Authorize | None = None,
        record: Callable[[dict[str, Any]], None] | None = None,
        remote: bool = False,
        clock: Callable[[], float] = time.time,
        observe: Callable[[int], object] | None = None,
    ) -> None:
        self._store = store
        self._identities = identities
        self._max = max_message_size
        self._timeout = delivery_timeout
        self._authorize_send = authorize_send
        self._authorize_receive = authorize_receive
        self._recorder = record
        self._reach = reach
        self._remote = remote
        self._outgoing_wake = Wake()
        self._refused_wake = Wake()
        self._clock = clock
        self._observe = observe
        self._holder = here()
        # One that is left without `close`, as by `break` out of a loop, is open no more: nothing is handed to it.
        self._inboxes: dict[str, WeakValueDictionary[int, Inbox]] = {}
        self._lock = threading.Lock()
        self._swept = 0
        self._sending = Sending(self)
        self._receiving = Receiving(self)
        self._fates = Fates(store, reach is not None)
        if reach is not None:
            reach.on(_rows.TOPIC, self._woken)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(
        self,
        sender: Agent,
        to: str | Sequence[str],
        body: bytes | str,
        *,
        receipt: bool = False,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Sent:
        """Seals a message and puts it into its recipients' mailboxes.

        Args:
            sender: Who writes.
            to: Names or ids of 1 to 64 recipients.
            body: The content; text is sent as UTF-8.
            receipt: Waits until every recipient has acknowledged it, or received it where it is on another machine.
            timeout: Seconds to wait for the receipts; the mailbox's `delivery_timeout` where none is given.
            options: `content_type`: the body's media type; `text/plain` or `application/octet-stream` where none is
                given. `in_reply_to`: the id of the message that it answers. `priority`: `non-urgent`, `normal` or
                `urgent`. `expires_in`: seconds until it stops to count, by default and at most: a day; five minutes if
                not durable. `attach`: files by name, sealed apart from the message, up to 64 MiB each and 256 MiB
                together. `durable`: kept in the store until it is acknowledged; where False, it is handed to inboxes
                that are open in this process, and lost with it.

        Raises:
            InvalidInputError: The body is too large, or an option has no such value.
            NotFoundError: A recipient is not known, or has no open inbox where one is needed.
            DeliveryDeniedError: Policy forbids it; nothing was sent.
            TimeoutError: No receipt in time; the text gives the message id and its true state.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         sent = await mailbox.send(writer, ["reader", "writer"], "the report is done", priority="urgent")
            ...         return sent.to
            >>> anyio.run(main)
            ('spiffe://creto.local/agent/reader', 'spiffe://creto.local/agent/writer')
        """
        draft = await self._sending.compose(sender, to, body, **options)
        sent = await self._deliver(draft)
        if receipt:
            await sent.receipts(timeout)
        return sent

    async def _deliver(self, draft: Draft) -> Sent:
        return await (self._sending.put(draft) if draft.durable else self._sending.hand_over(draft))

    async def send_many(
        self,
        sender: Agent,
        messages: Iterable[tuple[str | Sequence[str], bytes | str]],
        **options: Unpack[Options],
    ) -> list[Sent]:
        """Sends a batch: each message is authorized and sealed by itself, and all are filed in one transaction or none.

        Args:
            sender: Who writes.
            messages: Recipients and body of each.
            options: As for `send`, the same for all; the batch is always durable, and waits for no receipts.

        Raises:
            DeliveryDeniedError: Policy forbids one of them; none was sent.
            InvalidInputError: One of them cannot be sent; none was.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main() -> int:
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         identities = Identities(store)
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         batch = [(reader.id, f"part {number}") for number in range(3)]
            ...         return len(await Mailbox(store, identities).send_many(writer, batch))
            >>> anyio.run(main)
            3
        """
        drafts = [await self._sending.compose(sender, to, body, **options) for to, body in messages]
        if not drafts:
            return []
        sealed: list[bytes] = [b""] * len(drafts)

        async def seal(first: int) -> None:
            def every_other() -> None:
                for place in range(first, len(drafts), _SEALERS):
                    sealed[place] = drafts[place].seal()

            await anyio.to_thread.run_sync(every_other)

        async with anyio.create_task_group() as tasks:
            for first in range(min(_SEALERS, len(drafts))):
                tasks.start_soon(seal, first)
        pairs: list[tuple[Draft, bytes]] = list(zip(drafts, sealed, strict=True))
        return await in_thread(partial(self._sending.file, pairs))

    async def request(
        self, sender: Agent, to: str, body: bytes | str, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Message:
        """Sends a message and waits for the reply to it; acknowledge the reply as any other message.

        Args:
            sender: Who asks.
            to: The one recipient.
            body: The content.
            timeout: Seconds to wait for the reply; the mailbox's `delivery_timeout` where none is given.
            options: As for `send`.

        Raises:
            TimeoutError: No reply by the recipient in time; the text gives the message id and its true state.
        """
        from creto.store.tables import questions

        limit = self._timeout if timeout is None else timeout
        inbox = self.inbox(sender)
        try:
            draft = await self._sending.compose(sender, to, body, **options)
            [asked] = draft.recipients
            until = int(self._clock() + limit) + 1

            def ask(tx: Transaction) -> None:
                tx.insert(questions, message_id=draft.message_id, sender=sender.id, asked=asked, until=until)

            # Before the message is out: the reply may be there before this goes on.
            await self._store.run(ask)
            sent = await self._deliver(draft)
            with anyio.move_on_after(limit):
                while True:
                    inbox._wake.clear()
                    reply = await inbox._outlasting(partial(inbox._next_stored, (sent.id, asked)))
                    if reply is not None:
                        return reply
                    await inbox._wait()
            states = await sent.state()
            raise TimeoutError(
                f"no reply to message `{sent.id}` within {limit:g} s; it is "
                + ", ".join(f"{state} at `{recipient}`" for recipient, state in states.items())
            )
        finally:
            inbox.close()

    async def state(self, sender: str, message_id: str, to: Sequence[str] = ()) -> dict[str, str]:
        """What became of a message, by recipient: `waiting`, `taken`, `acked`, `refused`, `denied` or `expired`.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         sent = await mailbox.send(writer, "reader", "the report is done")
            ...         await (await anext(mailbox.inbox(reader))).ack()
            ...         return await mailbox.state(writer.id, sent.id)
            >>> anyio.run(main)
            {'spiffe://creto.local/agent/reader': 'acked'}
        """
        return await self._fates.state(sender, message_id, to)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def inbox(self, agent: Agent, *, hold: int = 60) -> Inbox:
        """What comes in for an agent from now on, and what waits already.

        Args:
            agent: Whose keys are here.
            hold: Seconds until a message that was handed out and not acknowledged comes again; where its process died,
                at once.

        Example:
            >>> import anyio, tempfile
            >>> from creto.messaging import Mailbox
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> async def main():
            ...     with Store(tempfile.mkdtemp()) as store:
            ...         mailbox = Mailbox(store, identities := Identities(store))
            ...         writer, reader = identities.agent("writer"), identities.agent("reader")
            ...         await mailbox.send(writer, "reader", "the report is done")
            ...         async for message in mailbox.inbox(reader):
            ...             await message.ack()
            ...             return message.text
            >>> anyio.run(main)
            'the report is done'
        """
        require_agent(agent)
        opened = Inbox(self, agent, hold)
        with self._lock:
            self._inboxes.setdefault(agent.id, WeakValueDictionary())[id(opened)] = opened
        return opened

    def _closed(self, inbox: Inbox) -> None:
        with self._lock:
            if inbox in self._opened(inbox._agent.id):
                del self._inboxes[inbox._agent.id][id(inbox)]

    def _open_inbox(self, recipient: str) -> Inbox | None:
        with self._lock:
            return next(iter(self._opened(recipient)), None)

    def _opened(self, recipient: str) -> list[Inbox]:
        inboxes = self._inboxes.get(recipient)
        return list(inboxes.values()) if inboxes else []

    def _woken(self, key: str) -> None:
        """Wakes the inboxes of a recipient, whoever waits for `receipt/<message id>`, or the carrier of what leaves."""
        with self._lock:
            if key == EVERYTHING:
                opened = [inbox for recipient in self._inboxes for inbox in self._opened(recipient)]
            else:
                opened = self._opened(key)
        for inbox in opened:
            inbox._wake.set()
        self._fates.tell(None if key == EVERYTHING else key.removeprefix(_rows.RECEIPT))
        if key in {EVERYTHING, _outgoing.OUTGOING}:
            self._outgoing_wake.set()
        if key in {EVERYTHING, _rows.REFUSED}:
            self._refused_wake.set()

    def carry(self, url: str) -> AbstractAsyncContextManager[None]:
        """Carries messages between machines by NATS while the context is open; one process of a machine is enough.

        Args:
            url: `nats://host:port`, or several, separated by commas.

        Raises:
            InvalidInputError: The event loop is not asyncio's, or the extra `nats` is not installed.
            ConnectionFailedError: No server could be reached.
        """
        from creto.messaging._nats import carry_by_nats

        self._remote = True
        return carry_by_nats(self, url)

    async def keep_carrying(self, url: str) -> None:
        """`carry`, until cancelled, and again after a while where no server can be reached: messages wait in the store.

        Args:
            url: `nats://host:port`, or several, separated by commas.

        Raises:
            InvalidInputError: The event loop is not asyncio's, or the extra `nats` is not installed.
        """
        while True:
            try:
                async with self.carry(url):
                    await anyio.sleep_forever()
            except ConnectionFailedError:
                await anyio.sleep(_RECONNECT_SECONDS)

    def _receipt(self, message: Message, held: _rows.Held) -> str:
        return _receipt.sign(
            self._identities.current(message._agent),
            message.sender,
            message.id,
            held.envelope,
            "acked",
            int(self._clock()),
        )

    def _sweep(self, tx: Transaction) -> None:
        now = int(self._clock())
        if now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            _rows.forget_expired(tx, now)
            _outgoing.forget_expired(tx, now - _rows.GRACE)
