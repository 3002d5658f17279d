"""`creto usage`: what was used, by time and by anything else that the ledger knows."""

from __future__ import annotations

import time
from pathlib import Path

import click

from creto.cli._frame import Frame, json_option, pass_frame


@click.command()
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
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to this file.")
@json_option
@pass_frame
def command(
    frame: Frame,
    meter: str | None,
    by: tuple[str, ...],
    per: str | None,
    period: str,
    only: tuple[str, ...],
    aggregation: str,
    html: Path | None,
) -> None:
    """Show what was used, from the ledger, each act counted once.

    \b
    Example:
      creto usage --by team --per day --period 2026-11
    """
    from creto.errors import InvalidInputError
    from creto.metering import read_usage
    from creto.metering._period import instant, parse_period
    from creto.metering._render import bars, usage_html

    zone = frame.settings.metering.time_zone
    start, end = parse_period(period, zone, time.time_ns() // 1000)
    wanted: dict[str, str] = {}
    for pair in only:
        name, sign, value = pair.partition("=")
        if not sign:
            raise InvalidInputError(f"--only {pair}: write NAME=VALUE")
        wanted[name] = value
    usage = read_usage(frame.folder / "ledger", start=start, end=end)
    rows = []
    for one in [meter] if meter else usage.meters:
        found = usage.aggregate(one, aggregation, start=start, end=end, window=per, time_zone=zone, by=by, only=wanted)
        rows += [(one, bucket) for bucket in found]
    if html is not None:
        named = [(one, instant(bucket.start, zone), bucket) for one, bucket in rows]
        shown = f"{instant(start, zone)} to {instant(end, zone)} ({zone})"
        html.write_text(usage_html(f"Usage, {period}", by, named, period=shown), encoding="utf-8")
        frame.say(f"written to {html}")
    greatest = {one: max(float(b.value) for name, b in rows if name == one) for one, _ in rows}
    drawn = [bars([max(0.0, float(b.value)), greatest[one]], 30)[0] if greatest[one] > 0 else "" for one, b in rows]
    columns = ["meter", "from", *by, "quantity", "events"]
    table = [
        [
            one,
            instant(bucket.start, zone),
            *bucket.group,
            int(bucket.value) if bucket.value.denominator == 1 else str(bucket.value),
            bucket.events,
        ]
        for one, bucket in rows
    ]
    if not frame.json:
        columns.append("")
        table = [[*row, bar] for row, bar in zip(table, drawn, strict=True)]
    frame.table(columns, table, empty=f"nothing was used in {period}")
    if usage.duplicates:
        frame.say(f"{usage.duplicates} events were recorded more than once and counted once")
