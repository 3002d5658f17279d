"""What decides about agents, as it lies on disk: no agent changes any of it, whatever policy or a human says."""

from __future__ import annotations

import glob
import site
import sys
import sysconfig
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from creto.config._settings import Settings
from creto.config._sources import system_folders

__all__ = ["Governed", "passed"]

_CONFIGURATION = "part of creto's configuration, which decides about this agent"
_PROGRAM = "part of the Python environment that creto itself runs from"
_MOST_LINKS = 40
"""As many in a row as Linux follows."""


class Governed:
    """The places that decide about agents: the configuration, what it names, the ways there, and creto's own program.

    Links count as they lead now: both they and what they lead to decide.

    Args:
        files: Configuration files.
        settings: What they say.

    Example:
        >>> import tempfile
        >>> from creto.config import load
        >>> file = Path(tempfile.mkdtemp()).resolve() / "settings.toml"
        >>> _ = file.write_text("")
        >>> governed = Governed([file], load([file], system=False))
        >>> governed.why(file)
        "part of creto's configuration, which decides about this agent"
        >>> governed.why(file.with_name("notes.txt")) is None
        True
    """

    def __init__(self, files: Iterable[Path], settings: Settings) -> None:
        self._places: set[Path] = set()
        self._patterns: list[str] = []
        self._ways: list[str] = []
        # A folder that is not there yet would be read from by the next start.
        self._folders = [folder.resolve() for folder in system_folders()]
        for path in (*files, *system_folders()):
            self._places |= passed(path)
        for _setting, pattern in settings.named():
            parts = pattern.absolute().parts
            fixed = next((number for number, part in enumerate(parts) if any(sign in part for sign in "*?[")), None)
            base = Path(*parts[:fixed])
            self._places |= passed(base)
            if fixed is not None:
                self._take_in(base.resolve(), parts[fixed:])
        # What is imported from here decides about every agent of the next start.
        self._own = _program()

    def _take_in(self, base: Path, rest: tuple[str, ...]) -> None:
        """Takes in what a pattern fits below a folder, and would fit."""
        around = glob.escape(str(base))
        # As `fnmatch` reads it, a star stands for folders too: it takes in all that `expand` would, and more.
        ways = [f"{around}/{'/'.join(rest[:depth])}".replace("**/", "*") for depth in range(1, len(rest) + 1)]
        self._patterns.append(ways.pop())
        self._ways += ways
        for depth in range(1, len(rest) + 1):
            for found in base.glob("/".join(rest[:depth])):
                if found.is_symlink():
                    self._places |= passed(found)
                    if depth < len(rest):
                        self._take_in(found.resolve(), rest[depth:])

    def why(self, path: Path, *, link: bool = False, empty: bool = False) -> str | None:
        """Why what stands at a path is no agent's to change; None where it may be.

        Args:
            path: An absolute path without links in its folders.
            link: Whether a link is to stand there: it would lead a pattern on.
            empty: Whether it is a new folder: it holds nothing yet, and what comes into it is looked at by itself.
        """
        around = (path, *path.parents)
        if empty:
            return _CONFIGURATION if any(folder in around for folder in self._folders) else None
        if any(own in around for own in self._own[0]) or path in self._own[1]:
            return _PROGRAM
        text = str(path)
        if (
            path in self._places
            or any(folder in around for folder in self._folders)
            or any(fnmatchcase(text, pattern) for pattern in self._patterns)
            or (link and any(fnmatchcase(text, way) for way in self._ways))
        ):
            return _CONFIGURATION
        return None


def _program() -> tuple[set[Path], set[Path]]:
    """Folders of creto's own program, and the ways there."""
    paths = sysconfig.get_paths()
    folders = {
        Path(__file__).parents[1],
        *(Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")),
        *map(Path, (*site.getsitepackages(), site.getusersitepackages())),
    }
    ways = {Path(sys.executable), Path(sys.prefix, "pyvenv.cfg"), *folders}
    return {folder.resolve() for folder in folders}, set().union(*map(passed, ways))


def passed(path: Path) -> set[Path]:
    """Every place that the system goes by when it opens a path: folders, links, and where these lead.

    Args:
        path: A path; what is at its end need not be there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()).resolve()
        >>> (folder / "current").symlink_to("v1")
        >>> sorted(place.name for place in passed(folder / "current" / "own.cedar") if folder in place.parents)
        ['current', 'own.cedar', 'v1']
    """
    here, places, links = Path("/"), set(), 0
    left = [*reversed(path.absolute().parts[1:])]
    while left:
        part = left.pop()
        if part == "..":
            here = here.parent
            continue
        place = here / part
        places.add(place)
        try:
            target = place.readlink()
        except OSError:
            here = place
            continue
        links += 1
        if links > _MOST_LINKS:
            break
        if target.is_absolute():
            here = Path("/")
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return places
