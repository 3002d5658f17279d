"""`creto policy prove`: what must never be, written down beside the policies and proved in CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, solver_seconds
from creto.cli.policy.analyze import decoded, shown

__all__ = ["command"]


@click.command("prove")
@click.argument("files", nargs=-1, required=True, type=FILE)
@solver_seconds
@json_option
@pass_frame
def command(frame: Frame, files: tuple[Path, ...], seconds: int) -> None:
    """Prove the assertions of a file (TOML or YAML) for every request that there can be.

    Each [[assert]] has a name, the `requests` that it speaks of, as a Cedar scope with conditions, and the answers
    (`allow`, `ask`, `deny`) that none of them may `never` get. Exits with 1 unless all are proved.

    \b
    Example:
      creto policy prove policies/assertions.toml
    """
    from creto import _core
    from creto.authz._assertions import Assertions
    from creto.authz._solver import solver_command

    report: list[dict[str, Any]] = []
    for path in files:
        read = Assertions.load(path)
        wanted = [(each.name, each.requests, list(each.never)) for each in read.assertions]
        verdicts = _core.policy_prove(read.policies, read.schema, wanted, solver_command(), seconds * 1000)
        for verdict in verdicts:
            report.append({"file": str(path), **decoded(verdict)})
            _print(frame, verdict)
        held = sum(verdict["claim"] == "holds" for verdict in verdicts)
        frame.say(f"{path}: {held} of {len(verdicts)} assertions are proved")
    if frame.json:
        frame.show(report)
    if any(verdict["claim"] != "holds" for verdict in report):
        raise click.exceptions.Exit(1)


def _print(frame: Frame, verdict: dict[str, Any]) -> None:
    name, claim = verdict["name"], verdict["claim"]
    if claim == "holds":
        frame.say(f"{click.style('proved ', fg='green')} {name}")
        return
    frame.say(f"{click.style({'broken': 'BROKEN ', 'void': 'VOID   '}.get(claim, 'UNKNOWN'), fg='red')} {name}")
    if claim == "void":
        frame.say("        it speaks of no request that the schema allows, so it says nothing; mend `requests`")
    elif claim == "undecided":
        frame.say(f"        {verdict['why']}; more time (`--seconds`) may help")
    else:
        for line in shown(verdict["example"]):
            frame.say(f"        {line}")
        frame.say(f"        {verdict['answer']}: {verdict['why']}")
