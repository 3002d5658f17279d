"""Messages for mailboxes of other machines, kept and sent again until the recipient's signed receipt is here."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import literal, select, update

from creto.messaging._rows import RECEIPT, TOPIC
from creto.store.tables import outgoing

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.store import Transaction

__all__ = ["due", "envelope_of", "keep", "received", "refuse", "state", "tried"]

_FIRST = 1  # seconds until an unanswered message is sent again; doubles, with full jitter
_LONGEST = 60


def keep(
    tx: Transaction, *, sender: str, recipient: str, message_id: str, envelope: bytes, expires: int, now: int
) -> None:
    """Puts a message among those that are to be sent."""
    tx.insert(
        outgoing,
        sender=sender,
        message_id=message_id,
        recipient=recipient,
        envelope=envelope,
        state="waiting",
        attempts=0,
        next_attempt=now,
        created=tx.now,
        expires=expires,
    )
    tx.publish(TOPIC, "outgoing")


def due(tx: Transaction, now: int, limit: int) -> list[Row[Any]]:
    """What is to be sent now; what has expired is marked so."""
    tx.execute(update(outgoing).where(outgoing.c.state == "waiting", outgoing.c.expires <= now).values(state="expired"))
    return tx.all(
        select(outgoing)
        .where(outgoing.c.state == "waiting", outgoing.c.next_attempt <= now)
        .order_by(outgoing.c.next_attempt)
        .limit(limit)
    )


def tried(tx: Transaction, rows: list[Row[Any]], now: int) -> None:
    """Says when each is to be sent again, unless its receipt comes first."""
    for row in rows:
        longest = min(_LONGEST, _FIRST << min(row.attempts, 10))
        wait = 1 + secrets.randbelow(longest * 2)
        tx.execute(update(outgoing).where(*_key(row)).values(attempts=row.attempts + 1, next_attempt=now + wait))


def _key(row: Row[Any]) -> tuple[Any, ...]:
    return (
        outgoing.c.sender == row.sender,
        outgoing.c.message_id == row.message_id,
        outgoing.c.recipient == row.recipient,
        outgoing.c.state == "waiting",
    )


def envelope_of(tx: Transaction, sender: str, recipient: str, message_id: str) -> bytes | None:
    """The envelope that a receipt is about; None where none waits for one."""
    found = tx.scalar(
        select(outgoing.c.envelope).where(
            outgoing.c.sender == sender,
            outgoing.c.message_id == message_id,
            outgoing.c.recipient == recipient,
            outgoing.c.state == "waiting",
        )
    )
    return None if found is None else bytes(found)


def received(tx: Transaction, sender: str, recipient: str, message_id: str, statement: str) -> bool:
    """Ends the sending of a message whose verified receipt is here."""
    done = tx.swap(
        outgoing,
        (outgoing.c.sender == sender)
        & (outgoing.c.message_id == message_id)
        & (outgoing.c.recipient == recipient)
        & (outgoing.c.state == "waiting"),
        state="received",
        receipt=statement,
        envelope=b"",
    )
    if done:
        tx.publish(TOPIC, f"{RECEIPT}{message_id}")
    return done


def refuse(tx: Transaction, row: Row[Any]) -> None:
    """Ends the sending of a message that no transport can carry."""
    tx.execute(update(outgoing).where(*_key(row)).values(state="refused", envelope=b""))
    tx.publish(TOPIC, f"{RECEIPT}{row.message_id}")


def state(tx: Transaction, sender: str, message_id: str) -> list[Row[Any]]:
    """What became of a message: one row for each recipient of another machine."""
    return tx.all(
        select(
            outgoing.c.recipient,
            outgoing.c.state,
            literal("no transport can carry it: it is larger than the NATS server's max_payload").label("reason"),
            outgoing.c.receipt,
            outgoing.c.attempts,
        )
        .where(outgoing.c.sender == sender, outgoing.c.message_id == message_id)
        .order_by(outgoing.c.recipient)
    )
