"""`creto approve` and `creto deny`: answer an act that waits, from any terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from creto.cli._frame import Frame, json_option, pass_frame

if TYPE_CHECKING:
    from creto.oversight import Desk, Request

__all__ = ["command", "deny"]


@contextmanager
def _desk(frame: Frame) -> Iterator[Desk]:
    from creto.oversight import open_desk
    from creto.reach import Reach

    with frame.store() as store, Reach(store) as reach:
        yield open_desk(store, frame.settings, reach, frame.sealer())


def _answering(function: Any) -> Any:
    for option in (
        click.argument("request", required=False),
        click.option("--reason", default="", help="Why; it is signed, recorded, and told to whoever asked."),
        click.option("--as", "name", metavar="NAME", help="The approver who answers; you, where none is given."),
        click.option("--yes", is_flag=True, help="Do not show the act and ask once more."),
        json_option,
        pass_frame,
    ):
        function = option(function)
    return function


@click.command()
@_answering
def command(frame: Frame, request: str | None, reason: str, name: str | None, yes: bool) -> int | None:
    """Agree to one act that waits for a human; without REQUEST, list what waits.

    REQUEST is the id, or enough of its first digits. The agreement is signed, bound to exactly this act, and good once.

    \b
    Example:
      creto approve
      creto approve 3fa9 --reason "checked with the customer"
    """
    return _answer(frame, request, reason, name, yes, approved=True)


@click.command()
@_answering
def deny(frame: Frame, request: str | None, reason: str, name: str | None, yes: bool) -> int | None:
    """Refuse one act that waits for a human; without REQUEST, list what waits.

    \b
    Example:
      creto deny 3fa9 --reason "not to this address"
    """
    return _answer(frame, request, reason, name, yes, approved=False)


def _answer(
    frame: Frame, prefix: str | None, reason: str, name: str | None, yes: bool, *, approved: bool
) -> int | None:
    with _desk(frame) as desk:
        if prefix is None:
            _list(frame, desk.pending())
            return None
        request = desk.find(prefix)
        approver = desk.approvers.named(name) if name else desk.approvers.operator()
        if approved and request.open and not yes and not frame.json and sys.stdin.isatty():
            _show(desk, request)
            if click.prompt("  type yes to approve it, once", default="", show_default=False).strip().lower() != "yes":
                frame.say("  not approved; it still waits")
                return 5
        after = desk.approve(request, approver, reason) if approved else desk.deny(request, approver, reason)
        said = "agreed, but other policies still wait" if approved and after.open else after.state
        frame.show(
            after.as_dict(), f"{said} {after.id[:8]}: {after.action} on {_plain(after.resource)}, by {approver.name}"
        )
    return None


def _list(frame: Frame, waiting: list[Request]) -> None:
    if frame.json:
        frame.show([request.as_dict() for request in waiting])
        return
    from creto._count import ago
    from creto._plain import short, values

    now = _now_us()
    frame.table(
        ["id", "agent", "action", "resource", "with", "policy", "asked", "no answer is no"],
        (
            (
                r.id[:8],
                short(r.agent),
                _plain(r.action),
                _plain(r.resource),
                ", ".join(f"{name} {text}" for name, text in values(r.context, 40)),
                ", ".join(map(_plain, r.policies)),
                ago(r.created_us, now),
                ago(r.answer_by_us, now),
            )
            for r in waiting
        ),
        empty="nothing waits for a human",
    )


def _show(desk: Desk, request: Request) -> None:
    from rich.console import Console

    from creto.oversight._show import panel

    Console(highlight=False).print(panel(request, desk.precedents_of(request)))


def _plain(text: str) -> str:
    from creto._plain import plain

    return plain(text, most=120)


def _now_us() -> int:
    import time

    return time.time_ns() // 1000
