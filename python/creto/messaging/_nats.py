"""NATS JetStream as the carrier between machines, and no more than that.

Its acknowledgement is never taken for a delivery: servers have lost what they had acknowledged. A message is sent again
from the store until the recipient's signed receipt is here, and what comes twice is kept out by its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sniffio

from creto.errors import ConnectionFailedError, CretoError, InvalidInputError
from creto.messaging import _outgoing, _parcel, _receipt, _rows
from creto.messaging._receiving import MAILBOX_SECONDS

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.messaging._receipt import Receipt
    from creto.nhi import Agent

__all__ = ["carry_by_nats", "fetch_batch"]

_STREAM = "CRETO"
_LOOK = 0.5  # seconds between looks at what is due
_BATCH = 64
_PARCEL = 1 << 20  # bytes
_FLUSH_SECONDS = 5
_PARCELS = 16  # taken in together
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


Take = Callable[[list[tuple[str, bytes]]], Awaitable[list[CretoError | None]]]


class _Carrier:
    def __init__(self, mailbox: Mailbox, client: Any, stream: Any) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities
        self._client = client
        self._stream = stream
        self._threads = anyio.CapacityLimiter(2)  # its own: what comes in never waits behind what is sent

    def _now(self) -> int:
        return int(self._mailbox._clock())

    async def send(self) -> None:
        """Publishes what is due, for ever."""
        while True:
            rows = await self._store.run(_outgoing.due, self._now(), _BATCH)
            carried = []
            for row in rows:
                if len(row.envelope) + _parcel.OVERHEAD > self._client.max_payload:
                    await self._store.run(_outgoing.refuse, row)
                else:
                    carried.append((row.recipient, row.recipient, bytes(row.envelope)))
            # Whatever the server says, a row waits for the recipient's receipt.
            await self._publish("mail", carried)
            if len(rows) < _BATCH:
                await self._wait_for_more()

    async def _publish(self, kind: str, items: Iterable[tuple[str, str, bytes]]) -> bool:
        """Publishes (whom it is for, whom it names, data), many to a parcel; True once the server has read all of it.

        JetStream's own acknowledgements are not asked for: nobody here would believe them.
        """
        from nats.errors import Error as NatsError

        subjects: dict[str, list[tuple[str, bytes]]] = {}
        for to, named, data in items:
            subjects.setdefault(f"creto.{kind}.{_token(_domain_of(to))}", []).append((named, data))
        if not subjects:
            return True
        try:
            for subject, all in subjects.items():
                for parcel in _parcel.pack(all, min(_PARCEL, self._client.max_payload)):
                    await self._client.publish(subject, parcel)
            await self._client.flush(timeout=_FLUSH_SECONDS)
        except (NatsError, TimeoutError, OSError):
            return False
        return True

    async def _wait_for_more(self) -> None:
        while True:
            with anyio.move_on_after(_LOOK):
                await self._mailbox._outgoing_wake.wait()
                return
            if await self._store.fetch(_outgoing.any_due, self._now()):
                return

    async def receive(self, kind: str, take: Take) -> None:
        """Takes in what comes for this trust domain, for ever; what could not be dealt with now comes again."""
        from nats.errors import Error as NatsError

        subject = f"creto.{kind}.{_token(self._identities.trust_domain)}"
        durable = f"{kind}-{_token(self._identities.trust_domain)}"
        subscription = None
        while True:
            try:
                if subscription is None:
                    subscription = await self._stream.pull_subscribe(subject, durable=durable, stream=_STREAM)
                messages = await fetch_batch(subscription, _PARCELS)
            except (NatsError, TimeoutError, OSError):
                if subscription is None:
                    await anyio.sleep(_LOOK)
                continue
            for message, error in zip(messages, await self._dealt_with(messages, take), strict=True):
                with suppress(NatsError, OSError):
                    if error is None:
                        await message.ack()
                    elif error.should_retry:
                        await message.nak(delay=1)
                    else:
                        # It will be no better the next time: a forgery, or for somebody who is not here.
                        await message.term()

    async def _dealt_with(self, parcels: list[Any], take: Take) -> list[CretoError | None]:
        """Takes in what is in the parcels, all of it at once; the error of each, where it comes to nothing or again."""
        errors: list[CretoError | None] = [None] * len(parcels)
        found: list[tuple[str, bytes]] = []
        parts: list[tuple[int, int]] = []
        for place, parcel in enumerate(parcels):
            start = len(found)
            try:
                found += _parcel.unpack(bytes(parcel.data))
            except CretoError as error:
                errors[place] = error
            parts.append((start, len(found)))
        taken = await take(found) if found else []
        for place, (start, end) in enumerate(parts):
            one = taken[start:end]
            # One that may do better brings its whole parcel again: what is in already stays out by its row.
            again = [error for error in one if error is not None and error.should_retry]
            if again or (one and None not in one):
                errors[place] = (again or one)[0]
        return errors

    async def take_in(self, found: list[tuple[str, bytes]]) -> list[CretoError | None]:
        """Puts envelopes into their mailboxes once they verify, and answers each with a receipt."""
        taken = await anyio.to_thread.run_sync(self._take_in, found, limiter=self._threads)
        receipts = [
            (one[0], recipient, one[1].encode())
            for one, (recipient, _) in zip(taken, found, strict=True)
            if not isinstance(one, CretoError)
        ]
        again = None if await self._publish("receipt", receipts) else ConnectionFailedError("no receipt could be sent")
        return [one if isinstance(one, CretoError) else again for one in taken]

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
        letters = [
            _rows.Letter(
                recipient=one[0].id,
                sender=one[1]["sender"],
                message_id=one[1]["message_id"],
                envelope=envelope,
                priority=one[1]["priority"],
                in_reply_to=one[1]["in_reply_to"],
                expires=one[1]["expires"],
            )
            for one, (_, envelope) in zip(read, found, strict=True)
            if not isinstance(one, CretoError)
        ]
        with self._store.begin() as tx:
            denials = iter(_rows.put(tx, letters))
            tx.publish(_rows.TOPIC, *sorted({letter.recipient for letter in letters}))
        read = [one if isinstance(one, CretoError) else next(denials) or one for one in read]
        receipts: list[tuple[str, str] | CretoError] = []
        for one, (_, envelope) in zip(read, found, strict=True):
            if isinstance(one, CretoError):
                receipts.append(one)
                continue
            agent, header = one
            sender, message_id = header["sender"], header["message_id"]
            # Whether it is new or was here already: the receipt may have been lost on its way.
            statement = _receipt.sign(agent, sender, message_id, envelope, "received", self._now())
            receipts.append((sender, statement))
        for recipient in {letter.recipient for letter in letters}:
            self._mailbox._woken(recipient)
        return receipts

    async def take_receipts(self, found: list[tuple[str, bytes]]) -> list[CretoError | None]:
        """Ends the sending of what receipts are about, once they verify."""
        return await anyio.to_thread.run_sync(self._take_receipts, found, limiter=self._threads)

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
                self._mailbox._answered(receipt)
        return errors


async def fetch_batch(subscription: Any, most: int) -> list[Any]:
    """What comes within a second, as soon as the first is there, with what comes right behind it.

    To ask for a whole batch at once would wait the whole second whenever fewer come: the server keeps such a request
    open for all of its time.

    Raises:
        TimeoutError: Nothing has come.
    """
    messages: list[Any] = await subscription.fetch(1, timeout=_FETCH_SECONDS)
    with suppress(TimeoutError):
        messages += await subscription.fetch(most - 1, timeout=_BEHIND_SECONDS)
    return messages


async def _quiet(_error: Exception) -> None:
    """The client logs each lost connection with its stack; what matters of it is in the states of the messages."""


def _shown(url: str) -> str:
    """The URL without its password."""
    return ",".join(part.rsplit("@", 1)[-1] for part in url.split(","))
