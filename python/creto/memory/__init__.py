"""Memory: what was decided or done before, recalled by likeness.

Every index here is a projection: it can be thrown away and is rebuilt from the store. Nothing in it decides anything.
"""

from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    # numpy is loaded when something is recalled, not before.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto.memory` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
