"""Sending and receiving over the store: durable between processes, or handed over in memory within one."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from creto import _core
from creto.errors import (
    ConnectionFailedError,
    CretoError,
    DeliveryDeniedError,
    EncryptionFailedError,
    InvalidInputError,
    NotFoundError,
    TimeoutError,
    UnauthorizedError,
)
from creto.messaging import _attachment, _outgoing, _receipt, _rows
from creto.messaging._holder import this_process
from creto.messaging._inbox import Inbox
from creto.messaging._message import Message, Sent

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.messaging._receipt import Receipt
    from creto.nhi import Agent, Identities
    from creto.reach import Reach
    from creto.store import Store, Transaction

__all__ = ["Authorize", "Mailbox"]

Authorize = Callable[["Agent", str, Mapping[str, Any]], Awaitable[None]]
"""Decides whether the agent may send to, or receive from, the other; raises UnauthorizedError where it may not."""

DIRECT_SECONDS = 300
MAILBOX_SECONDS = 24 * 3600
_OVERHEAD = 512 * 1024  # an envelope's own bytes, for 64 recipients of the larger suite and then some
_POLL = 0.25
_SWEEP_SECONDS = 60
_RECONNECT_SECONDS = 5


class _Wake:
    """Wakes the carrier, from whatever thread has something to send."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    async def wait(self) -> None:
        while not self._set:  # noqa: ASYNC110 - set from other threads and loops
            await anyio.sleep(0.02)
        self._set = False


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
    ) -> None:
        self._store = store
        self._identities = identities
        self._max = max_message_size
        self._timeout = delivery_timeout
        self._authorize_send = authorize_send
        self._authorize_receive = authorize_receive
        self._recorder = record
        self._remote = remote
        self._outgoing_wake = _Wake()
        self._clock = clock
        self._holder = this_process()
        self._inboxes: dict[str, list[Inbox]] = {}
        self._lock = threading.Lock()
        self._swept = 0
        if reach is not None:
            reach.on(_rows.TOPIC, self._woken)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(
        self,
        sender: Agent,
        to: str | Sequence[str],
        body: bytes | str,
        *,
        content_type: str | None = None,
        in_reply_to: str | None = None,
        priority: str = "normal",
        expires_in: float | None = None,
        attach: Mapping[str, bytes] | None = None,
        durable: bool = True,
        receipt: bool = False,
        timeout: float | None = None,
    ) -> Sent:
        """Seals a message and puts it into its recipients' mailboxes.

        Args:
            sender: Who writes.
            to: Names or ids of 1 to 64 recipients.
            body: The content; text is sent as UTF-8.
            content_type: Its media type; `text/plain` or `application/octet-stream` where none is given.
            in_reply_to: The id of the message that it answers.
            priority: `non-urgent`, `normal` or `urgent`.
            expires_in: Seconds until it stops to count, by default and at most: a day; five minutes if not durable.
            attach: Files by name, sealed apart from the message, up to 64 MiB each; on this machine only.
            durable: Kept in the store until it is acknowledged. Where False, it is handed to inboxes that are open in
                this process, and lost with it.
            receipt: Waits until every recipient has acknowledged it.
            timeout: Seconds to wait for the receipts; the mailbox's `delivery_timeout` where none is given.

        Raises:
            InvalidInputError: The body is too large, or an option has no such value.
            NotFoundError: A recipient is not known, or has no open inbox where one is needed.
            DeliveryDeniedError: Policy forbids it; nothing was sent.
            TimeoutError: No receipt in time; the text gives the message id and its true state.
        """
        sender = self._identities.current(sender)
        content, media = _content(body, content_type)
        size = len(content) + sum(map(len, (attach or {}).values()))
        blobs: list[_attachment.Blob] = []
        if attach:
            if not durable:
                raise InvalidInputError("attachments lie in the store; send them with `durable=True`")
            content, blobs = await anyio.to_thread.run_sync(_attachment.pack, content, media, attach)
            media = _attachment.MANIFEST
        if len(content) > self._max:
            raise InvalidInputError(
                f"the message has {len(content)} bytes, and {self._max} are the limit "
                "(`messaging.max_message_size_bytes`); send a large file with `attach=`"
            )
        if priority not in _rows.PRIORITIES:
            raise InvalidInputError(f"`{priority}` is not a priority; write `non-urgent`, `normal` or `urgent`")
        longest = MAILBOX_SECONDS if durable else DIRECT_SECONDS
        life = int(longest if expires_in is None else expires_in)
        if not 1 <= life <= longest:
            raise InvalidInputError(f"a message may wait for 1 to {longest} seconds here, not {life}")
        identities = [self._identities.find(name) for name in ([to] if isinstance(to, str) else to)]
        message_id = secrets.token_hex(16)
        await self._authorize_sending(sender, identities, message_id, size, media, priority)
        now = int(self._clock())

        def seal() -> bytes:
            return _core.envelope_seal(
                sender.id,
                sender.signing_key,
                identities,
                content,
                message_id=message_id,
                date=now,
                expires=now + life,
                content_type=media,
                priority=priority,
                in_reply_to=in_reply_to,
                chain=sender.delegation.digest if sender.delegation is not None else None,
            )

        recipients = tuple(identity.id for identity in identities)
        if durable:
            sealed, digest = await anyio.to_thread.run_sync(
                self._put, seal, sender, recipients, message_id, priority, in_reply_to, now + life, blobs
            )
        else:
            sealed = seal()
            digest = ""
            await self._hand_over(sender, recipients, message_id, sealed)
        sent = Sent(message_id, sender.id, recipients, now + life, len(sealed), self, digest)
        if receipt:
            await sent.receipts(timeout)
        return sent

    def _put(
        self,
        seal: Callable[[], bytes],
        sender: Agent,
        recipients: tuple[str, ...],
        message_id: str,
        priority: str,
        in_reply_to: str | None,
        expires: int,
        blobs: list[_attachment.Blob],
    ) -> tuple[bytes, str]:
        envelope = seal()
        with self._store.begin() as tx:
            self._sweep(tx)
            here = _rows.owned(tx, list(recipients))
            if blobs and not here.issuperset(recipients):
                raise InvalidInputError(
                    "attachments reach mailboxes of this machine only; for "
                    + ", ".join(f"`{id}`" for id in recipients if id not in here)
                    + " put the content into the message"
                )
            _attachment.keep(tx, blobs, expires)
            for recipient in recipients:
                if recipient not in here:
                    if not self._remote:
                        raise ConnectionFailedError(
                            f"the mailbox of `{recipient}` is on another machine, and no transport reaches it; "
                            "set `messaging.nats_url`"
                        )
                    _outgoing.keep(
                        tx,
                        sender=sender.id,
                        recipient=recipient,
                        message_id=message_id,
                        envelope=envelope,
                        expires=expires,
                        now=int(self._clock()),
                    )
                    self._record(tx, sender.id, "message:send", recipient, message_id, envelope, "success")
                    continue
                _rows.put(
                    tx,
                    recipient=recipient,
                    sender=sender.id,
                    message_id=message_id,
                    envelope=envelope,
                    priority=priority,
                    in_reply_to=in_reply_to,
                    expires=expires,
                )
                self._record(tx, sender.id, "message:send", recipient, message_id, envelope, "success")
        for recipient in recipients:
            self._woken(recipient)
        self._outgoing_wake.set()
        return envelope, hashlib.sha512(envelope).hexdigest()

    async def _hand_over(self, sender: Agent, recipients: tuple[str, ...], message_id: str, envelope: bytes) -> None:
        with self._lock:
            inboxes = {recipient: list(self._inboxes.get(recipient, ())) for recipient in recipients}
        for recipient, opened in inboxes.items():
            if not opened:
                raise NotFoundError(f"no inbox of `{recipient}` is open in this process; send it with `durable=True`")
        for recipient, opened in inboxes.items():
            if self._recorder is not None:
                self._recorder(_record(sender.id, "message:send", recipient, message_id, envelope, "success"))
            while not opened[0]._put_direct(envelope):  # noqa: ASYNC110 - its reader may be on another loop
                await anyio.sleep(0.001)  # the reader is behind: so is the writer

    async def request(
        self, sender: Agent, to: str, body: bytes | str, *, timeout: float | None = None, **options: Any
    ) -> Message:
        """Sends a message and waits for the reply to it; acknowledge the reply as any other message.

        Args:
            sender: Who asks.
            to: The one recipient.
            body: The content.
            timeout: Seconds to wait for the reply; the mailbox's `delivery_timeout` where none is given.
            options: As for `send`.

        Raises:
            TimeoutError: No reply in time; the text gives the message id and its true state.
        """
        from creto.store.tables import questions

        limit = self._timeout if timeout is None else timeout
        inbox = self.inbox(sender)
        try:
            sent = await self.send(sender, to, body, **options)
            until = int(self._clock() + limit) + 1

            def ask(tx: Transaction) -> None:
                tx.insert(questions, message_id=sent.id, sender=sender.id, until=until)

            await self._store.run(ask)
            with anyio.move_on_after(limit):
                while True:
                    inbox._drain()
                    reply = await inbox._next_stored(sent.id)
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
        """What became of a message, by recipient: `waiting`, `taken`, `acked`, `refused`, `denied` or `expired`."""
        rows = await self._store.fetch(_states, sender, message_id)
        states = dict.fromkeys(to, "expired")
        states.update({row.recipient: row.state for row in rows})
        return states

    async def _await_receipts(self, sent: Sent, timeout: float | None) -> list[Receipt]:
        limit = self._timeout if timeout is None else timeout
        with anyio.move_on_after(limit):
            while True:
                rows = await self._store.fetch(_states, sent.sender, sent.id)
                for row in rows:
                    if row.state in {"denied", "refused"}:
                        raise DeliveryDeniedError(
                            f"message `{sent.id}` was {row.state} at `{row.recipient}`: {row.reason}"
                        )
                if len(rows) == len(sent.to) and all(row.receipt for row in rows):
                    return [sent._verified(row.receipt, row.recipient) for row in rows]
                await anyio.sleep(_POLL / 5)
        states = await self.state(sent.sender, sent.id, sent.to)
        raise TimeoutError(
            f"message `{sent.id}` was not acknowledged within {limit:g} s; it is "
            + ", ".join(f"{state} at `{recipient}`" for recipient, state in states.items())
        )

    # --- receiving ----------------------------------------------------------------------------------------------------

    def inbox(self, agent: Agent, *, hold: int = 60) -> Inbox:
        """What comes in for an agent from now on, and what waits already.

        Args:
            agent: Whose keys are here.
            hold: Seconds until a message that was handed out and not acknowledged comes again; where its process died,
                at once.

        Example:
            async for message in mailbox.inbox(agent):
                await message.ack()
        """
        opened = Inbox(self, agent, hold)
        with self._lock:
            self._inboxes.setdefault(agent.id, []).append(opened)
        return opened

    def _closed(self, inbox: Inbox) -> None:
        with self._lock:
            opened = self._inboxes.get(inbox._agent.id, [])
            if inbox in opened:
                opened.remove(inbox)

    def _woken(self, key: str) -> None:
        with self._lock:
            opened = list(self._inboxes.get(key, ()))
            if key == "*":
                opened = [inbox for inboxes in self._inboxes.values() for inbox in inboxes]
        for inbox in opened:
            inbox._notify()

    def _take(self, agent: Agent, hold: int, reply_to: str | None) -> Message | None:
        """The next message that verifies; those that do not are refused and recorded on the way."""
        while True:
            now = int(self._clock())
            with self._store.read() as tx:
                if not _rows.any_for(tx, agent.id, now):
                    return None
            with self._store.begin() as tx:
                held = _rows.take(tx, agent.id, self._holder, now, hold, reply_to)
            if held is None:
                return None
            try:
                header, body = self._opened(agent, held.envelope, now, MAILBOX_SECONDS)
                if (header["sender"], header["message_id"]) != (held.sender, held.message_id):
                    # The row says otherwise than the seal: somebody who can write the store filed it under a new name.
                    raise EncryptionFailedError("the message was filed under another name than its own")
                return self._message(agent, header, body, held, held.envelope)
            except CretoError as error:
                with self._store.begin() as tx:
                    if _rows.end(tx, held, "refused", reason=str(error)):
                        tx.publish(_rows.TOPIC, f"receipt/{held.message_id}")
                        self._record(
                            tx,
                            agent.id,
                            "message:receive",
                            held.sender,
                            held.message_id,
                            held.envelope,
                            {"failure": str(error)},
                        )

    def _opened(self, agent: Agent, envelope: bytes, now: int, max_life: int) -> tuple[dict[str, Any], bytes]:
        verified = self._verified(agent, envelope, now, max_life)
        return verified.header(), verified.open(list(self._identities.current(agent).kem_keys))

    def _verified(self, agent: Agent, envelope: bytes, now: int, max_life: int) -> _core.VerifiedEnvelope:
        # Who it claims to be from, so that their keys are at hand; it is believed only once they have verified it.
        self._identities.find(_core.envelope_header(envelope, self._identities.suite)["sender"])
        return _core.envelope_verify(
            envelope,
            me=agent.id,
            directory=self._identities.directory,
            suite=self._identities.suite,
            max_bytes=self._max + _OVERHEAD,
            max_life=max_life,
            now=now,
        )

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

    async def _open_direct(self, agent: Agent, envelope: bytes, seen: dict[tuple[str, str], int]) -> Message | None:
        """Opens what was handed over in memory; None where it is refused."""
        now = int(self._clock())
        sender = ""
        try:
            claimed = _core.envelope_header(envelope, self._identities.suite)
            sender = claimed["sender"]
            key = (sender, claimed["message_id"])
            if seen.get(key, 0) > now:
                raise EncryptionFailedError("the message cannot be opened by this recipient")
            header, body = self._opened(agent, envelope, now, DIRECT_SECONDS)
            if len(seen) > 10_000:
                for old in [old for old, until in seen.items() if until <= now]:
                    del seen[old]
            seen[key] = header["expires"]
            message = self._message(agent, header, body, None, envelope)
            await self._authorize_receiving(agent, message)
        except CretoError as error:
            if self._recorder is not None:
                self._recorder(_record(agent.id, "message:receive", sender, "", envelope, {"failure": str(error)}))
            return None
        if self._recorder is not None:
            self._recorder(_record(agent.id, "message:receive", sender, message.id, envelope, "success"))
        return message

    def _message(
        self, agent: Agent, header: Mapping[str, Any], body: bytes, held: _rows.Held | None, envelope: bytes
    ) -> Message:
        media: str = header["content_type"]
        attached: dict[str, _attachment.Attachment] = {}
        if media == _attachment.MANIFEST:
            body, media, attached = _attachment.unpack(body, self._store)
        return Message(
            id=header["message_id"],
            sender=header["sender"],
            recipient=agent.id,
            to=tuple(header["to"]),
            body=body,
            content_type=media,
            attachments=attached,
            date=header["date"],
            expires=header["expires"],
            in_reply_to=header["in_reply_to"],
            priority=header["priority"],
            chain=header["chain"],
            redelivered=held is not None and held.attempts > 1,
            _mailbox=self,
            _agent=agent,
            _held=held,
            _envelope=envelope,
        )

    def _receipt(self, message: Message, held: _rows.Held) -> str:
        return _receipt.sign(
            self._identities.current(message._agent),
            message.sender,
            message.id,
            held.envelope,
            "acked",
            int(self._clock()),
        )

    # --- policy and records -------------------------------------------------------------------------------------------

    async def _authorize_sending(
        self, sender: Agent, to: Sequence[_core.Identity], message_id: str, size: int, media: str, priority: str
    ) -> None:
        if self._authorize_send is None:
            return
        context = {"message_id": message_id, "bytes": size, "content_type": media, "priority": priority}
        for identity in to:
            try:
                await self._authorize_send(sender, identity.id, context)
            except UnauthorizedError as error:
                raise DeliveryDeniedError(f"`{sender.id}` may not send to `{identity.id}`: {error}") from error

    async def _authorize_receiving(self, agent: Agent, message: Message) -> None:
        if self._authorize_receive is None:
            return
        context = {
            "message_id": message.id,
            "bytes": len(message.body),
            "content_type": message.content_type,
            "priority": message.priority,
        }
        await self._authorize_receive(agent, message.sender, context)

    async def _deny(self, held: _rows.Held, reason: str) -> None:
        def deny(tx: Transaction) -> None:
            if _rows.end(tx, held, "denied", reason=reason):
                tx.publish(_rows.TOPIC, f"receipt/{held.message_id}")
                self._record(
                    tx,
                    held.recipient,
                    "message:receive",
                    held.sender,
                    held.message_id,
                    held.envelope,
                    {"failure": reason},
                )

        await self._store.run(deny)

    def _record(
        self, tx: Transaction, who: str, what: str, other: str, message_id: str, envelope: bytes, outcome: Any
    ) -> None:
        tx.outbox(_record(who, what, other, message_id, envelope, outcome))

    def _sweep(self, tx: Transaction) -> None:
        now = int(self._clock())
        if now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            _rows.forget_expired(tx, now)


def _record(who: str, what: str, other: str, message_id: str, envelope: bytes, outcome: Any) -> dict[str, Any]:
    return {
        "who": who,
        "what": what,
        "resource": other,
        "outcome": outcome,
        "digest": hashlib.sha256(envelope).digest(),
        "detail": {"message_id": message_id, "bytes": len(envelope)},
    }


def _states(tx: Transaction, sender: str, message_id: str) -> list[Row[Any]]:
    return [*_rows.state(tx, sender, message_id), *_outgoing.state(tx, sender, message_id)]


def _content(body: bytes | str, content_type: str | None) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), content_type or "text/plain; charset=utf-8"
    return bytes(body), content_type or "application/octet-stream"
