"""What the commands read: files of policies, their schema and entities, and the configured set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from creto import _core
    from creto.cli._frame import Frame

__all__ = [
    "FILE",
    "agent_id",
    "agents_of",
    "configured_engine",
    "engine",
    "joined",
    "read",
    "schema_text",
    "short",
    "solver_seconds",
]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
solver_seconds = click.option(
    "--seconds",
    default=60,
    show_default=True,
    type=click.IntRange(1, 86_400),
    help="The longest that one question to the solver may take.",
)


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
    """An engine with the configured set installed, and the agents of the state folder: as a layer decides by it."""
    from creto.authz._configured import merged, tried

    chosen, made, _noted = tried(frame.settings)
    made.upsert_entities(merged(agents_of(frame, frame.folder), chosen.entities))
    return made


def agents_of(frame: Frame, folder: Path) -> list[dict[str, Any]]:
    """The agents of a state folder as policies see them; none where nothing was kept in it yet."""
    from creto.authz._configured import agent_entities
    from creto.nhi._agents import listed
    from creto.store import Store

    url = frame.settings.common.store_url
    if url is None and not (folder / "creto.db").exists():
        return []
    with Store(url.get_secret_value() if url else folder) as store, store.read() as tx:
        return agent_entities(listed(tx))


def agent_id(frame: Frame, name: str) -> str:
    """The whole id of an agent that is given by its short name."""
    if "://" in name or '"' in name:
        return name
    return f"spiffe://{frame.settings.common.trust_domain}/agent/{name}"


def short(text: str, most: int = 90) -> str:
    """A condition on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
