"""`creto config`: what is configured, from where, and which project files are trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._group import Group
from creto.errors import NotFoundError

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Show, check and trust the configuration.

    \b
    The environment (CRETO_RUNTIME__DEFAULT_BACKEND) counts over --config, that
    over the file of CRETO_CONFIG, ./creto.toml (if trusted),
    ~/.config/creto/*.toml|yaml, /etc/creto/*.toml|yaml, and defaults.
    """


@command.command()
@click.argument("section", required=False)
@json_option
@pass_frame
def show(frame: Frame, section: str | None) -> None:
    """Print every setting with its value and where that came from; secrets are masked.

    \b
    Example:
      creto config show runtime
    """
    rows = [
        (name, value, origin)
        for name, value, origin in frame.settings.values()
        if section is None or name.partition(".")[0] == section or name == section
    ]
    if section is not None and not rows:
        from creto.config._settings import Settings, nearest

        raise NotFoundError(f"there is no section `{section}`{nearest(section, Settings.model_fields)}")
    frame.table(["setting", "value", "origin"], rows)


@command.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@pass_frame
def check(frame: Frame, file: Path | None) -> None:
    """Say whether the configuration, or FILE on top of it, can be used; exit code 2 where it cannot.

    \b
    Example:
      creto config check ./creto.toml
    """
    from creto.config import load

    settings = load(files=(*frame.config, *((file,) if file else ())), state=frame.state)
    from creto.authz._configured import tried

    tried(settings)
    for warning in settings.warnings:
        # The file under check is not left out; that it is untrusted where it lies is said all the same.
        frame.warn(warning)
    read = [str(path) for path in settings.sources]
    frame.show(
        {"usable": True, "files": read, "warnings": list(settings.warnings)},
        "the configuration can be used: " + (", ".join(read) if read else "no files, defaults only"),
    )


@command.command()
@click.argument("file", default=Path("creto.toml"), type=click.Path(path_type=Path))
@click.option("--revoke", is_flag=True, help="Trust FILE no more.")
@click.option("--list", "listed", is_flag=True, help="List what is trusted.")
@json_option
@pass_frame
def trust(frame: Frame, file: Path, revoke: bool, listed: bool) -> None:
    """Let a project's FILE (./creto.toml) count, exactly as it and the policies it names are now.

    Any later change, by whoever can write to the folder, makes it count no more until it is trusted again.

    \b
    Example:
      cat creto.toml && creto config trust
    """
    from creto.config import Trust
    from creto.config._contents import contents
    from creto.config._load import named_files

    kept = Trust(frame.folder)
    if listed:
        rows = [
            (str(each.path), path, digest[:16], each.who) for each in kept.all() for path, digest in each.files.items()
        ]
        frame.table(["trusted", "file", "sha256", "by"], rows, empty="nothing is trusted")
        return
    file = file.absolute()
    if revoke:
        if not kept.remove(file):
            raise NotFoundError(f"`{file}` was not trusted")
        frame.show({"path": str(file), "trusted": False}, f"`{file}` is trusted no more")
        return
    try:
        content = contents(file)
    except OSError as error:
        advice = "write it, or name another: `creto config trust FILE`"
        raise NotFoundError(f"`{file}` cannot be read: {error.strerror}; {advice}") from error
    trusted = kept.add(file, named_files(file, os.environ, content), content)
    lines = [
        f"trusted as it is now, by {trusted.who}:",
        *(f"  {digest[:16]}  {path}" for path, digest in trusted.files.items()),
    ]
    frame.show({"path": str(file), "trusted": True, "files": dict(trusted.files)}, "\n".join(lines))


@command.command()
@json_option
@pass_frame
def path(frame: Frame) -> None:
    """Print the files that are read, the weakest first, and the state folder.

    \b
    Example:
      creto config path
    """
    from creto.store import state_folder

    rows = [("file", str(each)) for each in frame.settings.sources]
    rows.append(("state", str(state_folder(frame.state))))
    frame.table(["kind", "path"], rows)


@command.command()
@json_option
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    \b
    Example:
      creto config schema > creto.schema.json
    """
    from creto.config import Settings

    click.echo(json.dumps(Settings.model_json_schema(), indent=2))
