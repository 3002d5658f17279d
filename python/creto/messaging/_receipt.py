"""The recipient's signed word that it has a message: an in-toto Statement in DSSE."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from creto import _core
from creto.errors import SignatureVerificationFailedError

if TYPE_CHECKING:
    from creto.nhi import Agent, Identities

__all__ = ["Receipt", "sign", "verify"]

_TYPE = "urn:creto:receipt:1"
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
    """

    message_id: str
    sender: str
    recipient: str
    outcome: str
    at: int
    statement: str = field(repr=False)


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
    identity = identities.find(recipient)
    read = json.loads(_core.dsse_verify(identity.verifying_key, _core.IN_TOTO, statement))
    subject, predicate = read["subject"][0], read["predicate"]
    fits = (
        read["predicateType"] == _TYPE
        and predicate["recipient"] == recipient
        and predicate["suite"] == identity.suite
        and (digest is None or subject["digest"]["sha512"] == digest)
    )
    if not fits:
        raise SignatureVerificationFailedError(f"the receipt is not one of `{recipient}` for this message")
    return Receipt(subject["name"], predicate["sender"], recipient, predicate["outcome"], predicate["at"], statement)
