"""What `creto doctor` tries: each check does something for real and says what it saw.

To add one, write a function that takes a `Bench` and append it to the `CHECKS` of its part's module, or add a module to
`MODULES`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from creto import _core
    from creto.config import Settings
    from creto.store import Store

__all__ = ["MODULES", "Bench", "Check", "Missing", "Status"]

MODULES = ("house", "crypto", "policy", "quota", "ledger", "identity", "oversight", "messages", "sandbox")
Status = Literal["ok", "missing", "failed"]


class Missing(Exception):  # noqa: N818 - not a fault: something optional that this machine lacks
    """Something optional is not there; the text says how to get it."""


@dataclass(frozen=True)
class Check:
    """One thing to try.

    Args:
        part: What it belongs to.
        name: What is tried, as the person reads it.
        run: Returns what was seen; raises `Missing`, or what went wrong.
    """

    part: str
    name: str
    run: Callable[[Bench], str]


class Bench:
    """What checks work on: the real state folder to look at, and a scratch one to try things in.

    Args:
        folder: The real state folder.
        settings: The configuration.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._closing = ExitStack()

    @cached_property
    def scratch(self) -> Path:
        """A state folder of its own, removed at the end."""
        from creto.store import open_folder

        folder = Path(tempfile.mkdtemp(prefix="creto-doctor-"))
        self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
        return open_folder(folder / "state")

    @cached_property
    def clock(self) -> _core.HybridLogicalClock:
        """The scratch folder's clock."""
        from creto import _core

        return _core.HybridLogicalClock(str(self.scratch / "clock"))

    @cached_property
    def store(self) -> Store:
        """The scratch folder's store."""
        from creto.store import Store

        return self._closing.enter_context(Store(self.scratch, clock=self.clock.now))

    @cached_property
    def engine(self) -> _core.PolicyEngine:
        """The starter policies, compiled."""
        from creto import _core
        from creto.authz import starter, starter_schema

        engine = _core.PolicyEngine()
        engine.install(starter(), starter_schema(), "[]")
        return engine

    def keep(self, thing: Any, close: Callable[[], object]) -> Any:
        """Has something closed at the end."""
        self._closing.callback(close)
        return thing

    def close(self) -> None:
        """Closes what was opened and removes the scratch folder."""
        self._closing.close()
