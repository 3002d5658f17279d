"""Reads files that somebody else may have put there: a plain file of a bounded size, or an error; never a wait."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from creto.errors import InvalidInputError

__all__ = ["MOST_NAMED", "MOST_SETTINGS", "contents", "own", "yaml_value"]

MOST_SETTINGS = 4 * 1024 * 1024
"""Bytes of a configuration file."""
MOST_NAMED = 256 * 1024 * 1024
"""Bytes of a file that a configuration names: policies, entities, keys."""
_MOST_VALUES = 100_000


def contents(
    path: Path, most: int = MOST_SETTINGS, *, require: Callable[[os.stat_result], None] | None = None
) -> bytes:
    """What is in a file.

    A repository can hold a `creto.toml` that is a pipe or leads to `/dev/zero`, and every command in that folder reads
    it before anybody has trusted it.

    Args:
        path: The file, or a link to one.
        most: The most bytes that it may have.
        require: Called with what the system says of the file before it is read; raises where that will not do.

    Raises:
        OSError: It cannot be read.
        InvalidInputError: It is no plain file, or is larger.
    """
    try:
        # Opening a pipe or a terminal waits for nobody, and takes no terminal over.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:
        raise InvalidInputError(f"`{path}` cannot name a file: {error}") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInputError(f"`{path}` is no plain file")
        if require is not None:
            require(found)
        content = file.read(most + 1)
    if len(content) > most:
        raise InvalidInputError(f"`{path}` is larger than {most} bytes")
    return content


def own(path: Path) -> Callable[[os.stat_result], None]:
    """What `contents` requires of a file that decides: root or we own it, and not everybody may write it.

    Args:
        path: Named in the error.
    """

    def require(found: os.stat_result) -> None:
        if found.st_mode & 0o002 or found.st_uid not in {0, os.geteuid()}:
            raise InvalidInputError(
                f"`{path}` could have been changed by another user (owner {found.st_uid}, mode "
                f"{found.st_mode & 0o777:04o}); make it your own, and run `chmod o-w {path}`"
            )

    return require


def yaml_value(text: str) -> Any:
    """What YAML says, of at most 100,000 values once its aliases are written out.

    Raises:
        ValueError: It is not YAML, or says more.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _weight(root, {}) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values once its aliases are written out")
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        loader.dispose()


def _weight(node: Any, known: dict[int, int | None]) -> int:
    """How many values a node stands for; each is looked at once, however often an alias names it."""
    found = known.get(id(node), 0)
    if found is None:
        raise ValueError("an alias leads back to what holds it")
    if found:
        return found
    known[id(node)] = None
    value = node.value
    total = 1
    if isinstance(value, list):
        for each in value:
            total += sum(_weight(part, known) for part in (each if isinstance(each, tuple) else (each,)))
    known[id(node)] = total
    return total
