"""One namespace of vectors, searched by looking at every one: exact, and fast enough for what humans decide."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from creto.errors import InvalidInputError

__all__ = ["Index"]

_FORMAT = 1


class Index:
    """Vectors with their keys and subjects, and how far into its source the index has read.

    Args:
        dimensions: Length of every vector.

    Example:
        >>> import numpy as np
        >>> index = Index(2)
        >>> index.add("east", np.array([1.0, 0.0])); index.add("north", np.array([0.0, 1.0]), subject="ann")
        >>> index.search(np.array([0.9, 0.1]), most=1)[0][0]
        'east'
        >>> index.forget("ann"), len(index)
        (1, 1)
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.position = 0
        self._vectors = np.zeros((16, dimensions), dtype=np.float32)
        self._keys: list[str] = []
        self._subjects: list[str] = []
        self._at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The vectors, one in each row, read only."""
        view = self._vectors[: len(self)].view()
        view.flags.writeable = False
        return view

    def add(self, key: str, vector: npt.ArrayLike, *, subject: str = "", position: int = 0) -> None:
        """Takes in a vector; one with the same key is replaced.

        Args:
            key: What it stands for.
            vector: It is scaled to length 1.
            subject: Whose data it is, for `forget`.
            position: How far into its source the index has read with it.

        Raises:
            InvalidInputError: It has another length, or is not finite.
        """
        row = np.asarray(vector, dtype=np.float32)
        if row.shape != (self.dimensions,) or not np.isfinite(row).all():
            raise InvalidInputError(
                f"a vector for this index has {self.dimensions} finite numbers, not shape {row.shape}"
            )
        length = float(np.linalg.norm(row))
        at = self._at.get(key, len(self))
        if at == len(self):
            if at == len(self._vectors):
                self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
            self._keys.append(key)
            self._subjects.append(subject)
            self._at[key] = at
        self._vectors[at] = row / length if length else row
        self._subjects[at] = subject
        self.position = max(self.position, position)

    def search(self, vector: npt.ArrayLike, most: int) -> list[tuple[str, float]]:
        """The keys whose vectors are most alike, with the cosine; ties in the order of their keys' arrival.

        Args:
            vector: What to compare with, of any length but zero.
            most: How many at most.
        """
        wanted = np.asarray(vector, dtype=np.float32)
        length = float(np.linalg.norm(wanted))
        if not len(self) or not length or most <= 0:
            return []
        scores = self._vectors[: len(self)] @ (wanted / length)
        few = min(most, len(self))
        best = np.argpartition(-scores, few - 1)[:few] if few < len(self) else np.arange(len(self))
        best = best[np.lexsort((best, -scores[best]))]
        return [(self._keys[at], float(np.clip(scores[at], -1.0, 1.0))) for at in best]

    def forget(self, subject: str) -> int:
        """Removes every vector of a subject; returns how many there were."""
        return self._keep([at for at, whose in enumerate(self._subjects) if whose != subject])

    def drop(self, keys: Sequence[str]) -> int:
        """Removes the vectors of these keys; returns how many there were."""
        gone = set(keys)
        return self._keep([at for at, key in enumerate(self._keys) if key not in gone])

    def _keep(self, rows: list[int]) -> int:
        removed = len(self) - len(rows)
        kept = self._vectors[rows]
        # A new array: what was forgotten must not lie on in the spare rows of the old one.
        self._vectors = np.concatenate([kept, np.zeros((max(16, len(rows)), self.dimensions), dtype=np.float32)])
        self._keys = [self._keys[at] for at in rows]
        self._subjects = [self._subjects[at] for at in rows]
        self._at = {key: at for at, key in enumerate(self._keys)}
        return removed

    def save(self, file: Path) -> None:
        """Writes the index in place of the file, or leaves the file as it was."""
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                np.savez(
                    out,
                    format=np.array([_FORMAT, self.dimensions]),
                    position=np.array([self.position], dtype=np.uint64),
                    vectors=self._vectors[: len(self)],
                    keys=np.array(self._keys, dtype=np.str_),
                    subjects=np.array(self._subjects, dtype=np.str_),
                )
                out.flush()
                os.fsync(out.fileno())
            Path(name).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise

    @classmethod
    def load(cls, file: Path, dimensions: int) -> Self:
        """Reads an index; one that is missing, damaged or of another form is empty, to be rebuilt from its source."""
        index = cls(dimensions)
        try:
            with np.load(file, allow_pickle=False) as stored:
                if stored["format"].tolist() != [_FORMAT, dimensions]:
                    return index
                vectors = np.asarray(stored["vectors"], dtype=np.float32)
                keys, subjects = stored["keys"].tolist(), stored["subjects"].tolist()
                position = int(stored["position"][0])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return index
        if vectors.shape != (len(keys), dimensions) or len(subjects) != len(keys):
            return index
        index._vectors = np.concatenate([vectors, np.zeros((16, dimensions), dtype=np.float32)])
        index._keys, index._subjects, index.position = keys, subjects, position
        index._at = {key: at for at, key in enumerate(keys)}
        return index
