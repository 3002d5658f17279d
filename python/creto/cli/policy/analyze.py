"""`creto policy analyze`: what a change newly allows, asks and denies, proved for every request that there can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, SET, files_of, schema_text, solver_seconds

__all__ = ["command", "decoded", "shown"]

_WORDS = {"allow": "allowed", "deny": "denied", "ask": "asked about"}


@click.command("analyze")
@click.argument("old", type=SET)
@click.argument("new", type=SET)
@click.option("--schema", type=FILE, help="The schema of both; that of the starter sets by default.")
@solver_seconds
@click.option(
    "--equivalent", is_flag=True, help="Exit with 1 unless both sets are proved to answer every request alike."
)
@json_option
@pass_frame
def command(frame: Frame, old: Path, new: Path, schema: Path | None, seconds: int, equivalent: bool) -> None:
    """Say what a change newly allows, newly denies and newly asks, each with a request that shows it.

    OLD and NEW are files, or folders of `*.cedar`. Every request that the schema allows is looked at, with every set of
    entities that there can be, by cedar-policy-symcc and the solver cvc5 (`pip install 'creto[analyze]'`): what is not
    shown does not change. Exits with 1 where something is newly allowed, where somebody who was asked no longer is, or
    where it could not be decided.

    \b
    Example:
      creto policy analyze policies/old.cedar policies/new.cedar
    """
    from creto import _core
    from creto.authz._solver import solver_command

    before, after = ("\n".join(text for _, text in files_of(each)) for each in (old, new))
    report = _core.policy_compare(before, after, schema_text(schema), solver_command(), seconds * 1000)
    changes = report["changes"]
    if frame.json:
        frame.show({**report, "changes": [decoded(change) for change in changes]})
    else:
        _print(frame, report)
    looser = any(change["after"] == "allow" or change["no_longer_asked_of"] for change in changes)
    if looser or report["undecided"] or (equivalent and not report["equivalent"]):
        raise click.exceptions.Exit(1)


def _print(frame: Frame, report: dict[str, Any]) -> None:
    if report["equivalent"]:
        frame.say(f"both sets answer every request alike: proved for all {report['environments']} kinds of request")
        return
    headed: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for change in report["changes"]:
        looser = change["after"] == "allow" or bool(change["no_longer_asked_of"])
        headed.setdefault((not looser, _heading(change)), []).append(change)
    for (stricter, heading), changes in sorted(headed.items(), key=lambda each: each[0]):
        frame.say(click.style(f"{heading}:", fg=None if stricter else "red", bold=True))
        for change in changes:
            for line in shown(change["example"]):
                frame.say(f"  {line}")
            frame.say(f"    before: {change['reason_before']}; after: {change['reason_after']}")
    for environment, why in report["undecided"]:
        frame.say(click.style(f"not decided for {environment}: {why}", fg="yellow"))
    count = len({change["environment"] for change in report["changes"]})
    frame.say(f"{count} of {report['environments']} kinds of request change; the others are proved to stay as they are")


def _heading(change: dict[str, Any]) -> str:
    if (change["before"], change["after"]) != ("ask", "ask"):
        return f"newly {_WORDS[change['after']]}, {_WORDS[change['before']]} before"
    parts = [
        f"{words} {', '.join(f'`{name}`' for name in names)}"
        for words, names in (
            ("newly asked of", change["newly_asked_of"]),
            ("no longer asked of", change["no_longer_asked_of"]),
        )
        if names
    ]
    return ", ".join(parts)


def decoded(told: dict[str, Any]) -> dict[str, Any]:
    """What has an example, with that example's context and entities as they are, and not as texts of JSON."""
    example = told.get("example")
    if example is None:
        return told
    return {**told, "example": {**example, **{key: json.loads(example[key]) for key in ("context", "entities")}}}


def shown(example: dict[str, Any]) -> list[str]:
    """A request that shows something, in lines."""
    lines = [
        f"{example['principal']} {example['action']} {example['resource']}",
        f"  context {example['context']}",
    ]
    if example["entities"] != "[]":
        lines.append(f"  with entities {example['entities']}")
    return lines
