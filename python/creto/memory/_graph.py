"""A graph over many vectors (HNSW, by usearch): a few hundred looked at in place of all. The extra `creto[memory]`.

Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs" (IEEE TPAMI 2020).
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Graph", "available", "path"]

# Chosen on vectors of 384 numbers in clusters, for a recall@10 of 0.99 and more (of 20,000: 0.9998; an effort of 96
# takes half as long again for 1.0000). bfloat16 is faster than half and single precision, 8-bit integers lose too much.
_CONNECTIVITY = 16
_EXPANSION_ADD = 96
_EXPANSION_SEARCH = 48


@cache
def available() -> bool:
    """True where usearch is installed."""
    from importlib.util import find_spec

    return find_spec("usearch") is not None


def path(file: Path, digest: str) -> Path:
    """Where the graph of an index's file lies."""
    return file.with_name(f"{file.stem}.{digest[:16]}.graph")


class Graph:
    """Finds rows that are probably the nearest; the caller compares those exactly.

    Args:
        dimensions: Length of every vector.
    """

    def __init__(self, dimensions: int) -> None:
        from usearch.index import Index as Engine

        self._engine: Any = Engine(
            ndim=dimensions,
            metric="ip",  # of vectors of length 1: the cosine
            dtype="bf16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self.rows = 0
        self.saved = 0
        """How many rows it had when it was last written."""

    def extend(self, vectors: npt.NDArray[np.float32]) -> None:
        """Takes in the rows that it does not have yet.

        Args:
            vectors: All rows, each of length 1.
        """
        fresh = np.arange(self.rows, len(vectors), dtype=np.uint64)
        if len(fresh):
            self._engine.add(fresh, vectors[self.rows :])
            self.rows = len(vectors)

    def save(self, file: Path) -> str:
        """Writes the graph beside an index's file, under a name that says what is in it.

        Args:
            file: The index's file.

        Returns:
            The SHA-256 of the graph's bytes, hexadecimal.
        """
        new = file.with_name(f".{file.stem}.{os.getpid()}.graph")
        try:
            self._engine.save(str(new))
            new.chmod(0o600)
            with new.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            new.replace(path(file, digest))
        finally:
            new.unlink(missing_ok=True)
        return digest

    @classmethod
    def load(cls, file: Path, digest: str, dimensions: int, rows: int) -> Self | None:
        """Reads what `save` wrote; None where it is not there, or not what was written, and has to be made anew.

        Args:
            file: The index's file.
            digest: What `save` returned.
            dimensions: Length of every vector.
            rows: How many rows the index has: no graph of it has more.
        """
        try:
            with path(file, digest).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return None
        except OSError:
            return None
        graph = cls(dimensions)
        # Native code reads the file: it gets only bytes that it wrote itself.
        graph._engine.load(str(path(file, digest)))
        graph.rows = graph.saved = len(graph._engine)
        return graph if graph.rows <= rows else None

    def near(self, vector: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.intp]:
        """At most `most` rows that are probably the nearest."""
        return np.asarray(self._engine.search(vector, most).keys, dtype=np.intp)
