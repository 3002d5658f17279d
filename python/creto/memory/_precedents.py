"""Past decisions of humans that are like the one asked for: shown to the approver, deciding nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from creto.memory._embedding import DIMENSIONS, embed
from creto.memory._memory import Entry, Namespace
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
        approved: Whether a human agreed.
        by: Who decided: an approver's SPIFFE id.
        reason: What they gave as their reason.
        text: The act, in one line.
        decided_us: When, in microseconds since the epoch.

    Example:
        >>> Precedent("ab12", 0.91, approved=True, by="spiffe://creto.local/approver/ann", reason="known supplier",
        ...           text="tool:call send_money (to ACME)", decided_us=1_790_000_000_000_000).approved
        True
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

    Example:
        >>> import tempfile
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:  # in which nothing was decided yet
        ...     Precedents(store).recall("tool:call send_money to ACME")
        []
    """

    def __init__(
        self,
        store: Store,
        *,
        embed: Callable[[str], npt.NDArray[np.float32]] = embed,
        dimensions: int = DIMENSIONS,
    ) -> None:
        self._store = store
        file = store.folder / "memory" / "precedents.npz" if store.folder else None
        self._decided = Namespace(file, self.after, embed=embed, dimensions=dimensions)

    def recall(self, text: str, most: int = 3, *, but: str = "") -> list[Precedent]:
        """At most `most` past decisions, the most alike first.

        Args:
            text: An act in words, as `describe` writes it.
            most: How many at most.
            but: A request that is not meant, such as the one being asked about.
        """
        near = [one for one in self._decided.recall(text, most + 1) if one.key != but and one.likeness >= _LEAST]
        if not near:
            return []
        with self._store.read() as tx:
            found = tx.all(select(requests).where(requests.c.id.in_([one.key for one in near])))
        rows = {row.id: row for row in found}
        return [
            Precedent(
                request=one.key,
                likeness=one.likeness,
                approved=row.state != "denied",
                by=row.decided_by or "",
                reason=row.reason or "",
                text=_line(row.core),
                decided_us=(row.decided or 0) >> 12,
            )
            for one in near[:most]
            if (row := rows.get(one.key)) is not None
        ]

    def recall_like(self, request: Request, most: int = 3) -> list[dict[str, Any]]:
        """As `recall`, for a request, as plain data."""
        return [asdict(one) for one in self.recall(describe(request.core), most, but=request.id)]

    def forget(self, agent: str) -> int:
        """Forgets every decision about an agent's acts; returns how many there were."""
        return self._decided.forget(agent)

    def drop(self, ids: Sequence[str]) -> int:
        """Forgets the decisions about these requests as they were; they may be recalled by what is left of them."""
        return self._decided.drop(ids)

    def rebuild(self) -> int:
        """Throws the index away and makes it anew from the store; returns how many decisions it holds."""
        return self._decided.rebuild()

    def after(self, after: Mapping[str, int]) -> Iterator[Entry]:
        """What was decided since, as a source of memories.

        Args:
            after: Under the empty name, the moment of the last decision that was read.
        """
        position = after.get("", 0)
        while True:
            with self._store.read() as tx:
                # Decisions are written one after the other, so none comes to stand before one that was read.
                rows = tx.all(
                    select(requests.c.id, requests.c.core, requests.c.agent, requests.c.decided)
                    .where(requests.c.decided > position, requests.c.state.in_(_DECIDED))
                    .order_by(requests.c.decided)
                    .limit(_BATCH)
                )
            for row in rows:
                yield Entry(row.id, describe(row.core), row.agent, row.decided)
                position = row.decided
            if len(rows) < _BATCH:
                return


def describe(core: bytes) -> str:
    """An act in words, from its document: the action twice, since it says most about what kind of act it is.

    Example:
        >>> describe(b'{"action":"tool:call","agent":"a/b","context":{"to":"supplier"},"resource":"mail","usage":{}}')
        'tool:call tool:call mail b to supplier'
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
