"""A graph over many vectors (HNSW, by usearch): a few hundred looked at in place of all. The extra `creto[memory]`.

Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs" (IEEE TPAMI 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Graph", "available"]

# Chosen on vectors of 384 numbers in clusters, for a recall@10 of 0.99 and more; twice as much only takes longer.
_CONNECTIVITY = 16
_EXPANSION_ADD = 96
_EXPANSION_SEARCH = 96


def available() -> bool:
    """True where usearch is installed."""
    from importlib.util import find_spec

    return find_spec("usearch") is not None


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
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self.rows = 0

    def extend(self, vectors: npt.NDArray[np.float32]) -> None:
        """Takes in the rows that it does not have yet.

        Args:
            vectors: All rows, each of length 1.
        """
        fresh = np.arange(self.rows, len(vectors), dtype=np.uint64)
        if len(fresh):
            self._engine.add(fresh, vectors[self.rows :])
            self.rows = len(vectors)

    def near(self, vector: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.intp]:
        """At most `most` rows that are probably the nearest."""
        return np.asarray(self._engine.search(vector, most).keys, dtype=np.intp)
