"""The specification's two functions: an operation behind a check, and an operation between two records.

They take one part each. `creto.open()` gives the whole order, with quota, humans and recovery; use that where you can.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import anyio

from creto._act import failure
from creto.errors import OversightRequiredError, UnauthorizedError

if TYPE_CHECKING:
    from creto.audit import AuditClient
    from creto.authz import AuthzClient
    from creto.nhi import Agent

__all__ = ["audited_operation", "authorized_operation"]

R = TypeVar("R")


async def authorized_operation(
    authz: AuthzClient, agent: Agent | str, action: str, resource: str, operation: Callable[[], Awaitable[R] | R]
) -> R:
    """Performs an operation only where policy allows it.

    Args:
        authz: Decides.
        agent: Who acts, or its SPIFFE id.
        action: `namespace:verb`.
        resource: On what.
        operation: What is done; what it returns is awaited if it can be.

    Returns:
        What the operation returned.

    Raises:
        UnauthorizedError: Policy does not allow it; the text names the policy.
        OversightRequiredError: A human has to agree first.

    Example:
        >>> import asyncio
        >>> from creto.authz import AuthzClient
        >>> from creto.operations import authorized_operation
        >>> authz = AuthzClient()
        >>> _ = authz.install('permit (principal, action == Action::"tool:call", resource);')
        >>> agent = "spiffe://creto.local/agent/researcher"
        >>> asyncio.run(authorized_operation(authz, agent, "tool:call", "add", lambda: 1 + 1))
        2
    """
    who = agent if isinstance(agent, str) else agent.id
    decision = authz.check_nowait(who, action, resource)
    if decision.outcome == "oversight":
        raise OversightRequiredError(
            f"`{action}` on `{resource}` by `{who}`: a human has to agree first (policy `{decision.policy_id}`)",
            policy_id=decision.policy_id or "",
        )
    if not decision.allowed:
        raise UnauthorizedError(f"`{action}` on `{resource}` by `{who}`: {decision.reason}")
    return await _awaited(operation)


async def audited_operation(
    audit: AuditClient,
    agent: Agent | str,
    delegation_chain: Sequence[str],
    action: str,
    resource: str,
    operation: Callable[[], Awaitable[R] | R],
) -> R:
    """Performs an operation between two durable records: the intent before it, the outcome after it.

    Args:
        audit: Records.
        agent: Who acts, or its SPIFFE id.
        delegation_chain: SPIFFE ids of those it acts for, the first delegator first.
        action: `namespace:verb`.
        resource: On what.
        operation: What is done; what it returns is awaited if it can be.

    Returns:
        What the operation returned.

    Raises:
        LedgerFullError: The intent could not be recorded, so the operation did not start.

    Example:
        >>> import asyncio, tempfile
        >>> from pathlib import Path
        >>> from creto import _core
        >>> from creto.audit import AuditClient, open_ledger
        >>> async def main():
        ...     folder = Path(tempfile.mkdtemp())
        ...     ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), _core.Sealer.ephemeral())
        ...     audit = AuditClient(ledger, folder)
        ...     reader = "spiffe://creto.local/agent/reader"
        ...     await audited_operation(audit, reader, [], "tool:call", "add", lambda: 1 + 1)
        ...     kinds = [record.kind for record in await audit.query(action="tool:call")]
        ...     await audit.close()
        ...     return kinds
        >>> asyncio.run(main())
        ['intent', 'outcome']
    """
    import os

    from creto.audit import AuditRecord

    who = agent if isinstance(agent, str) else agent.id
    act = os.urandom(16).hex()

    async def record(kind: str, outcome: object) -> None:
        made = {"kind": kind, "outcome": outcome, "act": act, "why": "audited operation"}
        await audit.log(
            AuditRecord(who=who, what=action, resource=resource, delegation_chain=tuple(delegation_chain), **made)  # type: ignore[arg-type]
        )

    await record("intent", None)
    try:
        result = await _awaited(operation)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await record("outcome", {"failure": failure(error)})
        raise
    with anyio.CancelScope(shield=True):
        await record("outcome", "success")
    return result


async def _awaited(operation: Callable[[], Awaitable[R] | R]) -> R:
    result = operation()
    if inspect.isawaitable(result):
        return await result
    return result
