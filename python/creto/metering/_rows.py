"""Invoices as rows of the store: found, put in, changed, and which of them close a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from creto.errors import NotFoundError
from creto.metering._invoice import digest, sealed

if TYPE_CHECKING:
    from creto.store import Transaction

__all__ = ["StoredInvoice", "closed", "drop_drafts", "find", "insert_all", "later", "listed", "notes_on", "save"]

_OLDEST = 2 * 366 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class StoredInvoice:
    """An invoice as it stands.

    Args:
        id: 16 hexadecimal digits, from the draft on.
        document: The invoice itself.
    """

    id: str
    document: dict[str, Any]

    @property
    def number(self) -> str:
        """Its number; empty for a draft."""
        return str(self.document["number"])

    @property
    def state(self) -> str:
        """`draft`, `finalized`, `paid` or `void`."""
        return str(self.document["state"])

    @property
    def digest(self) -> str:
        """SHA-256 of all of it but its state."""
        return digest(self.document)


def closed(
    tx: Transaction, customers: Sequence[str] | None, start: int, end: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """By customer: earlier invoices that stand, in order of number; and the number of one that covers this time."""
    from sqlalchemy import select

    from creto.store.tables import invoices

    statement = select(invoices).where(
        invoices.c.kind == "invoice",
        invoices.c.state.in_(["finalized", "paid"]),
        invoices.c.period_start < end,
        # Usage older than this is not taken in any more.
        invoices.c.period_end > start - _OLDEST,
    )
    if customers is not None:
        statement = statement.where(invoices.c.customer.in_(customers))
    earlier: dict[str, list[dict[str, Any]]] = {}
    covering: dict[str, str] = {}
    for row in tx.all(statement.order_by(invoices.c.number)):
        if row.period_end <= start:
            earlier.setdefault(row.customer, []).append(row.document)
        else:
            covering[row.customer] = row.number
    return earlier, covering


def drop_drafts(tx: Transaction, customers: Iterable[str], start: int) -> None:
    """Takes out the drafts of customers for a period that begins then."""
    from sqlalchemy import delete

    from creto.store.tables import invoices

    names = list(customers)
    for place in range(0, len(names), 500):
        tx.execute(
            delete(invoices).where(
                invoices.c.customer.in_(names[place : place + 500]),
                invoices.c.state == "draft",
                invoices.c.period_start == start,
            )
        )


def insert_all(tx: Transaction, made: Sequence[StoredInvoice], start: int, end: int) -> list[str]:
    """Puts invoices of one period in; returns their digests."""
    from sqlalchemy import bindparam, insert

    from creto.store.tables import Written, invoices

    digests = []
    rows = []
    for one in made:
        text, name = sealed(one.document)
        digests.append(name)
        rows.append(
            {
                "id": one.id,
                "number": one.number or None,
                **{name: one.document[name] for name in ("kind", "state", "customer", "currency", "total")},
                "period_start": start,
                "period_end": end,
                "written": text,
                "digest": bytes.fromhex(name),
                "changed": tx.now,
            }
        )
    if rows:
        # Written once: for its digest.
        tx.execute(insert(invoices).values(document=bindparam("written", type_=Written())), rows)
    return digests


def save(tx: Transaction, made: StoredInvoice) -> None:
    """Puts an invoice in the place of the one with its id."""
    from sqlalchemy import update

    from creto.store.tables import invoices

    document = made.document
    tx.execute(
        update(invoices)
        .where(invoices.c.id == made.id)
        .values(
            number=document["number"] or None,
            state=document["state"],
            total=document["total"],
            document=document,
            digest=bytes.fromhex(digest(document)),
            changed=tx.now,
        )
    )


def find(tx: Transaction, name: str) -> StoredInvoice:
    """An invoice by its number or id.

    Raises:
        NotFoundError: There is none.
    """
    from sqlalchemy import select

    from creto.store.tables import invoices

    row = tx.first(select(invoices).where((invoices.c.id == name) | (invoices.c.number == name)))
    if row is None:
        raise NotFoundError(f"there is no invoice `{name}`; `creto invoice list` shows those that there are")
    return StoredInvoice(row.id, dict(row.document))


def listed(tx: Transaction, customer: str | None) -> list[StoredInvoice]:
    """Every invoice and credit note, or those of one customer; the latest change last."""
    from sqlalchemy import select

    from creto.store.tables import invoices

    statement = select(invoices).order_by(invoices.c.changed)
    if customer is not None:
        statement = statement.where(invoices.c.customer == customer)
    return [StoredInvoice(row.id, dict(row.document)) for row in tx.all(statement)]


def later(tx: Transaction, document: Mapping[str, Any]) -> list[Any]:
    """The invoices of the same customer that were finalized after one, and stand."""
    from creto.store.tables import invoices

    return _standing(tx, document, "invoice", invoices.c.number > document["number"])


def notes_on(tx: Transaction, document: Mapping[str, Any]) -> list[Any]:
    """The credit notes on an invoice that stand."""
    notes = _standing(tx, document, "credit_note")
    return [note for note in notes if note.document["credits_invoice"] == document["number"]]


def _standing(tx: Transaction, document: Mapping[str, Any], kind: str, *more: Any) -> list[Any]:
    from sqlalchemy import select

    from creto.store.tables import invoices

    return tx.all(
        select(invoices)
        .where(
            invoices.c.customer == document["customer"],
            invoices.c.kind == kind,
            invoices.c.state.in_(["finalized", "paid"]),
            *more,
        )
        .order_by(invoices.c.number)
    )
