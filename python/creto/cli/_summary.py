"""What a run shows of what its program did: changed paths, connections, refusals, none of it by the thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from creto._count import counted

if TYPE_CHECKING:
    from creto.runtime import Change, Connection

__all__ = ["changed", "ended", "refusals"]

_MARK = {"added": "+", "modified": "~", "deleted": "-"}
_MANY = 20
"""Paths of one new folder, or refusals, that are told one by one."""


def changed(changes: Sequence[Change], apart: Collection[str]) -> Iterator[str]:
    """A line for each change; one for a new folder with all that is in it, where that is much.

    What tools outside the sandbox would run by themselves, and what cannot be carried out, has a line of its own
    always: a person agrees to these lines together.

    Args:
        changes: A folder before what is in it.
        apart: Paths that tools outside run.
    """
    new = {each.path for each in changes if each.shape == "folder" and each.kind == "added" and not each.refused}
    tops = [_topmost(change.path, new) for change in changes]
    inside: dict[str, list[Change]] = {}
    for change, top in zip(changes, tops, strict=True):
        if top is not None and change.path != top:
            inside.setdefault(top, []).append(change)
    folded = {top: within for top, within in inside.items() if len(within) > _MANY}
    for change, top in zip(changes, tops, strict=True):
        within = folded.get(change.path)
        if within is not None:
            files = [each for each in within if each.shape != "folder"]
            size = sum(each.size_after or 0 for each in files)
            yield f"{_MARK[change.kind]} {change.path}  ({counted(len(files), 'file')} in it, {size:,} bytes)"
        elif top is None or top not in folded or change.refused or change.path in apart:
            note = "  (tools outside the sandbox run it by themselves)" if change.path in apart else ""
            yield f"{_MARK[change.kind]} {change.path}{_size(change)}{note}"


def ended(connections: Iterable[Connection]) -> Iterator[str]:
    """A line for what became of connections that were refused or failed; one for all that ended alike."""
    told = Counter(
        f"{'failed' if each.allowed else 'refused'} {each.host}:{each.port}: {each.reason or 'no answer'}"
        for each in connections
        if each.reason or not each.allowed
    )
    for line, times in told.items():
        yield line if times == 1 else f"{line} ({times:,} times)"


def refusals(denied: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A line for each refused act, and how many more there are where there are many.

    Args:
        denied: Action, resource and why.
    """
    lines = [f"refused {action} {resource}: {why}" for action, resource, why in denied]
    yield from lines[:_MANY]
    if len(lines) > _MANY:
        yield f"and {len(lines) - _MANY:,} more; `--json` names each, and so does `creto audit tail`"


def _topmost(path: str, new: Collection[str]) -> str | None:
    """The outermost new folder that a path is, or lies in."""
    end = path.find("/")
    while end != -1:
        if path[:end] in new:
            return path[:end]
        end = path.find("/", end + 1)
    return path if path in new else None


def _size(change: Change) -> str:
    if change.refused:
        return f"  (cannot be carried out: {change.refused})"
    return f"  ({change.size_after} bytes)" if change.shape == "file" and change.size_after is not None else ""
