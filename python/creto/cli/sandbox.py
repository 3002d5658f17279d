"""`creto sandbox`: install what isolates, try it, and see what runs."""

from __future__ import annotations

import os
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Install and inspect sandboxes."""


@command.command()
@json_option
@pass_frame
def install(frame: Frame) -> None:
    """Build the pinned gVisor (runsc) with Go and keep it in the cache.

    \b
    Example:
      creto sandbox install
    """
    from creto.runtime import RUNSC_VERSION, install_runsc

    if os.geteuid() != 0:
        click.echo(
            "note: sandboxes are started by root, who looks in a cache of its own and on PATH: install as root "
            '(`sudo "$(command -v creto)" sandbox install`), or copy what is built here to /usr/local/bin/runsc',
            err=True,
        )
    if not frame.json:
        click.echo(f"gVisor {RUNSC_VERSION}: built once, in a minute or two, unless it is there already", err=True)
    path = install_runsc()
    frame.show({"path": str(path), "version": RUNSC_VERSION}, f"ready: {path}")


@command.command("list")
@json_option
@pass_frame
def list_(frame: Frame) -> None:
    """List the sandboxes of every creto process on this state folder.

    \b
    Example:
      creto sandbox list
    """
    from creto.runtime import running

    frame.table(
        ["sandbox", "process", "backend", "agent", "folder"],
        (
            (one["sandbox"], one["process"], one["backend"], one["agent"], one["workdir"])
            for one in running(frame.folder)
        ),
        empty="no sandbox is claimed",
    )


@command.command()
@json_option
@pass_frame
def clean(frame: Frame) -> None:
    """End what a creto process that was killed may have left behind, and say what that was.

    \b
    Example:
      creto sandbox clean
    """
    from creto.runtime import clean as clean_

    gone = clean_(frame.folder)
    frame.show({"ended": gone}, f"ended {len(gone)} left-over processes" if gone else "nothing was left behind")


@command.command()
@click.option("--backend", "backends", multiple=True, help="Try this one only; may be given again.")
@json_option
@pass_frame
def doctor(frame: Frame, backends: tuple[str, ...]) -> int:
    """Start a sandbox of each backend and try to get out of it.

    \b
    Example:
      creto sandbox doctor --backend gvisor
    """
    from creto.runtime import examine

    reports: list[dict[str, Any]] = frame.run(examine, frame.folder, list(backends) or None)
    rows = [(r["backend"], check["check"], check["ok"], check["text"]) for r in reports for check in r["checks"]]
    frame.table(["backend", "check", "ok", "what was seen"], rows)
    return 0 if all(row[2] for row in rows) else 1
