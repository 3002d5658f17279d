"""The recipient's signed word that it has a message: an in-toto Statement in DSSE."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from creto import _core
from creto._foreign import json_value
from creto.errors import SignatureVerificationFailedError

if TYPE_CHECKING:
    from creto.nhi import Agent, Identities

__all__ = ["Receipt", "claimed", "sign", "verify"]

_TYPE = "urn:creto:receipt:1"
_OUTCOMES = ("received", "acked", "refused")
_STATEMENT = "https://in-toto.io/Statement/v1"
_ID = re.compile(r"spiffe://[!-~]{1,2040}")
_MESSAGE_ID = re.compile(r"[0-9a-f]{32}")
_REASON = 300  # characters


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that was verified.

    Args:
        message_id: Of the message, 32 hexadecimal digits.
        sender: Who wrote it.
        recipient: Who has it, and signed this.
        outcome: `received`: it is in the recipient's mailbox. `acked`: it has been dealt with. `refused`: it is not
            what it says, and nobody was shown it.
        at: Seconds since the epoch.
        statement: The DSSE envelope, for others to check.
        suite: Of the recipient's keys.
        digest: SHA-512 of the message's envelope, in hexadecimal.
        reason: Why it was refused.

    Example:
        >>> import anyio, tempfile
        >>> from creto.messaging import Mailbox
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> async def main() -> tuple[str, str]:
        ...     with Store(tempfile.mkdtemp()) as store:
        ...         mailbox = Mailbox(store, identities := Identities(store))
        ...         writer, reader = identities.agent("writer"), identities.agent("reader")
        ...         sent = await mailbox.send(writer, "reader", "the report is done")
        ...         await (await anext(mailbox.inbox(reader))).ack()
        ...         [receipt] = await sent.receipts(timeout=30)
        ...         return receipt.recipient, receipt.outcome
        >>> anyio.run(main)
        ('spiffe://creto.local/agent/reader', 'acked')
    """

    message_id: str
    sender: str
    recipient: str
    outcome: str
    at: int
    statement: str = field(repr=False)
    suite: str = field(repr=False)
    digest: str = field(repr=False)
    reason: str | None = None


def sign(
    recipient: Agent, sender: str, message_id: str, envelope: bytes, outcome: str, at: int, reason: str | None = None
) -> str:
    """Signs a receipt for an envelope; a refusal says why."""
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": message_id, "digest": {"sha512": hashlib.sha512(envelope).hexdigest()}}],
        "predicateType": _TYPE,
        "predicate": {
            "recipient": recipient.id,
            "sender": sender,
            "outcome": outcome,
            "at": at,
            "suite": recipient.suite,
            **({} if reason is None else {"reason": reason[:_REASON]}),
        },
    }
    return _core.dsse_sign(recipient.signing_key, _core.IN_TOTO, json.dumps(statement).encode())


def verify(identities: Identities, statement: str, recipient: str, digest: str | None = None) -> Receipt:
    """Verifies a receipt under the recipient's keys.

    Args:
        identities: Who is known.
        statement: The DSSE envelope.
        recipient: Who must have signed.
        digest: SHA-512 of the envelope it must be for, in hexadecimal; not compared where there is none.

    Raises:
        SignatureVerificationFailedError: It is not the recipient's, or not for this envelope.
    """
    identity, payload = _verified(identities, statement, recipient)
    found = _read(payload, statement)
    fits = (
        found.recipient == recipient
        and found.suite == identity.suite
        and found.outcome in _OUTCOMES
        and digest in (None, found.digest)
    )
    if not fits:
        raise SignatureVerificationFailedError(f"the receipt is not one of `{recipient}` for this message")
    return found


def claimed(statement: str) -> Receipt:
    """What a receipt says, believed by nobody yet: only to find the message that it would be about.

    Raises:
        SignatureVerificationFailedError: It is no receipt.
    """
    try:
        return _read(base64.b64decode(json_value(statement)["payload"]), statement)
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureVerificationFailedError("the receipt is not one for any message") from error


def _read(payload: bytes, statement: str) -> Receipt:
    # Its signer may be known and hostile all the same: what it says is read as carefully as what a stranger says.
    try:
        read = json_value(payload)
        [subject], predicate = read["subject"], read["predicate"]
        receipt = Receipt(
            message_id=subject["name"],
            sender=predicate["sender"],
            recipient=predicate["recipient"],
            outcome=predicate["outcome"],
            at=predicate["at"],
            statement=statement,
            suite=predicate["suite"],
            digest=subject["digest"]["sha512"],
            reason=predicate.get("reason"),
        )
        reason = receipt.reason if receipt.reason is not None else "none"
        well_made = (
            (read["_type"], read["predicateType"]) == (_STATEMENT, _TYPE)
            and _MESSAGE_ID.fullmatch(receipt.message_id)
            and all(_ID.fullmatch(id) for id in (receipt.sender, receipt.recipient))
            and type(receipt.at) is int
            and all(isinstance(text, str) for text in (receipt.outcome, receipt.suite, receipt.digest))
            and 0 < len(reason) <= _REASON
            and reason.isprintable()
        )
        if not well_made:
            raise ValueError("not as a recipient writes it")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SignatureVerificationFailedError("the receipt is not one for any message") from error
    return receipt


def _verified(identities: Identities, statement: str, recipient: str) -> tuple[_core.Identity, bytes]:
    """Whose keys signed it, the recipient's present ones or those that they have replaced, and what it says."""
    *older, newest = reversed(identities.find_all(recipient))
    for identity in older:
        with suppress(SignatureVerificationFailedError):
            return identity, _core.dsse_verify(identity.verifying_key, _core.IN_TOTO, statement)
    return newest, _core.dsse_verify(newest.verifying_key, _core.IN_TOTO, statement)
