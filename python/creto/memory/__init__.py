"""Memory: what was decided or done before, recalled by likeness.

Every index here is a projection: it can be thrown away and is rebuilt from the ledger or the store. Nothing in it
decides anything, and whoever recalls through the layer is authorized before anything is looked at.
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.memory._acts import MOST as MOST
    from creto.memory._acts import acts as acts
    from creto.memory._embedding import embed as embed
    from creto.memory._index import Index as Index
    from creto.memory._memory import Entry as Entry
    from creto.memory._memory import Memory as Memory
    from creto.memory._memory import Recalled as Recalled
    from creto.memory._precedents import Precedent as Precedent
    from creto.memory._precedents import Precedents as Precedents

_HOMES = {
    "MOST": "creto.memory._acts",
    "Entry": "creto.memory._memory",
    "Index": "creto.memory._index",
    "Memory": "creto.memory._memory",
    "Recalled": "creto.memory._memory",
    "Precedent": "creto.memory._precedents",
    "Precedents": "creto.memory._precedents",
    "acts": "creto.memory._acts",
    "embed": "creto.memory._embedding",
}

__all__ = ["MOST", "Entry", "Index", "Memory", "Precedent", "Precedents", "Recalled", "acts", "embed"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
