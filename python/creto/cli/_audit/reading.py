"""`creto audit tail|query|show|export|reindex`: what is in the ledger."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._audit._options import (
    COLUMNS,
    MOMENT,
    PATH,
    as_data,
    client,
    filters,
    line,
    pseudonym,
    row,
)
from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import NotFoundError

if TYPE_CHECKING:
    from creto.audit import AuditRecord

__all__ = ["export", "query", "reindex", "show", "tail"]


@click.command()
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(0), help="So many records first.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, from any process, until Ctrl-C.")
@filters
@json_option
@pass_frame
def tail(frame: Frame, /, lines: int, follow: bool, agent: str | None, **filters: Any) -> None:
    """Print the latest records, and with -f those to come.

    \b
    Example:
      creto audit tail -f --action 'http:*'
    """
    ledger = client(frame)
    filters["agent"] = None if agent is None else frame.agent_id(agent)

    async def main() -> None:
        from contextlib import aclosing

        # Followed from before the look back, so that nothing falls between; what was shown is not shown twice.
        shown: set[str] = set()
        async with aclosing(ledger.follow(from_start=False, **filters)) as coming:
            if lines:
                for record in await ledger.query(limit=lines, **filters):
                    shown.add(record.id)
                    frame.line(as_data(record), line(record))
            if follow:
                async for record in coming:
                    if record.id not in shown:
                        frame.line(as_data(record), line(record))

    frame.run(main)


@click.command()
@click.option("--since", type=MOMENT, help="Not before: a time, local unless it ends in Z, or how long ago (15m, 7d).")
@click.option("--until", type=MOMENT, help="Before: likewise.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="At most so many, the latest.")
@click.option("--subject", help="Only what is recorded about this person, by the name it was recorded under.")
@filters
@json_option
@pass_frame
def query(frame: Frame, /, limit: int, agent: str | None, subject: str | None, **filters: Any) -> None:
    """Find records, over all shards, in order of time.

    An index in the state folder answers. It follows the ledger: the first query makes it, which takes a while where
    there are millions of records.

    \b
    Example:
      creto audit query --agent researcher --outcome refused --since 1d
    """
    ledger = client(frame)
    filters["agent"] = None if agent is None else frame.agent_id(agent)

    filters["subject"] = pseudonym(frame, subject)

    async def main() -> list[AuditRecord]:
        with bar("indexing") as progress:
            return await ledger.query(limit=limit, progress=progress, **filters)

    records = frame.run(main)
    if frame.json:
        frame.show([as_data(record) for record in records])
    else:
        empty = "no record matches"
        if filters["action"] and not re.search("[:*]", filters["action"]):
            empty += f"; all actions that begin so are `--action '{filters['action']}:*'`"
        frame.table(COLUMNS, map(row, records), empty=empty, narrow=map(line, records))


@click.command()
@click.argument("name")
@click.option("--html", "page", type=PATH, help="Write a page of the act's life to this file.")
@json_option
@pass_frame
def show(frame: Frame, name: str, page: Path | None) -> None:
    """Show an act, with the humans' answers to it, or one record: NAME is its id, or shard/index.

    The first digits of an oversight request, as messages and `creto approve` show them, stand for its act.

    \b
    Example:
      creto audit show 0000/17
      creto audit show 3fa9c2d1
      creto audit show 0e1c... --html act.html
    """
    ledger = client(frame)
    if re.fullmatch("[0-9a-f]{4,31}", name):
        from creto.oversight._transitions import find

        with frame.store() as store, store.read() as tx:
            try:
                name = find(tx, name).ledger_act
            except NotFoundError:
                raise NotFoundError(
                    f"no oversight request begins with `{name}`; an act or a record is named by all of its 32 "
                    "hexadecimal digits, or by its place, such as `0000/17`"
                ) from None

    async def main() -> list[AuditRecord]:
        found = await ledger.find(name)
        is_act = {record.act for record in found} == {name.lower()}
        return await ledger.life(name) if is_act or page is not None else found

    records = frame.run(main)
    if page is not None:
        from creto.audit._page import life
        from creto.report import price

        page.write_text(life(frame.folder, records, price(records, frame.settings)), encoding="utf-8")
        frame.show({"page": page, "records": len(records)}, f"wrote {page}")
        return
    if frame.json:
        frame.show([as_data(record) for record in records])
        return
    for at, record in enumerate(records):
        if at:
            frame.say()
        frame.show({name: value for name, value in as_data(record).items() if value not in ("", None, {}, ())})


@click.command()
@click.argument("out", type=PATH)
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), help="By default what OUT ends in.")
@click.option("--since", type=MOMENT, help="Not before: a time, local unless it ends in Z, or how long ago (15m, 7d).")
@click.option("--until", type=MOMENT, help="Before: likewise.")
@filters
@json_option
@pass_frame
def export(frame: Frame, /, out: Path, form: str | None, agent: str | None, **filters: Any) -> None:
    """Write records to OUT as JSON Lines, CSV or Parquet (needs creto[duckdb]), in order of time.

    \b
    Example:
      creto audit export acts.csv --since 30d
    """
    from creto.audit._export import export as write

    ledger = client(frame)
    filters["agent"] = None if agent is None else frame.agent_id(agent)
    chosen = form or out.suffix.lstrip(".").lower()
    with bar("exporting") as progress:
        count = write(ledger, out, chosen, filters, indexing=progress, writing=progress)
    frame.show({"file": out, "records": count}, f"wrote {count} records to {out}")


@click.command()
@json_option
@pass_frame
def reindex(frame: Frame) -> None:
    """Make the index that queries use anew from the ledger.

    Queries keep it up to date by themselves, and find out where it does not fit: nothing needs this but doubt.

    \b
    Example:
      creto audit reindex
    """
    ledger = client(frame)

    async def main() -> int:
        with bar("indexing") as progress:
            return await ledger.reindex(progress)

    count = frame.run(main)
    frame.show({"records": count}, f"{count} records are indexed")
