"""The sending half of a mailbox: messages are composed, authorized, sealed, and filed or handed over."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from creto import _core
from creto.errors import (
    ConnectionFailedError,
    DeliveryDeniedError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from creto.messaging import _attachment, _outgoing, _rows
from creto.messaging._message import Sent
from creto.messaging._receiving import DIRECT_SECONDS, MAILBOX_SECONDS
from creto.messaging._record import record

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.nhi import Agent
    from creto.store import Transaction

__all__ = ["Draft", "Sending"]


@dataclass(frozen=True, slots=True)
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

    @property
    def recipients(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(identity.id for identity in self.to)

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

    def __init__(self, sealed: list[tuple[Draft, bytes]]) -> None:
        self.sealed = sealed
        self.done = False
        self.error: Exception | None = None


class Sending:
    """What a mailbox does with what goes out.

    Args:
        mailbox: Whose store, identities, limits and hooks.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities
        self._queue: list[_Entry] = []
        self._queue_lock = threading.Lock()
        self._filing = threading.Lock()

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
        sender = self._identities.current(sender)
        content, media = _content(body, content_type)
        size = len(content) + sum(map(len, (attach or {}).values()))
        blobs: list[_attachment.Blob] = []
        if attach:
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
        life = int(longest if expires_in is None else expires_in)
        if not 1 <= life <= longest:
            raise InvalidInputError(f"a message may wait for 1 to {longest} seconds here, not {life}")
        identities = [self._identities.find(name) for name in ([to] if isinstance(to, str) else to)]
        message_id = secrets.token_hex(16)
        context = {"message_id": message_id, "bytes": size, "content_type": media, "priority": priority}
        await self._authorize(sender, identities, context)
        now = int(self._mailbox._clock())
        return Draft(sender, identities, content, media, message_id, now, now + life, priority, in_reply_to, blobs)

    async def _authorize(self, sender: Agent, to: Sequence[_core.Identity], context: Mapping[str, Any]) -> None:
        if self._mailbox._authorize_send is None:
            return
        for identity in to:
            try:
                await self._mailbox._authorize_send(sender, identity.id, context)
            except UnauthorizedError as error:
                raise DeliveryDeniedError(f"`{sender.id}` may not send to `{identity.id}`: {error}") from error

    def put(self, draft: Draft) -> Sent:
        """Seals a message and files it; in a worker thread. Messages that are sent at once share a transaction."""
        entry = _Entry([(draft, draft.seal())])
        with self._queue_lock:
            self._queue.append(entry)
        with self._filing:
            # Whoever had the lock before may have filed it with its own.
            if not entry.done:
                with self._queue_lock:
                    entries, self._queue = self._queue, []
                self._file_entries(entries)
        if entry.error is not None:
            raise entry.error
        return self.sent(*entry.sealed[0])

    def _file_entries(self, entries: list[_Entry]) -> None:
        try:
            self.file([pair for entry in entries for pair in entry.sealed])
        except Exception as error:  # noqa: BLE001 - each is filed by itself, and answered with what then went wrong
            if len(entries) > 1:
                for entry in entries:
                    self._file_entries([entry])
                return
            entries[0].error = error
        for entry in entries:
            entry.done = True

    def file(self, sealed: Sequence[tuple[Draft, bytes]]) -> list[Sent]:
        """Files sealed messages in the mailboxes of their recipients, all in one transaction or none."""
        everybody = {recipient for draft, _ in sealed for recipient in draft.recipients}
        with self._store.begin() as tx:
            self._mailbox._sweep(tx)
            here = _rows.owned(tx, sorted(everybody))
            leaving: list[dict[str, Any]] = []
            for draft, envelope in sealed:
                leaving += self._file(tx, draft, envelope, here)
            if leaving:
                _outgoing.keep(tx, leaving, int(self._mailbox._clock()))
            for recipient in here:
                tx.publish(_rows.TOPIC, recipient)
        for recipient in everybody:
            self._mailbox._woken(recipient)
        self._mailbox._outgoing_wake.set()
        return [self.sent(draft, envelope) for draft, envelope in sealed]

    def _file(self, tx: Transaction, draft: Draft, envelope: bytes, here: set[str]) -> list[dict[str, Any]]:
        """Files a message with those who are here, and returns what is to go to the others."""
        sender, recipients = draft.sender.id, draft.recipients
        elsewhere = [id for id in recipients if id not in here]
        if draft.blobs and elsewhere:
            raise InvalidInputError(
                "attachments reach mailboxes of this machine only, since NATS carries envelopes and no blobs; for "
                + ", ".join(f"`{id}`" for id in elsewhere)
                + " put the content into the message"
            )
        if elsewhere and not self._mailbox._remote:
            raise ConnectionFailedError(
                f"the mailbox of `{elsewhere[0]}` is on another machine, and no transport reaches it; "
                "set `messaging.nats_url`"
            )
        _attachment.keep(tx, draft.blobs, draft.expires)
        common: dict[str, Any] = {
            "sender": sender,
            "message_id": draft.message_id,
            "envelope": envelope,
            "expires": draft.expires,
        }
        for recipient in recipients:
            if recipient in here:
                _rows.put(tx, recipient=recipient, priority=draft.priority, in_reply_to=draft.in_reply_to, **common)
            tx.outbox(record(sender, "message:send", recipient, draft.message_id, envelope, "success"))
        return [{**common, "recipient": recipient} for recipient in elsewhere]

    async def hand_over(self, draft: Draft) -> Sent:
        """Seals a message and hands it to inboxes that are open in this process."""
        opened = {recipient: self._mailbox._open_inboxes(recipient) for recipient in draft.recipients}
        for recipient, inboxes in opened.items():
            if not inboxes:
                raise NotFoundError(f"no inbox of `{recipient}` is open in this process; send it with `durable=True`")
        envelope = draft.seal()
        for recipient, inboxes in opened.items():
            if self._mailbox._recorder is not None:
                self._mailbox._recorder(
                    record(draft.sender.id, "message:send", recipient, draft.message_id, envelope, "success")
                )
            while not inboxes[0]._put_direct(envelope):  # noqa: ASYNC110 - its reader may be on another loop
                await anyio.sleep(0.001)  # the reader is behind: so is the writer
        return self.sent(draft, envelope, "")

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
        )


def _content(body: bytes | str, content_type: str | None) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), content_type or "text/plain; charset=utf-8"
    return bytes(body), content_type or "application/octet-stream"
