"""What a program changed in its working folder."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from creto._plain import plain

Kind = Literal["added", "modified", "deleted"]

MOST_DIFF = 256 * 1024
_USUAL = 0o755
"""What a new folder or program lets other users do."""


@dataclass(frozen=True, slots=True)
class Change:
    """One changed path of the working folder, as it was listed.

    Example:
        >>> change = Change(path="report.md", kind="added", shape="file", size_before=None, size_after=120,
        ...                 digest_before=None, digest_after="9f86...", mode_before=None, mode_after=0o644)
        >>> str(change)
        'added report.md (120 bytes)'
    """

    path: str
    kind: Kind
    shape: str
    size_before: int | None
    size_after: int | None
    digest_before: str | None
    """SHA-256 of the content before, in hexadecimal; empty for a folder."""
    digest_after: str | None
    """SHA-256 of the content now: what is agreed to, and all that is ever carried out."""
    mode_before: int | None
    mode_after: int | None
    refused: str | None = None
    """Why it cannot be carried out, where it cannot: it leads out of the folder, or is a device."""
    diff: str | None = field(default=None, compare=False)
    """A unified diff, for text of at most 256 KiB."""

    def __str__(self) -> str:
        size = self.size_before if self.kind == "deleted" else self.size_after
        note = f", cannot be carried out: {self.refused}" if self.refused else ""
        what = f"{size} bytes" if self.shape == "file" else self.shape
        if self.opened:
            what = f"{what}, mode {self.opened}"
        return f"{self.kind} {self.name} ({what}{note})"

    @classmethod
    def from_core(cls, raw: dict[str, Any]) -> Change:
        """Makes one from what the native module lists."""
        before, after = raw["before"] or {}, raw["after"] or {}
        refused = raw["refused"]
        if refused is None and after.get("shape") == "file" and after["mode"] == 0:
            # A link has no permission bits, and its digest is of its target: it could take this file's place.
            refused = "a file that nobody may read"
        return cls(
            path=raw["path"],
            kind=raw["kind"],
            shape=(raw["after"] or raw["before"])["shape"],
            size_before=before.get("size"),
            size_after=after.get("size"),
            digest_before=before.get("digest"),
            digest_after=after.get("digest"),
            mode_before=before.get("mode"),
            mode_after=after.get("mode"),
            refused=refused,
        )

    @property
    def name(self) -> str:
        """The path as policies and people see it."""
        return spelt(self.path)

    @property
    def opened(self) -> str | None:
        """The permission bits, where other users may do more with it than before, or with what is usually new.

        Example:
            >>> modes = [(0o600, 0o644), (0o644, 0o600), (None, 0o644), (None, 0o666)]
            >>> [Change("x", "modified", "file", 1, 1, "aa", "aa", before, after).opened for before, after in modes]
            ['0644', None, None, '0666']
        """
        before = _USUAL if self.mode_before is None else self.mode_before
        after = self.mode_after or 0
        return f"{after & 0o777:04o}" if after & 0o077 & ~before else None

    @property
    def agreed(self) -> tuple[str, str, str | None, str | None, int | None]:
        """What names this change and no other: path, kind, both digests, and the permission bits after it."""
        return self.path, self.kind, self.digest_before, self.digest_after, self.mode_after


def spelt(path: str) -> str:
    r"""A path whose bytes are no UTF-8, with those bytes spelt out: no policy and no record could hold it otherwise.

    Example:
        >>> spelt("report\udcff.md")
        'report\\xff.md'
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class DiffBudget:
    """What all diffs of one listing may cost together: a program chooses both texts, and many files.

    Args:
        characters: Of the diffs.
        steps: Looks at a line, some ten million a second.
    """

    def __init__(self, characters: int = 32 * 1024 * 1024, steps: int = 50_000_000) -> None:
        self.characters = characters
        self.steps = steps


class _TooCostlyError(Exception):
    """Two texts whose common lines take too long to find."""


class _Matcher(difflib.SequenceMatcher[str]):
    """Finds common lines, as difflib does, within a number of steps: its worst case is the cube of the lines."""

    def __init__(self, old: list[str], new: list[str], steps: int) -> None:
        super().__init__(None, old, new)
        places: dict[str, list[int]] = self.b2j  # type: ignore[attr-defined]  # documented, and not in typeshed
        costs = (1 + len(places.get(line, ())) for line in old)
        self._before = list(itertools.accumulate(costs, initial=0))
        self._lines = len(old)
        self.left = steps

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        self.left -= self._before[self._lines if ahi is None else ahi] - self._before[alo]
        if self.left < 0:
            raise _TooCostlyError
        return super().find_longest_match(alo, ahi, blo, bhi)


_MOST_STEPS = 5_000_000
_AROUND = 3


def unified_diff(path: str, before: bytes | None, after: bytes | None, budget: DiffBudget | None = None) -> str | None:
    """The unified diff of two texts, or None where one of them is no text, or the budget is used up.

    Texts made so that their common lines take long to find are shown as taken away and put there whole.

    Args:
        path: Shown in the head.
        before: Content before; None where there was none.
        after: Content now; None where there is none.
        budget: What this diff and others may cost together.
    """
    budget = DiffBudget() if budget is None else budget
    if any(b"\0" in content for content in (before, after) if content is not None):
        return None
    try:
        old, new = ((content or b"").decode("utf-8").splitlines(keepends=True) for content in (before, after))
    except UnicodeDecodeError:
        return None
    if sum(map(len, old)) + sum(map(len, new)) > budget.characters:
        return None
    path = plain(spelt(path))  # a line end in a name would begin a line of its own
    names = ("/dev/null" if before is None else f"a/{path}", "/dev/null" if after is None else f"b/{path}")
    lines = _lines(old, new, names, budget)
    diff = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    budget.characters -= len(diff)
    return diff


Codes = Sequence[tuple[str, int, int, int, int]]


def _lines(old: list[str], new: list[str], names: tuple[str, str], budget: DiffBudget) -> Iterator[str]:
    """The lines of GNU's unified format."""
    matcher = _Matcher(old, new, min(_MOST_STEPS, budget.steps))
    hunks: Iterable[Codes]
    try:
        hunks = list(matcher.get_grouped_opcodes(_AROUND))
        budget.steps -= min(_MOST_STEPS, budget.steps) - matcher.left
    except _TooCostlyError:
        budget.steps -= min(_MOST_STEPS, budget.steps)
        hunks = [[("replace", 0, len(old), 0, len(new))]]
    for number, hunk in enumerate(hunks):
        if number == 0:
            yield from (f"--- {names[0]}\n", f"+++ {names[1]}\n")
        first, last = hunk[0], hunk[-1]
        yield f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@\n"
        for tag, i1, i2, j1, j2 in hunk:
            if tag == "equal":
                yield from (f" {line}" for line in old[i1:i2])
                continue
            yield from (f"-{line}" for line in old[i1:i2])
            yield from (f"+{line}" for line in new[j1:j2])


def _span(start: int, stop: int) -> str:
    length = stop - start
    # An empty span stands at the line before it.
    return str(start + 1) if length == 1 else f"{start + (length > 0)},{length}"
