"""The receiving half of a mailbox: envelopes are taken, verified, opened, authorized, and handed out as messages."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from creto import _core
from creto._in_thread import in_thread
from creto._plain import plain
from creto.errors import CretoError, EncryptionFailedError, NotFoundError, UnauthorizedError
from creto.messaging import _attachment, _receipt, _rows
from creto.messaging._message import Message
from creto.messaging._record import record
from creto.store._faults import passing

if TYPE_CHECKING:
    from creto.messaging._mailbox import Mailbox
    from creto.nhi import Agent

__all__ = ["DIRECT_SECONDS", "MAILBOX_SECONDS", "OVERHEAD", "Receiving"]

DIRECT_SECONDS = 300
MAILBOX_SECONDS = 24 * 3600
OVERHEAD = 512 * 1024  # an envelope's own bytes, for 64 recipients of the larger suite and then some
_SEEN = 10_000  # ids of messages handed over in memory that are kept before expired ones are swept out


class Receiving:
    """What a mailbox does with what comes in.

    Args:
        mailbox: Whose store, identities, limits and hooks.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities

    def take(self, agent: Agent, hold: int, reply: tuple[str, str] | None) -> Message | None:
        """The next message that verifies; those that do not are refused and recorded on the way."""
        while True:
            now = int(self._mailbox._clock())
            with self._store.read() as tx:
                if not _rows.any_for(tx, agent.id, now):
                    return None
            with self._store.begin() as tx:
                held = _rows.take(tx, agent.id, self._mailbox._holder, now, hold, reply)
            if held is None:
                return None
            try:
                header, body = self.opened(agent, held.envelope, now, MAILBOX_SECONDS)
                if (header["sender"], header["message_id"]) != (held.sender, held.message_id):
                    # The row says otherwise than the seal: somebody who can write the store filed it under a new name.
                    raise EncryptionFailedError("the message was filed under another name than its own")
                return self._message(agent, header, body, held, held.envelope)
            except CretoError as error:
                if passing(error):
                    # Nothing is said against the message: it goes back, or comes again once its hold is over.
                    with suppress(CretoError), self._store.begin() as tx:
                        _rows.give_back(tx, held, False)
                    raise
                self._end(agent, held, "refused", str(error))

    async def open_direct(
        self, agent: Agent, envelope: bytes, digest: bytes, seen: dict[tuple[str, str], int]
    ) -> Message | None:
        """Opens what was handed over in memory; None where it is refused."""
        now = int(self._mailbox._clock())
        sender, taken = "", None
        try:
            verified = self.verified(agent, envelope, now, DIRECT_SECONDS)
            header = verified.header()
            sender, key = header["sender"], (header["sender"], header["message_id"])
            if seen.get(key, 0) > now:
                raise EncryptionFailedError("the message cannot be opened by this recipient")
            body = verified.open(self._keys(agent))
            if len(seen) > _SEEN:
                for old in [old for old, until in seen.items() if until <= now]:
                    del seen[old]
            seen[key], taken = header["expires"], key
            message = self._message(agent, header, body, None, envelope)
            await self.authorize(agent, message)
        except CretoError as error:
            if passing(error):
                if taken is not None:
                    del seen[taken]
                raise
            self._tell(agent.id, sender, "", envelope, digest, {"failure": str(error)})
            return None
        self._tell(agent.id, sender, message.id, envelope, digest, "success")
        return message

    def verified(self, agent: Agent, envelope: bytes, now: int, max_life: int) -> _core.VerifiedEnvelope:
        """The envelope, once its signatures, writer, addressing and times hold; nothing of it is decapsulated yet."""
        try:
            return self._verify(agent, envelope, now, max_life)
        except NotFoundError:
            # A writer of this store that this process has not met yet, or one whose keys another process has just made.
            self._identities.refresh()
            self._identities.find(_core.envelope_header(envelope, self._identities.suite)["sender"])
            return self._verify(agent, envelope, now, max_life)

    def _verify(self, agent: Agent, envelope: bytes, now: int, max_life: int) -> _core.VerifiedEnvelope:
        return _core.envelope_verify(
            envelope,
            me=agent.id,
            directory=self._identities.directory,
            suite=self._identities.suite,
            max_bytes=self._mailbox._max + OVERHEAD,
            max_life=max_life,
            now=now,
        )

    def opened(self, agent: Agent, envelope: bytes, now: int, max_life: int) -> tuple[dict[str, Any], bytes]:
        """Header and content, once it is verified as in `verified`."""
        verified = self.verified(agent, envelope, now, max_life)
        try:
            return verified.header(), verified.open(self._keys(agent))
        except EncryptionFailedError:
            # Sealed, perhaps, for keys that another process has just made: refused once those do not open it either.
            if not self._identities.refresh():
                raise
            return verified.header(), verified.open(self._keys(agent))

    def _keys(self, agent: Agent) -> list[_core.KemKey]:
        return list(self._identities.current(agent).kem_keys)

    def _message(
        self, agent: Agent, header: Mapping[str, Any], body: bytes, held: _rows.Held | None, envelope: bytes
    ) -> Message:
        if self._mailbox._observe is not None:
            self._mailbox._observe(header["date"] * 1_000_000 << 12)  # to the second, which is what messages carry
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
            _mailbox=self._mailbox,
            _agent=agent,
            _held=held,
            _envelope=envelope,
        )

    async def authorize(self, agent: Agent, message: Message) -> None:
        """Asks the recipient's policy.

        Raises:
            UnauthorizedError: It does not let the message in.
        """
        if self._mailbox._authorize_receive is None:
            return
        context = {
            "message_id": message.id,
            "bytes": len(message.body),
            "content_type": message.content_type,
            "priority": message.priority,
        }
        await self._mailbox._authorize_receive(agent, message.sender, context)

    async def deny(self, agent: Agent, held: _rows.Held, reason: str) -> None:
        """Ends a message that the recipient's policy does not let in."""
        await in_thread(partial(self._end, agent, held, "denied", reason))

    def _end(self, agent: Agent, held: _rows.Held, outcome: str, reason: str) -> None:
        receipt = None
        far = not held.sender.startswith(f"spiffe://{self._identities.trust_domain}/")
        if far:
            # Its sender has one that says `received`; this one says what became of it since.
            with suppress(UnauthorizedError):  # revoked: no word of it would count
                receipt = _receipt.sign(
                    self._identities.current(agent),
                    held.sender,
                    held.message_id,
                    held.envelope,
                    "refused",
                    int(self._mailbox._clock()),
                    plain(reason) or outcome,
                )
        with self._store.begin() as tx:
            if not _rows.end(tx, held, outcome, reason=reason, receipt=receipt):
                return
            keys = [f"{_rows.RECEIPT}{held.message_id}", *([_rows.REFUSED] if far else [])]
            tx.publish(_rows.TOPIC, *keys)
            failure = {"failure": reason}
            tx.outbox(record(held.recipient, "message:receive", held.sender, held.message_id, held.envelope, failure))
        if far:
            self._mailbox._woken(_rows.REFUSED)

    def _tell(self, who: str, sender: str, message_id: str, envelope: bytes, digest: bytes, outcome: Any) -> None:
        if self._mailbox._recorder is not None:
            self._mailbox._recorder(record(who, "message:receive", sender, message_id, envelope, outcome, digest))
