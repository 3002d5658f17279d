"""`creto invoice`: from usage to money, and back from every line to the acts it is for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.cli._invoice_check import as_json, prove, verify

if TYPE_CHECKING:
    from creto.metering import Invoices
    from creto.store import Store


@click.group(cls=Group)
def command() -> None:
    """Make, show and check invoices."""


for checking in (verify, prove):
    command.add_command(checking)


@command.command()
@click.option("--period", "-p", default="last-month", show_default=True, help="2026-11, 2026-11-01..2026-11-15, ...")
@click.option("--customer", "-c", help="This customer only; by default every one that used anything.")
@click.option("--draft", is_flag=True, help="Give no number yet.")
@click.option(
    "--recount", is_flag=True, help="Add up every event again, and hold the sums kept beside them against it."
)
@json_option
@pass_frame
def run(frame: Frame, period: str, customer: str | None, draft: bool, recount: bool) -> None:
    """Invoice a period: rate what the ledger holds, and give each invoice its number.

    \b
    Example:
      creto invoice run --period 2026-11 --customer acme
    """
    from creto.errors import InvalidInputError
    from creto.metering import Heads, LedgerEvidence, PriceBook
    from creto.metering._period import instant, parse_period

    zone = frame.settings.metering.time_zone
    now = time.time_ns() // 1000
    start, end = parse_period(period, zone, now)
    grace = round(frame.settings.metering.grace_seconds * 1_000_000)
    if end > now and not draft:
        raise InvalidInputError(f"period `{period}` has not ended; use --draft to see how it stands")
    if end + grace > now and not draft:
        raise InvalidInputError(
            f"usage of `{period}` may come until {instant(end + grace, zone)} (`grace_seconds`); use --draft until then"
        )
    book = PriceBook.from_settings(frame.settings)
    # Only what a checkpoint covers can be proved, so only that is invoiced; what comes later is adjusted.
    with (
        bar("records") as progress,
        frame.store() if draft else _recorded(frame) as store,
    ):
        evidence = LedgerEvidence(frame.folder / "ledger", recount=recount, progress=progress)
        made = _invoices(frame, store).run(
            book,
            start,
            end,
            zone,
            evidence,
            customers=None if customer is None else [customer],
            finalize=not draft,
            refuse_empty=True,
            heads=Heads.from_settings(frame.settings),
        )
    _table(frame, made, empty=f"nobody used anything in {period}")


def _invoices(frame: Frame, store: Store) -> Invoices:
    from creto.metering import Invoices

    return Invoices(store, frame.who, frame.folder / "ledger")


@contextmanager
def _recorded(frame: Frame) -> Iterator[Store]:
    """The store; what was decided in it is in the ledger at the end, under a checkpoint, so that it can be verified."""
    with frame.store() as store:
        yield store
        _settle(frame, store)


def _settle(frame: Frame, store: Store) -> None:
    """Has the ledger hold what was decided in the store."""
    from creto import _core
    from creto.audit import AuditClient, open_ledger
    from creto.errors import CretoError

    try:
        ledger = open_ledger(
            frame.folder,
            _core.HybridLogicalClock(frame.folder / "clock"),
            frame.sealer(),
            trust_domain=frame.settings.common.trust_domain,
            settings=frame.settings,
        )
        try:
            store.settle(AuditClient(ledger, frame.folder))
        finally:
            ledger.close_blocking()
    except CretoError as error:
        # It is decided and stays so; whoever opens the ledger next records it.
        frame.warn(f"it is not in the ledger yet: {error}")


def _table(frame: Frame, found: Any, *, empty: str) -> None:
    from creto.metering._render import ends_of, period_text

    def row(one: Any) -> list[Any]:
        document, currency = one.document, one.document["currency"]
        if frame.json:
            days = [f"{at:%Y-%m-%d}" for at in ends_of(document)]
            return [
                one.number,
                one.id,
                one.state,
                document["customer"],
                *days,
                document["total"],
                document["due"],
                currency,
            ]
        # For people: the days that it is for, the last one included, as on the invoice itself; a draft by its id.
        sums = [f"{document['total']} {currency}", f"{document['due']} {currency}"]
        return [one.number or one.id, one.state, document["customer"], period_text(document), *sums]

    columns = ["number", "state", "customer", "period", "total", "due"]
    if frame.json:
        columns = ["number", "id", "state", "customer", "from", "to", "total", "due", "currency"]
    frame.table(columns, [row(one) for one in found], empty=empty)


@command.command("list")
@click.option("--customer", "-c", help="Of this customer only.")
@json_option
@pass_frame
def list_(frame: Frame, customer: str | None) -> None:
    """List invoices and credit notes.

    \b
    Example:
      creto invoice list
    """
    from creto.metering import Invoices

    with frame.store() as store:
        _table(
            frame,
            Invoices(store).list(customer),
            empty="there are no invoices" + (f" of {customer}" if customer else ""),
        )


@command.command()
@click.argument("number")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv", "html"]), default=None, help="As what.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Into this file; its ending says as what."
)
@json_option
@pass_frame
def show(frame: Frame, number: str, form: str | None, output: Path | None) -> None:
    """Show an invoice by its number or id.

    \b
    Example:
      creto invoice show INV-2026-000001 -o invoice.html
    """
    from creto.errors import InvalidInputError
    from creto.metering import Invoices
    from creto.metering._render import invoice_csv, invoice_html, invoice_text

    with frame.store() as store:
        document = Invoices(store).find(number).document
    if form is None:
        ending = output.suffix.lstrip(".").lower() if output is not None else ""
        form = {"": "json" if frame.json else "text", "txt": "text"}.get(ending, ending)
        if form not in {"text", "json", "csv", "html"}:
            raise InvalidInputError(
                f"`.{ending}` is no form of an invoice: write to .txt, .json, .csv or .html, or say --format; "
                "a browser prints the page as a PDF"
            )
    forms = {"csv": invoice_csv, "html": invoice_html, "json": as_json}
    text = (
        invoice_text(document, min(100, shutil.get_terminal_size((100, 24)).columns))
        if form == "text"
        else forms[form](document).rstrip("\n")
    )
    if output is None:
        click.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        frame.say(f"written to {output}")


def _moved(frame: Frame, invoice: Any) -> None:
    frame.show(
        {"number": invoice.number, "id": invoice.id, "state": invoice.state}, f"{invoice.number} is {invoice.state}"
    )


@command.command()
@click.argument("number")
@json_option
@pass_frame
def finalize(frame: Frame, number: str) -> None:
    """Give a draft its number.

    \b
    Example:
      creto invoice finalize ID
    """

    with _recorded(frame) as store:
        _moved(frame, _invoices(frame, store).finalize(number))


@command.command()
@click.argument("number")
@json_option
@pass_frame
def pay(frame: Frame, number: str) -> None:
    """Note that an invoice was paid.

    \b
    Example:
      creto invoice pay INV-2026-000001
    """

    with _recorded(frame) as store:
        _moved(frame, _invoices(frame, store).pay(number))


@command.command()
@click.argument("number")
@json_option
@pass_frame
def void(frame: Frame, number: str) -> None:
    """Void an invoice that was not paid; its number stays, its period can be invoiced again.

    \b
    Example:
      creto invoice void INV-2026-000001
    """

    with _recorded(frame) as store:
        _moved(frame, _invoices(frame, store).void(number))


def _decimal(text: str) -> Decimal:
    from creto.errors import InvalidInputError

    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidInputError(f"amount `{text}`: write a number") from None
    if not value.is_finite():
        raise InvalidInputError(f"amount `{text}`: write a number")
    return value


@command.command()
@click.argument("number")
@click.option("--amount", help="How much; all that is left, by default.")
@click.option("--reason", required=True, help="For the one who reads the note.")
@json_option
@pass_frame
def credit(frame: Frame, number: str, amount: str | None, reason: str) -> None:
    """Make a credit note on an invoice.

    \b
    Example:
      creto invoice credit INV-2026-000001 --amount 4.00 --reason "an outage"
    """

    with _recorded(frame) as store:
        note = _invoices(frame, store).credit(number, reason, None if amount is None else _decimal(amount))
    frame.show(note.document, f"{note.number}: {note.document['total']} {note.document['currency']}")


@command.command()
@click.argument("customer")
@click.argument("amount")
@click.option("--currency", help="The configured one by default.")
@click.option("--priority", type=int, default=0, show_default=True, help="Lower numbers are used first.")
@click.option("--for", "length", help="How long it can be used: 90d; without end by default.")
@json_option
@pass_frame
def prepay(frame: Frame, customer: str, amount: str, currency: str | None, priority: int, length: str | None) -> None:
    """Note an amount paid in advance, which invoices take off.

    \b
    Example:
      creto invoice prepay acme 100.00 --for 365d
    """
    from creto.errors import InvalidInputError
    from creto.metering import PriceBook
    from creto.metering._currency import payable
    from creto.metering._period import moment, parse_length

    expires = None if length is None else time.time_ns() // 1000 + parse_length(length)
    unit = currency or frame.settings.metering.currency
    value = _decimal(amount)
    book = PriceBook.from_settings(frame.settings)
    if payable(value, unit) and book.prices and book.currency_of(customer) != unit:
        raise InvalidInputError(
            f"{customer} is invoiced in {book.currency_of(customer)}: an amount in {unit} would never be taken off"
        )
    with _recorded(frame) as store:
        made = _invoices(frame, store).prepay(customer, unit, value, priority=priority, expires=expires)
    ends = None if expires is None else moment(expires, frame.settings.metering.time_zone)
    data = {"id": made, "customer": customer, "amount": amount, "currency": unit, "expires": ends}
    frame.show(data, f"{customer} has {amount} {unit} more to use")


@command.command()
@click.option("--customer", "-c", help="Of this customer only.")
@json_option
@pass_frame
def prepaid(frame: Frame, customer: str | None) -> int:
    """List what was paid in advance, as the ledger has it, and hold the store against that.

    \b
    Example:
      creto invoice prepaid --customer acme
    """
    from creto.metering import Invoices
    from creto.metering._period import instant, moment

    with frame.store() as store:
        _settle(frame, store)
        found = Invoices(store).credits(frame.folder / "ledger", customer)
    zone = frame.settings.metering.time_zone
    rows = [
        [
            one.credit,
            one.customer,
            *map(str, (one.granted, one.taken, one.expired, one.left)),
            one.currency,
            instant(one.expires, zone) if not frame.json else one.expires and moment(one.expires, zone),
            *([one.faults] if frame.json else []),
        ]
        for one in found
    ]
    columns = ["credit", "customer", "granted", "taken", "expired", "left", "currency", "until"]
    frame.table([*columns, *(["faults"] if frame.json else [])], rows, empty="nothing was paid in advance")
    for one in found if not frame.json else ():
        for fault in one.faults:
            frame.warn(f"{one.credit}: {fault}")
    return 6 if any(one.faults for one in found) else 0
