"""`creto policy replay`: which acts on record another set would have decided otherwise."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from creto._count import counted
from creto._plain import plain
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, SET, agents_of, files_of, schema_text
from creto.cli.policy._sets import read as read_text

__all__ = ["command"]


@click.command("replay")
@click.argument("new", type=SET)
@click.option(
    "--from",
    "ledger",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A state folder, or the ledger in it; your own by default.",
)
@click.option("--schema", type=FILE, help="The schema; that of the starter sets by default.")
@click.option("--entities", type=FILE, help="Entities in Cedar's JSON, beside the agents of the state folder.")
@click.option("--limit", default=10_000, show_default=True, help="At most so many records, the latest.")
@json_option
@pass_frame
def command(
    frame: Frame, new: Path, ledger: Path | None, schema: Path | None, entities: Path | None, limit: int
) -> None:
    """Say which of the acts on record another set (a file, or a folder of `*.cedar`) would have decided otherwise.

    The ledger holds no bodies. Of an act's circumstances it has what the resource tells (host, port, path), and what
    the schema wants on record (`@record("amount, to")` on an action). An act is replayed exactly where that is all that
    the new set looks at for it; the others are counted as such, and why. Agents have the teams that they have now.

    \b
    Example:
      creto policy replay policies/new.cedar --from ~/.local/state/creto/ledger
    """
    from creto import _core
    from creto.audit import AuditClient
    from creto.authz._configured import PolicySet
    from creto.authz._replay import Act, replayed

    folder = ledger or frame.folder
    folder = folder.parent if folder.name == "ledger" else folder
    engine = _core.PolicyEngine()
    PolicySet.of(files_of(new), schema_text(schema)).install(engine, _entities(frame, folder, entities))
    client = AuditClient.reading(folder)

    async def read() -> list[Any]:
        return await client.query(limit=limit)

    results = [replayed(engine, act) for act in Act.read(frame.run(read))]
    rows = [
        [
            result.act.who,
            result.act.action,
            result.act.resource,
            result.act.was,
            result.now,
            result.why,
            ", ".join(result.unknown) or "no",
        ]
        for result in results
        if result.now != result.act.was
    ]
    exact = sum(not result.unknown for result in results)
    certain = sum(not result.unknown and result.now != result.act.was for result in results)
    sure = "" if certain == len(rows) else f", {certain} for certain"
    lacking = Counter(reason for result in results for reason in result.unknown)
    if frame.json:
        keys = ("agent", "action", "resource", "was", "would_be", "why", "unknown")
        frame.show(
            {
                "acts": len(results),
                "exact": exact,
                "otherwise_for_certain": certain,
                "partly": len(results) - exact,
                "unknown": dict(lacking),
                "otherwise": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
        return
    alike = Counter(tuple(row) for row in rows).most_common()
    columns = ["agent", "action", "resource", "was", "would be", "why", "unknown", "acts"]
    frame.table(
        columns,
        [[*row, count] for row, count in alike],
        empty="no act would be decided otherwise",
        narrow=[_line(row, count) for row, count in alike],
    )
    frame.say(f"{len(results)} acts, {len(rows)} of them decided otherwise{sure}; {exact} replayed exactly")
    for reason, count in lacking.most_common():
        frame.say(f"  {count} only partly: {reason} is not on record")


def _line(row: tuple[str, ...], count: int) -> str:
    """Acts that are decided otherwise for one reason, where a terminal is too narrow for the table."""
    # Agents choose names and resources: nothing of theirs steers the terminal, or looks like a line of its own.
    agent, action, resource, was, now, why, unknown = map(plain, row)
    doubt = "" if unknown == "no" else f"; not known: {unknown}"
    return f"{was} -> {now}, {counted(count, 'act')}: {action} on {resource} by {agent}: {why}{doubt}"


def _entities(frame: Frame, folder: Path, extra: Path | None) -> str:
    """The agents of the folder whose ledger is read, where it is one of ours, and what a file adds."""
    from creto.authz._configured import merged
    from creto.authz._entities import entities_of

    return merged(agents_of(frame, folder), entities_of(read_text(extra), f"`{extra}`") if extra else [])
