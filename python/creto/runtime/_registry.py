"""Which sandboxes are claimed on a state folder, and what a killed process left behind.

Mounts and network namespaces end with the process that made them. A sandbox's own processes die with it too, by the
kernel's parent-death signal; should one be late, it is found here by its name, which tells whose it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from creto._process import start_of

__all__ = ["clean", "enter", "leave", "running"]

_NAME = re.compile(r"creto-(\d+)-(\d+)-\d+")


def _owner_lives(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and start_of(int(match[1])) == match[2]


def _folder(state_folder: Path) -> Path:
    return state_folder / "sandbox.claimed"


def enter(state_folder: Path, entry: dict[str, Any]) -> None:
    """Notes a claimed sandbox; `leave` is to be called when it ends."""
    path = _path(state_folder, entry["sandbox"])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(json.dumps({**entry, "process": os.getpid()}))


def leave(state_folder: Path, sandbox: str) -> None:
    """Forgets a sandbox that has ended, if it was noted."""
    _path(state_folder, sandbox).unlink(missing_ok=True)


def _path(state_folder: Path, sandbox: str) -> Path:
    return _folder(state_folder) / f"{sandbox}.json"


def running(state_folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The claimed sandboxes of every living process, oldest first.

    Args:
        state_folder: creto's state folder.

    Example:
        >>> import tempfile
        >>> running(tempfile.mkdtemp())
        []
    """
    return [entry for path, entry in _entries(Path(state_folder)) if _owner_lives(path.stem)]


def _entries(state_folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    found = []
    for path in _folder(state_folder).glob("creto-*.json"):
        with contextlib.suppress(OSError, ValueError):  # gone, or half written, meanwhile
            if _NAME.fullmatch(path.stem):
                found.append((path.stat().st_mtime, path, json.loads(path.read_text())))
    for _, path, entry in sorted(found, key=lambda one: one[:2]):
        yield path, entry


def clean(state_folder: str | os.PathLike[str]) -> list[int]:
    """Ends processes of sandboxes whose owner is dead, and forgets their entries.

    Args:
        state_folder: creto's state folder; sandboxes of others are left alone.

    Returns:
        The process ids that were ended.

    Example:
        >>> import tempfile
        >>> clean(tempfile.mkdtemp())
        []
    """
    folder = Path(state_folder).resolve()
    for path, _ in _entries(folder):
        if not _owner_lives(path.stem):
            path.unlink(missing_ok=True)
    ended = []
    for pid, name in _processes(folder / "sandbox"):
        if not _owner_lives(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


def _processes(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes whose arguments name a sandbox of this folder, with that name."""
    mark = re.compile(re.escape(f"{folder}/") + f"({_NAME.pattern})(?:/|$)")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if entry.stat().st_uid != os.geteuid() and os.geteuid() != 0:
                continue
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            for argument in arguments:
                found = mark.search(os.fsdecode(argument))
                if found:
                    yield int(entry.name), found[1]
                    break
