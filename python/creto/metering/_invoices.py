"""Invoices in the store: draft, finalized with a number that leaves no gap, paid or void; and prepaid credits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from creto.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from creto.metering._currency import payable, places
from creto.metering._invoice import FORMAT, digest, drafts, reach_of
from creto.metering._open import user
from creto.metering._rate import micros

if TYPE_CHECKING:
    from creto.metering._evidence import Evidence
    from creto.metering._price import PriceBook
    from creto.store import Store, Transaction

__all__ = ["Invoices", "StoredInvoice"]

_OLDEST = 2 * 366 * 86_400_000_000
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

    @property
    def digest(self) -> str:
        """SHA-256 of all of it but its state."""
        return digest(self.document)


class Invoices:
    """The invoices of a store.

    Args:
        store: The store.
        who: Recorded as the one who finalizes and voids.

    Example:
        >>> import tempfile
        >>> from creto.config import Price
        >>> from creto.metering import EventEvidence, PriceBook, UsageEvent
        >>> from creto.store import Store
        >>> book = PriceBook([Price(meter="pages", unit_price="0.25")], "EUR")
        >>> used = EventEvidence([UsageEvent("app", "1", "acme", "pages", 10, 5)])
        >>> with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/store") as store:
        ...     draft = Invoices(store).draft(book, "acme", 0, 86_400_000_000, "UTC", used)
        >>> draft.state, draft.document["total"]
        ('draft', '2.50')
    """

    def __init__(self, store: Store, who: str | None = None) -> None:
        self._store = store
        self._who = who or f"spiffe://creto.local/user/{user()}"

    # --- life --------------------------------------------------------------------------------------------------------

    def draft(
        self, book: PriceBook, customer: str, start: int, end: int, time_zone: str, evidence: Evidence
    ) -> StoredInvoice:
        """Makes the draft of a period, in place of an earlier draft of it.

        Args:
            book: The prices.
            customer: The organisation of a path.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            time_zone: In which the period was meant.
            evidence: The usage.

        Raises:
            AlreadyExistsError: The period, or part of it, was invoiced already.
            InvalidInputError: The usage cannot be priced.
        """
        return self.run(book, start, end, time_zone, evidence, customers=[customer], finalize=False)[0]

    def run(
        self,
        book: PriceBook,
        start: int,
        end: int,
        time_zone: str,
        evidence: Evidence,
        *,
        customers: Sequence[str] | None = None,
        finalize: bool = True,
        refuse_empty: bool = False,
    ) -> list[StoredInvoice]:
        """Invoices a period, all customers in one transaction: every one gets its invoice, or none does.

        Args:
            book: The prices.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
            time_zone: In which the period was meant.
            evidence: The usage.
            customers: These only; by default every one that used anything.
            finalize: False to make drafts, in place of earlier drafts of the period.
            refuse_empty: Whether one without a line is an error: a customer whose name was misspelt used nothing.

        Raises:
            AlreadyExistsError: A customer's period, or part of it, was invoiced already.
            NotFoundError: `refuse_empty`, and there is nothing to invoice a customer for.
            InvalidInputError: The usage cannot be priced.
        """
        if start >= end:
            raise InvalidInputError("the period ends before it starts")
        while True:
            with self._store.read() as tx:
                earlier, covering = self._closed(tx, customers, start, end)
            # Outside of a transaction: others need not wait while a month is added up.
            made = drafts(book, start, end, time_zone, evidence, customers=customers, closed=earlier)
            for customer, document in made.items() if refuse_empty else ():
                if not document["lines"] and not document["unpriced"]:
                    raise NotFoundError(
                        f"`{customer}` used nothing in this period, and no price has a fee for it: there is nothing to "
                        "invoice; `creto usage --by customer` shows who used what"
                    )
            for customer in sorted(set(made) & set(covering)):
                raise AlreadyExistsError(
                    f"`{customer}` was invoiced for this time by {covering[customer]}; void it first"
                )
            with self._store.begin() as tx:
                self._alone(tx)
                now, covered = self._closed(tx, customers, start, end)
                if (_numbers(now), covered) != (_numbers(earlier), covering):
                    continue  # Another process invoiced meanwhile.
                self._drop_drafts(tx, made, start)
                if finalize:
                    self._number(tx, list(made.values()))
                invoices = [StoredInvoice(os.urandom(8).hex(), document) for document in made.values()]
                digests = self._insert_all(tx, invoices, start, end)
                if finalize:
                    for invoice, name in zip(invoices, digests, strict=True):
                        self._record(tx, "invoice:finalize", invoice.document, name)
                return invoices

    @staticmethod
    def _alone(tx: Transaction) -> None:
        """Has whoever else invoices wait until this transaction has ended, also on PostgreSQL."""
        tx.bump("invoicing")

    @staticmethod
    def _closed(
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

    @staticmethod
    def _drop_drafts(tx: Transaction, made: Mapping[str, Any], start: int) -> None:
        from sqlalchemy import delete

        from creto.store.tables import invoices

        names = list(made)
        for place in range(0, len(names), 500):
            tx.execute(
                delete(invoices).where(
                    invoices.c.customer.in_(names[place : place + 500]),
                    invoices.c.state == "draft",
                    invoices.c.period_start == start,
                )
            )

    def _number(self, tx: Transaction, documents: Sequence[dict[str, Any]]) -> None:
        """Gives drafts of one year their numbers, and takes off what was paid in advance."""
        if not documents:
            return
        year = str(documents[0]["end"])[:4]
        first = tx.number(f"invoice/{year}", len(documents))
        for number, document in enumerate(documents, first):
            document["number"] = f"INV-{year}-{number:06d}"
            document["state"] = "finalized"
        self._apply_credits(tx, documents)

    def _insert_all(self, tx: Transaction, made: Sequence[StoredInvoice], start: int, end: int) -> list[str]:
        from sqlalchemy import insert

        from creto.store.tables import invoices

        digests = [one.digest for one in made]
        rows = [
            {
                "id": one.id,
                "number": one.number or None,
                **{name: one.document[name] for name in ("kind", "state", "customer", "currency", "total")},
                "period_start": start,
                "period_end": end,
                "document": one.document,
                "digest": bytes.fromhex(name),
                "changed": tx.now,
            }
            for one, name in zip(made, digests, strict=True)
        ]
        if rows:
            tx.execute(insert(invoices), rows)
        return digests

    def finalize(self, id: str) -> StoredInvoice:
        """Gives a draft its number, takes off what was paid in advance, and records its digest in the ledger.

        Args:
            id: The draft's id.

        Raises:
            NotFoundError: There is no such invoice.
            InvalidInputError: It is no draft, or one that what was finalized since has made untrue.
            AlreadyExistsError: Its period, or part of it, was invoiced since.
        """
        with self._store.begin() as tx:
            self._alone(tx)
            found = self._find(tx, id)
            self._step(found, "finalized")
            document = dict(found.document)
            self._check_current(tx, document)
            self._number(tx, [document])
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
            self._alone(tx)
            found = self._find(tx, id)
            self._step(found, state)
            document = {**found.document, "state": state}
            if state == "void":
                self._check_adjusted(tx, found.document)
                self._return_credits(tx, document)
            return self._save(tx, StoredInvoice(found.id, document), what)

    def _check_current(self, tx: Transaction, document: Mapping[str, Any]) -> None:
        """A draft was made some time ago; meanwhile its time, or the late usage in it, may have been charged."""
        customer = str(document["customer"])
        earlier, covering = self._closed(tx, [customer], micros(document["start"]), micros(document["end"]))
        if customer in covering:
            raise AlreadyExistsError(f"`{customer}` was invoiced for this time by {covering[customer]}; void it first")
        standing = earlier.get(customer, [])
        for line in document["lines"]:
            if "before" not in line:
                continue
            number = line["before"]["invoice"]
            adjusted = next((one for one in standing if one["number"] == number), None)
            if adjusted is None or reach_of(adjusted, standing) != line["before"]["after"]:
                raise InvalidInputError(f"late usage of {number} was settled since this draft was made: make it anew")

    @staticmethod
    def _check_adjusted(tx: Transaction, document: Mapping[str, Any]) -> None:
        """What a later invoice builds on stays: voiding it would charge late usage twice, or not at all."""
        from sqlalchemy import select

        from creto.store.tables import invoices

        own = {line["before"]["invoice"] for line in document["lines"] if "before" in line}
        for row in tx.all(
            select(invoices).where(
                invoices.c.customer == document["customer"],
                invoices.c.kind == "invoice",
                invoices.c.state.in_(["finalized", "paid"]),
                invoices.c.number > document["number"],
            )
        ):
            adjusted = {line["before"]["invoice"] for line in row.document["lines"] if "before" in line}
            if document["number"] in adjusted or own & adjusted:
                raise InvalidInputError(
                    f"invoice {document['number']} is adjusted by {row.number}, which stands: "
                    "write a credit note instead"
                )

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

    def _record(self, tx: Transaction, what: str, document: Mapping[str, Any], name: str = "") -> None:
        tx.outbox(
            {
                "who": self._who,
                "what": what,
                "resource": document["number"] or "draft",
                "why": "invoicing",
                "kind": "event",
                "digest": name or digest(document),
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
            self._alone(tx)
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
            if not payable(total, found.document["currency"]) or total > left:
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
                "evidence": {},
                "cuts": [],
                "credits": [],
                "total": amount,
                "due": amount,
            }
            made = StoredInvoice(os.urandom(8).hex(), document)
            row = tx.first(select(invoices).where(invoices.c.id == found.id))
            assert row is not None
            self._insert_all(tx, [made], row.period_start, row.period_end)
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

        if not payable(total, currency):
            raise InvalidInputError(f"{total} {currency}: write a positive amount below 10^18 of whole smallest units")
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
    def _apply_credits(tx: Transaction, documents: Sequence[dict[str, Any]]) -> None:
        from sqlalchemy import select, update

        from creto.store.tables import credits

        now = tx.now >> 12
        statement = select(credits).where(credits.c.left != "0")
        if len(documents) == 1:
            statement = statement.where(credits.c.customer == documents[0]["customer"])
        usable: dict[tuple[str, str], list[Any]] = {}
        for row in tx.all(statement):
            if (row.expires is None or row.expires > now) and Decimal(row.left) > 0:
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
            raise NotFoundError(f"there is no invoice `{name}`; `creto invoice list` shows those that there are")
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


def _numbers(earlier: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    return {customer: [str(document["number"]) for document in documents] for customer, documents in earlier.items()}
