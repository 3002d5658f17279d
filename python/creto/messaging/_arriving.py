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
        return self.letter.key


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

    @property
    def key(self) -> tuple[str, str, str]:
        return self.agent.id, self.header["sender"], self.header["message_id"]

    def letter(self, receipt: str | None = None) -> _rows.Letter:
        header = self.header
        return _rows.Letter(
            recipient=self.agent.id,
            sender=header["sender"],
            message_id=header["message_id"],
            envelope=self.envelope,
            priority=header["priority"],
            in_reply_to=header["in_reply_to"],
            expires=header["expires"],
            receipt=receipt,
        )


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
        read: list[_Arrival | CretoError] = []
        for recipient, envelope in found:
            try:
                read.append(self._verified(recipient, envelope))
            except CretoError as error:
                read.append(error)
        arrived = {one.key: one for one in read if isinstance(one, _Arrival)}
        if not arrived:
            return [one for one in read if not isinstance(one, _Arrival)]
        ends: dict[tuple[str, str, str], Answer | Incomplete | CretoError] = {}
        with self._store.read() as tx:
            # A receipt is signed once, however often a message comes: the first may have been lost on its way.
            for key, receipt in _rows.receipts(tx, list(arrived)).items():
                ends[key] = Answer(key[1], receipt)
            fresh = [one for key, one in arrived.items() if key not in ends]
            pairs = {(one.agent.id, one.header["sender"]) for one in fresh}
            denials = {pair: _rows.denial(tx, *pair) for pair in pairs}
            here = _pieces.whole(tx, [digest for one in fresh for digest in one.digests])
        for one in fresh:
            denial = denials[one.agent.id, one.header["sender"]]
            missing = [attachment for attachment in one.attachments if attachment.digest not in here]
            if denial is not None:
                ends[one.key] = denial
            elif missing:
                ends[one.key] = Incomplete(one.letter(), missing)
        self._file([one for one in fresh if one.key not in ends], ends)
        return [ends[one.key] if isinstance(one, _Arrival) else one for one in read]

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
            for attachment in one.attachments:
                _pieces.drop(tx, attachment.digest)
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

    def _file(
        self, arrived: Sequence[_Arrival], ends: dict[tuple[str, str, str], Answer | Incomplete | CretoError]
    ) -> None:
        if not arrived:
            return
        letters = [one.letter(self._receipt(one)) for one in arrived]
        recipients = sorted({one.agent.id for one in arrived})
        with self._store.begin() as tx:
            self._mailbox._sweep(tx)
            denials = _rows.put(tx, letters)
            for one in arrived:
                if one.attachments:
                    _pieces.prolong(tx, one.digests, one.header["expires"])
            tx.publish(_rows.TOPIC, *recipients)
        for letter, denial in zip(letters, denials, strict=True):
            ends[letter.key] = Answer(letter.sender, letter.receipt or "") if denial is None else denial
        for recipient in recipients:
            self._mailbox._woken(recipient)

    def _receipt(self, one: _Arrival) -> str:
        _, sender, message_id = one.key
        return _receipt.sign(one.agent, sender, message_id, one.envelope, "received", self._now())

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
        known = [claim for claim in claims if not isinstance(claim, CretoError)]
        with self._store.read() as tx:
            envelopes = _outgoing.unanswered(tx, [claim.message_id for claim in known])
            # What was received may be refused afterwards; nothing else changes what was answered.
            late = [claim.message_id for claim in known if claim.outcome == "refused"]
            answers = _outgoing.received(tx, late) if late else {}
        errors: list[CretoError | None] = []
        ended: list[Receipt] = []
        for (recipient, _), claim in zip(found, claims, strict=True):
            if isinstance(claim, CretoError):
                errors.append(claim)
                continue
            key = (claim.sender, recipient, claim.message_id)
            envelope = envelopes.get(key)
            try:
                # None: it has been answered before, or was never sent. Else bound to the very bytes that were sent.
                digest = hashlib.sha512(envelope).hexdigest() if envelope is not None else None
                if digest is None and claim.outcome == "refused" and key in answers:
                    digest = _receipt.claimed(answers[key]).digest
                if digest is not None:
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
                self._mailbox._fates.answered(receipt)
        return errors, carried
