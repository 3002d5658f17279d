"""`creto run`: puts a program that knows nothing of creto under all of it, in a sandbox."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, pass_frame

__all__ = ["command"]

STOPPED = 100


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--agent", metavar="NAME", default="default", show_default=True, help="Who the program acts as.")
@click.option("--backend", metavar="NAME", help="What isolates: gvisor (by default) or process, which is weaker.")
@click.option(
    "--workdir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The folder it works in; this one, by default.",
)
@click.option(
    "--allow",
    metavar="HOST[:PORT]",
    multiple=True,
    help="Agree beforehand to connections to a host that policy asks about; may be given again.",
)
@click.option(
    "--host",
    "hosts",
    metavar="NAME=ADDRESS:PORT",
    multiple=True,
    help="Let a name lead to an address of your choice, as packages.example=127.0.0.1:8080.",
)
@click.option(
    "--apply",
    "applying",
    type=click.Choice(["ask", "all", "none"]),
    default="ask",
    show_default=True,
    help="What becomes of changed files that policy asks about. `all` leaves out what tools outside the sandbox run by"
    " themselves, as hooks of git and tasks of an editor: these are asked about each.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="How long to wait for a human elsewhere; by default not at all where there is no terminal.",
)
@click.option("--env", "environment", metavar="NAME[=VALUE]", multiple=True, help="Pass a variable on, or set it.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one line of JSON on standard error.")
@click.argument("argv", metavar="-- CMD...", nargs=-1, type=click.UNPROCESSED)
@pass_frame
def command(
    frame: Frame,
    agent: str,
    backend: str | None,
    workdir: Path,
    allow: tuple[str, ...],
    hosts: tuple[str, ...],
    applying: str,
    wait: float | None,
    environment: tuple[str, ...],
    as_json: bool,
    argv: tuple[str, ...],
) -> int:
    """Run a program in a sandbox, every act of it decided and recorded.

    It sees this folder and the machine's programs, and nothing else of the machine. What it writes is kept apart and
    asked about at the end. Its connections are asked about by name. The exit status is the program's own, or 100 and
    more where creto stopped it. A program may end with such a status too: the last line of `--json` has an `error`
    only where creto stopped it, and the program cannot write there any more.

    \b
    Example:
      creto run -- python agent.py
      creto run --allow pypi.org -- pip download six
    """
    from creto.cli._failure import render
    from creto.cli._session import Session

    if not argv:
        raise click.UsageError("there is no program to run: creto run -- python agent.py")
    if "" in allow:
        raise click.UsageError("`--allow` without a host: write HOST or HOST:PORT, as pypi.org:443")
    if pattern := next((host for host in allow if "*" in host), None):
        raise click.UsageError(f"`--allow {pattern}`: one host each, no pattern; what fits many is said by a policy")
    frame.json = frame.json or as_json
    session = Session(
        frame,
        agent=agent,
        backend=backend,
        workdir=workdir,
        allow=allow,
        hosts=dict(_pair(host) for host in hosts),
        applying=applying,
        wait=wait,
        environment=_environment(environment),
    )
    try:
        return frame.run(session.run, list(argv))
    except Exception as error:  # noqa: BLE001 - told as every error is; only the number is another
        return render(error, as_json=frame.json, verbose=frame.verbose, above=STOPPED)


def _pair(text: str) -> tuple[str, str]:
    name, separator, address = text.partition("=")
    if not separator or not name or not address:
        raise click.UsageError(f"`--host {text}`: write NAME=ADDRESS:PORT, as packages.example=127.0.0.1:8080")
    return name, address


def _environment(given: tuple[str, ...]) -> dict[str, str]:
    import os

    found: dict[str, Any] = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not name:
            raise click.UsageError(f"`--env {one}`: write NAME=VALUE, or NAME to pass one on")
        if separator:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
        else:
            click.echo(f"creto: warning: `--env {name}`: there is no such variable here", file=sys.stderr)
    return found
