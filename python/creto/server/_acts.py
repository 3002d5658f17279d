"""The acts on record: the latest, by who, what, on what and how they ended, and the life of each with its proofs.

It reads the ledger and changes nothing. Approvers of every policy see it; others see the requests that they are asked.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from creto._plain import plain, quantities, short
from creto.audit import AuditClient, AuditRecord
from creto.audit._filter import Kind, Outcome
from creto.audit._page import STYLE, life
from creto.errors import InvalidInputError, UnauthorizedError
from creto.nhi._names import agent_id
from creto.report import Act, acts
from creto.server._access import Access, Session, place_of
from creto.server._pages import Pages

__all__ = ["Acts"]

_PAGE = 50
_PATIENCE_SECONDS = 3.0
_FIELDS = ("agent", "action", "resource", "outcome")
# What a filter for an outcome leaves of the three kinds of record that tell of an act.
_KINDS: dict[str, tuple[Kind, ...]] = {
    "": ("intent", "outcome", "refusal"),
    "success": ("outcome",),
    "failure": ("outcome",),
    "refused": ("refusal",),
}
_COLOUR = {"done": "executed", "over quota": "denied"}
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# The page of a life is one file, for sending on: its style is in it, and let through by its digest.
_LIFE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


class Acts:
    """The pages of acts.

    Args:
        folder: The state folder.
        pages: Renders them, among the inbox's own.
        access: Who may come in.
        price: What an act costs, in words, from its records.
    """

    def __init__(
        self, folder: Path, pages: Pages, access: Access, price: Callable[[Sequence[AuditRecord]], str]
    ) -> None:
        self._folder = folder
        self._audit = AuditClient.reading(folder)
        self._pages = pages
        self._access = access
        self._price = price
        self._indexed: dict[str, tuple[int, int]] = {}  # by shard: records in the index, and in all

    def routes(self) -> list[Route]:
        """The paths; all are for reading."""
        return [
            Route("/acts", self.listed, methods=["GET"]),
            Route("/acts/{id}", self.life, methods=["GET"]),
        ]

    async def listed(self, request: Request) -> Response:
        """The latest acts that match, the newest first, some at a time."""
        session = await self._access.session(request)
        if session is None:
            return self._pages.to_login(request)
        _require_every(session)
        if not await self._up_to_date():
            return self._wait(request, session)
        wanted = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
        found, before = await self._find(session, wanted, _number(request.query_params.get("before")))
        older = None if before is None else urlencode({**{n: v for n, v in wanted.items() if v}, "before": before})
        cards = [_card(act) for act in found]
        return self._pages.page(request, "acts.html", session, acts=cards, wanted=wanted, older=older)

    async def _up_to_date(self) -> bool:
        """Whether the index has come up to the ledger; the first time that takes seconds for each million of records.

        Each look takes it further, and what it has reached is kept: nothing waits here for all of it.
        """

        def reached(shard: str, done: int, total: int) -> None:
            self._indexed[shard] = done, total

        with anyio.move_on_after(_PATIENCE_SECONDS):
            await self._audit.query(act="0" * 32, limit=1, progress=reached)
            return True
        return False

    def _wait(self, request: Request, session: Session) -> Response:
        done, total = (sum(counts) for counts in zip(*self._indexed.values(), strict=True)) if self._indexed else (0, 0)
        page = self._pages.page(request, "indexing.html", session, status=202, done=done, total=total)
        page.headers["Refresh"] = "1"
        return page

    async def _find(self, session: Session, wanted: dict[str, str], before: int | None) -> tuple[list[Act], int | None]:
        """A page of acts, and the word of the clock before which the next one begins."""
        kinds = _KINDS.get(wanted["outcome"])
        if kinds is None:
            raise InvalidInputError(f"an outcome is success, failure or refused, not `{wanted['outcome']}`")
        agent, action, resource = (wanted[name] or None for name in ("agent", "action", "resource"))
        outcome = cast("Outcome | None", wanted["outcome"] or None)
        if agent is not None:
            agent = agent_id(agent, urlsplit(session.approver.id).netloc)
        held: list[AuditRecord] = []
        reached: int | None = None
        for kind in kinds:
            some = await self._audit.query(
                kind=kind, agent=agent, action=action, resource=resource, outcome=outcome, until=before, limit=_PAGE
            )
            held += some
            if len(some) == _PAGE:
                reached = max(reached or 0, some[0].timestamp)
        held = [record for record in held if reached is None or record.timestamp >= reached]
        found = []
        for act in acts(held):
            if act.status == "unknown":
                # Its outcome may be on the page before this one, and then so is the act.
                act = acts(await self._audit.query(act=act.id, limit=100))[0]  # noqa: PLW2901
                if before is not None and act.status != "unknown" and act.end >= before >> 12:
                    continue
            found.append(act)
        return found[::-1], reached

    async def life(self, request: Request) -> Response:
        """One act from the question to the outcome, each step with its proof."""
        session = await self._access.session(request)
        if session is None:
            return self._pages.to_login(request)
        _require_every(session)
        if not await self._up_to_date():
            return self._wait(request, session)
        records = await self._audit.life(request.path_params["id"])
        back = f'<p><a href="{html.escape(place_of(request))}/acts">← Acts</a></p>'
        text = await anyio.to_thread.run_sync(lambda: life(self._folder, records, self._price(records), above=back))
        return HTMLResponse(text, headers={"Content-Security-Policy": _LIFE_POLICY})


def _require_every(session: Session) -> None:
    if not session.sees_acts:
        raise UnauthorizedError("acts are shown to approvers of every policy; yours are named")


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidInputError("`before` is a word of the clock; go by the links of the page")
    return int(text)


def _card(act: Act) -> dict[str, Any]:
    return {
        "id": act.id,
        "agent": short(act.who),
        "action": plain(act.what, most=120),
        "resource": plain(act.resource, most=300),
        "why": plain(act.why, most=300),
        "asked": act.asked,
        "used": quantities(act.usage),
        "status": "no outcome" if act.status == "unknown" else act.status,
        "colour": _COLOUR.get(act.status, act.status),
        "time": f"{datetime.fromtimestamp(act.start / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
