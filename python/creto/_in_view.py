"""What a sandbox has in view of its folder, and which secrets enter it: what policy lets its agent have."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto.errors import InvalidInputError, UnauthorizedError
from creto.runtime import Secrets
from creto.runtime._changes import spelt

if TYPE_CHECKING:
    from creto.layer import EnablementLayer
    from creto.nhi import Agent

__all__ = ["asked_by", "hidden_in", "is_credential", "marked_by", "secrets_of"]

_MOST_NAMES = 200_000
# What was installed or built is no place for the user's own secrets, and its files have names of all kinds. A name
# alone says little where others use it too: there one of these has to lie in it.
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
_NOT_WALKED: dict[str, tuple[str, ...]] = {
    "__pycache__": (),
    "node_modules": (),
    "site-packages": (),
    "target": ("CACHEDIR.TAG",),
    **dict.fromkeys((".tools", ".venv", "venv"), _ENVIRONMENT),
}

# The history itself; configuration, hooks and credentials are beside these.
_NOT_WALKED_IN_GIT = {"objects", "refs", "logs", "lfs"}
# In a URL a token may stand alone, where else a name is; no name is as long.
_GIT_CREDENTIALS = re.compile(
    rb"://[^/@\s:]*:[^/@\s]+@|https?://[^/@\s:]{20,}@|extraheader\s*=|(pass|password|passphrase|secret|token)\s*=",
    re.IGNORECASE,
)


def asked_by(
    layer: EnablementLayer, agent: Agent, action: str, resource: str, context: dict[str, Any]
) -> list[str] | None:
    """The policies that ask a human about an act, of the agent and of all for whom it acts; None where it is denied."""
    try:
        return layer.parts.gate.consult(layer.principal(agent), action, resource, context)
    except UnauthorizedError:
        return None


def hidden_in(layer: EnablementLayer, agent: Agent, workdir: Path, below: Path | None = None) -> list[str]:
    """Files of the folder, or of one in it, that the agent may not read: they are not in view at all."""
    hidden: list[str] = []
    seen = 0
    for folder, folders, files in os.walk(below or workdir):
        if ".git" in Path(folder).relative_to(workdir).parts:
            folders[:] = [name for name in folders if name not in _NOT_WALKED_IN_GIT]
        else:
            folders[:] = [name for name in folders if not _was_installed(Path(folder, name))]
        for file in files:
            path = str(Path(folder, file).relative_to(workdir))
            seen += 1
            name = spelt(path)
            if asked_by(layer, agent, "fs:read", name, {"path": name}) != [] or is_credential(Path(folder, file)):
                hidden.append(path)
        if seen > _MOST_NAMES:
            raise InvalidInputError(f"`{workdir}` holds more than {_MOST_NAMES} files; name a smaller working folder")
    return sorted(hidden)


def marked_by(workdir: Path, path: str) -> Path | None:
    """The folder that a change would mark as installed: such are in view whole."""
    parts = Path(path).parts
    for depth, (name, inner) in enumerate(pairwise(parts), 1):
        folder = workdir.joinpath(*parts[:depth])
        if inner in _NOT_WALKED.get(name, ()) and not _was_installed(folder):
            return folder
    return None


def _was_installed(folder: Path) -> bool:
    marks = _NOT_WALKED.get(folder.name)
    return marks is not None and (not marks or any((folder / mark).exists() for mark in marks))


def is_credential(file: Path) -> bool:
    """A configuration of git with a password or token in it, as some services leave there after a checkout."""
    if file.name not in {"config", "config.worktree"} or ".git" not in file.parts or not file.is_file():
        return False
    try:
        with file.open("rb") as opened:
            return _GIT_CREDENTIALS.search(opened.read(1 << 20)) is not None
    except OSError:
        return True  # what cannot be read here is not shown there


def secrets_of(layer: EnablementLayer, agent: Agent) -> dict[str, str]:
    """The agent's secrets, of those that policy lets it use."""
    parts = layer.parts
    found = Secrets(parts.store, parts.sealer).of(agent.id)
    return {name: value for name, value in found.items() if asked_by(layer, agent, "secret:use", name, {}) == []}
