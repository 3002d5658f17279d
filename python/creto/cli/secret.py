"""`creto secret`: what sandboxes get by agent, sealed in the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.runtime import Secrets

__all__ = ["command"]


@contextmanager
def _secrets(frame: Frame) -> Iterator[Secrets]:
    from creto.runtime import Secrets

    with frame.store() as store:
        yield Secrets(store, frame.sealer(), frame.who)


def _agent(frame: Frame, name: str | None) -> str:
    """The id that a secret is for: every agent's where none is named."""
    if name is None or name == "*":
        return "*"
    return frame.agent_id(name)


@click.group(cls=Group)
def command() -> None:
    """Keep secrets that sandboxes get by agent, as environment variables and nowhere else."""


@command.command("set")
@click.argument("name")
@click.option("--agent", help="Who gets it: a name or a SPIFFE id; every agent, where none is given.")
@json_option
@pass_frame
def set_(frame: Frame, name: str, agent: str | None) -> None:
    """Keep a secret; its value is read from standard input, or asked for, never from an argument.

    \b
    Example:
      creto secret set API_TOKEN --agent researcher < token.txt
    """
    from creto.runtime import check_secret_name

    check_secret_name(name)
    if sys.stdin.isatty():
        value = click.prompt(f"value of {name}", hide_input=True, err=True)
    else:
        value = sys.stdin.read().rstrip("\n")
    if not value:
        raise InvalidInputError(f"`{name}` would be empty; give its value on standard input")
    with _secrets(frame) as secrets:
        secrets.set(name, value, agent=_agent(frame, agent))
    frame.show({"name": name, "agent": _agent(frame, agent)}, f"`{name}` is kept for {_who(_agent(frame, agent))}")


@command.command("list")
@json_option
@pass_frame
def list_(frame: Frame) -> None:
    """List the secrets by name; their values are never shown.

    \b
    Example:
      creto secret list
    """
    with _secrets(frame) as secrets:
        frame.table(
            ["name", "agent", "set"],
            (
                (one.name, one.agent, made if frame.json else f"{made:%Y-%m-%d %H:%M} UTC")
                for one in secrets.all()
                for made in [datetime.fromtimestamp((one.created >> 12) / 1_000_000, UTC)]
            ),
            empty="no secrets; keep one with `creto secret set NAME`",
        )


@command.command()
@click.argument("name")
@click.option("--agent", help="Whose: a name or a SPIFFE id; that of every agent, where none is given.")
@json_option
@pass_frame
def remove(frame: Frame, name: str, agent: str | None) -> None:
    """Forget a secret; sandboxes that are claimed already keep it until they end.

    \b
    Example:
      creto secret remove API_TOKEN --agent researcher
    """
    with _secrets(frame) as secrets:
        secrets.remove(name, agent=_agent(frame, agent))
    frame.show({"name": name, "removed": True}, f"`{name}` is forgotten")


def _who(agent: str) -> str:
    return "every agent" if agent == "*" else f"`{agent}`"
