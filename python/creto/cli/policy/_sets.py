"""What the commands read: files of policies, their schema and entities, and the configured set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from creto import _core
    from creto.cli._frame import Frame

__all__ = ["FILE", "agent_id", "configured_engine", "engine", "joined", "read", "schema_text", "short"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        InvalidInputError: It is not text in UTF-8.
    """
    from creto._foreign import text_of

    return text_of(path, path.read_bytes())


def schema_text(path: Path | None) -> str:
    """The schema of a file; that of the starter sets without one."""
    from creto.authz import starter_schema

    return read(path) if path else starter_schema()


def joined(files: Sequence[Path]) -> str:
    """The policies of several files as one text, as they are installed."""
    return "\n".join(read(file) for file in files)


def engine(files: Sequence[Path], schema: Path | None, entities: Path | None) -> _core.PolicyEngine:
    """An engine with these files installed."""
    from creto import _core

    made = _core.PolicyEngine()
    made.install(joined(files), schema_text(schema), read(entities) if entities else "[]")
    return made


def configured_engine(frame: Frame) -> _core.PolicyEngine:
    """An engine with the configured set installed."""
    from creto.authz._configured import tried

    return tried(frame.settings)[1]


def agent_id(frame: Frame, name: str) -> str:
    """The whole id of an agent that is given by its short name."""
    if "://" in name or '"' in name:
        return name
    return f"spiffe://{frame.settings.common.trust_domain}/agent/{name}"


def short(text: str, most: int = 90) -> str:
    """A condition on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
