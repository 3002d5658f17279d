"""A request as pages show it: plain data for the templates, every text of an agent spelt out."""

from __future__ import annotations

import time
from typing import Any

from creto._count import ago
from creto._plain import plain, short, value, values
from creto.oversight import Approver, Desk, Request

__all__ = ["card", "page"]

_LINE = {"+": "added", "-": "removed", "@": "hunk"}


def card(request: Request, approver: Approver) -> dict[str, Any]:
    """What a list shows."""
    now = time.time_ns() // 1000
    context = values(request.context)
    return {
        "id": request.id,
        "short": request.id[:8],
        "state": request.state,
        "open": request.open,
        "agent": short(request.agent),
        "agent_id": plain(request.agent, most=300),
        "chain": [short(link) for link in request.chain],
        "action": plain(request.action, most=120),
        "resource": plain(request.resource, most=300),
        "context": context[:4],
        "more": max(0, len(context) - 4),
        "policies": [plain(policy, most=120) for policy in request.policies],
        "asked": ago(request.created_us, now),
        "answer_by": ago(request.answer_by_us, now),
        "left": max(0.0, min(1.0, (request.answer_by_us - now) / max(1, request.answer_by_us - request.created_us))),
        "decided": ago(request.decided >> 12, now) if request.decided else None,
        "decided_by": short(request.decided_by) if request.decided_by else None,
        "reason": plain(request.reason, most=600) if request.reason else None,
        "obstacle": _obstacle(request, approver),
    }


def page(desk: Desk, request: Request, approver: Approver) -> dict[str, Any]:
    """What a request's own page shows."""
    return {
        **card(request, approver),
        "resource": plain(request.resource, most=4000),
        "context": [(plain(name, most=300), value(member, 4000)) for name, member in request.context.items()],
        "uses": request.uses,
        "digests": [(plain(policy, most=120), request.digest(policy).hex()) for policy in request.policies],
        "seen": seen(request),
        "act": request.ledger_act,
        "preview": [
            (_LINE.get(line[:1], ""), line) for line in plain(request.preview, lines=True, most=200_000).split("\n")
        ]
        if request.preview
        else [],
        "precedents": [
            {
                **one,
                "text": plain(one["text"], most=300),
                "by": short(one["by"]) if one["by"] else "",
                "reason": plain(one["reason"], most=300),
                "percent": round(one["likeness"] * 100),
                "when": ago(one["decided_us"], time.time_ns() // 1000),
            }
            for one in desk.precedents_of(request)
        ],
        "announcements": desk.announcements(request),
    }


def seen(request: Request) -> str:
    """What an answer must name, so that it is for the act that was shown: the digests, in the policies' order."""
    return ".".join(request.digest(policy).hex() for policy in request.policies)


def _obstacle(request: Request, approver: Approver) -> str | None:
    if not request.open:
        return None
    if approver.id == request.agent or approver.id in request.chain:
        return "You take part in this act, so another approver must answer."
    if not any(approver.may_answer(policy) for policy in request.policies):
        return "Its policies are not yours to answer for."
    return None
