"""`creto policy analyze`: what a change newly allows, asks and denies, proved for every request that there can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, joined, schema_text

__all__ = ["command", "shown"]

_WORDS = {"allow": "allowed", "deny": "denied", "ask": "asked about"}


@click.command("analyze")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--schema", type=FILE, help="The schema of both; that of the starter sets by default.")
@click.option(
    "--seconds", default=60.0, show_default=True, help="The longest that one question to the solver may take."
)
@click.option(
    "--equivalent", is_flag=True, help="Exit with 1 unless both sets are proved to answer every request alike."
)
@json_option
@pass_frame
def command(frame: Frame, old: Path, new: Path, schema: Path | None, seconds: float, equivalent: bool) -> None:
    """Say what a change newly allows, newly denies and newly asks, each with a request that shows it.

    Every request that the schema allows is looked at, with every set of entities that there can be, by
    cedar-policy-symcc and the solver cvc5 (`pip install 'creto[analyze]'`): what is not shown does not change.
    Exits with 1 where something is newly allowed, or could not be decided.

    \b
    Example:
      creto policy analyze policies/old.cedar policies/new.cedar
    """
    from creto import _core
    from creto.authz._solver import solver_command

    report = _core.policy_compare(
        joined([old]), joined([new]), schema_text(schema), solver_command(), int(seconds * 1000)
    )
    changes = report["changes"]
    if frame.json:
        frame.show(report)
    else:
        _print(frame, report)
    allowed = any(change["after"] == "allow" for change in changes)
    if allowed or report["undecided"] or (equivalent and not report["equivalent"]):
        raise click.exceptions.Exit(1)


def _print(frame: Frame, report: dict[str, Any]) -> None:
    if report["equivalent"]:
        frame.say(f"both sets answer every request alike: proved for all {report['environments']} kinds of request")
        return
    kinds = {(change["before"], change["after"]) for change in report["changes"]}
    for before, after in sorted(kinds, key=lambda each: (each[1] != "allow", each)):
        color = "red" if after == "allow" else None
        frame.say(click.style(f"newly {_WORDS[after]}, {_WORDS[before]} before:", fg=color, bold=True))
        for change in report["changes"]:
            if (change["before"], change["after"]) == (before, after):
                for line in shown(change["example"]):
                    frame.say(f"  {line}")
                frame.say(f"    before: {change['reason_before']}; after: {change['reason_after']}")
    for environment, why in report["undecided"]:
        frame.say(click.style(f"not decided for {environment}: {why}", fg="yellow"))
    count = len({change["environment"] for change in report["changes"]})
    frame.say(f"{count} of {report['environments']} kinds of request change; the others are proved to stay as they are")


def shown(example: dict[str, Any]) -> list[str]:
    """A request that shows something, in lines."""
    lines = [
        f"{example['principal']} {example['action']} {example['resource']}",
        f"  context {example['context']}",
    ]
    if example["entities"] != "[]":
        lines.append(f"  with entities {example['entities']}")
    return lines
