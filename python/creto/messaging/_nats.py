"""NATS JetStream as the carrier between machines, and no more than that.

Its acknowledgement is never taken for a delivery: servers have lost what they had acknowledged. A message is sent again
from the store until the recipient's signed receipt is here, and what comes twice is kept out by its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sniffio

from creto.errors import ConnectionFailedError, CretoError, DeliveryDeniedError, InvalidInputError
from creto.messaging import _outgoing, _receipt, _rows
from creto.messaging._receiving import MAILBOX_SECONDS

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.messaging._receipt import Receipt
    from creto.nhi import Agent

__all__ = ["carry_by_nats", "fetch_batch"]

_STREAM = "CRETO"
_LOOK = 0.5  # seconds between looks at what is due
_BATCH = 64
_FETCH_SECONDS = 1.0
_BEHIND_SECONDS = 0.005
_CONNECT_SECONDS = 5


def _token(trust_domain: str) -> str:
    # Names of trust domains hold dots, which NATS would take for levels of a subject.
    return hashlib.sha256(trust_domain.encode()).hexdigest()[:32]


def _domain_of(id: str) -> str:
    return id.removeprefix("spiffe://").split("/", 1)[0]


@asynccontextmanager
async def carry_by_nats(mailbox: Mailbox, url: str) -> AsyncIterator[None]:
    """Carries a mailbox's messages to and from other machines while the context is open.

    Args:
        mailbox: Whose messages.
        url: `nats://host:port`, or several, separated by commas.

    Raises:
        InvalidInputError: The event loop is not asyncio's, or the extra `nats` is not installed.
        ConnectionFailedError: No server could be reached.
    """
    if sniffio.current_async_library() != "asyncio":
        raise InvalidInputError("messages between machines need asyncio: the NATS client knows no other event loop")
    try:
        import nats
        from nats.errors import Error as NatsError
        from nats.js.errors import BadRequestError
    except ModuleNotFoundError as error:
        raise InvalidInputError("messages between machines need an extra: run `pip install 'creto[nats]'`") from error
    try:
        # Once there was a connection it is tried again for ever; a first one that never comes is the caller's to know.
        with anyio.fail_after(_CONNECT_SECONDS):
            client = await nats.connect(
                url.split(","), connect_timeout=_CONNECT_SECONDS, max_reconnect_attempts=-1, error_cb=_quiet
            )
    except (NatsError, OSError, TimeoutError) as error:
        raise ConnectionFailedError(
            f"no NATS server could be reached at `{_shown(url)}` within {_CONNECT_SECONDS} s"
        ) from error
    try:
        stream = client.jetstream()
        # Another machine may make it in the same moment, with the same settings.
        with suppress(BadRequestError):
            await stream.add_stream(name=_STREAM, subjects=["creto.mail.*", "creto.receipt.*"], max_age=24 * 3600)
        carrier = _Carrier(mailbox, client, stream)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carrier.send)
            tasks.start_soon(carrier.receive, "mail", carrier.take_in)
            tasks.start_soon(carrier.receive, "receipt", carrier.take_receipts)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


class _Carrier:
    def __init__(self, mailbox: Mailbox, client: Any, stream: Any) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities
        self._client = client
        self._stream = stream

    def _now(self) -> int:
        return int(self._mailbox._clock())

    async def send(self) -> None:
        """Publishes what is due, for ever."""
        while True:
            rows = await self._store.run(_outgoing.due, self._now(), _BATCH)
            carried = []
            for row in rows:
                if len(row.envelope) + 512 > self._client.max_payload:
                    await self._store.run(_outgoing.refuse, row)
                else:
                    subject = f"creto.mail.{_token(_domain_of(row.recipient))}"
                    carried.append((subject, bytes(row.envelope), row.recipient))
            # Whatever the server says, a row waits for the recipient's receipt.
            await self._publish(carried)
            if rows:
                await self._store.run(_outgoing.tried, rows, self._now())
            if len(rows) < _BATCH:
                await self._wait_for_more()

    async def _publish(self, messages: Sequence[tuple[str, bytes, str]]) -> list[bool]:
        """Publishes (subject, data, recipient) side by side; says of each whether the server has it."""
        from nats.errors import Error as NatsError

        answered = [False] * len(messages)

        async def one(place: int, subject: str, data: bytes, recipient: str) -> None:
            with suppress(NatsError, TimeoutError, OSError):
                await self._stream.publish(subject, data, headers={"Creto-Recipient": recipient}, timeout=5)
                answered[place] = True

        async with anyio.create_task_group() as tasks:
            for place, message in enumerate(messages):
                tasks.start_soon(one, place, *message)
        return answered

    async def _wait_for_more(self) -> None:
        with anyio.move_on_after(_LOOK):
            await self._mailbox._outgoing_wake.wait()

    async def receive(self, kind: str, take: Callable[[list[Any]], Awaitable[list[CretoError | None]]]) -> None:
        """Takes in what comes for this trust domain, for ever; what could not be dealt with now comes again."""
        from nats.errors import Error as NatsError

        subject = f"creto.{kind}.{_token(self._identities.trust_domain)}"
        durable = f"{kind}-{_token(self._identities.trust_domain)}"
        subscription = None
        while True:
            try:
                if subscription is None:
                    subscription = await self._stream.pull_subscribe(subject, durable=durable, stream=_STREAM)
                messages = await fetch_batch(subscription)
            except (NatsError, TimeoutError, OSError):
                if subscription is None:
                    await anyio.sleep(_LOOK)
                continue
            for message, error in zip(messages, await take(messages), strict=True):
                with suppress(NatsError, OSError):
                    if error is None:
                        await message.ack()
                    elif error.should_retry:
                        await message.nak(delay=1)
                    else:
                        # It will be no better the next time: a forgery, or for somebody who is not here.
                        await message.term()

    async def take_in(self, messages: list[Any]) -> list[CretoError | None]:
        """Puts envelopes into their mailboxes once they verify, and answers each with a receipt."""
        found = [(_recipient_of(message), bytes(message.data)) for message in messages]
        taken = await anyio.to_thread.run_sync(self._take_in, found)
        receipts = [
            (f"creto.receipt.{_token(_domain_of(one[0]))}", one[1].encode(), recipient)
            for one, (recipient, _) in zip(taken, found, strict=True)
            if not isinstance(one, CretoError)
        ]
        answered = iter(await self._publish(receipts))
        again = ConnectionFailedError("the receipt could not be sent")
        return [one if isinstance(one, CretoError) else None if next(answered) else again for one in taken]

    def _take_in(self, found: list[tuple[str, bytes]]) -> list[tuple[str, str] | CretoError]:
        """Sender and receipt of each, or why there is none; all that verify are put in one transaction."""
        read: list[tuple[Agent, dict[str, Any]] | CretoError] = []
        for recipient, envelope in found:
            try:
                # Only an agent that is here already: a name on the wire, whoever wrote it, makes none.
                self._identities.require_own(recipient)
                agent = self._identities.agent(recipient)
                verified = self._mailbox._receiving.verified(agent, envelope, self._now(), MAILBOX_SECONDS)
                read.append((agent, verified.header()))
            except CretoError as error:
                read.append(error)
        with self._store.begin() as tx:
            for place, (one, (_, envelope)) in enumerate(zip(read, found, strict=True)):
                if isinstance(one, CretoError):
                    continue
                agent, header = one
                try:
                    _rows.put(
                        tx,
                        recipient=agent.id,
                        sender=header["sender"],
                        message_id=header["message_id"],
                        envelope=envelope,
                        priority=header["priority"],
                        in_reply_to=header["in_reply_to"],
                        expires=header["expires"],
                    )
                except DeliveryDeniedError as error:
                    read[place] = error
            for recipient in {one[0].id for one in read if not isinstance(one, CretoError)}:
                tx.publish(_rows.TOPIC, recipient)
        receipts: list[tuple[str, str] | CretoError] = []
        for one, (_, envelope) in zip(read, found, strict=True):
            if isinstance(one, CretoError):
                receipts.append(one)
                continue
            agent, header = one
            self._mailbox._woken(agent.id)
            sender, message_id = header["sender"], header["message_id"]
            # Whether it is new or was here already: the receipt may have been lost on its way.
            statement = _receipt.sign(agent, sender, message_id, envelope, "received", self._now())
            receipts.append((sender, statement))
        return receipts

    async def take_receipts(self, messages: list[Any]) -> list[CretoError | None]:
        """Ends the sending of what receipts are about, once they verify."""
        found = [(_recipient_of(message), bytes(message.data)) for message in messages]
        return await anyio.to_thread.run_sync(self._take_receipts, found)

    def _take_receipts(self, found: list[tuple[str, bytes]]) -> list[CretoError | None]:
        claims: list[Receipt | CretoError] = []
        for _, data in found:
            try:
                claims.append(_receipt.claimed(data.decode()))
            except UnicodeDecodeError:
                claims.append(InvalidInputError("a receipt that is not text"))
            except CretoError as error:
                claims.append(error)
        with self._store.read() as tx:
            ids = [claim.message_id for claim in claims if not isinstance(claim, CretoError)]
            envelopes = _outgoing.envelopes_of(tx, ids)
        errors: list[CretoError | None] = []
        ended: list[Receipt] = []
        for (recipient, _), claim in zip(found, claims, strict=True):
            if isinstance(claim, CretoError):
                errors.append(claim)
                continue
            envelope = envelopes.get((claim.sender, recipient, claim.message_id))
            try:
                # None: it has been answered before, or was never sent. Else bound to the very bytes that were sent.
                if envelope is not None:
                    digest = hashlib.sha512(envelope).hexdigest()
                    ended.append(_receipt.verify(self._identities, claim.statement, recipient, digest))
                errors.append(None)
            except CretoError as error:
                errors.append(error)
        if ended:
            with self._store.begin() as tx:
                _outgoing.received(tx, ended)
            for receipt in ended:
                self._mailbox._woken(f"{_rows.RECEIPT}{receipt.message_id}")
        return errors


async def fetch_batch(subscription: Any) -> list[Any]:
    """What comes within a second, as soon as the first is there, with what comes right behind it.

    To ask for a whole batch at once would wait the whole second whenever fewer come: the server keeps such a request
    open for all of its time.

    Raises:
        TimeoutError: Nothing has come.
    """
    messages: list[Any] = await subscription.fetch(1, timeout=_FETCH_SECONDS)
    with suppress(TimeoutError):
        messages += await subscription.fetch(_BATCH - 1, timeout=_BEHIND_SECONDS)
    return messages


def _recipient_of(message: Any) -> str:
    return str((message.headers or {}).get("Creto-Recipient", ""))


async def _quiet(_error: Exception) -> None:
    """The client logs each lost connection with its stack; what matters of it is in the states of the messages."""


def _shown(url: str) -> str:
    """The URL without its password."""
    return ",".join(part.rsplit("@", 1)[-1] for part in url.split(","))
