"""`creto demo`: one agent through every part of the library, in its own state folder, with nothing to configure."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.errors import NotFoundError

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    import creto

__all__ = ["command"]

_POLICY = """
@id("search-freely")
@audit("after")
permit (principal, action == Action::"tool:call", resource == Tool::"search");

@id("pay")
permit (principal, action == Action::"tool:call", resource == Tool::"pay");

@id("payments-are-asked")
@oversight("payments")
forbid (principal, action == Action::"tool:call", resource == Tool::"pay");

@id("write-to-agents")
permit (principal, action in [Action::"message:send", Action::"message:receive"], resource);
"""
_CONFIG = """
[authz]
policies = ["demo.cedar"]

[[quotas]]
scope = "agent"
meter = "tool_calls"
limit = 5
window = "day"

[[prices]]
meter = "tool_calls"
unit_price = "0.01"
"""


@click.command()
@click.option(
    "--html", "page", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write the story as a page."
)
@click.option("--keep", metavar="FOLDER", type=click.Path(path_type=Path), help="Use and keep this state folder.")
@json_option
@pass_frame
def command(frame: Frame, page: Path | None, keep: Path | None) -> int:
    """See one agent go through every part, with nothing to configure.

    It searches (allowed), deletes (denied: no policy permits it), pays (a human is asked: here the demo's own approver
    answers), searches until its quota ends, and writes a sealed message to another agent. Then the ledger is verified,
    and a tampered copy of it is found out. For the sandbox, see `creto run`.

    \b
    Example:
      creto demo --html demo.html
    """
    if page is not None and not page.parent.is_dir():
        raise NotFoundError(f"there is no folder `{page.parent}` to write the page to")
    folder = keep or Path(tempfile.mkdtemp(prefix="creto-demo-"))
    try:
        return frame.run(_demo, frame, folder, page)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _demo(frame: Frame, folder: Path, page: Path | None) -> int:
    import anyio

    import creto
    from creto import report
    from creto.audit import tampered_copy, trusted_keys
    from creto.errors import CretoError

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything runs beside it
    rules = folder / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "demo.cedar").write_text(_POLICY)
    (rules / "creto.toml").write_text(_CONFIG)
    told: list[tuple[str, str]] = []

    async def act(layer: creto.EnablementLayer, tool: str, **context: Any) -> None:
        agent = layer.agent("researcher")
        try:
            await layer.perform(
                agent, "tool:call", tool, lambda: None, context=context, usage={"tool_calls": 1}, timeout=30
            )
            told.append((f"tool:call {tool}", "done"))
        except CretoError as refused:
            told.append((f"tool:call {tool}", f"{type(refused).__name__}: {refused}"))

    async with creto.open(folder / "state", config=[rules / "creto.toml"]) as layer:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_approve, layer)
            await act(layer, "search", purpose="a first look")
            await act(layer, "delete")
            await act(layer, "pay", to="supplier", purpose="one invoice")
            for _ in range(4):
                await act(layer, "search", purpose="more of the same")
            tasks.cancel_scope.cancel()
        sender, receiver = layer.agent("researcher"), layer.agent("reviewer")
        sent = await layer.send(sender, "reviewer", b"five tool calls, one payment")
        async for message in layer.inbox(receiver):
            await message.ack()
            told.append((f"message from {message.sender}", f"{sent.size} bytes sealed, opened and acknowledged"))
            break
        records = await layer.parts.audit.query()
        verified = await layer.parts.audit.verify()
        told += [(f"ledger {v.origin}", f"{v.size} records verified, root {v.root}") for v in verified]
        state = layer.parts.folder
        said = await tampered_copy(state / "ledger", folder / "tampered", trusted_keys(state))
        told.append(("a copy with one byte changed", f"found out: {said}" if said else "NOT found out"))
    story = report.Report("creto demo", report.acts(records), dict(told))
    if page is not None:
        await anyio.Path(page).write_text(report.page(story))
    frame.table(("what", "how it went"), told, title="one agent through every part")
    counts = ", ".join(f"{number} {name}" for name, number in story.counts().items())
    frame.say(counts + (f"; the page is {page}" if page else ""))
    return 0


async def _approve(layer: creto.EnablementLayer, *, task_status: TaskStatus[None]) -> None:
    """The demo's own approver: agrees to what the demo asks about, and says so in the grant."""
    import anyio
    import anyio.to_thread

    desk = layer.parts.desk
    operator = await anyio.to_thread.run_sync(desk.approvers.operator)
    async with desk.changes() as keys:
        task_status.started()
        async for _ in keys:
            for request in await anyio.to_thread.run_sync(desk.pending):
                await anyio.to_thread.run_sync(desk.approve, request, operator, "agreed to by the demo")
