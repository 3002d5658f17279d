"""A request as a terminal shows it: who, for whom, what, on what, why it is asked, what it would change and cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from creto._count import ago
from creto._plain import plain, short, values
from creto.oversight._request import Request

__all__ = ["panel"]

_DIFF = {"+": "green", "-": "red", "@": "cyan"}
_MOST_LINES = 60


def panel(request: Request, precedents: Sequence[dict[str, Any]] = ()) -> RenderableType:
    """What an approver has to see before answering."""
    now_us = time.time_ns() // 1000
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")

    def fact(name: str, text: str, style: str = "") -> None:
        facts.add_row(name, Text(text, style=style))

    fact("who", f"{short(request.agent)}  ({plain(request.agent)})", "bold")
    if request.chain:
        fact("for whom", " → ".join(short(link) for link in request.chain))
    fact("what", plain(request.action), "bold")
    fact("on what", plain(request.resource), "bold yellow")
    for name, text in values(request.context):
        fact(f"  {name}", text)
    if uses := request.uses:
        fact("uses", ", ".join(uses))
    fact("policy", ", ".join(plain(policy, most=120) for policy in request.policies))
    fact("asked", f"{ago(request.created_us, now_us)}; no answer counts as no, {ago(request.answer_by_us, now_us)}")
    fact("digest", " ".join(request.digest(policy).hex()[:16] for policy in request.policies), "dim")
    parts: list[RenderableType] = [facts]
    if request.preview:
        parts.append(
            Panel(_diff(request.preview), title="the change", title_align="left", box=box.SQUARE, style="none")
        )
    if precedents:
        past = Table.grid(padding=(0, 2))
        for one in precedents:
            verdict = Text("approved", style="green") if one["approved"] else Text("denied", style="red")
            by = f"by {short(one['by'])}" if one.get("by") else ""
            past.add_row(
                verdict, f"{one['likeness']:.0%} alike", Text(plain(one["text"], most=120)), Text(by, style="dim")
            )
        parts.append(Panel(past, title="decided before", title_align="left", box=box.SQUARE))
    title = Text.assemble(("an act waits for you ", "bold"), (request.id[:8], "bold cyan"))
    return Panel(Group(*parts), title=title, title_align="left", border_style="yellow", box=box.ROUNDED)


def _diff(preview: str) -> Text:
    shown = Text()
    lines = preview.split("\n")
    for line in plain("\n".join(lines[:_MOST_LINES]), lines=True, most=20_000).split("\n"):
        shown.append(line + "\n", style=_DIFF.get(line[:1], ""))
    if len(lines) > _MOST_LINES:
        shown.append(f"… {len(lines) - _MOST_LINES} more lines: `creto inbox` shows all", style="dim")
    return shown
