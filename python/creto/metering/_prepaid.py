"""What was paid in advance: taken off by priority, then what expires first; given back when an invoice is void.

Whatever changes a credit is a record of the ledger, so that `_balance` can say what is left without the store.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from creto.errors import InvalidInputError
from creto.metering._currency import payable
from creto.metering._event import is_name
from creto.metering._period import require_time

if TYPE_CHECKING:
    from creto.store import Transaction

__all__ = ["give_back", "note", "stored", "take_off"]

_PRIORITIES = range(-(2**31), 2**31)


def note(
    tx: Transaction, who: str, customer: str, currency: str, total: Decimal, priority: int, expires: int | None
) -> str:
    """Notes an amount; returns its id.

    Raises:
        InvalidInputError: The amount cannot be paid, or something else has no valid reading.
    """
    from creto.store.tables import credits

    if not is_name(customer):
        raise InvalidInputError(f"customer `{str(customer)[:40]!a}`: write a name of 1 to 1024 characters")
    if not payable(total, currency):
        raise InvalidInputError(f"{total} {currency}: write a positive amount below 10^18 of whole smallest units")
    if priority not in _PRIORITIES:
        raise InvalidInputError(f"priority {priority}: write a whole number from -2^31 to 2^31-1")
    if expires is not None:
        require_time("expires", expires)
    id = os.urandom(8).hex()
    tx.insert(
        credits,
        id=id,
        customer=customer,
        currency=currency,
        granted=str(total),
        left=str(total),
        priority=priority,
        expires=expires,
        set_at=tx.now,
    )
    more = {"priority": str(priority), **({} if expires is None else {"expires": str(expires)})}
    _record(tx, who, "grant", id, customer, currency, total, **more)
    return id


def _record(
    tx: Transaction, who: str, what: str, credit: str, customer: str, currency: str, amount: Decimal, **more: str
) -> None:
    tx.outbox(
        {
            "who": who,
            "what": f"prepaid:{what}",
            "resource": credit,
            "why": "invoicing",
            "kind": "event",
            "detail": {"customer": customer, "currency": currency, "amount": str(amount), **more},
        }
    )


def stored(tx: Transaction, customer: str | None = None) -> list[Any]:
    """The credits that the store has, in the order in which they were noted.

    Args:
        tx: A transaction of the store.
        customer: Of this one only.
    """
    from sqlalchemy import select

    from creto.store.tables import credits

    statement = select(credits).order_by(credits.c.set_at, credits.c.id)
    return tx.all(statement if customer is None else statement.where(credits.c.customer == customer))


def take_off(tx: Transaction, who: str, documents: Sequence[dict[str, Any]]) -> None:
    """Takes off invoices what their customers have left, and writes into each what was taken and what is due."""
    from sqlalchemy import select, update

    from creto.store.tables import credits

    now = tx.now >> 12
    statement = select(credits).where(credits.c.left != "0")
    if len(documents) == 1:
        statement = statement.where(credits.c.customer == documents[0]["customer"])
    usable: dict[tuple[str, str], list[Any]] = {}
    for row in tx.all(statement):
        if Decimal(row.left) <= 0:
            continue
        if row.expires is not None and row.expires <= now:
            _record(tx, who, "expire", row.id, row.customer, row.currency, Decimal(row.left))
            tx.execute(update(credits).where(credits.c.id == row.id).values(left="0"))
        else:
            usable.setdefault((row.customer, row.currency), []).append(row)
    for document in documents:
        due = Decimal(document["total"])
        own = usable.get((document["customer"], document["currency"]), [])
        own.sort(key=lambda row: (row.priority, row.expires is None, row.expires or 0, row.set_at, row.id))
        taken = []
        for row in own:
            if due <= 0:
                break
            part = min(due, Decimal(row.left))
            due -= part
            tx.execute(update(credits).where(credits.c.id == row.id).values(left=str(Decimal(row.left) - part)))
            _record(tx, who, "draw", row.id, row.customer, row.currency, part, invoice=document["number"])
            taken.append({"credit": row.id, "amount": str(part)})
        document["credits"] = taken
        document["due"] = str(due)


def give_back(tx: Transaction, who: str, document: Mapping[str, Any]) -> None:
    """Gives back what was taken off an invoice."""
    from sqlalchemy import select, update

    from creto.store.tables import credits

    for taken in document["credits"]:
        left = tx.scalar(select(credits.c.left).where(credits.c.id == taken["credit"]))
        if left is not None:
            back = str(Decimal(left) + Decimal(taken["amount"]))
            tx.execute(update(credits).where(credits.c.id == taken["credit"]).values(left=back))
            _record(
                tx,
                who,
                "return",
                taken["credit"],
                document["customer"],
                document["currency"],
                Decimal(taken["amount"]),
                invoice=document["number"],
            )
