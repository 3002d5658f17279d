"""The mailbox as rows of the store: each function is one step inside a transaction.

A row is (recipient, sender, message id), unique until it expires: that is what makes a replay impossible. Its states
are waiting -> taken -> acked, or refused (it does not verify), or denied (policy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, exists, func, select, update

from creto._process import alive
from creto.errors import DeliveryDeniedError
from creto.store.tables import agents, attachment_pieces, attachments, mailbox, questions

if TYPE_CHECKING:
    from sqlalchemy import Row

    from creto.store import Transaction

__all__ = [
    "GRACE",
    "MOST_WAITING",
    "PRIORITIES",
    "RECEIPT",
    "REFUSED",
    "TOPIC",
    "UNREAD",
    "Held",
    "Letter",
    "any_for",
    "denial",
    "end",
    "forget_expired",
    "give_back",
    "owned",
    "put",
    "receipts",
    "refuse",
    "refused",
    "state",
    "take",
]

TOPIC = "mailbox"
GRACE = 120  # seconds after which what has expired is forgotten
RECEIPT = "receipt/"  # what a message's end is announced under, before its id
MOST_WAITING = 10_000  # messages of one sender that may wait in one mailbox: what a flood can take of the store
PRIORITIES = {"non-urgent": -1, "normal": 0, "urgent": 1}
_HEAD_START = 16  # turns by which a priority goes ahead of the one below it
UNREAD = ("waiting", "taken")
REFUSED = "refused"  # what is announced where a message from another machine is not handed out
_ASKED_FOR = 500  # messages in one question: databases bound what a statement may hold

# Made once, since a message's way is short and SQLAlchemy's is not; each part is one step down an index.
_THERE = mailbox.c.recipient == bindparam("r")
_THEIRS = _THERE & (mailbox.c.sender == bindparam("s"))
_TURNS = select(
    *(
        select(turn)
        .where(whose, mailbox.c.state == state, mailbox.c.priority == priority)
        .scalar_subquery()
        .label(f"{name}_{state}_{priority}")
        for name, turn, whose in (
            ("last", func.max(mailbox.c.turn), _THEIRS),
            ("first", func.min(mailbox.c.turn), _THERE),
        )
        for state in UNREAD
        for priority in PRIORITIES.values()
    )
)
_BACKLOG = select(func.count()).select_from(mailbox).where(_THEIRS, mailbox.c.state.in_(UNREAD))


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


@dataclass(frozen=True, slots=True)
class Letter:
    """An envelope on its way into a mailbox, with what its row says of it."""

    recipient: str
    sender: str
    message_id: str
    envelope: bytes = field(repr=False)
    priority: str
    in_reply_to: str | None
    expires: int
    receipt: str | None = field(default=None, repr=False)
    """What its sender is answered, where that is on another machine."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Recipient, sender and message id."""
        return self.recipient, self.sender, self.message_id


def put(tx: Transaction, letters: Sequence[Letter]) -> list[DeliveryDeniedError | None]:
    """Puts envelopes into mailboxes, and says of each why it was not let in; a replay changes nothing.

    So many messages of one sender may wait in one mailbox that it is taken for a flood. The caller announces the rest.
    """
    standings: dict[tuple[str, str], _Standing] = {}
    denials: list[DeliveryDeniedError | None] = []
    rows = []
    for letter in letters:
        pair = (letter.recipient, letter.sender)
        standing = standings.get(pair) or standings.setdefault(pair, _Standing(tx, *pair))
        denials.append(standing.denial(tx))
        if denials[-1] is None:
            rows.append(_row(tx, letter, standing.next_turn(PRIORITIES[letter.priority])))
    tx.insert_all_once(mailbox, rows)
    return denials


def _row(tx: Transaction, letter: Letter, turn: int) -> dict[str, Any]:
    """What is filed of a letter that waits."""
    return {
        "recipient": letter.recipient,
        "sender": letter.sender,
        "message_id": letter.message_id,
        "in_reply_to": letter.in_reply_to,
        "envelope": letter.envelope,
        "state": "waiting",
        "attempts": 0,
        "priority": PRIORITIES[letter.priority],
        "turn": turn,
        "arrived": tx.now,
        "expires": letter.expires,
        "receipt": letter.receipt,
    }


class _Standing:
    """Where a sender stands in a mailbox, by start-time fair queueing: behind its own backlog, beside all others'.

    It has a backlog of each priority, so that what is urgent does not wait behind what is not.
    """

    def __init__(self, tx: Transaction, recipient: str, sender: str) -> None:
        found: Any = tx.execute(_TURNS, {"r": recipient, "s": sender}).one()
        classes = len(PRIORITIES)
        lasts, firsts = found[: len(UNREAD) * classes], found[len(UNREAD) * classes :]
        self._recipient, self._sender = recipient, sender
        self._first = min((int(turn) for turn in firsts if turn is not None), default=0)
        self._last = {
            priority: max((int(turn) for turn in lasts[place::classes] if turn is not None), default=0)
            for place, priority in enumerate(PRIORITIES.values())
        }

    def next_turn(self, priority: int) -> int:
        turn = self._last[priority] = max(self._first, self._last[priority] + 1)
        return turn

    def denial(self, tx: Transaction) -> DeliveryDeniedError | None:
        # Each message has a turn of its own, so the backlog is never longer than the way to its end: mostly no need to
        # count it.
        if sum(max(0, last - self._first + 1) for last in self._last.values()) < MOST_WAITING:
            return None
        backlog = tx.execute(_BACKLOG, {"r": self._recipient, "s": self._sender}).scalar()
        if backlog is None or int(backlog) < MOST_WAITING:
            return None
        return DeliveryDeniedError(
            f"the mailbox of `{self._recipient}` holds {backlog} messages of `{self._sender}` that nobody has read "
            "yet; send more once it has caught up"
        )


def refuse(tx: Transaction, letter: Letter, reason: str, receipt: str) -> bool:
    """Files what is not handed out, so that it is refused once; False where it was filed before."""
    ended = {"envelope": b"", "state": "refused", "reason": reason, "receipt": receipt}
    return tx.insert_once(mailbox, **(_row(tx, letter, 0) | ended))


def denial(tx: Transaction, recipient: str, sender: str) -> DeliveryDeniedError | None:
    """Why nothing more of this sender is let into this mailbox now, where that is so."""
    return _Standing(tx, recipient, sender).denial(tx)


def receipts(tx: Transaction, keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """What was answered to messages that came before, by recipient, sender and message id."""
    # Pair by pair, so that each is a step down an index: SQLite goes through the whole table for rows of three columns.
    ids: dict[tuple[str, str], list[str]] = {}
    for recipient, sender, message_id in keys:
        ids.setdefault((recipient, sender), []).append(message_id)
    found: dict[tuple[str, str, str], str] = {}
    for (recipient, sender), all in ids.items():
        for start in range(0, len(all), _ASKED_FOR):
            rows = tx.all(
                select(mailbox.c.message_id, mailbox.c.receipt).where(
                    mailbox.c.recipient == recipient,
                    mailbox.c.sender == sender,
                    mailbox.c.message_id.in_(all[start : start + _ASKED_FOR]),
                    mailbox.c.receipt.is_not(None),
                )
            )
            found.update({(recipient, sender, row.message_id): row.receipt for row in rows})
    return found


def refused(tx: Transaction, now: int) -> list[Row[Any]]:
    """What came from other machines and was not handed out, with the receipts that say so."""
    mine = select(agents.c.id).where(agents.c.own.is_(True))
    return tx.all(
        select(mailbox.c.recipient, mailbox.c.sender, mailbox.c.message_id, mailbox.c.receipt, mailbox.c.expires).where(
            mailbox.c.recipient.in_(mine),
            mailbox.c.state.in_(("refused", "denied")),
            mailbox.c.receipt.is_not(None),
            mailbox.c.expires > now,
        )
    )


def take(
    tx: Transaction, recipient: str, holder: str, now: int, hold: int, reply: tuple[str, str] | None = None
) -> Held | None:
    """Takes the next message for a recipient, by turn; what a dead process held comes again.

    An urgent message goes before those of the turns next to its own, not before all: who marks a flood as urgent would
    starve the others with it.

    Args:
        tx: The transaction.
        recipient: Whose mailbox.
        holder: This process.
        now: Seconds since the epoch.
        hold: Seconds until it comes back unless acknowledged.
        reply: Only the reply to this message, by this agent; replies that somebody waits for are left to them.
    """
    mine = (mailbox.c.recipient == recipient) & (mailbox.c.expires > now)
    if reply is not None:
        mine &= (mailbox.c.in_reply_to == reply[0]) & (mailbox.c.sender == reply[1])
    else:
        mine &= ~exists().where(
            questions.c.message_id == mailbox.c.in_reply_to,
            questions.c.sender == recipient,
            questions.c.asked == mailbox.c.sender,
            questions.c.until > now,
        )
    order = (mailbox.c.turn - _HEAD_START * mailbox.c.priority, mailbox.c.seq)
    row = tx.first(
        select(mailbox).where(mine, mailbox.c.state == "taken", mailbox.c.held_until <= now).order_by(*order)
    )
    if row is None:
        taken = tx.all(select(mailbox.c.holder).where(mine, mailbox.c.state == "taken").distinct())
        dead = [name for (name,) in taken if name is not None and not alive(name)]
        if dead:
            row = tx.first(
                select(mailbox).where(mine, mailbox.c.state == "taken", mailbox.c.holder.in_(dead)).order_by(*order)
            )
    if row is None:
        # The head of each priority is one step down an index; which of them is next is told from the heads alone.
        heads = [
            select(mailbox.c.seq)
            .where(mine, mailbox.c.state == "waiting", mailbox.c.priority == priority)
            .order_by(mailbox.c.turn, mailbox.c.seq)
            .limit(1)
            .scalar_subquery()
            for priority in PRIORITIES.values()
        ]
        row = tx.first(select(mailbox).where(mailbox.c.seq.in_(heads)).order_by(*order).limit(1))
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


def forget_expired(tx: Transaction, now: int) -> None:
    """Removes what expired; a little later than it does, so that clocks that differ cannot bring a replay in."""
    tx.execute(delete(mailbox).where(mailbox.c.expires < now - GRACE))
    tx.execute(delete(attachments).where(attachments.c.expires < now - GRACE))
    tx.execute(delete(attachment_pieces).where(attachment_pieces.c.expires < now - GRACE))
    tx.execute(delete(questions).where(questions.c.until < now - GRACE))


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
