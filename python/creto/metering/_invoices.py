"""Invoices in the store: draft, finalized with a number that leaves no gap, paid or void; and prepaid credits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from creto import _core
from creto._uncollected import uncollected
from creto._user import user_id
from creto.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from creto.metering import _home, _prepaid, _rows
from creto.metering._balance import Balance, balances, prepaid_records
from creto.metering._currency import added, coin, payable
from creto.metering._event import is_name
from creto.metering._invoice import credit_note, digest, drafts, reach_of
from creto.metering._period import require_time
from creto.metering._rate import instant, micros
from creto.metering._rows import StoredInvoice

if TYPE_CHECKING:
    from pathlib import Path

    from creto.metering._evidence import Evidence
    from creto.metering._heads import Heads
    from creto.metering._price import PriceBook
    from creto.store import Store, Transaction

__all__ = ["Invoices", "StoredInvoice"]

_NEXT = {"draft": {"finalized", "void"}, "finalized": {"paid", "void"}, "paid": set(), "void": set()}


class Invoices:
    """The invoices of a store.

    Args:
        store: The store.
        who: Recorded as the one who finalizes and voids.
        ledger: The folder of the ledger that they are made from, where the store may be that of several machines: all
            are made from the same.

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

    def __init__(self, store: Store, who: str | None = None, ledger: Path | None = None) -> None:
        self._store = store
        self._who = who or user_id("creto.local")
        self._home = _home.origin(ledger) if ledger is not None else ""

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

    @uncollected()
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
        heads: Heads | None = None,
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
            refuse_empty: Whether one without a line, or only with fees for a customer that is not known, is an error: a
                customer whose name was misspelt used nothing.
            heads: Who they are from and for, where that is to be on them.

        Raises:
            AlreadyExistsError: A customer's period, or part of it, was invoiced already.
            NotFoundError: `refuse_empty`, and there is nothing to invoice a customer for.
            InvalidInputError: The usage cannot be priced, the period, its zone or a customer has no valid reading, or
                invoices of this store are made from another machine's ledger.
        """
        require_time("start", start)
        require_time("end", end)
        if start >= end:
            raise InvalidInputError("the period ends before it starts")
        _core.usage_window("day", start, time_zone)  # told at once where there is no such zone
        for customer in customers or ():
            if not is_name(customer):
                raise InvalidInputError(f"customer `{str(customer)[:40]!a}`: write a name of 1 to 1024 characters")
        while True:
            with self._store.read() as tx:
                _home.require(tx, self._home)
                earlier, covering = _rows.closed(tx, customers, start, end)
            # Outside of a transaction: others need not wait while a month is added up.
            made = drafts(book, start, end, time_zone, evidence, customers=customers, closed=earlier)
            if heads is not None:
                for customer, document in made.items():
                    document.update(heads.of(customer))
            for customer, document in made.items() if refuse_empty else ():
                if not document["lines"] and not document["unpriced"]:
                    raise NotFoundError(
                        f"`{customer}` used nothing in this period, and no price has a fee for it: there is nothing to "
                        "invoice; `creto usage --by customer` shows who used what"
                    )
                used = document["unpriced"] or any(line["events"] for line in document["lines"])
                priced = any(price.customer == customer for price in book.prices)
                if not (used or priced or earlier.get(customer) or (heads and customer in heads.customers)):
                    raise NotFoundError(
                        f"`{customer}` used nothing in this period, was never invoiced, and stands neither in "
                        "`[[customers]]` nor in a price: fees are charged to customers that are known; "
                        "`creto usage --by customer` shows who used what"
                    )
            for customer in sorted(set(made) & set(covering)):
                raise AlreadyExistsError(
                    f"`{customer}` was invoiced for this time by {covering[customer]}; void it first"
                )
            with self._store.begin() as tx:
                self._alone(tx)
                now, covered = _rows.closed(tx, customers, start, end)
                if (_numbers(now), covered) != (_numbers(earlier), covering):
                    continue  # Another process invoiced meanwhile.
                _rows.drop_drafts(tx, made, start)
                if finalize:
                    self._number(tx, list(made.values()))
                invoices = [StoredInvoice(os.urandom(8).hex(), document) for document in made.values()]
                digests = _rows.insert_all(tx, invoices, start, end)
                if finalize:
                    for invoice, name in zip(invoices, digests, strict=True):
                        self._record(tx, "invoice:finalize", invoice.document, name)
                return invoices

    def _alone(self, tx: Transaction) -> None:
        """Has whoever else invoices wait until this transaction has ended, also on PostgreSQL."""
        tx.bump("invoicing")
        _home.require(tx, self._home)

    def _number(self, tx: Transaction, documents: Sequence[dict[str, Any]]) -> None:
        """Gives drafts of one year their numbers, and takes off what was paid in advance."""
        if not documents:
            return
        year = str(documents[0]["end"])[:4]
        first = tx.number(f"invoice/{year}", len(documents))
        for number, document in enumerate(documents, first):
            document["number"] = f"INV-{year}-{number:06d}"
            document["state"] = "finalized"
            document["issued"] = instant(tx.now >> 12)
        _prepaid.take_off(tx, self._who, documents)

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
            found = _rows.find(tx, id)
            self._step(found, "finalized")
            document = dict(found.document)
            self._check_current(tx, document)
            self._number(tx, [document])
            return self._changed(tx, StoredInvoice(found.id, document), "invoice:finalize")

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
            InvalidInputError: It was paid, or is void, or is credited or adjusted by one that stands.
        """
        return self._move(id, "void", "invoice:void")

    def _move(self, id: str, state: str, what: str) -> StoredInvoice:
        with self._store.begin() as tx:
            self._alone(tx)
            found = _rows.find(tx, id)
            self._step(found, state)
            document = {**found.document, "state": state}
            if state == "void":
                self._check_alone(tx, found.document)
                _prepaid.give_back(tx, self._who, document)
            return self._changed(tx, StoredInvoice(found.id, document), what)

    def _check_current(self, tx: Transaction, document: Mapping[str, Any]) -> None:
        """A draft was made some time ago; meanwhile its time, or the late usage in it, may have been charged."""
        customer = str(document["customer"])
        earlier, covering = _rows.closed(tx, [customer], micros(document["start"]), micros(document["end"]))
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
    def _check_alone(tx: Transaction, document: Mapping[str, Any]) -> None:
        """What others build on stays: without it late usage would be charged twice or not at all, or credited twice."""
        for note in _rows.notes_on(tx, document):
            raise InvalidInputError(f"invoice {document['number']} is credited by {note.number}: void that one first")
        own = _adjusted_by(document)
        for row in _rows.later(tx, document):
            adjusted = _adjusted_by(row.document)
            if document["number"] in adjusted or own & adjusted:
                raise InvalidInputError(
                    f"invoice {document['number']} is adjusted by {row.number}, which stands: "
                    "write a credit note instead"
                )

    @staticmethod
    def _step(found: StoredInvoice, state: str) -> None:
        if state not in _NEXT[found.state]:
            raise InvalidInputError(f"invoice {found.number or found.id} is {found.state}, and cannot become {state}")

    def _changed(self, tx: Transaction, made: StoredInvoice, what: str) -> StoredInvoice:
        _rows.save(tx, made)
        self._record(tx, what, made.document)
        return made

    def _record(self, tx: Transaction, what: str, document: Mapping[str, Any], name: str = "") -> None:
        _home.keep(tx, self._home)
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
            InvalidInputError: More than the invoice's total, or less than nothing; it is no invoice, or does not stand.
        """
        if not reason.strip():
            raise InvalidInputError("a credit note needs a reason, for the one who reads it")
        with self._store.begin() as tx:
            self._alone(tx)
            found = _rows.find(tx, number)
            document = found.document
            if document["kind"] != "invoice":
                raise InvalidInputError(f"{number} is itself a credit note: only an invoice can be credited")
            if found.state not in {"finalized", "paid"}:
                raise InvalidInputError(f"invoice {number} is {found.state}: only a finalized one can be credited")
            left = Decimal(document["total"]) + added(Decimal(row.total) for row in _rows.notes_on(tx, document))
            total = left if total is None else total
            smallest = coin(document["currency"])
            if not payable(total, document["currency"]) or total > left:
                raise InvalidInputError(
                    f"credit of {total}: write an amount from {smallest} to {left}"
                    if left > 0
                    else f"credit of {total}: nothing is left of {number} that was not credited"
                )
            year = str(document["end"])[:4]
            name = f"CRN-{year}-{tx.number(f'credit-note/{year}'):06d}"
            note = credit_note(document, name, reason, total.quantize(smallest))
            made = StoredInvoice(os.urandom(8).hex(), {**note, "issued": instant(tx.now >> 12)})
            _rows.insert_all(tx, [made], micros(document["start"]), micros(document["end"]))
            self._record(tx, "invoice:credit", made.document)
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

        Raises:
            InvalidInputError: The amount cannot be paid, or something else has no valid reading.
        """
        with self._store.begin() as tx:
            self._alone(tx)
            _home.keep(tx, self._home)
            return _prepaid.note(tx, self._who, customer, currency, total, priority, expires)

    def credits(self, ledger: Path, customer: str | None = None) -> list[Balance]:
        """Every amount paid in advance, as the ledger has it and held against the store, in the order of their grants.

        Args:
            ledger: The ledger's folder.
            customer: Of this one only.

        Raises:
            IntegrityError: A record of one has no valid reading.
        """
        with self._store.read() as tx:
            _home.require(tx, _home.origin(ledger))
            rows = {row.id: row for row in _prepaid.stored(tx, customer)}
        found = balances(prepaid_records(ledger, _core.ledger_shards(str(ledger)), tail=True))
        for id in rows:
            found.setdefault(id, Balance(id, rows[id].customer, rows[id].currency))
        own = [balance for balance in found.values() if customer in {None, balance.customer}]
        for balance in own:
            left = Decimal(rows[balance.credit].left) if balance.credit in rows else Decimal(0)
            if left != balance.left:
                balance.faults.append(f"the store says that {left} is left, and the ledger {balance.left}")
        return own

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> StoredInvoice:
        """An invoice by its number or id.

        Raises:
            NotFoundError: There is none.
        """
        with self._store.read() as tx:
            return _rows.find(tx, name)

    def list(self, customer: str | None = None) -> list[StoredInvoice]:
        """Every invoice and credit note, the latest change last.

        Args:
            customer: Of this one only.
        """
        with self._store.read() as tx:
            return _rows.listed(tx, customer)


def _adjusted_by(document: Mapping[str, Any]) -> set[str]:
    return {str(line["before"]["invoice"]) for line in document["lines"] if "before" in line}


def _numbers(earlier: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    return {customer: [str(document["number"]) for document in documents] for customer, documents in earlier.items()}
