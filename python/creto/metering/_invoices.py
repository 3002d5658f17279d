"""Invoices in the store: draft, finalized with a number that leaves no gap, paid or void; and prepaid credits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from creto.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from creto.metering._currency import places
from creto.metering._invoice import FORMAT, digest, draft
from creto.metering._open import user

if TYPE_CHECKING:
    from creto.metering._price import PriceBook
    from creto.metering._usage import UsageEvent
    from creto.store import Store, Transaction

__all__ = ["Invoices", "StoredInvoice"]

_NEXT = {"draft": {"finalized", "void"}, "finalized": {"paid", "void"}, "paid": set(), "void": set()}


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


class Invoices:
    """The invoices of a store.

    Args:
        store: The store.
        who: Recorded as the one who finalizes and voids.
    """

    def __init__(self, store: Store, who: str | None = None) -> None:
        self._store = store
        self._who = who or f"spiffe://creto.local/user/{user()}"

    # --- life --------------------------------------------------------------------------------------------------------

    def draft(
        self, book: PriceBook, customer: str, start: int, end: int, time_zone: str, events: Iterable[UsageEvent]
    ) -> StoredInvoice:
        """Makes the draft of a period, in place of an earlier draft of it.

        Args:
            book: The prices.
            customer: The organisation of a path.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            time_zone: In which the period was meant.
            events: The customer's usage, each event once.

        Raises:
            AlreadyExistsError: The period, or part of it, was invoiced already.
            InvalidInputError: The usage cannot be priced.
        """
        from sqlalchemy import delete, select

        from creto.store.tables import invoices

        if start >= end:
            raise InvalidInputError("the period ends before it starts")
        with self._store.begin() as tx:
            live = tx.all(
                select(invoices).where(
                    invoices.c.customer == customer, invoices.c.kind == "invoice", invoices.c.state != "void"
                )
            )
            for row in live:
                if row.state == "draft" or row.period_start >= end or row.period_end <= start:
                    continue
                raise AlreadyExistsError(f"`{customer}` was invoiced for this time by {row.number}; void it first")
            closed = [row.document for row in live if row.state != "draft" and row.period_end <= start]
            closed.sort(key=lambda document: str(document["number"]))
            document = draft(book, customer, start, end, time_zone, events, closed)
            tx.execute(
                delete(invoices).where(
                    invoices.c.customer == customer, invoices.c.state == "draft", invoices.c.period_start == start
                )
            )
            made = StoredInvoice(os.urandom(8).hex(), document)
            self._insert(tx, made, start, end)
            return made

    def _insert(self, tx: Transaction, made: StoredInvoice, start: int, end: int) -> None:
        from creto.store.tables import invoices

        document = made.document
        tx.insert(
            invoices,
            id=made.id,
            number=document["number"] or None,
            kind=document["kind"],
            state=document["state"],
            customer=document["customer"],
            period_start=start,
            period_end=end,
            currency=document["currency"],
            total=document["total"],
            document=document,
            digest=bytes.fromhex(digest(document)),
            changed=tx.now,
        )

    def finalize(self, id: str) -> StoredInvoice:
        """Gives a draft its number, takes off what was paid in advance, and records its digest in the ledger.

        Args:
            id: The draft's id.

        Raises:
            NotFoundError: There is no such invoice.
            InvalidInputError: It is no draft.
        """
        with self._store.begin() as tx:
            found = self._find(tx, id)
            self._step(found, "finalized")
            document = dict(found.document)
            year = str(document["end"])[:4]
            document["number"] = f"INV-{year}-{tx.number(f'invoice/{year}'):06d}"
            document["state"] = "finalized"
            self._apply_credits(tx, document)
            return self._save(tx, StoredInvoice(found.id, document), "invoice:finalize")

    def pay(self, id: str) -> StoredInvoice:
        """Notes that a finalized invoice was paid.

        Raises:
            NotFoundError: There is no such invoice.
            InvalidInputError: It is not finalized.
        """
        return self._move(id, "paid", "invoice:pay")

    def void(self, id: str) -> StoredInvoice:
        """Voids an unpaid invoice: its number stays, its credits come back, its period can be invoiced again.

        Raises:
            NotFoundError: There is no such invoice.
            InvalidInputError: It was paid, or is void.
        """
        return self._move(id, "void", "invoice:void")

    def _move(self, id: str, state: str, what: str) -> StoredInvoice:
        with self._store.begin() as tx:
            found = self._find(tx, id)
            self._step(found, state)
            document = {**found.document, "state": state}
            if state == "void":
                self._return_credits(tx, document)
            return self._save(tx, StoredInvoice(found.id, document), what)

    @staticmethod
    def _step(found: StoredInvoice, state: str) -> None:
        if state not in _NEXT[found.state]:
            raise InvalidInputError(f"invoice {found.number or found.id} is {found.state}, and cannot become {state}")

    def _save(self, tx: Transaction, made: StoredInvoice, what: str) -> StoredInvoice:
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
        self._record(tx, what, document)
        return made

    def _record(self, tx: Transaction, what: str, document: Mapping[str, Any]) -> None:
        tx.outbox(
            {
                "who": self._who,
                "what": what,
                "resource": document["number"] or "draft",
                "why": "invoicing",
                "kind": "event",
                "digest": digest(document),
                "detail": {
                    "customer": document["customer"],
                    "total": document["total"],
                    "currency": document["currency"],
                },
            }
        )

    def credit(self, number: str, reason: str, total: Decimal | None = None) -> StoredInvoice:
        """Makes a credit note on a finalized or paid invoice, with a number of its own.

        Args:
            number: The invoice's.
            reason: For the one who reads it.
            total: How much; all that is not credited yet, where it is left out.

        Raises:
            NotFoundError: There is no such invoice.
            InvalidInputError: More than the invoice's total, or less than nothing.
        """
        from sqlalchemy import select

        from creto.store.tables import invoices

        with self._store.begin() as tx:
            found = self._find(tx, number)
            if found.state not in {"finalized", "paid"}:
                raise InvalidInputError(f"invoice {number} is {found.state}: only a finalized one can be credited")
            notes = tx.all(
                select(invoices).where(
                    invoices.c.kind == "credit_note", invoices.c.customer == found.document["customer"]
                )
            )
            credited = sum(
                (-Decimal(row.total) for row in notes if row.document["credits_invoice"] == number), Decimal(0)
            )
            left = Decimal(found.document["total"]) - credited
            total = left if total is None else total
            smallest = Decimal(1).scaleb(-places(found.document["currency"]))
            if not smallest <= total <= left or total % smallest:
                raise InvalidInputError(f"credit of {total}: write an amount from {smallest} to {left}")
            year = str(found.document["end"])[:4]
            amount = str(-total.quantize(smallest))
            document = {
                **{name: found.document[name] for name in ("customer", "currency", "start", "end", "time_zone")},
                "format": FORMAT,
                "kind": "credit_note",
                "state": "finalized",
                "number": f"CRN-{year}-{tx.number(f'credit-note/{year}'):06d}",
                "credits_invoice": number,
                "reason": reason,
                "lines": [],
                "unpriced": [],
                "credits": [],
                "total": amount,
                "due": amount,
            }
            made = StoredInvoice(os.urandom(8).hex(), document)
            row = tx.first(select(invoices).where(invoices.c.id == found.id))
            assert row is not None
            self._insert(tx, made, row.period_start, row.period_end)
            self._record(tx, "invoice:credit", document)
            return made

    # --- paid in advance ---------------------------------------------------------------------------------------------

    def prepay(
        self, customer: str, currency: str, total: Decimal, *, priority: int = 0, expires: int | None = None
    ) -> str:
        """Notes an amount paid in advance; invoices take it off, by priority, then the one that expires first.

        Args:
            customer: The organisation of a path.
            currency: By ISO 4217.
            total: How much.
            priority: Lower numbers are used first.
            expires: Microseconds since the epoch; never, where it is left out.

        Returns:
            The credit's id.
        """
        from creto.store.tables import credits

        if total <= 0 or total % Decimal(1).scaleb(-places(currency)):
            raise InvalidInputError(f"{total} {currency}: write a positive amount of whole smallest units")
        with self._store.begin() as tx:
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
            return id

    @staticmethod
    def _apply_credits(tx: Transaction, document: dict[str, Any]) -> None:
        from sqlalchemy import select, update

        from creto.store.tables import credits

        due = Decimal(document["total"])
        now = tx.now >> 12
        own = tx.all(
            select(credits).where(
                credits.c.customer == document["customer"], credits.c.currency == document["currency"]
            )
        )
        usable = [row for row in own if (row.expires is None or row.expires > now) and Decimal(row.left) > 0]
        usable.sort(key=lambda row: (row.priority, row.expires is None, row.expires or 0, row.set_at, row.id))
        taken = []
        for row in usable:
            if due <= 0:
                break
            part = min(due, Decimal(row.left))
            due -= part
            tx.execute(update(credits).where(credits.c.id == row.id).values(left=str(Decimal(row.left) - part)))
            taken.append({"credit": row.id, "amount": str(part)})
        document["credits"] = taken
        document["due"] = str(due)

    @staticmethod
    def _return_credits(tx: Transaction, document: Mapping[str, Any]) -> None:
        from sqlalchemy import select, update

        from creto.store.tables import credits

        for taken in document["credits"]:
            left = tx.scalar(select(credits.c.left).where(credits.c.id == taken["credit"]))
            if left is not None:
                back = str(Decimal(left) + Decimal(taken["amount"]))
                tx.execute(update(credits).where(credits.c.id == taken["credit"]).values(left=back))

    # --- reading -----------------------------------------------------------------------------------------------------

    def _find(self, tx: Transaction, name: str) -> StoredInvoice:
        from sqlalchemy import select

        from creto.store.tables import invoices

        row = tx.first(select(invoices).where((invoices.c.id == name) | (invoices.c.number == name)))
        if row is None:
            raise NotFoundError(f"there is no invoice `{name}`")
        return StoredInvoice(row.id, dict(row.document))

    def find(self, name: str) -> StoredInvoice:
        """An invoice by its number or id.

        Raises:
            NotFoundError: There is none.
        """
        with self._store.read() as tx:
            return self._find(tx, name)

    def list(self, customer: str | None = None) -> list[StoredInvoice]:
        """Every invoice and credit note, the latest change last.

        Args:
            customer: Of this one only.
        """
        from sqlalchemy import select

        from creto.store.tables import invoices

        statement = select(invoices).order_by(invoices.c.changed)
        if customer is not None:
            statement = statement.where(invoices.c.customer == customer)
        with self._store.read() as tx:
            return [StoredInvoice(row.id, dict(row.document)) for row in tx.all(statement)]
