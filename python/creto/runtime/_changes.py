"""What a program changed in its working folder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

from creto._plain import plain

Kind = Literal["added", "modified", "deleted"]

MOST_DIFF = 256 * 1024


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
        return f"{self.kind} {self.name} ({what}{note})"

    @classmethod
    def from_core(cls, raw: dict[str, Any]) -> Change:
        """Makes one from what the native module lists."""
        before, after = raw["before"] or {}, raw["after"] or {}
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
            refused=raw["refused"],
        )

    @property
    def name(self) -> str:
        """The path as policies and people see it."""
        return spelt(self.path)

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


def unified_diff(path: str, before: bytes | None, after: bytes | None) -> str | None:
    """The unified diff of two texts, or None where one of them is no text.

    Args:
        path: Shown in the head.
        before: Content before; None where there was none.
        after: Content now; None where there is none.
    """
    if any(b"\0" in content for content in (before, after) if content is not None):
        return None
    try:
        old, new = ((content or b"").decode("utf-8").splitlines(keepends=True) for content in (before, after))
    except UnicodeDecodeError:
        return None
    path = plain(spelt(path))  # a line end in a name would begin a line of its own
    names = ("/dev/null" if before is None else f"a/{path}", "/dev/null" if after is None else f"b/{path}")
    lines = difflib.unified_diff(old, new, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
