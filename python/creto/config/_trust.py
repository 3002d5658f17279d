"""Which project files count: `./creto.toml`, and the policy files it names, only as they were when someone said so.

A repository, or an agent that can write to it, must not be able to change the policy it runs under.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from creto._user import user
from creto.config._contents import MOST_NAMED, contents
from creto.errors import NotFoundError

__all__ = ["Trust", "Trusted", "digest"]


def digest(content: bytes) -> str:
    """The SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Trusted:
    """What was trusted, by whom and when."""

    path: Path
    files: Mapping[str, str]
    """Digests by path: the file itself and those that it names."""
    who: str
    when: float
    """Seconds since the epoch."""


class Trust:
    """The project files that were trusted, kept in the state folder.

    Args:
        state: The state folder.

    Example:
        >>> import tempfile, pathlib
        >>> project = pathlib.Path(tempfile.mkdtemp()) / "creto.toml"
        >>> _ = project.write_text("[common]")
        >>> trust = Trust(pathlib.Path(tempfile.mkdtemp()))
        >>> _ = trust.add(project, [])
        >>> trust.find(project).path == project
        True
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "trust"

    def _file(self, path: Path) -> Path:
        return self._folder / f"{digest(str(path.resolve()).encode())}.json"

    def find(self, path: Path) -> Trusted | None:
        """What was trusted at this path, if anything."""
        try:
            return _read(self._file(path))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # a torn entry trusts nothing

    def add(self, path: Path, named: list[Path], content: bytes | None = None) -> Trusted:
        """Trusts a file, and those that it names, as they are now.

        Args:
            path: The project's `creto.toml`.
            named: Files that it names.
            content: What was shown to the person who trusts it, so that no later change slips in.

        Raises:
            NotFoundError: One of them cannot be read.
            InvalidInputError: One of them is no plain file, or is too large.
        """
        try:
            files = {str(each.resolve()): digest(contents(each, MOST_NAMED)) for each in (path, *named)}
        except OSError as error:
            raise NotFoundError(f"`{error.filename}` cannot be read: {error.strerror}") from error
        if content is not None:
            files[str(path.resolve())] = digest(content)
        trusted = Trusted(path.resolve(), files, user(), time.time())
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._file(path)
        draft = target.with_suffix(f".{os.getpid()}")
        draft.write_text(
            json.dumps({"path": str(trusted.path), "files": files, "who": trusted.who, "when": trusted.when}, indent=1)
        )
        draft.replace(target)
        return trusted

    def remove(self, path: Path) -> bool:
        """Trusts a file no more; True where it was trusted."""
        try:
            self._file(path).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> list[Trusted]:
        """Everything trusted, by path."""
        found = []
        for file in self._folder.glob("*.json") if self._folder.is_dir() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found.append(_read(file))
        return sorted(found, key=lambda each: each.path)


def _read(file: Path) -> Trusted:
    kept = json.loads(file.read_text())
    return Trusted(Path(kept["path"]), dict(kept["files"]), kept["who"], kept["when"])
