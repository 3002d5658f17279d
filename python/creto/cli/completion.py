"""`creto completion`: has the shell complete commands, options and names of files."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["command"]

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@json_option
@pass_frame
def command(frame: Frame, shell: str | None) -> None:
    """Print the script that has SHELL complete this command line; without SHELL, for the one you use.

    \b
    Example:
      creto completion bash > ~/.local/share/bash-completion/completions/creto
      creto completion zsh > ~/.zfunc/_creto     # with fpath+=~/.zfunc before compinit in ~/.zshrc
      creto completion fish > ~/.config/fish/completions/creto.fish
    """
    from creto.cli import _root

    shell = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(shell)
    if shell not in _SHELLS or found is None:
        raise click.UsageError(f"`{shell}` cannot be served: say which of {', '.join(_SHELLS)}")
    # Only the script is wanted of it: bash's own class would first run bash and ask for its version.
    made = found(_root, {}, "creto", "_CRETO_COMPLETE")
    script = made.source_template % made.source_vars()
    frame.show({"shell": shell, "script": script}, script.rstrip("\n"))
