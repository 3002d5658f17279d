"""`creto policy`: check, test, explain, compare, prove, replay, sign and begin policy sets; one module for each."""

from __future__ import annotations

import click

from creto.cli._group import Group
from creto.cli.policy import analyze, check, explain, new, prove, replay, shadow, sign, test

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Check, test, replay, analyse and sign policies."""


for _module in (new, check, test, explain, analyze, prove, replay, shadow, sign):
    command.add_command(_module.command)
command.add_command(sign.keys)
command.add_command(sign.accept)
