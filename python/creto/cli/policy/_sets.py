"""What the commands read: files of policies, their schema and entities, and the configured set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto import _core
    from creto.cli._frame import Frame

__all__ = [
    "FILE",
    "SET",
    "agents_of",
    "configured_engine",
    "engine",
    "entities_text",
    "files_of",
    "principal",
    "read",
    "schema_text",
    "short",
    "solver_seconds",
]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SET = click.Path(exists=True, path_type=Path)
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


def entities_text(path: Path | None) -> str:
    """The entities of a file, in Cedar's JSON; none without one.

    Raises:
        InvalidInputError: It is empty.
    """
    text = read(path) if path else "[]"
    if not text.strip():
        raise InvalidInputError(f"`{path}` holds no entities: write a JSON array of them")
    return text


def files_of(given: Path) -> list[tuple[Path, str]]:
    """The policy files of a set that is given by one name, each with its text: a file, or the `*.cedar` of a folder.

    Raises:
        InvalidInputError: The folder holds none, or one is not text in UTF-8.
    """
    files = sorted(given.glob("*.cedar")) if given.is_dir() else [given]
    if not files:
        raise InvalidInputError(f"`{given}` holds no policies: no file in it ends in `.cedar`")
    return [(file, read(file)) for file in files]


def engine(files: Sequence[Path], schema: Path | None, entities: Path | None) -> _core.PolicyEngine:
    """An engine with these files installed."""
    from creto import _core
    from creto.authz._configured import PolicySet

    made = _core.PolicyEngine()
    PolicySet.of([(file, read(file)) for file in files], schema_text(schema)).install(made, entities_text(entities))
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


def principal(frame: Frame, name: str) -> str:
    """Who is asked about: an agent, or as policies name anybody, `Type::"id"`."""
    return name if '"' in name else frame.agent_id(name)


def short(text: str, most: int = 90) -> str:
    """A condition on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
