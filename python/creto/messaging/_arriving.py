"""What comes in from other machines, in batches: envelopes that verify are filed and answered, receipts end a sending.

It runs on worker threads and knows the store and the keys; how a batch came, and how its answers leave, is not its
business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from creto.errors import CretoError, InvalidInputError
from creto.messaging import _attachment, _outgoing, _pieces, _receipt, _rows
from creto.messaging._receiving import MAILBOX_SECONDS
from creto.messaging._record import record

if TYPE_CHECKING:
    from creto.messaging._attachment import Attachment
    from creto.messaging._mailbox import Mailbox
    from creto.messaging._receipt import Receipt
    from creto.nhi import Agent
    from creto.store import Transaction

__all__ = ["Answer", "Arriving", "Incomplete"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A receipt that is to go back."""

    sender: str
    statement: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A message whose attachments are not here yet, so that it is not filed, nor answered."""

    letter: _rows.Letter
    attachments: Sequence[Attachment]

    @property
    def key(self) -> tuple[str, str, str]:
        """Recipient, sender and message id."""
        return self.letter.recipient, self.letter.sender, self.letter.message_id


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An envelope that verified."""

    agent: Agent
    header: Mapping[str, Any]
    envelope: bytes = field(repr=False)
    attachments: Sequence[Attachment]

    @property
    def digests(self) -> list[bytes]:
        return [attachment.digest for attachment in self.attachments]

    def letter(self) -> _rows.Letter:
        header = self.header
        return _rows.Letter(
            recipient=self.agent.id,
            sender=header["sender"],
            message_id=header["message_id"],
            envelope=self.envelope,
            priority=header["priority"],
            in_reply_to=header["in_reply_to"],
            expires=header["expires"],
        )

    def incomplete(self, here: set[bytes]) -> Incomplete | None:
        missing = [attachment for attachment in self.attachments if attachment.digest not in here]
        return Incomplete(self.letter(), missing) if missing else None


class Arriving:
    """What a mailbox does with what comes from other machines.

    Args:
        mailbox: Whose store and identities.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._store = mailbox._store
        self._identities = mailbox._identities

    def _now(self) -> int:
        return int(self._mailbox._clock())

    def take_in(self, found: Sequence[tuple[str, bytes]]) -> list[Answer | Incomplete | CretoError]:
        """Files (recipient, envelope) that verify, all in one transaction; what each comes to."""
        read: list[_Arrival | Answer | Incomplete | CretoError] = []
        for recipient, envelope in found:
            try:
                read.append(self._verified(recipient, envelope))
            except CretoError as error:
                read.append(error)
        digests = [digest for one in read if isinstance(one, _Arrival) for digest in one.digests]
        if digests:
            with self._store.read() as tx:
                here = _pieces.whole(tx, digests)
                read = [self._awaited(tx, one, here) if isinstance(one, _Arrival) else one for one in read]
        arrived = [one for one in read if isinstance(one, _Arrival)]
        if arrived:
            self._file(arrived, read)
        return [self._answer(one) if isinstance(one, _Arrival) else one for one in read]

    def _awaited(self, tx: Transaction, one: _Arrival, here: set[bytes]) -> _Arrival | Answer | Incomplete:
        """The arrival where all of its attachments are here; what it waits for; or the answer that it had before."""
        incomplete = one.incomplete(here)
        if incomplete is None:
            return one
        refusal = _rows.refusal(tx, incomplete.letter)
        return incomplete if refusal is None else Answer(incomplete.letter.sender, refusal)

    def refuse(self, one: Incomplete, reason: str) -> Answer:
        """Ends a message that is not what it says: its sender is answered, and the ledger has it."""
        letter = one.letter
        agent = self._identities.agent(letter.recipient)
        receipt = _receipt.sign(
            agent, letter.sender, letter.message_id, letter.envelope, "refused", self._now(), reason
        )
        with self._store.begin() as tx:
            if _rows.refuse(tx, letter, reason, receipt):
                failure = {"failure": reason}
                tx.outbox(
                    record(agent.id, "message:receive", letter.sender, letter.message_id, letter.envelope, failure)
                )
        return Answer(letter.sender, receipt)

    def _verified(self, recipient: str, envelope: bytes) -> _Arrival:
        # Only an agent that is here already: a name on the wire, whoever wrote it, makes none.
        self._identities.require_own(recipient)
        agent = self._identities.agent(recipient)
        receiving, now = self._mailbox._receiving, self._now()
        header = receiving.verified(agent, envelope, now, MAILBOX_SECONDS).header()
        attached: dict[str, Attachment] = {}
        if header["content_type"] == _attachment.MANIFEST:
            # Only the content says which blobs belong to it, and it is the sender's word on them that counts.
            _, body = receiving.opened(agent, envelope, now, MAILBOX_SECONDS)
            _, _, attached = _attachment.unpack(body, self._store)
        return _Arrival(agent, header, envelope, list(attached.values()))

    def _file(self, arrived: Sequence[_Arrival], read: list[_Arrival | Answer | Incomplete | CretoError]) -> None:
        recipients = sorted({one.agent.id for one in arrived})
        with self._store.begin() as tx:
            self._mailbox._sweep(tx)
            denials = _rows.put(tx, [one.letter() for one in arrived])
            for one in arrived:
                if one.attachments:
                    _pieces.prolong(tx, one.digests, one.header["expires"])
            tx.publish(_rows.TOPIC, *recipients)
        for one, denial in zip(arrived, denials, strict=True):
            if denial is not None:
                read[read.index(one)] = denial
        for recipient in recipients:
            self._mailbox._woken(recipient)

    def _answer(self, one: _Arrival) -> Answer:
        # Whether it is new or was here already: the receipt may have been lost on its way.
        sender, message_id = one.header["sender"], one.header["message_id"]
        return Answer(sender, _receipt.sign(one.agent, sender, message_id, one.envelope, "received", self._now()))

    def take_receipts(
        self, found: Sequence[tuple[str, bytes]]
    ) -> tuple[list[CretoError | None], list[tuple[str, list[bytes]]]]:
        """Ends the sending of what (recipient, receipt) are about, once they verify.

        Returns:
            The error of each, and recipients with the digests of attachments that need not be carried any more.
        """
        claims: list[Receipt | CretoError] = []
        for _, data in found:
            try:
                claims.append(_receipt.claimed(data.decode()))
            except UnicodeDecodeError:
                claims.append(InvalidInputError("a receipt that is not text"))
            except CretoError as error:
                claims.append(error)
        ids = [claim.message_id for claim in claims if not isinstance(claim, CretoError)]
        with self._store.read() as tx:
            envelopes = _outgoing.unanswered(tx, ids)
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
        carried: list[tuple[str, list[bytes]]] = []
        if ended:
            with self._store.begin() as tx:
                _outgoing.answered(tx, ended)
                carried = _outgoing.carried(tx, [receipt.message_id for receipt in ended])
            for receipt in ended:
                self._mailbox._answered(receipt)
        return errors, carried
