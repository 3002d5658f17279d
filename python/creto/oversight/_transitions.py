"""What happens to a request, each as one transaction of the store; the native state machine says which step may follow.

Every function takes the transaction first, and leaves a record for the ledger and a notice for the processes that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, func, select, update

from creto import _core
from creto._process import alive, here
from creto.errors import InvalidInputError, NotFoundError, OversightRequiredError, UnauthorizedError
from creto.oversight._approvers import covers
from creto.oversight._request import Request
from creto.store import Transaction
from creto.store.tables import announcements, approvers, grants
from creto.store.tables import oversight_requests as requests

__all__ = [
    "OPEN",
    "TOPIC",
    "Outcome",
    "announced",
    "answer",
    "attach",
    "cancel",
    "execute",
    "expire_due",
    "find",
    "grants_of",
    "listed",
    "settle",
    "waiting",
    "write",
]

TOPIC = "oversight"
Outcome = Literal["executed", "failed", "unknown"]
MOST_WAITING = 100
"""Requests of one agent that may wait for an answer at once."""
OPEN = ("requested", "pending")
_WAITING = ("requested", "pending", "approved")


def find(tx: Transaction, prefix: str) -> Request:
    """The request whose id is, or begins with, `prefix`.

    Raises:
        NotFoundError: None does.
        InvalidInputError: Several do, or the prefix is too short to mean one.
    """
    if len(prefix) < 4 or not all(c in "0123456789abcdef" for c in prefix):
        raise InvalidInputError(f"`{prefix}` cannot be a request: give at least the first 4 digits of its id")
    rows = tx.all(select(requests).where(requests.c.id.startswith(prefix, autoescape=True)).limit(2))
    if not rows:
        raise NotFoundError(f"there is no oversight request `{prefix}`; `creto approve` lists those that wait")
    if len(rows) > 1:
        raise InvalidInputError(f"several requests begin with `{prefix}`: give more digits")
    return Request.of(rows[0])


def listed(tx: Transaction, states: Sequence[str] | None = OPEN, limit: int = 200) -> list[Request]:
    """Requests in these states (None: in any), the newest first."""
    query = select(requests).order_by(requests.c.created.desc()).limit(limit)
    if states is not None:
        query = query.where(requests.c.state.in_(list(states)))
    return [Request.of(row) for row in tx.all(query)]


def waiting(tx: Transaction, limit: int = 200) -> list[Request]:
    """Requests that wait for an answer, the oldest first; where there are too many, some of every agent."""
    rank = func.row_number().over(partition_by=requests.c.agent, order_by=requests.c.created).label("rank")
    ranked = select(requests.c.id, rank).where(requests.c.state.in_(OPEN)).subquery()
    fair = select(requests).join(ranked, ranked.c.id == requests.c.id).order_by(ranked.c.rank, requests.c.created)
    return sorted(map(Request.of, tx.all(fair.limit(limit))), key=lambda request: request.created)


def write(
    tx: Transaction,
    *,
    id: str,
    act: _core.Act,
    policies: Sequence[str],
    nonce: bytes,
    expiry_us: int,
    policy_version: str | None,
    preview: str | None,
    cost: str | None,
    sandbox: str | None,
    wanted: Callable[[Request], Mapping[str, float]],
) -> Request:
    """Writes a request and lines up its announcements: from here on it waits for an answer.

    Args:
        wanted: Names of the channels that are to announce it, each with the seconds after which it is to.

    Raises:
        UnauthorizedError: The agent has too many that wait: a flood would hide those of others.
    """
    mine = requests.c.agent == act.agent
    open_already = tx.scalar(select(func.count()).select_from(requests).where(mine, requests.c.state.in_(list(OPEN))))
    if open_already >= MOST_WAITING:
        raise UnauthorizedError(
            f"`{act.agent}` has {open_already} requests that wait for an answer already; `creto approve` lists them"
        )
    tx.insert(
        requests,
        id=id,
        state="requested",
        core=act.core(),
        core_digest=act.core_digest(),
        agent=act.agent,
        chain=list(act.chain),
        action=act.action,
        resource=act.resource,
        policies=list(policies),
        policy_version=policy_version,
        suite=act.suite,
        nonce=nonce,
        expiry=expiry_us,
        preview=preview,
        cost=cost,
        sandbox=sandbox,
        attached=1,
        holder=here(),
        act=id,
        created=tx.now,
    )
    request = find(tx, id)
    for channel, after in wanted(request).items():
        # What waits says when its time comes.
        state, due = ("waiting", tx.now + (int(after * 1e6) << 12)) if after else ("sending", tx.now)
        tx.insert(announcements, request=id, channel=channel, state=state, attempts=0, updated=due)
    return _step(tx, request, "announce", who=act.agent, what="oversight:requested")


def attach(tx: Transaction, act: _core.Act, policies: Sequence[str], *, shared: bool) -> Request | None:
    """The request for this very act that waits already: with `shared` any, else one whose asker is gone.

    Returns:
        The request, which this process now waits for, or None.
    """
    now_us = tx.now >> 12
    found = tx.all(
        select(requests)
        .where(requests.c.core_digest == act.core_digest(), requests.c.state.in_(_WAITING))
        .order_by(requests.c.created)
    )
    for row in found:
        request = Request.of(row)
        usable = request.core == act.core() and set(request.policies) >= set(policies)
        in_time = now_us < (request.expiry_us if request.state == "approved" else request.answer_by_us)
        if usable and in_time and (shared or not alive(request.holder)):
            tx.execute(
                update(requests)
                .where(requests.c.id == request.id)
                .values(attached=requests.c.attached + 1, holder=here())
            )
            return find(tx, request.id)
    return None


def answer(
    tx: Transaction,
    request: Request,
    *,
    approver: str,
    approved: bool,
    reason: str,
    statements: dict[str, str],
) -> Request:
    """Takes an approver's signed answer.

    Args:
        request: As the approver saw it.
        statements: Policy id to DSSE envelope, for each policy that the approver may answer for.

    Raises:
        InvalidInputError: The request does not wait for an answer any more.
        UnauthorizedError: The approver was revoked meanwhile.
    """
    current = find(tx, request.id)
    late = current.open and tx.now >> 12 > current.answer_by_us
    if late or not current.open:
        state = "expired" if late else current.state
        by = f", answered by `{current.decided_by}`," if current.decided_by else ""
        raise InvalidInputError(f"the request `{current.id[:8]}` is {state}{by} and takes no answer any more")
    active = tx.first(select(approvers.c.policies).where(approvers.c.id == approver, approvers.c.state == "active"))
    if active is None:
        raise UnauthorizedError(f"`{approver}` may no longer answer: the approver was revoked")
    if lost := sorted(policy for policy in statements if not covers(active.policies, policy)):
        raise UnauthorizedError(f"`{approver}` may no longer answer for the policy `{lost[0]}`")
    given = 0
    for policy, statement in statements.items():
        made = tx.insert_once(
            grants,
            id=f"{current.id}:{policy}",
            request=current.id,
            policy_id=policy,
            digest=current.digest(policy),
            approver=approver,
            answer="approved" if approved else "denied",
            statement=statement.encode(),
            expiry=current.expiry_us,
            given=tx.now,
        )
        if made:
            given += 1
        elif not approved:
            # A colleague agreed for this policy before; the denial counts all the same, and takes the grant's place.
            tx.execute(
                update(grants)
                .where(grants.c.request == current.id, grants.c.policy_id == policy)
                .values(approver=approver, answer="denied", statement=statement.encode(), given=tx.now)
            )
            given += 1
    if not approved:
        return _step(
            tx,
            current,
            "deny",
            who=approver,
            what="oversight:denied",
            signed=statements,
            decided=tx.now,
            decided_by=approver,
            reason=reason,
            ended=tx.now,
        )
    covered = {row.policy_id for row in tx.all(select(grants.c.policy_id).where(grants.c.request == current.id))}
    if covered >= set(current.policies):
        return _step(
            tx,
            current,
            "approve",
            who=approver,
            what="oversight:approved",
            signed=statements,
            decided=tx.now,
            decided_by=approver,
            reason=reason,
        )
    if given == 0:
        raise InvalidInputError(
            f"the request `{current.id[:8]}` has your agreement already; it waits for another approver"
        )
    _record(tx, current, who=approver, what="oversight:approved-in-part", reason=reason, signed=statements)
    tx.publish(TOPIC, current.id)
    return current


def cancel(tx: Transaction, request: str, *, who: str, reason: str, only_waiter: bool = False) -> Request:
    """Takes a request back; with `only_waiter` only where nobody else has waited for it.

    Raises:
        InvalidInputError: The act has begun, or the request is over.
    """
    current = find(tx, request)
    if only_waiter:
        attached = tx.scalar(select(requests.c.attached).where(requests.c.id == current.id))
        if attached != 1 or current.state not in _WAITING:
            return current
    return _step(tx, current, "cancel", who=who, what="oversight:cancelled", reason=reason, ended=tx.now)


def expire_due(tx: Transaction) -> list[str]:
    """Ends every request whose time is over.

    Returns:
        Their ids.
    """
    now_us = tx.now >> 12
    rows = tx.all(select(requests).where(requests.c.state.in_(_WAITING)))
    ended = []
    for row in rows:
        request = Request.of(row)
        if now_us > (request.expiry_us if request.state == "approved" else request.answer_by_us):
            _step(tx, request, "expire", who=request.agent, what="oversight:expired", ended=tx.now)
            ended.append(request.id)
    return ended


def execute(tx: Transaction, request: str, act: str | None) -> Request:
    """Consumes every grant of an approved request and marks its act as executing, or does neither.

    Args:
        request: The whole id.
        act: Id that the act's records share in the ledger; the request's own where none is given.

    Raises:
        OversightRequiredError: The grant is used already, expired, or its approver was revoked.
    """
    current = find(tx, request)

    def refused(why: str) -> OversightRequiredError:
        return OversightRequiredError(
            f"`{current.action}` on `{current.resource}` needs to be agreed to again: {why}",
            policy_id=current.policies[0],
        )

    if current.state != "approved":
        raise refused(f"the request `{current.id[:8]}` is {current.state}")
    if tx.now >> 12 > current.expiry_us:
        raise refused("the grant has expired")
    rows = tx.all(
        select(grants, approvers.c.state.label("standing"), approvers.c.policies)
        .join(approvers, approvers.c.id == grants.c.approver)
        .where(grants.c.request == current.id, grants.c.answer == "approved", grants.c.consumed.is_(None))
    )
    usable = {row.policy_id for row in rows if row.standing == "active" and covers(row.policies, row.policy_id)}
    lacking = set(current.policies) - usable
    if lacking:
        raise refused(f"no usable grant for the policy `{min(lacking)}`")
    for row in rows:
        if not tx.swap(grants, (grants.c.id == row.id) & grants.c.consumed.is_(None), consumed=tx.now):
            raise refused("the grant is used already")
    return _step(
        tx, current, "execute", who=current.agent, what="oversight:executing", act=act or current.id, holder=here()
    )


def settle(
    tx: Transaction, request: Request, outcome: Outcome, reason: str | None = None, act: str | None = None
) -> Request:
    """Says how an executing act ended; with `act` only where it executes as that one."""
    event = {"executed": "succeed", "failed": "fail", "unknown": "lose"}[outcome]
    current, what = find(tx, request.id), f"oversight:{outcome}"
    if act is not None and (current.state, current.ledger_act) != ("executing", act):
        return current
    return _step(tx, current, event, who=request.agent, what=what, outcome_reason=reason, ended=tx.now)


def _step(
    tx: Transaction,
    request: Request,
    event: str,
    *,
    who: str,
    what: str,
    outcome_reason: str | None = None,
    signed: Mapping[str, str] | None = None,
    **values: Any,
) -> Request:
    state = _core.oversight_after(request.state, event)
    where: ColumnElement[bool] = (requests.c.id == request.id) & (requests.c.state == request.state)
    if not tx.swap(requests, where, state=state, **values):
        raise InvalidInputError(f"the request `{request.id[:8]}` was changed meanwhile; look at it again")
    # As it is now: an act that begins gives its own id to this record already.
    current = find(tx, request.id)
    _record(tx, current, who=who, what=what, reason=values.get("reason") or outcome_reason, signed=signed)
    if event == "deny":
        _refuse(tx, current, "a human said no" + (f": {values['reason'][:500]}" if values.get("reason") else ""))
    elif event == "expire" and request.state != "approved":  # else a human had agreed, and the act never came
        _refuse(tx, current, "nobody answered in time")
    tx.publish(TOPIC, request.id)
    return current


def _refuse(tx: Transaction, request: Request, why: str) -> None:
    """Puts the act itself on record as refused, as where policy or quota does: whoever asks what an agent was refused
    need not know who refused it."""
    tx.outbox(
        {
            "who": request.agent,
            "delegation_chain": list(request.chain),
            "what": request.action,
            "resource": request.resource,
            "why": why,
            "kind": "refusal",
            "act": request.ledger_act,
            "digest": _digest(request),
            "detail": {"refused": "oversight", "request": request.id, **_inside(request)},
        }
    )


def _inside(request: Request) -> dict[str, str]:
    """The sandbox, as records of acts from one name it."""
    return {"sandbox": request.sandbox} if request.sandbox else {}


def _digest(request: Request) -> str | None:
    """The digest for a record: it holds 32 bytes; those of suite `cnsa2` are longer, and stand in a detail."""
    return request.digest(request.policies[0]).hex() if request.suite == "standard" else None


def _record(
    tx: Transaction,
    request: Request,
    *,
    who: str,
    what: str,
    reason: str | None,
    signed: Mapping[str, str] | None = None,
) -> None:
    digests = {policy: request.digest(policy).hex() for policy in request.policies}
    detail = {"request": request.id, "action": request.action, "resource": request.resource, "agent": request.agent}
    detail |= {f"digest:{policy}": digest for policy, digest in digests.items()}
    # The answers themselves are in the store; the ledger holds what shows that these, and no others, were given.
    detail |= {f"grant:{policy}": sha256(text.encode()).hexdigest() for policy, text in (signed or {}).items()}
    if reason:
        detail["reason"] = reason[:500]
    tx.outbox(
        {
            "who": who,
            "delegation_chain": list(request.chain) if who == request.agent else [],
            "what": what,
            "resource": request.resource,
            "why": ", ".join(request.policies),
            "act": request.ledger_act,
            "digest": _digest(request),
            "detail": detail,
        }
    )


def grants_of(tx: Transaction, request: str) -> list[Row[Any]]:
    """The signed answers to a request, each with what the store says of its approver."""
    who = approvers.c
    return tx.all(
        select(grants, who.state.label("standing"), who.public_keys, who.sealed_keys, who.token_digest, who.policies)
        .join(approvers, approvers.c.id == grants.c.approver)
        .where(grants.c.request == request)
        .order_by(grants.c.policy_id)
    )


def announced(tx: Transaction, request: str) -> list[dict[str, Any]]:
    """How each channel's announcement of a request went."""
    rows = tx.all(select(announcements).where(announcements.c.request == request).order_by(announcements.c.channel))
    return [
        {"channel": row.channel, "state": row.state, "attempts": row.attempts, "detail": row.detail} for row in rows
    ]
