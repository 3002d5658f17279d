"""What the commands of `creto audit` share: which records, how one is printed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto._plain import plain
from creto.cli._frame import Frame

if TYPE_CHECKING:
    from creto.audit import AuditClient, AuditRecord

__all__ = [
    "COLUMNS",
    "EXISTING",
    "MOMENT",
    "PATH",
    "as_data",
    "client",
    "filters",
    "line",
    "pseudonym",
    "row",
]

COLUMNS = ["time", "agent", "action", "resource", "kind", "ended", "why", "record"]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Moment(click.ParamType[datetime]):
    """A time (ISO 8601, local where it names no zone), or how long ago: `90s`, `15m`, `2h`, `7d`, `1w`."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if value[-1:] in _UNITS and value[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            self.fail(f"`{value}` is neither a time such as 2026-05-01T12:00 nor how long ago, such as 15m or 7d")


MOMENT = _Moment()
PATH = click.Path(path_type=Path)
EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which records."""
    for option in (
        click.option("--outcome", type=click.Choice(["success", "failure", "refused"]), help="How it ended."),
        click.option(
            "--kind", type=click.Choice(["intent", "outcome", "refusal", "event"]), help="The moment of the act."
        ),
        click.option("--act", help="The act, 32 hexadecimal digits."),
        click.option("--resource", help="On what; a * at the end for all that begin so."),
        click.option("--action", help="The action; http:* for all that begin so."),
        click.option("--agent", help="Who acts, or for whom: a SPIFFE id, or a name in the trust domain."),
    ):
        function = option(function)
    return function


def client(frame: Frame) -> AuditClient:
    from creto.audit import AuditClient

    return AuditClient.reading(frame.folder)


def pseudonym(frame: Frame, subject: str | None) -> str | None:
    """The name that stands in records for a person."""
    if subject is None:
        return None
    from creto.audit import Subjects

    return Subjects(frame.folder, frame.sealer()).pseudonym(subject)


def row(record: AuditRecord) -> list[Any]:
    return [
        record.time.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z"),  # as `--since` takes it
        record.who.rsplit("/", 1)[-1],
        record.what,
        record.resource,
        record.kind,
        record.ended or None,
        record.why,
        f"{record.shard}/{record.index}",
    ]


def line(record: AuditRecord) -> str:
    # What agents wrote is spelt out: nothing in it may steer the terminal.
    time, who, what, resource, kind, ended, why, place = (plain(str(cell or "")) for cell in row(record))
    colour = {"success": "green", "failure": "yellow", "refused": "red"}.get(ended or "")
    state = click.style(f"{ended or kind:<8}", fg=colour)
    return f"{time}  {state} {who}  {click.style(what, bold=True)} {resource}  {click.style(why, dim=True)}  {place}"


def as_data(record: AuditRecord) -> dict[str, Any]:
    return {
        **{name: record[name] for name in record if name not in {"signature", "covered"}},
        "time": record.time.isoformat(),
        "covered": record.covered,
    }
