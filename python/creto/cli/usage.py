"""`creto usage`: what was used, by time and by anything else that the ledger knows; and events, from and to files."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group

if TYPE_CHECKING:
    from creto.metering import Bucket, UsageEvent
    from creto.metering._amounts import Row

_BATCH = 10_000
_TIMES = {"minute", "hour", "day", "week", "month", "year"}


@click.group("usage", cls=Group, invoke_without_command=True)
@click.option("--meter", "-m", help="Of this meter only.")
@click.option("--by", "-b", multiple=True, help="Group by a dimension: customer, team, agent, action, resource, ...")
@click.option("--per", default=None, help="In windows: minute, hour, day, week, month, year, or a length such as 15m.")
@click.option(
    "--period", "-p", default="this-month", show_default=True, help="2026-11, 2026-11-24, 24h, last-month, ..."
)
@click.option("--only", multiple=True, metavar="NAME=VALUE", help="Only with this dimension.")
@click.option(
    "--aggregation",
    type=click.Choice(["sum", "count", "min", "max", "avg", "latest", "unique", "weighted"]),
    default="sum",
    show_default=True,
    help="What is made of the quantities; `weighted` is each times the seconds until the next.",
)
@click.option("--of", help="For `unique`: how many different values of this dimension; of quantities by default.")
@click.option("--forecast", is_flag=True, help="Add an estimate for the whole period: as much again for the time left.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to this file.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    meter: str | None,
    by: tuple[str, ...],
    per: str | None,
    period: str,
    only: tuple[str, ...],
    aggregation: str,
    of: str | None,
    forecast: bool,
    html: Path | None,
) -> None:
    """Show what was used, from the ledger, each act counted once; and what it costs where there are prices.

    The amount is that of an invoice of exactly this period: each of its lines divided among the rows of its usage by
    quantity, so that rows add up to it. Fees that are due without usage are on the invoice only. Like an invoice, it is
    of what a signed checkpoint covers: of acts of the last second, the amount follows the quantity.

    \b
    Example:
      creto usage --by team --per day --period 2026-11
      creto usage --by customer --forecast
      creto usage import collected.jsonl
      creto usage export -o used.jsonl
    """
    if context.invoked_subcommand is not None:
        return
    frame = context.ensure_object(Frame)
    from creto._core import usage_window
    from creto._count import counted
    from creto.errors import InvalidInputError, NotFoundError
    from creto.metering import read_usage
    from creto.metering._period import instant, moment, parse_period
    from creto.metering._render import bars, usage_html

    zone = frame.settings.metering.time_zone
    now = time.time_ns() // 1000
    start, end = parse_period(period, zone, now)
    if forecast and (per is not None or aggregation not in {"sum", "count"} or not start < now < end):
        raise InvalidInputError(
            "--forecast: it is of `sum` or `count`, of a period that is not over yet, such as `this-month`, without "
            "`--per`"
        )
    wanted: dict[str, str] = {}
    for pair in only:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInputError(f"--only {pair}: write NAME=VALUE")
        wanted[name] = value
    if not all(by):
        raise InvalidInputError("--by: write the name of a dimension, such as `team`")
    if of is not None and aggregation != "unique":
        raise InvalidInputError(f"--of {of}: only `--aggregation unique` is of a dimension")
    if per is not None:
        usage_window(per, start, zone)  # told at once where there is no such window
    with bar("reading") as progress:
        usage = read_usage(frame.folder / "ledger", start=start, end=end, progress=progress)
    if meter is not None and meter not in usage.meters and meter not in _known(frame):
        others = f"; used in {period}: {', '.join(usage.meters)}" if usage.meters else ""
        raise NotFoundError(f"there is no meter `{meter}`: nothing used, limits or prices it{others}")
    rows = []
    for one in [meter] if meter else usage.meters:
        found = usage.aggregate(
            one, aggregation, start=start, end=end, of=of, window=per, time_zone=zone, by=by, only=wanted
        )
        rows += [(one, bucket) for bucket in found]
    later = Fraction(end - start, now - start)
    costs = _costs(frame, rows, (start, end), by, wanted, [Fraction(1), *([later] if forecast else [])])
    added = _added(rows, costs, later if forecast else None, as_json=frame.json)
    if html is not None:
        named = [(one, instant(bucket.start, zone), bucket) for one, bucket in rows]
        shown = f"{instant(start, zone)} to {instant(end, zone)} ({zone})"
        beside = _added(rows, costs, later if forecast else None, as_json=False) if frame.json else added
        html.write_text(usage_html(f"Usage, {period}", by, named, period=shown, beside=beside), encoding="utf-8")
        frame.say(f"written to {html}")
    greatest = {one: max(float(b.value) for name, b in rows if name == one) for one, _ in rows}
    drawn = [bars([max(0.0, float(b.value)), greatest[one]], 30)[0] if greatest[one] > 0 else "" for one, b in rows]
    columns = ["meter", "from", *by, "quantity", "events", *added]
    table = [
        [
            one,
            (moment if frame.json else instant)(bucket.start, zone),
            *bucket.group,
            _quantity(one, bucket.value, as_json=frame.json),
            bucket.events,
            *(values[place] for values in added.values()),
        ]
        for place, (one, bucket) in enumerate(rows)
    ]
    if not frame.json:
        columns.append("")
        table = [[*row, bar] for row, bar in zip(table, drawn, strict=True)]
    frame.table(columns, table, empty=f"nothing was used in {period}")
    for place, name in enumerate(by):
        if rows and not any(bucket.group[place] for _, bucket in rows):
            instead = f"; by time it is `--per {name}`" if name in _TIMES else ""
            frame.warn(f"nothing that was used has a `{name}`{instead}")
    if usage.duplicates:
        frame.say(f"recorded more than once and counted once: {counted(usage.duplicates, 'event')}")
    if forecast and rows and not frame.json:
        frame.say(f"estimated: as much for each hour until {instant(end, zone)} as until now")


def _added(
    rows: list[tuple[str, Bucket]],
    costs: list[dict[Row, dict[str, Fraction]]],
    later: Fraction | None,
    *,
    as_json: bool,
) -> dict[str, list[Any]]:
    """What stands beside the quantities: a value for each row, by column."""
    found: dict[str, list[Any]] = {}
    if later is not None:
        found["estimated quantity"] = [_quantity(one, round(b.value * later), as_json=as_json) for one, b in rows]
    for name, written, amounts in zip(("amount", "estimated amount"), (_exact, _estimated), costs, strict=False):
        told = [amounts.get((one, bucket.start, bucket.group), {}) for one, bucket in rows]
        by_currency = [{each: written(cost, each) for each, cost in sorted(row.items())} for row in told]
        found[name] = [_amount(row, as_json=as_json) for row in by_currency]
    return found


def _quantity(meter: str, value: Fraction | int, *, as_json: bool) -> Any:
    from creto._count import currency_of, measured

    if value.denominator != 1:
        return str(value)
    return measured(meter, int(value)) if currency_of(meter) and not as_json else int(value)


def _exact(cost: Fraction, _currency: str) -> Decimal:
    """To a billionth: the amounts of tokens are less than a coin each, and are rounded together."""
    from creto.metering._currency import round_half_even

    return round_half_even(cost, 9)


def _estimated(cost: Fraction, currency: str) -> Decimal:
    """To a coin; to two digits where it is less."""
    from creto.metering._currency import places, round_half_even

    two = 1 - math.floor(math.log10(max(cost, Fraction(1, 10**8)))) if cost else 0
    return round_half_even(cost, max(places(currency), two))


def _amount(amounts: dict[str, Decimal], *, as_json: bool) -> Any:
    from creto._count import MONEY_SCALE, measured

    if as_json:
        return {currency: str(amount) for currency, amount in amounts.items()}
    return ", ".join(measured(f"cost:{each}", int(amount * MONEY_SCALE)) for each, amount in amounts.items())


def _costs(
    frame: Frame,
    rows: list[tuple[str, Bucket]],
    period: tuple[int, int],
    by: tuple[str, ...],
    only: dict[str, str],
    scales: list[Fraction],
) -> list[dict[Row, dict[str, Fraction]]]:
    """What the rows cost, for each scale; nothing where nothing has a price, or it cannot be told, which is said."""
    from creto.errors import CretoError
    from creto.metering import LedgerEvidence, PriceBook
    from creto.metering._amounts import amounts

    try:
        book = PriceBook.from_settings(frame.settings)
        if not book.prices or not rows:
            return []
        windows = {bucket.start for _, bucket in rows}
        with bar("pricing") as progress:
            evidence = LedgerEvidence(frame.folder / "ledger", progress=progress)
            return amounts(evidence, book, *period, windows=windows, by=by, only=only, scales=scales)
    except (CretoError, OSError) as error:  # also where the folder is only to be read: sums are kept beside the ledger
        frame.warn(f"no amounts: {error}")
        return []


def _known(frame: Frame) -> set[str]:
    """The meters that are limited or priced, whether they were used or not."""
    from creto.metering import PriceBook, QuotaEnforcer
    from creto.metering._open import effective

    with frame.store() as store, store.read() as tx:
        quota = QuotaEnforcer.from_settings(frame.settings, effective(tx, frame.settings))
    priced = {price.meter for price in PriceBook.from_settings(frame.settings).prices}
    return priced | {rule["meter"] for rule in quota.rules_in_force()}


@command.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
@pass_frame
def import_(frame: Frame, files: tuple[Path, ...]) -> None:
    """Take usage events in from FILES of CloudEvents: JSON, one a line or in a list. Each event counts once.

    All files are read through first: where one event has no valid reading, nothing is taken. A file that was taken in
    before, or in part, can be given again.

    \b
    An event:
      {"specversion": "1.0", "id": "req-1", "source": "gateway", "type": "usage",
       "subject": "acme", "time": "2026-11-24T10:00:00Z",
       "data": {"meter": "pages", "quantity": 3, "team": "research"}}

    \b
    Example:
      creto usage import collected.jsonl
    """
    import creto
    from creto.errors import InvalidInputError

    rows: list[list[Any]] = []
    with creto.open_blocking(frame.folder, config=frame.config) as layer, layer.ingest() as ingest:
        for file in files:
            for number, one in enumerate(_events(file), 1):
                try:
                    ingest.check(one)
                except InvalidInputError as error:
                    raise InvalidInputError(f"{file}, event {number}: {error}") from error
        for file in files:
            taken = duplicates = 0
            events = _events(file, progress=not frame.json)
            while batch := list(islice(events, _BATCH)):
                done = ingest.take_blocking(batch)
                taken, duplicates = taken + done.taken, duplicates + done.duplicates
            rows.append([str(file), taken, duplicates])
    frame.table(["file", "taken", "known before"], rows)


@command.command()
@click.option(
    "--period",
    "-p",
    default="this-month",
    show_default=True,
    help="2026-11, 2026-11-01..2026-11-15, 24h, last-month, ...",
)
@click.option("--customer", "-c", help="Of this customer only.")
@click.option("--meter", "-m", help="Of this meter only.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Into this file; to standard output by default.",
)
@pass_frame
def export(frame: Frame, period: str, customer: str | None, meter: str | None, output: Path | None) -> None:
    """Write usage events out as CloudEvents, JSON, one a line: each once, in the order in which they were recorded.

    What was taken in from elsewhere can be taken in again with `creto usage import`, in any state folder; what acts
    used (source `ledger`) is the ledger's own to say, and is refused there.

    \b
    Example:
      creto usage export --period 2026-11 --customer acme -o acme.jsonl
    """
    import json
    from contextlib import nullcontext

    from creto._count import counted
    from creto.audit._export import in_place_of
    from creto.metering import read_events
    from creto.metering._period import parse_period

    start, end = parse_period(period, frame.settings.metering.time_zone, time.time_ns() // 1000)
    written = 0
    with (
        nullcontext() if output is None else in_place_of(output) as new,  # a file of that name is whole
        click.open_file("-" if new is None else str(new), "w", encoding="utf-8") as lines,
        bar("reading") as progress,
    ):
        for event in read_events(frame.folder / "ledger", start=start, end=end, progress=progress):
            if customer in {None, event.customer} and meter in {None, event.meter}:
                # In ASCII: what others named steers no terminal.
                lines.write(json.dumps(event.to_cloudevent(), separators=(",", ":")) + "\n")
                written += 1
    if output is not None:
        frame.say(f"{counted(written, 'event')} written to {output}")


def _events(file: Path, *, progress: bool = False) -> Iterator[UsageEvent]:
    """The events of a file, one after the other; a file of lines is never in memory as a whole."""
    from creto.errors import InvalidInputError
    from creto.metering import UsageEvent

    with file.open("rb") as lines:
        whole = lines.read(64).lstrip()[:1] == b"["
        lines.seek(0)
        found = _list(file) if whole else _lines(file, lines)
        size = file.stat().st_size
        hidden = not progress or not sys.stderr.isatty()
        with click.progressbar(length=size, label=file.name, file=sys.stderr, hidden=hidden) as bar:
            for number, read in enumerate(found, 1):
                length, document = read
                try:
                    yield UsageEvent.from_cloudevent(document)
                except InvalidInputError as error:
                    raise InvalidInputError(f"{file}, event {number}: {error}") from error
                bar.update(length)


def _list(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from creto._foreign import json_value
    from creto.errors import InvalidInputError

    try:
        documents = json_value(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(f"{file} is not JSON: {error}") from error
    share = file.stat().st_size // max(1, len(documents))
    for number, document in enumerate(documents, 1):
        yield share, _object(file, f"event {number}", document)


def _lines(file: Path, lines: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    from creto._foreign import json_value
    from creto.errors import InvalidInputError

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json_value(line)
        except ValueError as error:
            raise InvalidInputError(f"{file}, line {number}, is not JSON: {error}") from error
        yield len(line), _object(file, f"line {number}", document)


def _object(file: Path, place: str, document: Any) -> dict[str, Any]:
    from creto.errors import InvalidInputError

    if not isinstance(document, dict):
        raise InvalidInputError(f"{file}, {place}: a CloudEvent is a JSON object")
    return document
