"""`creto audit`: read the ledger, check it, prove what is in it, and show it to those outside."""

from __future__ import annotations

import click

from creto.cli._audit import outside, people, proving, reading
from creto.cli._group import Group

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Read, verify and prove the ledger: what was done, by whom, why, and how it ended."""


for module in (reading, proving, outside, people):
    for name in module.__all__:
        command.add_command(getattr(module, name))
