"""The mailbox as rows of the store: each function is one step inside a transaction.

A row is (recipient, sender, message id), unique until it expires: that is what makes a replay impossible. Its states
are waiting -> taken -> acked, or refused (it does not verify), or denied (policy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, or_, select, update

from creto.errors import DeliveryDeniedError
from creto.messaging._holder import is_dead
from creto.store.tables import agents, attachments, mailbox, questions

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.store import Transaction

__all__ = [
    "MOST_WAITING",
    "PRIORITIES",
    "RECEIPT",
    "TOPIC",
    "Held",
    "any_for",
    "end",
    "forget_expired",
    "give_back",
    "owned",
    "put",
    "state",
    "take",
]

TOPIC = "mailbox"
RECEIPT = "receipt/"  # what a message's end is announced under, before its id
MOST_WAITING = 10_000  # messages of one sender that may wait in one mailbox: what a flood can take of the store
PRIORITIES = {"non-urgent": -1, "normal": 0, "urgent": 1}


@dataclass(frozen=True, slots=True)
class Held:
    """A row that this process has taken."""

    seq: int
    recipient: str
    sender: str
    message_id: str
    envelope: bytes
    attempts: int
    holder: str


def put(
    tx: Transaction,
    *,
    recipient: str,
    sender: str,
    message_id: str,
    envelope: bytes,
    priority: str,
    in_reply_to: str | None,
    expires: int,
) -> bool:
    """Puts an envelope into a mailbox; False where the row exists, so it is a replay. The caller announces it.

    Raises:
        DeliveryDeniedError: So many messages of this sender wait there that it is taken for a flood.
    """
    waiting = (mailbox.c.recipient == recipient) & mailbox.c.state.in_(("waiting", "taken"))
    theirs = mailbox.c.sender == sender
    found: Any = tx.execute(
        select(
            select(func.min(mailbox.c.turn)).where(waiting).scalar_subquery(),
            select(func.max(mailbox.c.turn)).where(waiting, theirs).scalar_subquery(),
            select(func.count()).select_from(mailbox).where(waiting, theirs).scalar_subquery(),
        )
    ).one()
    first, own, backlog = found
    if backlog >= MOST_WAITING:
        raise DeliveryDeniedError(
            f"the mailbox of `{recipient}` holds {backlog} messages of `{sender}` that nobody has read yet; "
            "send more once it has caught up"
        )
    return tx.insert_once(
        mailbox,
        recipient=recipient,
        sender=sender,
        message_id=message_id,
        in_reply_to=in_reply_to,
        envelope=envelope,
        state="waiting",
        attempts=0,
        priority=PRIORITIES[priority],
        # Start-time fair queueing: behind one's own backlog, beside everybody else's.
        turn=max(int(first or 0), int(own or 0) + 1),
        arrived=tx.now,
        expires=expires,
    )


def take(tx: Transaction, recipient: str, holder: str, now: int, hold: int, reply_to: str | None = None) -> Held | None:
    """Takes the next message for a recipient: urgent ones first, then by turn; what a dead process held comes again.

    Args:
        tx: The transaction.
        recipient: Whose mailbox.
        holder: This process.
        now: Seconds since the epoch.
        hold: Seconds until it comes back unless acknowledged.
        reply_to: Only the reply to this message; replies that somebody else waits for are left to them.
    """
    mine = (mailbox.c.recipient == recipient) & (mailbox.c.expires > now)
    if reply_to is not None:
        mine &= mailbox.c.in_reply_to == reply_to
    else:
        asked = select(questions.c.message_id).where(questions.c.sender == recipient, questions.c.until > now)
        mine &= or_(mailbox.c.in_reply_to.is_(None), mailbox.c.in_reply_to.not_in(asked))
    order = (mailbox.c.priority.desc(), mailbox.c.turn, mailbox.c.seq)
    row = tx.first(
        select(mailbox).where(mine, mailbox.c.state == "taken", mailbox.c.held_until <= now).order_by(*order)
    )
    if row is None:
        taken = tx.all(select(mailbox.c.holder).where(mine, mailbox.c.state == "taken").distinct())
        dead = [name for (name,) in taken if name is not None and is_dead(name)]
        if dead:
            row = tx.first(
                select(mailbox).where(mine, mailbox.c.state == "taken", mailbox.c.holder.in_(dead)).order_by(*order)
            )
    if row is None:
        row = tx.first(select(mailbox).where(mine, mailbox.c.state == "waiting").order_by(*order).limit(1))
    if row is None:
        return None
    tx.execute(
        update(mailbox)
        .where(mailbox.c.seq == row.seq)
        .values(state="taken", holder=holder, held_until=now + hold, attempts=row.attempts + 1)
    )
    return Held(row.seq, recipient, row.sender, row.message_id, row.envelope, row.attempts + 1, holder)


def end(tx: Transaction, held: Held, outcome: str, *, receipt: str | None = None, reason: str | None = None) -> bool:
    """Ends a message that this process still holds; False where another has taken it since."""
    return tx.swap(
        mailbox,
        (mailbox.c.seq == held.seq)
        & (mailbox.c.state == "taken")
        & (mailbox.c.holder == held.holder)
        & (mailbox.c.attempts == held.attempts),
        state=outcome,
        receipt=receipt,
        reason=reason,
        envelope=b"",  # the row stays until it expires, to keep replays out; what was in it need not
        holder=None,
        held_until=None,
    )


def give_back(tx: Transaction, held: Held, seen: bool = True) -> bool:
    """Puts a message back that was taken and not dealt with; one that nobody has seen as if it had not been taken."""
    back = tx.swap(
        mailbox,
        (mailbox.c.seq == held.seq)
        & (mailbox.c.state == "taken")
        & (mailbox.c.holder == held.holder)
        & (mailbox.c.attempts == held.attempts),
        state="waiting",
        attempts=held.attempts if seen else held.attempts - 1,
        holder=None,
        held_until=None,
    )
    if back:
        tx.publish(TOPIC, held.recipient)
    return back


def state(tx: Transaction, sender: str, message_id: str) -> list[Row[Any]]:
    """What became of a message: one row for each recipient of this store."""
    return tx.all(
        select(mailbox.c.recipient, mailbox.c.state, mailbox.c.reason, mailbox.c.receipt, mailbox.c.attempts)
        .where(mailbox.c.sender == sender, mailbox.c.message_id == message_id)
        .order_by(mailbox.c.recipient)
    )


def forget_expired(tx: Transaction, now: int, grace: int = 120) -> None:
    """Removes what expired; a little later than it does, so that clocks that differ cannot bring a replay in."""
    tx.execute(delete(mailbox).where(mailbox.c.expires < now - grace))
    tx.execute(delete(attachments).where(attachments.c.expires < now - grace))
    tx.execute(delete(questions).where(questions.c.until < now - grace))


def owned(tx: Transaction, ids: list[str]) -> set[str]:
    """Which of these agents have their mailbox here."""
    rows = tx.all(select(agents.c.id).where(agents.c.id.in_(ids), agents.c.own.is_(True), agents.c.state == "active"))
    return {id for (id,) in rows}


def any_for(tx: Transaction, recipient: str, now: int) -> bool:
    """Whether anything is there to be looked at: a read, so that an idle inbox never queues for the writers' lock."""
    found = tx.scalar(
        select(mailbox.c.seq)
        .where(
            mailbox.c.recipient == recipient,
            mailbox.c.state.in_(("waiting", "taken")),
            mailbox.c.expires > now,
        )
        .limit(1)
    )
    return found is not None
