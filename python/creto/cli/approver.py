"""`creto approver`: who may answer, with which keys and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.config._patterns import EMAIL
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.oversight import Approvers

__all__ = ["command"]


@contextmanager
def _people(frame: Frame) -> Iterator[Approvers]:
    from creto.oversight import open_approvers

    with frame.store() as store:
        yield open_approvers(store, frame.settings, frame.sealer())


@click.group(cls=Group)
def command() -> None:
    """Make, list and revoke approvers, and give them inbox tokens."""


@command.command("list")
@json_option
@pass_frame
def list_(frame: Frame) -> None:
    """List the approvers.

    \b
    Example:
      creto approver list
    """
    with _people(frame) as people:
        frame.table(
            ["name", "active", "policies", "id"],
            ((one.name, one.active, sorted(one.policies), one.id) for one in people.all()),
            empty="no approvers; make one with `creto approver add NAME`",
        )


@command.command()
@click.argument("name")
@click.option(
    "--policy", "policies", multiple=True, help="An oversight policy this one may answer for; all, where none is given."
)
@click.option("--email", help="Where announcements go.")
@json_option
@pass_frame
def add(frame: Frame, name: str, policies: tuple[str, ...], email: str | None) -> None:
    """Make an approver with new keys, and print the inbox token, this once.

    \b
    Example:
      creto approver add release-desk --policy payments --email release-desk@example.org
    """
    if email is not None and not re.fullmatch(EMAIL, email):
        raise InvalidInputError(f"--email `{email}`: write an address, such as release-desk@example.org")
    if email is not None and frame.settings.oversight.email_smtp_host is None:
        frame.warn(f"no mail goes to {email}: `oversight.email_smtp_host` names no server")
    with _people(frame) as people:
        made, token = people.add(name, policies=policies or ("*",), channels={"email": email} if email else {})
        frame.show(
            {"name": made.name, "id": made.id, "policies": sorted(made.policies), "token": token},
            f"{made.id}\ninbox token, shown only now: {token}",
        )


@command.command()
@click.argument("name")
@json_option
@pass_frame
def token(frame: Frame, name: str) -> None:
    """Give an approver a new inbox token; the old one ends.

    \b
    Example:
      creto approver token release-desk
    """
    with _people(frame) as people:
        new = people.renew_token(name)
        frame.show({"name": name, "token": new}, f"inbox token, shown only now: {new}")


@command.command()
@click.argument("name")
@json_option
@pass_frame
def revoke(frame: Frame, name: str) -> None:
    """Take an approver's say away: answers not used yet count no more.

    \b
    Example:
      creto approver revoke release-desk
    """
    with _people(frame) as people:
        people.revoke(name)
        frame.show({"name": name, "active": False}, f"`{name}` may not answer any more")
