"""The sending half of a mailbox: messages are composed, authorized, sealed, and filed or handed over."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import anyio
import anyio.lowlevel
import anyio.to_thread

from creto import _core
from creto._in_thread import in_thread
from creto.errors import (
    ConnectionFailedError,
    DeliveryDeniedError,
    InvalidInputError,
    NotFoundError,
    TimeoutError,
    UnauthorizedError,
)
from creto.messaging import _attachment, _outgoing, _rows
from creto.messaging._message import Sent
from creto.messaging._news import News
from creto.messaging._receiving import DIRECT_SECONDS, MAILBOX_SECONDS
from creto.messaging._record import digest_of, record
from creto.nhi._agent import require_agent

if TYPE_CHECKING:
    from creto.messaging._inbox import Inbox
    from creto.messaging._mailbox import Mailbox
    from creto.nhi import Agent

__all__ = ["Delivery", "Draft", "Options", "Sending"]


class Options(TypedDict, total=False):
    """What every way of sending takes: all of it may be left out."""

    content_type: str | None
    in_reply_to: str | None
    priority: str
    expires_in: float | None
    attach: Mapping[str, bytes] | None
    durable: bool


class Delivery(Options, total=False):
    """The same, and whether whoever sends waits for receipts."""

    receipt: bool
    timeout: float | None


@dataclass(slots=True)
class Draft:
    """A message that was composed and authorized, and is not sealed yet."""

    sender: Agent
    to: list[_core.Identity]
    content: bytes = field(repr=False)
    media: str
    message_id: str
    date: int
    expires: int
    priority: str
    in_reply_to: str | None
    blobs: list[_attachment.Blob]
    news: News = field(repr=False, compare=False)
    durable: bool
    recipients: tuple[str, ...] = field(init=False)
    """Their ids, asked of each once."""

    def __post_init__(self) -> None:
        self.recipients = tuple([identity.id for identity in self.to])

    def seal(self) -> bytes:
        """The envelope; the GIL is released meanwhile."""
        delegation = self.sender.delegation
        return _core.envelope_seal(
            self.sender.id,
            self.sender.signing_key,
            self.to,
            self.content,
            message_id=self.message_id,
            date=self.date,
            expires=self.expires,
            content_type=self.media,
            priority=self.priority,
            in_reply_to=self.in_reply_to,
            chain=delegation.digest if delegation is not None else None,
        )


class _Entry:
    """A message that waits to be filed, and how that went."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.envelope = b""
        self.error: Exception | None = None
        self.ended = False
        """Whether it was filed, or turned out that it cannot be."""
        self.leads = False
        self.woken = anyio.Event()


class _Queue:
    """The messages that wait to be filed on one event loop; the first of them files all."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.led = False

    def leave(self, entry: _Entry) -> None:
        """Takes one out whose sender was cancelled, unless it is filed already or just now."""
        if entry in self.entries:
            self.entries.remove(entry)
            if entry.leads:
                self.hand_on()

    def hand_on(self) -> None:
        """Has the first of those that wait lead."""
        self.led = bool(self.entries)
        if self.led:
            self.entries[0].leads = True
            self.entries[0].woken.set()


class Sending:
    """What a mailbox does with what goes out.

    Args:
        mailbox: Whose store, identities, limits and hooks.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities
        self._queue = anyio.lowlevel.RunVar[_Queue](f"creto-mailbox-{id(self)}-{os.getpid()}")

    async def compose(
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
    ) -> Draft:
        """Checks a message and asks policy; arguments and errors are those of `Mailbox.send`."""
        require_agent(sender)
        sender = self._identities.current(sender)
        content, media = _content(body, content_type)
        size = len(content)
        blobs: list[_attachment.Blob] = []
        if attach:
            if not isinstance(attach, Mapping):
                raise InvalidInputError(
                    f"attach: give the content of files by their names, as a dict, not `{attach!r}`"
                )
            size += sum(map(len, attach.values()))
            if not durable:
                raise InvalidInputError("attachments lie in the store; send them with `durable=True`")
            content, blobs = await anyio.to_thread.run_sync(_attachment.pack, content, media, attach)
            media = _attachment.MANIFEST
        limit = self._mailbox._max
        if len(content) > limit:
            raise InvalidInputError(
                f"the message has {len(content)} bytes, and {limit} are the limit "
                "(`messaging.max_message_size_bytes`); send a large file with `attach=`"
            )
        if priority not in _rows.PRIORITIES:
            raise InvalidInputError(f"`{priority}` is not a priority; write `non-urgent`, `normal` or `urgent`")
        longest = MAILBOX_SECONDS if durable else DIRECT_SECONDS
        if not isinstance(expires_in, int | float | None):
            raise InvalidInputError(f"expires_in `{expires_in!r}`: give seconds, as a number")
        life = int(longest if expires_in is None else expires_in)
        if not 1 <= life <= longest:
            raise InvalidInputError(f"a message may wait for 1 to {longest} seconds here, not {life}")
        names = [to] if isinstance(to, str) else to
        if not (isinstance(names, Sequence) and all(isinstance(name, str) for name in names)):
            raise InvalidInputError(
                f"to `{to!r}`: give the recipient's name or SPIFFE id, such as `agent.id`, or several"
            )
        identities = [self._identities.find(name) for name in names]
        message_id = secrets.token_hex(16)
        context = {"message_id": message_id, "bytes": size, "content_type": media, "priority": priority}
        await self._authorize(sender, identities, context)
        now = int(self._mailbox._clock())
        # What is handed over in memory has no receipt to wait for.
        expires, news = now + life, self._mailbox._fates.expect(message_id) if durable else News()
        return Draft(
            sender,
            identities,
            content,
            media,
            message_id,
            now,
            expires,
            priority,
            in_reply_to,
            blobs,
            news,
            durable,
        )

    async def _authorize(self, sender: Agent, to: Sequence[_core.Identity], context: Mapping[str, Any]) -> None:
        if self._mailbox._authorize_send is None:
            return
        for identity in to:
            try:
                await self._mailbox._authorize_send(sender, identity.id, context)
            except UnauthorizedError as error:
                raise DeliveryDeniedError(f"`{sender.id}` may not send to `{identity.id}`: {error}") from error

    async def put(self, draft: Draft) -> Sent:
        """Seals a message and files it; those that are sent at once share one thread and one transaction."""
        entry = _Entry(draft)
        try:
            queue = self._queue.get()
        except LookupError:
            queue = _Queue()
            self._queue.set(queue)
        queue.entries.append(entry)
        try:
            # Who is cancelled waits all the same: a message is filed or it is not, and others may wait for who files.
            with anyio.CancelScope(shield=True):
                if queue.led:
                    await entry.woken.wait()
                else:
                    queue.led = entry.leads = True
                    await anyio.lowlevel.checkpoint()  # whoever is ready to send comes along
                if entry.leads:
                    await self._lead(queue, entry)
        except anyio.get_cancelled_exc_class():
            queue.leave(entry)  # asyncio's own cancellation knows no shields
            raise
        if entry.error is not None:
            raise entry.error
        return self.sent(draft, entry.envelope)

    async def _lead(self, queue: _Queue, leader: _Entry) -> None:
        entries, queue.entries = queue.entries, []
        try:
            await in_thread(partial(self._seal_and_file, entries))
        finally:
            for entry in entries:
                if entry.ended:
                    entry.woken.set()
            # Cancelled before a thread was free: the others are filed by who leads after it.
            queue.entries[:0] = [entry for entry in entries if not entry.ended and entry is not leader]
            queue.hand_on()

    def _seal_and_file(self, entries: Sequence[_Entry]) -> None:
        sealed = []
        for entry in entries:
            try:
                entry.envelope = entry.draft.seal()
                sealed.append(entry)
            except Exception as error:  # noqa: BLE001 - its sender is told, and no other
                entry.error = error
        self._file_entries(sealed)
        for entry in entries:
            entry.ended = True

    def _file_entries(self, entries: Sequence[_Entry]) -> None:
        try:
            self.file([(entry.draft, entry.envelope) for entry in entries])
        except Exception as error:  # noqa: BLE001 - each is filed by itself, and answered with what then went wrong
            if len(entries) > 1:
                for entry in entries:
                    self._file_entries([entry])
            else:
                entries[0].error = error

    def file(self, sealed: Sequence[tuple[Draft, bytes]]) -> list[Sent]:
        """Files sealed messages in the mailboxes of their recipients, all in one transaction or none."""
        if not sealed:
            return []
        everybody = {recipient for draft, _ in sealed for recipient in draft.recipients}
        with self._store.begin() as tx:
            self._mailbox._sweep(tx)
            here = _rows.owned(tx, sorted(everybody))
            letters: list[_rows.Letter] = []
            leaving: list[dict[str, Any]] = []
            for draft, envelope in sealed:
                self._sort(draft, envelope, here, letters, leaving)
                _attachment.keep(tx, draft.blobs, draft.expires)
                digest = digest_of(envelope)
                for recipient in draft.recipients:
                    tx.outbox(_record(draft, recipient, envelope, digest))
            for denial in _rows.put(tx, letters):
                if denial is not None:
                    raise denial
            if leaving:
                _outgoing.keep(tx, leaving, int(self._mailbox._clock()))
            tx.publish(_rows.TOPIC, *sorted(here))
        for recipient in everybody:
            self._mailbox._woken(recipient)
        if leaving:
            self._mailbox._outgoing_wake.set()
        return [self.sent(draft, envelope) for draft, envelope in sealed]

    def _sort(
        self, draft: Draft, envelope: bytes, here: set[str], letters: list[_rows.Letter], leaving: list[dict[str, Any]]
    ) -> None:
        """Puts a message among the letters for those who are here, and among what leaves for the others."""
        elsewhere = [id for id in draft.recipients if id not in here]
        if elsewhere and not self._mailbox._remote:
            raise ConnectionFailedError(
                f"the mailbox of `{elsewhere[0]}` is on another machine, and no transport reaches it; "
                "set `messaging.nats_url`"
            )
        common: dict[str, Any] = {
            "sender": draft.sender.id,
            "message_id": draft.message_id,
            "envelope": envelope,
            "expires": draft.expires,
        }
        for recipient in draft.recipients:
            if recipient in here:
                letters.append(
                    _rows.Letter(recipient=recipient, priority=draft.priority, in_reply_to=draft.in_reply_to, **common)
                )
            else:
                blobs = [blob.digest.hex() for blob in draft.blobs]
                leaving.append({**common, "recipient": recipient, "attachments": blobs})

    async def hand_over(self, draft: Draft) -> Sent:
        """Seals a message and hands it to inboxes that are open in this process."""
        for recipient in draft.recipients:
            self._open_inbox(recipient)
        envelope = draft.seal()
        digest = digest_of(envelope)
        for recipient in draft.recipients:
            while (inbox := self._open_inbox(recipient))._is_full:
                if self._mailbox._clock() >= draft.expires:
                    raise TimeoutError(f"the inbox of `{recipient}` took no message until this one expired")
                del inbox  # where its reader leaves it meanwhile, nothing here keeps it open
                await anyio.sleep(0.001)  # the reader, perhaps on another loop, is behind: so is the writer
            if self._mailbox._recorder is not None:
                self._mailbox._recorder(_record(draft, recipient, envelope, digest))
            inbox._put_direct((envelope, digest))
        return self.sent(draft, envelope, "")

    def _open_inbox(self, recipient: str) -> Inbox:
        inbox = self._mailbox._open_inbox(recipient)
        if inbox is None:
            raise NotFoundError(f"no inbox of `{recipient}` is open in this process; send it with `durable=True`")
        return inbox

    def sent(self, draft: Draft, envelope: bytes, digest: str | None = None) -> Sent:
        """What its sender remembers of a message."""
        return Sent(
            draft.message_id,
            draft.sender.id,
            draft.recipients,
            draft.expires,
            len(envelope),
            self._mailbox,
            hashlib.sha512(envelope).hexdigest() if digest is None else digest,
            draft.news,
        )


def _record(draft: Draft, recipient: str, envelope: bytes, digest: bytes) -> dict[str, Any]:
    return record(draft.sender.id, "message:send", recipient, draft.message_id, envelope, "success", digest)


def _content(body: bytes | str, content_type: str | None) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), content_type or "text/plain; charset=utf-8"
    if not isinstance(body, bytes | bytearray | memoryview):
        raise InvalidInputError(
            f"a body is bytes or text, not `{body!r}`; write other values as text, as by `json.dumps`"
        )
    return bytes(body), content_type or "application/octet-stream"
