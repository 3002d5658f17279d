"""The recipient's signed word that it has a message: an in-toto Statement in DSSE."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import SignatureVerificationFailedError

if TYPE_CHECKING:
    from creto.nhi import Agent, Identities

__all__ = ["Receipt", "claimed", "sign", "verify"]

_TYPE = "urn:creto:receipt:1"
_OUTCOMES = ("received", "acked")
_STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that was verified.

    Args:
        message_id: Of the message, 32 hexadecimal digits.
        sender: Who wrote it.
        recipient: Who has it, and signed this.
        outcome: `received`: it is in the recipient's mailbox. `acked`: it has been dealt with.
        at: Seconds since the epoch.
        statement: The DSSE envelope, for others to check.
        suite: Of the recipient's keys.
        digest: SHA-512 of the message's envelope, in hexadecimal.
    """

    message_id: str
    sender: str
    recipient: str
    outcome: str
    at: int
    statement: str = field(repr=False)
    suite: str = field(repr=False)
    digest: str = field(repr=False)


def sign(recipient: Agent, sender: str, message_id: str, envelope: bytes, outcome: str, at: int) -> str:
    """Signs a receipt for an envelope."""
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
    identity, read = _verified(identities, statement, recipient)
    found = _read(read, statement)
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
        payload = json.loads(base64.b64decode(json.loads(statement)["payload"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureVerificationFailedError("the receipt is not one for any message") from error
    return _read(payload, statement)


def _read(payload: Any, statement: str) -> Receipt:
    # Its signer may be known and hostile all the same: what it says is read as carefully as what a stranger says.
    try:
        [subject], predicate = payload["subject"], payload["predicate"]
        if (payload["_type"], payload["predicateType"]) != (_STATEMENT, _TYPE):
            raise ValueError("a statement of another type")
        return Receipt(
            message_id=str(subject["name"]),
            sender=str(predicate["sender"]),
            recipient=str(predicate["recipient"]),
            outcome=str(predicate["outcome"]),
            at=int(predicate["at"]),
            statement=statement,
            suite=str(predicate["suite"]),
            digest=str(subject["digest"]["sha512"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureVerificationFailedError("the receipt is not one for any message") from error


def _verified(identities: Identities, statement: str, recipient: str) -> tuple[_core.Identity, Any]:
    """Whose keys signed it, the recipient's present ones or those that they have replaced, and what it says."""
    *older, newest = reversed(identities.find_all(recipient))
    for identity in older:
        with suppress(SignatureVerificationFailedError):
            return identity, json.loads(_core.dsse_verify(identity.verifying_key, _core.IN_TOTO, statement))
    return newest, json.loads(_core.dsse_verify(newest.verifying_key, _core.IN_TOTO, statement))
