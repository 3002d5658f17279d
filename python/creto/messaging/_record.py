"""What the ledger is told of a message: who, to whom, and the digest of its envelope."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["digest_of", "record"]


def digest_of(envelope: bytes) -> bytes:
    """What the ledger keeps of an envelope."""
    return hashlib.sha256(envelope).digest()


def record(
    who: str,
    what: str,
    other: str,
    message_id: str,
    envelope: bytes,
    outcome: Any,
    digest: bytes | None = None,
) -> dict[str, Any]:
    """A record of `message:send` or `message:receive`.

    Args:
        who: The agent that sends or receives.
        what: The action.
        other: The agent at the other end.
        message_id: 32 hexadecimal digits; empty where it could not be read.
        envelope: Whose digest is recorded.
        outcome: `success`, or `{"failure": why}`.
        digest: Of the envelope, where it is known already.
    """
    return {
        "who": who,
        "what": what,
        "resource": other,
        "outcome": outcome,
        "digest": digest_of(envelope) if digest is None else digest,
        "detail": {"message_id": message_id, "bytes": len(envelope)},
    }
