"""Work that makes very many objects which live on, and no cycles among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Holds the search for cycles off while a block runs: it would walk through what was made again and again.

    Memory is given free as ever where nothing refers to it. The search is the whole process's: for a second or two.

    Example:
        >>> with uncollected():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # One that began while another ran found it disabled; who enables it is the one that found it enabled.
        if enabled:
            gc.enable()
