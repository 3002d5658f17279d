"""An oversight request as it is read from the store."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from creto import _core
from creto._plain import plain, quantities

__all__ = ["GRACE_US", "Request"]

# An answer given in the last moment must leave time to act on it: grants outlive the time for answers by this much.
GRACE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """One act that waits, or waited, for a human's answer.

    Args:
        id: 32 hexadecimal digits; commands and pages take any prefix that is unique.
        state: requested, pending, approved, denied, expired, cancelled, executing, executed, failed or unknown.
        core: The act's document (RFC 8785) without the request's own terms.
        expiry_us: The end of every grant for it, in microseconds since the epoch; answers count until `answer_by_us`.

    Example:
        >>> import asyncio, tempfile, creto
        >>> from creto import _core
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         desk, buyer = layer.parts.desk, layer.agent("buyer")
        ...         act = _core.Act(buyer.id, "tool:call", "send_money", context={"amount": 250})
        ...         try:
        ...             await desk.ask(act, ["payments"], hold=0)  # the request lives on
        ...         except creto.OversightRequiredError:
        ...             (request,) = desk.pending()
        ...         return request.open, request.policies, request.context
        >>> asyncio.run(main())
        (True, ('payments',), {'amount': 250})
    """

    id: str
    state: str
    core: bytes
    agent: str
    chain: tuple[str, ...]
    action: str
    resource: str
    policies: tuple[str, ...]
    policy_version: str | None
    suite: str
    nonce: bytes
    expiry_us: int
    preview: str | None
    cost: str | None
    sandbox: str | None
    holder: str
    ledger_act: str
    created: int
    decided: int | None
    decided_by: str | None
    reason: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Request:
        """Reads a row of `oversight_requests`."""
        return cls(
            id=row.id,
            state=row.state,
            core=row.core,
            agent=row.agent,
            chain=tuple(row.chain),
            action=row.action,
            resource=row.resource,
            policies=tuple(row.policies),
            policy_version=row.policy_version,
            suite=row.suite,
            nonce=row.nonce,
            expiry_us=row.expiry,
            preview=row.preview,
            cost=row.cost,
            sandbox=row.sandbox,
            holder=row.holder,
            ledger_act=row.act or row.id,
            created=row.created,
            decided=row.decided,
            decided_by=row.decided_by,
            reason=row.reason,
        )

    @property
    def act(self) -> _core.Act:
        """The act that is asked about."""
        return _core.Act.from_core(self.core, self.suite)

    @property
    def shows_its_act(self) -> bool:
        """True where what is shown of it, agent, chain, action and resource, is what an answer is bound to."""
        shown = _core.Act(self.agent, self.action, self.resource, chain=list(self.chain), suite=self.suite)
        said, bound = json.loads(shown.core()), json.loads(self.core)
        return all(said[name] == bound[name] for name in ("agent", "chain", "action", "resource"))

    @property
    def context(self) -> dict[str, Any]:
        """The act's circumstances, in their stated encoding."""
        context: dict[str, Any] = json.loads(self.core)["context"]
        return context

    @property
    def usage(self) -> dict[str, Any]:
        """What the act is expected to use: meter to quantity, in the meter's smallest unit."""
        usage: dict[str, Any] = json.loads(self.core)["usage"]
        return usage

    @property
    def uses(self) -> list[str]:
        """The same for people, and what it would cost where whoever asks has said so."""
        return [*quantities(self.usage), *([plain(self.cost, most=80)] if self.cost else [])]

    @property
    def open(self) -> bool:
        """True while an answer is awaited."""
        return self.state in ("requested", "pending")

    @property
    def answer_by_us(self) -> int:
        """When the time for answers is over, in microseconds since the epoch."""
        return self.expiry_us - GRACE_US

    @property
    def created_us(self) -> int:
        """When it was asked, in microseconds since the epoch."""
        return self.created >> 12

    def digest(self, policy: str) -> bytes:
        """The digest that a grant for `policy` is bound to."""
        return self.act.digest(policy, self.nonce, self.expiry_us)

    def as_dict(self) -> dict[str, Any]:
        """The request for programs: JSON types only, digests in hexadecimal."""
        return {
            "id": self.id,
            "state": self.state,
            "agent": self.agent,
            "chain": list(self.chain),
            "action": self.action,
            "resource": self.resource,
            "context": self.context,
            "usage": self.usage,
            "policies": list(self.policies),
            "policy_version": self.policy_version,
            "digests": {policy: self.digest(policy).hex() for policy in self.policies},
            "preview": self.preview,
            "cost": self.cost,
            "created": _iso(self.created_us),
            "answer_by": _iso(self.answer_by_us),
            "decided": _iso(self.decided >> 12) if self.decided else None,
            "decided_by": self.decided_by,
            "reason": self.reason,
        }


def _iso(micros: int) -> str:
    return dt.datetime.fromtimestamp(micros / 1e6, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
