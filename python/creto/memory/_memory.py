"""Namespaces remembered by likeness: each a projection of its source, each recall allowed before it is ranked."""

from __future__ import annotations

import fcntl
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from creto.errors import InvalidInputError, NotFoundError
from creto.memory._embedding import DIMENSIONS, embed
from creto.memory._index import Index

__all__ = ["Entry", "Memory", "Namespace", "Recalled"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Embedding = Callable[[str], "npt.NDArray[np.float32]"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing of a source.

    Args:
        key: What it is recalled as; empty where there is nothing to recall, and only the position counts.
        text: What it is compared by.
        subject: Whose data it is.
        position: Where in its part of the source it stands; later things stand higher.
        part: Which part of a source that has several, such as the shards of a ledger.

    Example:
        >>> Entry("n1", "pay the supplier", "ann", 1).part
        ''
    """

    key: str
    text: str
    subject: str
    position: int
    part: str = ""


@dataclass(frozen=True, slots=True)
class Recalled:
    """One thing that is like what was asked for.

    Args:
        key: As its source gave it.
        likeness: Cosine, at most 1.

    Example:
        >>> Recalled("0000/12", 0.8).key
        '0000/12'
    """

    key: str
    likeness: float


Source = Callable[[Mapping[str, int]], Iterable[Entry]]
"""Gives what stands after a position in each part of a source, in order; a part that is not named from its start."""


class Namespace:
    """One index that follows its source, in memory and in a file that other processes use too.

    Args:
        file: Where it lies; None for in memory only.
        source: What it is made from.
        embed: Text to vector, always the same for the same text.
        dimensions: Length of its vectors.
        most: How many things it holds; of more, the earliest go.
    """

    def __init__(
        self,
        file: Path | None,
        source: Source,
        *,
        embed: Embedding = embed,
        dimensions: int = DIMENSIONS,
        most: int = 1 << 32,
    ) -> None:
        self._most = most
        self._unsaved = 0
        self._file = file
        self._source = source
        self._embed = embed
        self._lock = threading.Lock()
        self._stamp = 0
        self._index = Index(dimensions)
        self._renew()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def positions(self) -> Mapping[str, int]:
        """How far into each part of its source it has read."""
        return dict(self._index.positions)

    def recall(self, what: str | npt.NDArray[np.float32], most: int) -> list[Recalled]:
        """At most `most` things, the most alike first; what its source has got meanwhile is taken in before.

        Args:
            what: A text, or a vector.
            most: How many at most.
        """
        vector = self._embed(what) if isinstance(what, str) else what
        with self._lock:
            self._renew()
            self._catch_up()
            found = [Recalled(key, score) for key, score in self._index.search(vector, most)]
            if self._index.graph_unsaved:
                self._save()
            return found

    def forget(self, subject: str) -> int:
        """Removes all of a subject, here, on disk, and in the other processes at their next recall.

        Returns:
            How many things there were.
        """
        with self._lock:
            self._renew()
            removed = self._index.forget(subject)
            self._save()
            return removed

    def drop(self, keys: Sequence[str]) -> int:
        """Removes these things; what their source still has of them comes back on `rebuild`."""
        with self._lock:
            self._renew()
            removed = self._index.drop(keys)
            # Saved even where none was there: another process may hold what this one has not read yet.
            self._save()
            return removed

    def rebuild(self) -> int:
        """Throws the index away and makes it anew from its source; returns how many things it holds."""
        with self._lock:
            self._renew()
            self._index = self._index.emptied()
            self._catch_up()
            self._save()
            return len(self._index)

    def _catch_up(self) -> None:
        for entry in self._source(self._index.positions.copy()):
            if entry.key:
                self._index.add(entry.key, self._embed(entry.text), subject=entry.subject)
                self._unsaved += 1
            self._index.reached(entry.part, entry.position)
        if len(self._index) > self._most + self._most // 10:
            self._index.keep_latest(self._most)
        # The file is written as a whole, and what it lacks is read again: so not for every few of many.
        if self._unsaved > len(self._index) // 20:
            self._save()

    def _renew(self) -> None:
        """Takes over what another process has forgotten, or has read already."""
        if self._file is None:
            return
        try:
            stamp = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if stamp == self._stamp:
            return
        stored = Index.load(self._file, self._index.dimensions)
        self._stamp = stamp
        if (stored.generation, stored.progress) > (self._index.generation, self._index.progress):
            self._index = stored

    def _save(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            stored = Index.load(self._file, self._index.dimensions)
            if stored.generation > self._index.generation:
                # Somebody was forgotten meanwhile: what we hold still knows them. It is read anew, from where that was.
                self._index = stored
                return
            self._index.save(self._file)
            self._unsaved = 0
            self._stamp = self._file.stat().st_mtime_ns


class Memory:
    """What was decided and done, by namespace.

    Args:
        folder: Where the indexes lie; None for in memory only.
        allow: Called with who recalls and the namespace before anything is looked at; it raises to refuse.
        embed: Text to vector, always the same for the same text.
        dimensions: Length of its vectors.

    Example:
        >>> def allow(who, namespace):
        ...     if who != "spiffe://creto.local/agent/a": raise PermissionError(who)
        >>> memory = Memory(None, allow)
        >>> notes = [Entry("n1", "pay the supplier", "ann", 1), Entry("n2", "delete the backups", "bob", 2)]
        >>> memory.add("notes", lambda after: [note for note in notes if note.position > after.get("", 0)])
        >>> [found.key for found in memory.recall("spiffe://creto.local/agent/a", "notes", "paying a supplier", 1)]
        ['n1']
        >>> memory.forget("ann"), memory.recall("spiffe://creto.local/agent/a", "notes", "paying a supplier", 1)[0].key
        (1, 'n2')
    """

    def __init__(
        self,
        folder: Path | None,
        allow: Callable[[str, str], object],
        *,
        embed: Embedding = embed,
        dimensions: int = DIMENSIONS,
    ) -> None:
        self._folder = folder
        self._allow = allow
        self._embed = embed
        self._dimensions = dimensions
        self._namespaces: dict[str, Namespace] = {}

    def add(self, name: str, source: Source, *, most: int = 1 << 32) -> None:
        """Adds a namespace over a source.

        Args:
            name: Lower-case letters, digits, `_` and `-`; at most 64.
            source: Gives what stands after a position in each of its parts, in order.
            most: How many things it holds; of more, the earliest go.

        Raises:
            InvalidInputError: The name cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"`{name}` cannot name a memory: use lower-case letters, digits, `_` and `-`")
        file = self._folder / f"{name}.npz" if self._folder else None
        self._namespaces[name] = Namespace(file, source, embed=self._embed, dimensions=self._dimensions, most=most)

    def recall(self, who: str, namespace: str, what: str | npt.NDArray[np.float32], most: int = 5) -> list[Recalled]:
        """At most `most` things like `what`, the most alike first.

        Args:
            who: The SPIFFE id of whoever recalls.
            namespace: Where to look.
            what: A text, or a vector.
            most: How many at most.

        Raises:
            NotFoundError: There is no such namespace; said only to those who might read it.
        """
        # Before ranking, and before saying whether there is anything: neither times nor errors tell.
        self._allow(who, namespace)
        return self._of(namespace).recall(what, most)

    def forget(self, subject: str) -> int:
        """Removes all of a subject from every namespace; returns how many things there were."""
        return sum(namespace.forget(subject) for namespace in self._namespaces.values())

    def rebuild(self, namespace: str) -> int:
        """Makes a namespace anew from its source; returns how many things it holds."""
        return self._of(namespace).rebuild()

    def _of(self, name: str) -> Namespace:
        found = self._namespaces.get(name)
        if found is None:
            known = ", ".join(f"`{one}`" for one in sorted(self._namespaces)) or "none"
            raise NotFoundError(f"there is no memory `{name}`; there are {known}")
        return found
