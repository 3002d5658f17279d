"""The default embedding: feature hashing, which needs no model, no network, and gives the same numbers everywhere.

Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML 2009): each feature
adds +1 or -1 at one place.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

__all__ = ["DIMENSIONS", "embed"]

DIMENSIONS = 384
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_MOST = 20_000


def embed(text: str, dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """Embeds a text: its words, pairs of neighbouring words, and runs of three characters.

    Args:
        text: Any text; what is past 20,000 characters is not looked at.
        dimensions: Length of the vector.

    Returns:
        A vector of length 1, or of zeros for a text without words.

    Example:
        >>> a, b, c = (embed(t) for t in ("http get example.org/a", "http get example.org/b", "delete all backups"))
        >>> bool(a @ b > 0.6 > a @ c)
        True
    """
    vector = np.zeros(dimensions, dtype=np.float64)
    for feature, count in Counter(_features(text[:_MOST].casefold())).items():
        # The hash is the definition of the embedding, stored and compared over years: so it has no key.
        word = int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        vector[(word >> 1) % dimensions] += (1.0 if word & 1 else -1.0) * math.sqrt(count)
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype(np.float32)


def _features(text: str) -> Iterator[str]:
    words = _WORD.findall(text)
    yield from (f"w:{word}" for word in words)
    yield from (f"p:{first} {second}" for first, second in itertools.pairwise(words))
    for word in words:
        padded = f"<{word}>"
        yield from (f"c:{padded[at : at + 3]}" for at in range(len(padded) - 2))
