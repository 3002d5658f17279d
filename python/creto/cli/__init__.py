"""The command line: one module for each command, imported when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from creto.cli._failure import INTERRUPTED, render
from creto.cli._frame import Frame
from creto.cli._group import Entry, LazyGroup
from creto.errors import InvalidInputError

__all__ = ["main"]

_ENTRIES = {
    "run": Entry("creto.cli.run", "Run a program in a sandbox, every act of it decided and recorded."),
    "demo": Entry("creto.cli.demo", "See one agent go through every part, with nothing to configure."),
    "doctor": Entry("creto.cli.doctor", "Try every part for real and say what is missing."),
    "inbox": Entry("creto.cli.inbox", "Serve the page on which approvers answer."),
    "approve": Entry("creto.cli.approve", "Agree to one act that waits for a human."),
    "deny": Entry("creto.cli.approve", "Refuse one act that waits for a human.", "deny"),
    "approver": Entry("creto.cli.approver", "Make, list and revoke those who may answer."),
    "agent": Entry("creto.cli.agent", "Make, list, export, import and revoke agents."),
    "message": Entry("creto.cli.message", "Send and read sealed messages between agents."),
    "policy": Entry("creto.cli.policy", "Check, test, replay and analyse policies."),
    "quota": Entry("creto.cli.quota", "Show and set quotas."),
    "usage": Entry("creto.cli.usage", "Show what was used, by agent, meter and period."),
    "invoice": Entry("creto.cli.invoice", "Make and show invoices."),
    "audit": Entry("creto.cli.audit", "Read, verify and prove the ledger."),
    "sandbox": Entry("creto.cli.sandbox", "Install and inspect sandboxes."),
    "secret": Entry("creto.cli.secret", "Keep secrets that sandboxes get by agent."),
    "mcp": Entry("creto.cli.mcp", "Put an MCP server behind creto."),
    "config": Entry("creto.cli.config", "Show, check and trust the configuration."),
    "completion": Entry("creto.cli.completion", "Print the script that completes commands in your shell."),
}


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from creto._core import __version__

        click.echo(f"creto {__version__}")
        ctx.exit()


class _Root(LazyGroup):
    entries = _ENTRIES


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 quota, 5 oversight pending or refused, 6 integrity. "
        "Start with `creto demo`, then `creto run -- python agent.py`."
    ),
)
@click.option(
    "--config",
    "files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A configuration file that overrides the others; may be given again.",
)
@click.option(
    "--state",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="The state folder, in place of CRETO_STATE and ~/.local/state/creto.",
)
@click.option("--json", "as_json", is_flag=True, help="Print data and errors as JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the whole trace of an error.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_obj
def _root(frame: Frame, files: tuple[Path, ...], state: Path | None, as_json: bool, verbose: bool) -> None:
    """The enablement layer for AI agents: every act is authorized, overseen, metered, sandboxed and recorded."""
    frame.config = files
    frame.state = state
    frame.json = frame.json or as_json
    frame.verbose = verbose
    if state is not None:
        # Parts that look for the folder themselves, and programs started from here, find the same one.
        os.environ["CRETO_STATE"] = str(state.absolute())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    Args:
        arguments: In place of those of the process.

    Example:
        >>> main(["--version"])
        creto 0.1.0
        0
    """
    frame = Frame()
    try:
        result = _root.main(
            args=None if arguments is None else list(arguments), prog_name="creto", standalone_mode=False, obj=frame
        )
    except click.ClickException as error:
        if frame.json:
            return render(InvalidInputError(error.format_message()), as_json=True, verbose=False)
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("creto: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; so may we, and without a second error when Python flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the last place there is; it renders what it catches
        return render(error, as_json=frame.json, verbose=frame.verbose)
    return result if isinstance(result, int) else 0
