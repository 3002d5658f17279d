"""Memory: what was decided or done before, recalled by likeness.

Every index here is a projection: it can be thrown away and is rebuilt from the store. Nothing in it decides anything.
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.memory._embedding import embed as embed
    from creto.memory._index import Index as Index
    from creto.memory._memory import Entry as Entry
    from creto.memory._memory import Memory as Memory
    from creto.memory._memory import Recalled as Recalled
    from creto.memory._precedents import Precedent as Precedent
    from creto.memory._precedents import Precedents as Precedents

_HOMES = {
    "Entry": "creto.memory._memory",
    "Index": "creto.memory._index",
    "Memory": "creto.memory._memory",
    "Recalled": "creto.memory._memory",
    "Precedent": "creto.memory._precedents",
    "Precedents": "creto.memory._precedents",
    "embed": "creto.memory._embedding",
}

__all__ = ["Entry", "Index", "Memory", "Precedent", "Precedents", "Recalled", "embed"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
