"""Past decisions of humans that are like the one asked for: shown to the approver, deciding nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from creto.memory._embedding import DIMENSIONS, embed
from creto.memory._index import Index
from creto.store import Store
from creto.store.tables import oversight_requests as requests

if TYPE_CHECKING:
    from creto.oversight import Request

__all__ = ["Precedent", "Precedents", "describe"]

_DECIDED = ("approved", "denied", "executing", "executed", "failed", "unknown")
_LEAST = 0.35
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Precedent:
    """A past decision.

    Args:
        request: The oversight request that was decided.
        likeness: Cosine, from 0 to 1.
        text: The act, in one line.
        decided_us: When, in microseconds since the epoch.
    """

    request: str
    likeness: float
    approved: bool
    by: str
    reason: str
    text: str
    decided_us: int


class Precedents:
    """Recalls what was decided about acts like this one; the index lies in the state folder and follows the store.

    Args:
        store: Where the decisions are.
        embed: Text to vector, always the same for the same text.
        dimensions: Length of its vectors.
    """

    def __init__(
        self,
        store: Store,
        *,
        embed: Callable[[str], npt.NDArray[np.float32]] = embed,
        dimensions: int = DIMENSIONS,
    ) -> None:
        self._store = store
        self._embed = embed
        self._file: Path | None = store.folder / "memory" / "precedents.npz" if store.folder else None
        self._index = Index.load(self._file, dimensions) if self._file else Index(dimensions)
        self._lock = threading.Lock()

    def recall(self, text: str, most: int = 3, *, but: str = "") -> list[Precedent]:
        """At most `most` past decisions, the most alike first.

        Args:
            text: An act in words, as `describe` writes it.
            most: How many at most.
            but: A request that is not meant, such as the one being asked about.
        """
        with self._lock:
            self._catch_up()
            near = [(key, score) for key, score in self._index.search(self._embed(text), most + 1) if key != but]
        near = [(key, score) for key, score in near if score >= _LEAST][:most]
        if not near:
            return []
        with self._store.read() as tx:
            rows = {row.id: row for row in tx.all(select(requests).where(requests.c.id.in_([key for key, _ in near])))}
        return [
            Precedent(
                request=key,
                likeness=score,
                approved=row.state != "denied",
                by=row.decided_by or "",
                reason=row.reason or "",
                text=_line(row.core),
                decided_us=(row.decided or 0) >> 12,
            )
            for key, score in near
            if (row := rows.get(key)) is not None
        ]

    def recall_like(self, request: Request, most: int = 3) -> list[dict[str, Any]]:
        """As `recall`, for a request, as plain data."""
        return [asdict(one) for one in self.recall(describe(request.core), most, but=request.id)]

    def rebuild(self) -> int:
        """Throws the index away and makes it anew from the store; returns how many decisions it holds."""
        with self._lock:
            self._index = Index(self._index.dimensions)
            self._catch_up()
            return len(self._index)

    def _catch_up(self) -> None:
        added = 0
        while True:
            with self._store.read() as tx:
                # Two decisions may share a word of time only where one transaction made both: so `>` skips none.
                rows = tx.all(
                    select(requests.c.id, requests.c.core, requests.c.agent, requests.c.decided)
                    .where(requests.c.decided > self._index.position, requests.c.state.in_(_DECIDED))
                    .order_by(requests.c.decided)
                    .limit(_BATCH)
                )
            for row in rows:
                self._index.add(row.id, self._embed(describe(row.core)), subject=row.agent, position=row.decided)
            added += len(rows)
            if len(rows) < _BATCH:
                break
        if added and self._file is not None:
            # Another process may write its own at the same time; both are right, and either is caught up from.
            self._index.save(self._file)


def describe(core: bytes) -> str:
    """An act in words, from its document: the action twice, since it says most about what kind of act it is.

    Example:
        >>> describe(b'{"action":"tool:call","agent":"a/b","context":{"to":"ann"},"resource":"mail","usage":{}}')
        'tool:call tool:call mail b to ann'
    """
    act = json.loads(core)
    words = [act["action"], act["action"], act["resource"], act["agent"].rsplit("/", 1)[-1]]
    for name, value in act["context"].items():
        words.append(f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"[:400])
    return " ".join(words)


def _line(core: bytes) -> str:
    from creto._plain import values

    act = json.loads(core)
    facts = ", ".join(f"{name} {text}" for name, text in values(act["context"]))
    return f"{act['action']} {act['resource']}" + (f" ({facts})" if facts else "")
