"""Recall by likeness: the ten nearest of 100,000 vectors, ours and hnswlib in turns, both at a recall of 0.99 or more.

The peer has no wheel: it is built into target/peers the first time, which needs a C++ compiler and Python's headers.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from creto.memory import Index

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "target" / "peers"
COUNT, DIMENSIONS, CLUSTERS, NEAREST, QUERIES = 100_000, 384, 1_000, 10, 2_000
LEAST = 0.99
Vectors = npt.NDArray[np.float32]


def clustered(count: int, rng: np.random.Generator, centres: Vectors) -> Vectors:
    """Points of length 1 about 1,000 random directions: noise of half the centre's length in all."""
    noise = rng.standard_normal((count, DIMENSIONS), dtype=np.float32) * np.float32(0.5 / np.sqrt(DIMENSIONS))
    points = centres[rng.integers(0, len(centres), count)] + noise
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def nearest(vectors: Vectors, wanted: Vectors) -> list[set[int]]:
    """The true nearest, by looking at every one."""
    found = []
    for start in range(0, len(wanted), 250):
        scores = wanted[start : start + 250] @ vectors.T
        found += [set(row.tolist()) for row in np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]]
    return found


def recall(search: Callable[[Vectors], set[int]], wanted: Vectors, truth: list[set[int]]) -> float:
    return sum(len(search(one) & true) for one, true in zip(wanted, truth, strict=True)) / (NEAREST * len(wanted))


def peer_module() -> Any:
    if not (PEERS / "hnswlib.py").exists() and not list(PEERS.glob("hnswlib*.so")):
        uv = Path(sys.executable).parent / "uv"
        command = [
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--python",
            sys.executable,
            "--no-deps",
            "--target",
            str(PEERS),
            "hnswlib",
        ]
        if subprocess.run(command, check=False).returncode:
            print("hnswlib cannot be built here: it needs g++ and Python's headers", file=sys.stderr)
            return None
    sys.path.append(str(PEERS))
    import hnswlib

    return hnswlib


def peer_search(hnswlib: Any, vectors: Vectors, wanted: Vectors, truth: list[set[int]]) -> tuple[Any, float, int]:
    """The peer with the same degree, and the least effort in steps of 16 that reaches the recall."""
    engine = hnswlib.Index(space="ip", dim=DIMENSIONS)
    engine.init_index(max_elements=COUNT, M=16, ef_construction=96)
    engine.add_items(vectors, np.arange(COUNT))
    engine.set_num_threads(1)

    def search(one: Vectors) -> set[int]:
        return set(engine.knn_query(one, NEAREST)[0][0].tolist())

    for effort in range(16, 513, 16):
        engine.set_ef(effort)
        reached = recall(search, wanted[:500], truth[:500])
        if reached >= LEAST:
            break
    return search, recall(search, wanted, truth), effort


def main() -> None:
    rng = np.random.default_rng(20_260_101)
    centres = rng.standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors, wanted = clustered(COUNT, rng, centres), clustered(QUERIES, rng, centres)
    truth = nearest(vectors, wanted)
    index = Index(DIMENSIONS)
    for at, vector in enumerate(vectors):
        index.add(str(at), vector)

    def ours(one: Vectors) -> set[int]:
        return {int(key) for key, _ in index.search(one, NEAREST)}

    start = time.perf_counter()
    ours(wanted[0])
    built = time.perf_counter() - start
    our_recall = recall(ours, wanted, truth)
    hnswlib = peer_module()
    searches, peer, note = [ours], None, ""
    if hnswlib is not None:
        theirs, peer_recall, effort = peer_search(hnswlib, vectors, wanted, truth)
        searches.append(theirs)
        note = f"; the peer: M=16, ef={effort}, recall {peer_recall:.4f}"
    print("built; measuring", file=sys.stderr, flush=True)
    times: list[list[float]] = [[] for _ in searches]
    for at in range(0, QUERIES, 100):  # in turns, so that both have the machine as it is
        for search, taken in zip(searches, times, strict=True):
            for one in wanted[at : at + 100]:
                start = time.perf_counter()
                search(one)
                taken.append((time.perf_counter() - start) * 1e3)
    medians = [statistics.median(taken) for taken in times]
    quarters = statistics.quantiles(times[0], n=10)
    if hnswlib is not None:
        peer = medians[1]
    row = {
        "area": "memory",
        "case": "recall/100k",
        "unit": "ms",
        "ours": medians[0],
        "peer": "hnswlib" if hnswlib is not None else None,
        "peer_version": getattr(hnswlib, "__version__", None) or _version(),
        "peer_value": peer,
        "samples": QUERIES,
        "spread": (quarters[-1] - quarters[0]) / medians[0],
        "note": f"recall@10 {our_recall:.4f} of {COUNT} vectors of {DIMENSIONS} numbers in {CLUSTERS} clusters, "
        f"exact cosines, one thread, keys and cosines returned; graph made in {built:.0f} s{note}",
    }
    print(json.dumps(row), flush=True)
    if our_recall < LEAST:
        sys.exit(f"recall@10 is {our_recall:.4f}, below {LEAST}")


def _version() -> str | None:
    for info in PEERS.glob("hnswlib-*.dist-info"):
        return info.name.removeprefix("hnswlib-").removesuffix(".dist-info")
    return None


if __name__ == "__main__":
    main()
