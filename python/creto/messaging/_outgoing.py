"""Messages for mailboxes of other machines, kept and sent again until the recipient's signed receipt is here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, or_, select, update

from creto.messaging._rows import RECEIPT, TOPIC
from creto.store.tables import outgoing

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.messaging._receipt import Receipt
    from creto.store import Transaction

__all__ = [
    "OUTGOING",
    "answered",
    "any_due",
    "carried",
    "due",
    "forget_expired",
    "keep",
    "received",
    "refuse",
    "state",
    "unanswered",
]

OUTGOING = "outgoing"  # what a message for another machine is announced under
_FIRST = 1  # seconds until an unanswered message is sent again; doubles, with full jitter
_LONGEST = 60


def _key(sender: Any, message_id: Any, recipient: Any) -> tuple[Any, ...]:
    return (
        outgoing.c.sender == sender,
        outgoing.c.message_id == message_id,
        outgoing.c.recipient == recipient,
        outgoing.c.state == "waiting",
    )


_THIS = _key(bindparam("s"), bindparam("m"), bindparam("r"))
_TRIED = update(outgoing).where(*_THIS).values(attempts=bindparam("tried"), next_attempt=bindparam("again"))
_ANSWER = {"state": bindparam("became"), "reason": bindparam("why"), "receipt": bindparam("statement"), "envelope": b""}
_ANSWERED = update(outgoing).where(*_THIS).values(_ANSWER)
# What was received may still be refused, once its recipient's policy or keys have been asked.
_OPEN = or_(outgoing.c.state == "waiting", outgoing.c.state == "received")  # `IN` is for one row at a time
_REFUSED = update(outgoing).where(*_THIS[:-1], _OPEN).values(_ANSWER)


def keep(tx: Transaction, messages: Sequence[Mapping[str, Any]], now: int) -> None:
    """Puts messages among those to be sent: sender, recipient, message_id, envelope, attachments, expires of each."""
    fixed = {"state": "waiting", "attempts": 0, "next_attempt": now, "created": tx.now}
    tx.execute(insert(outgoing), [{**message, **fixed} for message in messages])
    tx.publish(TOPIC, OUTGOING)


def any_due(tx: Transaction, now: int) -> bool:
    """Whether anything is to be done: a read, so that an idle carrier never queues for the writers' lock."""
    waiting = (outgoing.c.state == "waiting") & or_(outgoing.c.next_attempt <= now, outgoing.c.expires <= now)
    return tx.first(select(outgoing.c.message_id).where(waiting).limit(1)) is not None


def due(tx: Transaction, now: int, limit: int) -> list[Row[Any]]:
    """Takes what is to be sent now, to be sent again later unless its receipt comes first; what has expired is marked.

    Said before it is sent, so that one transaction does for both: who dies in between sends it at the next attempt.
    """
    tx.execute(update(outgoing).where(outgoing.c.state == "waiting", outgoing.c.expires <= now).values(state="expired"))
    rows = tx.all(
        select(outgoing)
        .where(outgoing.c.state == "waiting", outgoing.c.next_attempt <= now)
        .order_by(outgoing.c.next_attempt)
        .limit(limit)
    )
    if rows:
        again = [
            {
                "s": row.sender,
                "m": row.message_id,
                "r": row.recipient,
                "tried": row.attempts + 1,
                "again": now + 1 + secrets.randbelow(2 * min(_LONGEST, _FIRST << min(row.attempts, 10))),
            }
            for row in rows
        ]
        tx.execute(_TRIED, again)
    return rows


def unanswered(tx: Transaction, message_ids: Sequence[str]) -> dict[tuple[str, str, str], bytes]:
    """The envelopes that still wait for receipts, by sender, recipient and message id."""
    rows = tx.all(
        select(outgoing.c.sender, outgoing.c.recipient, outgoing.c.message_id, outgoing.c.envelope).where(
            outgoing.c.message_id.in_(message_ids), outgoing.c.state == "waiting"
        )
    )
    return {(row.sender, row.recipient, row.message_id): bytes(row.envelope) for row in rows}


def received(tx: Transaction, message_ids: Sequence[str]) -> dict[tuple[str, str, str], str]:
    """The receipts of messages that were received, by sender, recipient and message id."""
    rows = tx.all(
        select(outgoing.c.sender, outgoing.c.recipient, outgoing.c.message_id, outgoing.c.receipt).where(
            outgoing.c.message_id.in_(message_ids), outgoing.c.state == "received"
        )
    )
    return {(row.sender, row.recipient, row.message_id): row.receipt for row in rows if row.receipt}


def carried(tx: Transaction, message_ids: Sequence[str]) -> list[tuple[str, list[bytes]]]:
    """Recipient and digests of the attachments of messages that wait for no receipt any more, from anybody."""
    rows = tx.all(
        select(
            outgoing.c.sender, outgoing.c.recipient, outgoing.c.message_id, outgoing.c.state, outgoing.c.attachments
        ).where(outgoing.c.message_id.in_(message_ids))
    )
    waiting = {(row.sender, row.message_id) for row in rows if row.state == "waiting"}
    return [
        (row.recipient, [bytes.fromhex(digest) for digest in row.attachments])
        for row in rows
        if row.attachments and (row.sender, row.message_id) not in waiting
    ]


def answered(tx: Transaction, receipts: Sequence[Receipt]) -> None:
    """Ends the sending of messages whose verified receipts are here: they were received, or refused."""
    for statement, refusals in ((_ANSWERED, False), (_REFUSED, True)):
        some = [
            {
                "s": r.sender,
                "m": r.message_id,
                "r": r.recipient,
                "became": "refused" if refusals else "received",
                "why": r.reason,
                "statement": r.statement,
            }
            for r in receipts
            if (r.outcome == "refused") is refusals
        ]
        if some:
            tx.execute(statement, some)
    tx.publish(TOPIC, *(f"{RECEIPT}{receipt.message_id}" for receipt in receipts))


def refuse(tx: Transaction, row: Row[Any], reason: str) -> None:
    """Ends the sending of a message that cannot be carried."""
    tx.execute(
        update(outgoing)
        .where(*_key(row.sender, row.message_id, row.recipient))
        .values(state="refused", reason=reason, envelope=b"")
    )
    tx.publish(TOPIC, f"{RECEIPT}{row.message_id}")


def state(tx: Transaction, sender: str, message_id: str) -> list[Row[Any]]:
    """What became of a message: one row for each recipient of another machine."""
    return tx.all(
        select(
            outgoing.c.recipient,
            outgoing.c.state,
            outgoing.c.reason,
            outgoing.c.receipt,
            outgoing.c.attempts,
        )
        .where(outgoing.c.sender == sender, outgoing.c.message_id == message_id)
        .order_by(outgoing.c.recipient)
    )


def forget_expired(tx: Transaction, before: int) -> None:
    """Removes what expired before that time, whatever became of it."""
    tx.execute(delete(outgoing).where(outgoing.c.expires < before))
