"""NATS JetStream as the carrier between machines, and no more than that.

Its acknowledgement is never taken for a delivery: servers have lost what they had acknowledged. A message is sent again
from the store until the recipient's signed receipt is here, and what comes twice is kept out by its row.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sniffio

from creto.errors import ConnectionFailedError, CretoError, InvalidInputError
from creto.messaging import _outgoing, _receipt, _rows

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.store import Transaction

__all__ = ["carry_by_nats"]

_STREAM = "CRETO"
_LOOK = 0.5  # seconds between looks at what is due
_BATCH = 64
_FETCH_SECONDS = 1.0
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
            tasks.start_soon(carrier.receive, "receipt", carrier.take_receipt)
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
        from nats.errors import Error as NatsError

        while True:
            now = self._now()
            rows = await self._store.run(_outgoing.due, now, _BATCH)
            for row in rows:
                if len(row.envelope) + 512 > self._client.max_payload:
                    await self._store.run(_outgoing.refuse, row)
                    continue
                # Whatever the server says, the row waits for the recipient's receipt.
                with suppress(NatsError, TimeoutError, OSError):
                    await self._stream.publish(
                        f"creto.mail.{_token(_domain_of(row.recipient))}",
                        row.envelope,
                        headers={"Creto-Recipient": row.recipient},
                        timeout=5,
                    )
            if rows:
                await self._store.run(_outgoing.tried, rows, self._now())
            if len(rows) < _BATCH:
                await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        with anyio.move_on_after(_LOOK):
            await self._mailbox._outgoing_wake.wait()

    async def receive(self, kind: str, take: Any) -> None:
        """Takes in what comes for this trust domain, for ever; what it could not deal with comes again."""
        from nats.errors import Error as NatsError

        subject = f"creto.{kind}.{_token(self._identities.trust_domain)}"
        durable = f"{kind}-{_token(self._identities.trust_domain)}"
        subscription = None
        while True:
            try:
                if subscription is None:
                    subscription = await self._stream.pull_subscribe(subject, durable=durable, stream=_STREAM)
                messages = await subscription.fetch(_BATCH, timeout=_FETCH_SECONDS)
            except (NatsError, TimeoutError, OSError):
                if subscription is None:
                    await anyio.sleep(_LOOK)
                continue
            for message in messages:
                try:
                    await take(message)
                except CretoError as error:
                    if error.should_retry:
                        await message.nak(delay=1)
                        continue
                    # It will be no better the next time: a forgery, or for somebody who is not here.
                    await message.term()
                else:
                    await message.ack()

    async def take_in(self, message: Any) -> None:
        """Puts an envelope into its mailbox once it verifies, and answers with a receipt."""
        recipient = (message.headers or {}).get("Creto-Recipient", "")
        sender, statement = await anyio.to_thread.run_sync(self._take_in, recipient, bytes(message.data))
        await self._stream.publish(
            f"creto.receipt.{_token(_domain_of(sender))}", statement.encode(), headers={"Creto-Recipient": recipient}
        )

    def _take_in(self, recipient: str, envelope: bytes) -> tuple[str, str]:
        from creto.messaging._mailbox import MAILBOX_SECONDS

        agent = self._identities.agent(recipient)
        header = self._mailbox._verified(agent, envelope, self._now(), MAILBOX_SECONDS).header()

        def put(tx: Transaction) -> None:
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

        with self._store.begin() as tx:
            put(tx)
        self._mailbox._woken(agent.id)
        # Whether it is new or was here already: the receipt may have been lost on its way.
        return header["sender"], _receipt.sign(
            agent, header["sender"], header["message_id"], envelope, "received", self._now()
        )

    async def take_receipt(self, message: Any) -> None:
        """Ends the sending of what a receipt is about, once the receipt verifies."""
        recipient = (message.headers or {}).get("Creto-Recipient", "")
        await anyio.to_thread.run_sync(self._take_receipt, recipient, bytes(message.data).decode())

    def _take_receipt(self, recipient: str, statement: str) -> None:
        receipt = _receipt.verify(self._identities, statement, recipient)
        with self._store.begin() as tx:
            envelope = _outgoing.envelope_of(tx, receipt.sender, recipient, receipt.message_id)
            if envelope is None:
                return  # it has been answered before
            # Again, now bound to the very bytes that were sent.
            _receipt.verify(self._identities, statement, recipient, hashlib.sha512(envelope).hexdigest())
            _outgoing.received(tx, receipt.sender, recipient, receipt.message_id, statement)


async def _quiet(_error: Exception) -> None:
    """The client logs each lost connection with its stack; what matters of it is in the states of the messages."""


def _shown(url: str) -> str:
    """The URL without its password."""
    return ",".join(part.rsplit("@", 1)[-1] for part in url.split(","))
