"""The state folder: found, made with mode 0700, refused where another user could read or swap what is in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from creto.errors import InvalidInputError, UnauthorizedError

__all__ = ["open_folder", "state_folder"]

_PARTS = ("ledger", "keys", "run", "quota", "sandbox", "memory", "trust")


def state_folder(place: str | os.PathLike[str] | None = None) -> Path:
    """Says which state folder counts: the one given, `CRETO_STATE`, or the user's own.

    Args:
        place: The folder asked for, if any.

    Example:
        >>> str(state_folder("/srv/creto"))
        '/srv/creto'
    """
    if place is not None:
        return Path(place).expanduser().absolute()
    named = os.environ.get("CRETO_STATE")
    if named:
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser().absolute() / "creto"


def open_folder(place: str | os.PathLike[str] | None = None) -> Path:
    """Makes the state folder and its parts where they are missing, and refuses one that others can get at.

    Args:
        place: The folder; where none is given, as `state_folder` says.

    Raises:
        UnauthorizedError: It belongs to another user, or other users may enter it.
        InvalidInputError: It is not a folder, or cannot be made.

    Example:
        >>> import tempfile
        >>> folder = open_folder(tempfile.mkdtemp() + "/state")
        >>> oct(folder.stat().st_mode & 0o777), (folder / "run").is_dir()
        ('0o700', True)
    """
    folder = state_folder(place)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"the state folder `{folder}` cannot be made: {error.strerror}") from error
    _check(folder)
    for part in _PARTS:
        inner = folder / part
        try:
            inner.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"the folder `{inner}` cannot be made: {error.strerror}") from error
    return folder


def _check(folder: Path) -> None:
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidInputError(f"the state folder `{folder}` is not a folder")
    if found.st_uid != os.geteuid():
        raise UnauthorizedError(
            f"the state folder `{folder}` belongs to user {found.st_uid}, but this process runs as user "
            f"{os.geteuid()}; set CRETO_STATE to a folder of your own"
        )
    mode = stat.S_IMODE(found.st_mode)
    # Nobody is told to close a folder that is in use for something else, such as / or /tmp.
    if mode & 0o077 and not ((folder / "creto.db").exists() or (folder / "keys").exists()) and any(folder.iterdir()):
        raise UnauthorizedError(
            f"`{folder}` has mode {mode:04o}, so other users can get at what is in it, and it is no state folder: give "
            f"one of its own, such as `{folder / 'creto'}`, which is made where it is missing"
        )
    if mode & 0o077:
        raise UnauthorizedError(
            f"the state folder `{folder}` has mode {mode:04o}, so other users can get at keys and records; "
            f"run `chmod 700 {folder}`"
        )
