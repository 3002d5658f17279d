"""One namespace of vectors: every one is looked at, exactly, until there are so many that a graph pays."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from creto.errors import InvalidInputError
from creto.memory import _graph

__all__ = ["Index"]

_FORMAT = 4
_GRAPH_FROM = 20_000


class Index:
    """Vectors with their keys and subjects, and how far into its source the index has read.

    Args:
        dimensions: Length of every vector.
        graph_from: From how many vectors on a graph is used, where usearch is installed.

    Example:
        >>> import numpy as np
        >>> index = Index(2)
        >>> index.add("east", np.array([1.0, 0.0])); index.add("north", np.array([0.0, 1.0]), subject="release-desk")
        >>> index.search(np.array([0.9, 0.1]), most=1)[0][0]
        'east'
        >>> index.forget("release-desk"), len(index)
        (1, 1)
    """

    def __init__(self, dimensions: int, *, graph_from: int = _GRAPH_FROM) -> None:
        self.dimensions = dimensions
        self.positions: dict[str, int] = {}
        """How far the index has read, by part of its source."""
        self.generation = 0
        """How often something was forgotten: an older copy of this index must not come back."""
        self._graph_from = graph_from
        self._graph: _graph.Graph | None = None
        self._forgotten: set[str] = set()
        self._fill(np.zeros((0, dimensions), dtype=np.float32), [], [])

    def _fill(self, vectors: npt.NDArray[np.float32], keys: list[str], subjects: list[str]) -> None:
        # A new array each time: what was forgotten must not lie on in the spare rows of the old one.
        spare = np.zeros((max(16, len(keys)), self.dimensions), dtype=np.float32)
        self._vectors = np.concatenate([vectors, spare])
        self._keys, self._subjects = keys, subjects
        self._at = {key: at for at, key in enumerate(keys)}
        self._graph = None

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The vectors, one in each row, of length 1; read only."""
        view = self._vectors[: len(self)].view()
        view.flags.writeable = False
        return view

    @property
    def progress(self) -> int:
        """How far it has read in all: of two of one generation, the one that has read more knows more."""
        return sum(self.positions.values())

    def reached(self, part: str, position: int) -> None:
        """Notes how far into a part of its source the index has read."""
        self.positions[part] = max(self.positions.get(part, 0), position)

    def add(self, key: str, vector: npt.ArrayLike, *, subject: str = "") -> None:
        """Takes in a vector; one with the same key is replaced, one of a forgotten subject is left out.

        Args:
            key: What it stands for.
            vector: It is scaled to length 1.
            subject: Whose data it is, for `forget`.

        Raises:
            InvalidInputError: It has another length, or is not finite.
        """
        row = np.asarray(vector, dtype=np.float32)
        if row.shape != (self.dimensions,) or not np.isfinite(row).all():
            raise InvalidInputError(
                f"a vector for this index has {self.dimensions} finite numbers, not shape {row.shape}"
            )
        if subject and _name(subject) in self._forgotten:
            return
        length = float(np.linalg.norm(row))
        at = self._at.get(key, len(self))
        if at < len(self):
            self._graph = None  # it would go on finding the old vector
        else:
            if at == len(self._vectors):
                self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
            self._keys.append(key)
            self._subjects.append(subject)
            self._at[key] = at
        self._vectors[at] = row / length if length else row
        self._subjects[at] = subject

    def search(self, vector: npt.ArrayLike, most: int) -> list[tuple[str, float]]:
        """The keys whose vectors are most alike, with the cosine; ties in the order of their keys' arrival.

        Args:
            vector: What to compare with, of any length but zero.
            most: How many at most.
        """
        wanted = np.asarray(vector, dtype=np.float32)
        if wanted.shape != (self.dimensions,):
            raise InvalidInputError(f"this index compares {self.dimensions} numbers, not shape {wanted.shape}")
        length = math.sqrt(float(wanted @ wanted))
        if not len(self) or not length or most <= 0:
            return []
        wanted = wanted / np.float32(length)
        rows = self._candidates(wanted, most)
        if rows is None:
            scores = self._vectors[: len(self)] @ wanted
            few = min(most, len(scores))
            rows = np.argpartition(-scores, few - 1)[:few] if few < len(scores) else np.arange(len(scores))
            scores = scores[rows]
        else:
            scores = self._vectors[rows] @ wanted
        ranked = sorted(zip((-scores).tolist(), rows.tolist(), strict=True))[:most]
        return [(self._keys[row], max(-1.0, min(1.0, -score))) for score, row in ranked]

    def _candidates(self, wanted: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.intp] | None:
        if len(self) < self._graph_from or most > len(self) // 10 or not _graph.available():
            return None
        if self._graph is None:
            self._graph = _graph.Graph(self.dimensions)
        if self._graph.rows < len(self):
            self._graph.extend(self._vectors[: len(self)])
        # The graph keeps half of each number: a few more than asked for, and the exact comparison has the last word.
        return self._graph.near(wanted, most + 6)

    def forget(self, subject: str) -> int:
        """Removes every vector of a subject, and takes none in again; returns how many there were."""
        self.generation += 1
        self._forgotten.add(_name(subject))
        return self._keep([at for at, whose in enumerate(self._subjects) if whose != subject])

    def drop(self, keys: Sequence[str]) -> int:
        """Removes the vectors of these keys; returns how many there were."""
        gone = set(keys)
        self.generation += 1
        return self._keep([at for at, key in enumerate(self._keys) if key not in gone])

    def keep_latest(self, most: int) -> int:
        """Removes all but the `most` that were taken in last; returns how many went."""
        return self._keep(list(range(max(0, len(self) - most), len(self))))

    def _keep(self, rows: list[int]) -> int:
        removed = len(self) - len(rows)
        self._fill(self._vectors[rows], [self._keys[at] for at in rows], [self._subjects[at] for at in rows])
        return removed

    @property
    def graph_unsaved(self) -> bool:
        """True where a graph was made that takes long to make again, and the file does not have it."""
        return self._graph is not None and self._graph.rows > self._graph.saved + self._graph.rows // 5

    def emptied(self) -> Self:
        """An index like this one with nothing in it, that still knows whom to forget."""
        fresh = type(self)(self.dimensions, graph_from=self._graph_from)
        fresh.generation, fresh._forgotten = self.generation + 1, set(self._forgotten)
        return fresh

    # --- on disk --------------------------------------------------------------------------------------------------

    def save(self, file: Path) -> None:
        """Writes the index in place of the file, or leaves the file as it was."""
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        graph = self._graph.save(file) if self._graph is not None else ""
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                np.savez(
                    out,
                    format=np.array([_FORMAT, self.dimensions, self.generation]),
                    parts=np.array(list(self.positions), dtype=np.str_),
                    positions=np.array(list(self.positions.values()), dtype=np.uint64),
                    vectors=self._vectors[: len(self)],
                    keys=np.array(self._keys, dtype=np.str_),
                    subjects=np.array(self._subjects, dtype=np.str_),
                    forgotten=np.array(sorted(self._forgotten), dtype=np.str_),
                    graph=np.array([graph], dtype=np.str_),
                )
                out.flush()
                os.fsync(out.fileno())
            Path(name).replace(file)
            if self._graph is not None:
                self._graph.saved = self._graph.rows
            # Graphs of before: they may hold what was forgotten.
            for other in file.parent.glob(f"{file.stem}.*.graph"):
                if other != _graph.path(file, graph):
                    other.unlink(missing_ok=True)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise

    @classmethod
    def load(cls, file: Path, dimensions: int) -> Self:
        """Reads an index; one that is missing, damaged or of another form is empty, to be rebuilt from its source."""
        index = cls(dimensions)
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                form, size, generation = (int(number) for number in stored["format"])
                if (form, size) != (_FORMAT, dimensions):
                    return index
                vectors = np.asarray(stored["vectors"], dtype=np.float32)
                keys, subjects = stored["keys"].tolist(), stored["subjects"].tolist()
                forgotten = set(stored["forgotten"].tolist())
                graph = str(stored["graph"][0])
                positions = dict(zip(stored["parts"].tolist(), stored["positions"].tolist(), strict=True))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error):
            return index
        if vectors.shape != (len(keys), dimensions) or len(subjects) != len(keys):
            return index
        index._fill(vectors, keys, subjects)
        if graph and _graph.available():
            index._graph = _graph.Graph.load(file, graph, dimensions, len(keys))
        index.positions, index.generation, index._forgotten = positions, generation, forgotten
        return index


def _name(subject: str) -> str:
    # Whom to forget is remembered without keeping the name itself.
    return hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()
