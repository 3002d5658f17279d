"""NATS JetStream as the carrier between machines, and no more than that.

Its acknowledgement is never taken for a delivery: servers have lost what they had acknowledged. A message is sent again
from the store until the recipient's signed receipt is here, and what comes twice is kept out by its row.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sniffio

from creto._beside import beside
from creto.errors import ConnectionFailedError, CretoError, IntegrityError, InvalidInputError, NotFoundError
from creto.messaging import _outgoing, _parcel, _pieces, _rows
from creto.messaging._arriving import Answer, Arriving, Incomplete
from creto.messaging._asking import asking
from creto.messaging._nats_blobs import Blobs
from creto.messaging._receiving import OVERHEAD
from creto.store._faults import passing

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from sqlalchemy import Row

    from creto.messaging._mailbox import Mailbox

__all__ = ["carry_by_nats", "fetch_batch"]

_STREAM = "CRETO"
_LOOK = 0.5  # seconds between looks at what is due
_BATCH = 64
_PARCEL = 1 << 20  # bytes
_FLUSH_SECONDS = 5
_UNDER_WAY = 64  # messages with attachments that are sent or completed at once; more wait for their next sending
_PARCELS = 16  # taken in together
_PENDING = 2 * _PARCELS  # parcels that wait here at most: those that are too many come again
_DOUBTED = 1024
_REFUSED_SECONDS = 5  # between looks where no word of other processes comes
_FETCH_SECONDS = 1.0
_BEHIND_SECONDS = 0.005
_TOO_LARGE = "no transport can carry it: it is larger than the NATS server's max_payload"


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
        from creto.messaging import _nats_client
    except ModuleNotFoundError as error:
        raise InvalidInputError("messages between machines need an extra: run `pip install 'creto[nats]'`") from error
    largest = max(_PARCEL, mailbox._max + OVERHEAD) + _parcel.OVERHEAD
    async with _nats_client.connected(url, largest) as client:
        stream = client.jetstream(timeout=_nats_client.CONNECT_SECONDS)
        blobs = Blobs(mailbox._store, stream)
        try:
            with asking():
                await _open(stream)
                await blobs.open()
        except ConnectionFailedError as error:
            raise ConnectionFailedError(
                f"the NATS server at `{_nats_client.shown(url)}` keeps no streams: run it with `-js`"
            ) from error
        async with beside() as tasks:
            carrier = _Carrier(mailbox, client, stream, blobs, tasks)
            tasks.start_soon(carrier.send)
            tasks.start_soon(carrier.tell_refusals)
            tasks.start_soon(carrier.receive, "mail", carrier.take_in)
            tasks.start_soon(carrier.receive, "receipt", carrier.take_receipts)
            yield


async def _open(stream: Any) -> None:
    """Makes the stream, unless it is there."""
    from nats.js.errors import BadRequestError

    # Another machine may make it in the same moment, with the same settings.
    with suppress(BadRequestError):
        await stream.add_stream(name=_STREAM, subjects=["creto.mail.*", "creto.receipt.*"], max_age=24 * 3600)


@contextmanager
def _away_at_times() -> Iterator[None]:
    """Passes over a store that is busy, or away for a while: it is asked again at the next look."""
    try:
        yield
    except CretoError as error:
        if not passing(error):
            raise


Take = Callable[[Sequence[tuple[str, bytes]]], Awaitable[list[CretoError | None]]]


class _Carrier:
    def __init__(self, mailbox: Mailbox, client: Any, stream: Any, blobs: Blobs, tasks: TaskGroup) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._arriving = Arriving(mailbox)
        self._client = client
        self._stream = stream
        self._blobs = blobs
        self._tasks = tasks
        self._under_way: set[Any] = set()
        self._told: set[tuple[str, str, str]] = set()  # of whose refusal the sender was told
        self._doubted: deque[tuple[str, str, str]] = deque(maxlen=_DOUBTED)  # whose attachments were not theirs once
        self._own = _token(mailbox._identities.trust_domain)
        self._threads = anyio.CapacityLimiter(2)  # its own: what comes in never waits behind what is sent

    def _now(self) -> int:
        return int(self._mailbox._clock())

    # --- out ----------------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Publishes what is due, for ever."""
        while True:
            rows: list[Row[Any]] = []
            with _away_at_times():
                rows = await self._store.run(_outgoing.due, self._now(), _BATCH)
                for row in rows:
                    if not self._carries(row):
                        await self._store.run(_outgoing.refuse, row, _TOO_LARGE)
            carried = [row for row in rows if self._carries(row)]
            # Whatever the server says, a row waits for the recipient's receipt.
            await self._publish(
                "mail", [(row.recipient, row.recipient, bytes(row.envelope)) for row in carried if not row.attachments]
            )
            for row in carried:
                if row.attachments:
                    self._start((row.sender, row.message_id, row.recipient), self._send_with_attachments, row)
            if len(rows) < _BATCH:
                await self._wait_for_more()

    def _carries(self, row: Row[Any]) -> bool:
        largest = int(self._client.max_payload)
        fits = len(row.envelope) + _parcel.OVERHEAD <= largest
        return fits and (not row.attachments or largest >= _pieces.PIECE)

    async def _send_with_attachments(self, row: Row[Any]) -> None:
        # First what it names, then the message: whoever has it is to find all of it.
        digests = [bytes.fromhex(one) for one in row.attachments]
        try:
            await self._blobs.upload(_token(_domain_of(row.recipient)), digests)
        except (IntegrityError, NotFoundError) as error:
            await self._store.run(_outgoing.refuse, row, str(error))
            return
        await self._publish("mail", [(row.recipient, row.recipient, bytes(row.envelope))])

    def _start(self, key: Any, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Does what takes long beside the rest, once at a time for each key; what fails waits for the next sending."""

        async def run() -> None:
            try:
                await work(*arguments)
            except* CretoError:
                pass
            finally:
                self._under_way.discard(key)

        if key not in self._under_way and len(self._under_way) < _UNDER_WAY:
            self._under_way.add(key)
            self._tasks.start_soon(run)

    async def _publish(self, kind: str, items: Iterable[tuple[str, str, bytes]]) -> bool:
        """Publishes (whom it is for, whom it names, data), many to a parcel; True once the server has read all of it.

        JetStream's own acknowledgements are not asked for: nobody here would believe them.
        """
        subjects: dict[str, list[tuple[str, bytes]]] = {}
        for to, named, data in items:
            subjects.setdefault(f"creto.{kind}.{_token(_domain_of(to))}", []).append((named, data))
        if not subjects:
            return True
        try:
            with asking(), anyio.fail_after(_FLUSH_SECONDS):
                for subject, all in subjects.items():
                    for parcel in _parcel.pack(all, min(_PARCEL, self._client.max_payload)):
                        await self._client.publish(subject, parcel)
                await self._client.flush(timeout=_FLUSH_SECONDS)
        except ConnectionFailedError:
            return False
        return True

    async def _wait_for_more(self) -> None:
        while True:
            with anyio.move_on_after(_LOOK):
                await self._mailbox._outgoing_wake.wait()
                return
            with _away_at_times():
                if await self._store.fetch(_outgoing.any_due, self._now()):
                    return

    async def tell_refusals(self) -> None:
        """Publishes the receipts of what was filed and then refused, for ever; each once for as long as this runs.

        No answer comes to a receipt, so after a restart, and on an empty server, all that have not expired go again.
        """
        while True:
            rows: list[Row[Any]] = []
            with _away_at_times():
                rows = await self._store.fetch(_rows.refused, self._now())
            untold = {(row.recipient, row.sender, row.message_id): row for row in rows}
            self._told &= untold.keys()
            fresh = {key: row for key, row in untold.items() if key not in self._told}
            receipts = [(row.sender, row.recipient, row.receipt.encode()) for row in fresh.values()]
            if await self._publish("receipt", receipts):
                self._told |= fresh.keys()
            with anyio.move_on_after(_REFUSED_SECONDS):
                await self._mailbox._refused_wake.wait()

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self, kind: str, take: Take) -> None:
        """Takes in what comes for this trust domain, for ever; what could not be dealt with now comes again."""
        subscription = None
        while True:
            try:
                with asking():
                    if subscription is None:
                        subscription = await self._stream.pull_subscribe(
                            f"creto.{kind}.{self._own}",
                            durable=f"{kind}-{self._own}",
                            stream=_STREAM,
                            pending_msgs_limit=_PENDING,
                            pending_bytes_limit=_PENDING * self._client.max_payload,
                        )
                    messages = await _fetched(subscription)
            except ConnectionFailedError:
                await anyio.sleep(_LOOK)
                # Perhaps it was restarted, on an empty disk.
                with suppress(ConnectionFailedError), asking():
                    if subscription is not None:
                        await subscription.unsubscribe()
                    await _open(self._stream)
                    await self._blobs.open()
                self._told.clear()
                subscription = None
                continue
            for message, error in zip(messages, await self._dealt_with(messages, take), strict=True):
                with suppress(ConnectionFailedError), asking():
                    if error is None:
                        await message.ack()
                    elif error.should_retry:
                        await message.nak(delay=1)
                    else:
                        # It will be no better the next time: a forgery, or for somebody who is not here.
                        await message.term()

    async def _dealt_with(self, parcels: Sequence[Any], take: Take) -> list[CretoError | None]:
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
        try:
            taken = await take(found) if found else []
        except CretoError as error:
            if not passing(error):
                raise
            return [error] * len(parcels)  # the store is busy
        for place, (start, end) in enumerate(parts):
            one = taken[start:end]
            # One that may do better brings its whole parcel again: what is in already stays out by its row.
            again = [error for error in one if error is not None and error.should_retry]
            if again or (one and None not in one):
                errors[place] = (again or one)[0]
        return errors

    async def take_in(self, found: Sequence[tuple[str, bytes]]) -> list[CretoError | None]:
        """Files envelopes that verify, answers each with a receipt, and goes for the attachments that are missing."""
        taken = await anyio.to_thread.run_sync(self._arriving.take_in, found, limiter=self._threads)
        receipts = []
        for one, (recipient, envelope) in zip(taken, found, strict=True):
            if isinstance(one, Answer):
                receipts.append((one.sender, recipient, one.statement.encode()))
            elif isinstance(one, Incomplete):
                # Without a receipt its sender sends it again, should this come to nothing.
                self._start(one.key, self._complete, one, recipient, envelope)
        again = None if await self._publish("receipt", receipts) else ConnectionFailedError("no receipt could be sent")
        return [again if isinstance(one, Answer) else one if isinstance(one, CretoError) else None for one in taken]

    async def _complete(self, incomplete: Incomplete, recipient: str, envelope: bytes) -> None:
        try:
            for attachment in incomplete.attachments:
                await self._blobs.download(self._own, attachment, incomplete.letter.expires)
        except (IntegrityError, InvalidInputError) as error:
            if isinstance(error, IntegrityError) and incomplete.key not in self._doubted:
                self._doubted.append(incomplete.key)
                return
            # Untrue in itself, or put there anew and no better: it is the message that does not hold.
            answer = await anyio.to_thread.run_sync(
                self._arriving.refuse, incomplete, str(error), limiter=self._threads
            )
            await self._publish("receipt", [(answer.sender, recipient, answer.statement.encode())])
        else:
            await self.take_in([(recipient, envelope)])

    async def take_receipts(self, found: Sequence[tuple[str, bytes]]) -> list[CretoError | None]:
        """Ends the sending of what receipts are about, once they verify."""
        errors, carried = await anyio.to_thread.run_sync(self._arriving.take_receipts, found, limiter=self._threads)
        for recipient, digests in carried:
            self._start((recipient, *digests), self._blobs.forget, _token(_domain_of(recipient)), digests)
        return errors


async def _fetched(subscription: Any) -> list[Any]:
    try:
        return await fetch_batch(subscription, _PARCELS)
    except TimeoutError:
        return []


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
