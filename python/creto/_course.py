"""How an act goes in, and the course of one that waits: from the door to its record. It never runs the operation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio

from creto import _core
from creto._act import Act, failure
from creto._circumstances import circumstances
from creto._host import bare
from creto.errors import CretoError, InvalidInputError, OversightRequiredError, QuotaExceededError, UnauthorizedError

if TYPE_CHECKING:
    from creto.layer import EnablementLayer
    from creto.nhi import Agent
    from creto.oversight import Clearance
    from creto.oversight._transitions import Outcome

__all__ = ["Course", "Durability", "admit", "brought", "is_strict", "spending"]

Durability = Literal["strict", "relaxed"]
V = TypeVar("V")
_TELLING = frozenset({"fs:", "htt", "net"})  # how actions begin whose resource tells of their circumstances


def is_strict(layer: EnablementLayer, durability: Durability | None) -> bool:
    """Whether an act is on disk before it starts and before it ends: what it says, or else what the layer does."""
    if durability is None:
        return layer.strict
    if durability not in ("strict", "relaxed"):
        raise InvalidInputError(f"durability `{durability}`: write `strict` or `relaxed`")
    return durability == "strict"


def brought(
    layer: EnablementLayer,
    agent: Agent,
    action: str,
    resource: str,
    context: Mapping[str, Any] | None,
    usage: Mapping[str, int] | None,
) -> tuple[dict[str, Any] | None, dict[str, int] | None]:
    """Context and usage of an act, as the gate takes them; usage is another one where a budget counts what it spends.

    Raises:
        InvalidInputError: One of them is not what it has to be.
    """
    # What nearly every act brings is taken as it is; looking at the rest costs more than deciding.
    plain = (context is None or type(context) is dict) and type(action) is type(resource) is str
    if not plain or action[:3] in _TELLING or action[-1:] == '"':
        context = circumstances(action, resource, _dict("context", context))
    if usage is not None:
        usage = _dict("usage", usage) or None
        if usage is not None and layer.parts.quota.spending is not None:
            layer.principal(agent)  # says so where it is none
            usage = spending(layer, agent, action, resource, usage)
    return context, usage  # type: ignore[return-value]  # see `plain`


def spending(
    layer: EnablementLayer, agent: Agent, action: str, resource: str, usage: dict[str, int] | None
) -> dict[str, int] | None:
    """Usage of an act, with what it spends by the prices of this moment where a budget counts that.

    Raises:
        InvalidInputError: Nobody can say yet what it will cost.
    """
    parts = layer.parts
    counted = parts.quota.spending
    if counted is None or not usage:
        return usage
    # By their ids, which raises for one that is spelt with escapes: no price would know it.
    dimensions = {"agent": agent.id, "action": bare(action), "resource": bare(resource)}
    if agent.sandbox:
        dimensions["sandbox"] = agent.sandbox
    return counted.of(parts.quota_path(agent), dimensions, usage, parts.clock.now() >> 12)


def admit(
    layer: EnablementLayer,
    agent: Agent,
    action: str,
    resource: str,
    context: dict[str, Any] | None,
    usage: dict[str, int] | None,
) -> _core.Permit | OversightRequiredError | QuotaExceededError:
    """Lets an act in where nothing has to be waited for; else what lacks: a human's answer, or units of a quota."""
    parts = layer.parts
    parts.reach.require_fresh()
    try:
        return parts.gate.enter(layer.principal(agent), action, resource, context, usage)
    except OversightRequiredError as asked:
        return asked
    except QuotaExceededError as refused:
        if parts.quota.short(refused):
            return refused
        raise
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"half of a character stands alone in {error.object!r}, which no policy and no record can hold"
        ) from error


class Course:
    """One act that waits for something, before its operation or after it, or whose operation asks for it.

    Args:
        layer: What it goes through.
        agent: Who acts.
        action: `namespace:verb`.
        resource: On what.
        context: The circumstances, by name; see `brought`.
        usage: What is reserved, by meter.
        strict: Whether its records are on disk before it goes on.
    """

    __slots__ = (
        "action",
        "agent",
        "clearance",
        "context",
        "layer",
        "permit",
        "resource",
        "strict",
        "usage",
        "used",
    )

    def __init__(
        self,
        layer: EnablementLayer,
        agent: Agent,
        action: str,
        resource: str,
        context: dict[str, Any] | None,
        usage: dict[str, int] | None,
        strict: bool,
    ) -> None:
        self.layer = layer
        self.agent = agent
        self.action = action
        self.resource = resource
        self.context = context
        self.usage = self.used = usage
        self.strict = strict
        self.permit: _core.Permit
        self.clearance: Clearance | None = None

    @property
    def act(self) -> Act:
        """Its face for the operation; nothing is made for who does not ask."""
        return Act(self)

    # --- before the operation -----------------------------------------------------------------------------------------

    async def make_ready(
        self,
        admitted: _core.Permit | OversightRequiredError | QuotaExceededError,
        timeout: float | None,
        preview: str | None,
    ) -> None:
        """Waits for what has to be there before the operation; where it does not get to its end, all is given back."""
        if isinstance(admitted, QuotaExceededError):
            try:
                admitted = await self._enter_leasing()
            except OversightRequiredError as asked:
                admitted = asked
        if isinstance(admitted, OversightRequiredError):
            await self._ask(admitted, timeout, preview)
        else:
            self.permit = admitted
        try:
            if self.clearance is not None:
                await self.layer.parts.desk.execute(self.clearance, act=self.act.id)
            if self.permit.wants_intent:
                ticket = self.permit.intent()
                if self.strict:
                    await self.layer.parts.audit.durable(ticket)
        except BaseException as error:
            await self.finish(error)
            raise

    async def begin(self, timeout: float | None, preview: str | None) -> None:
        """All that comes before the operation."""
        admitted = admit(self.layer, self.agent, self.action, self.resource, self.context, self.usage)
        await self.make_ready(admitted, timeout, preview)

    async def _ask(self, asked: OversightRequiredError, timeout: float | None, preview: str | None) -> None:
        """Asks humans, then goes in again: policy and quota may have changed while they thought."""
        parts = self.layer.parts
        principal = self.layer.principal(self.agent)
        act = _core.Act(
            principal.agent,
            self.action,
            self.resource,
            chain=principal.chain,
            context=dict(self.context or {}),
            usage=dict(self.usage or {}),
            suite=parts.settings.common.suite,
        )
        policies = list(asked.policy_ids)
        while True:
            version = (parts.policy.digest or b"").hex() or None
            clearance = await parts.desk.ask(
                act,
                policies,
                timeout=timeout,
                preview=preview,
                policy_version=version,
                sandbox=self.agent.sandbox or None,
            )
            # Hours may have passed: who was revoked meanwhile, or whose delegation ended, is not let in by an old yes.
            parts.reach.require_fresh()
            try:
                self.permit = await self._enter(clearance.grants)
            except OversightRequiredError as again:
                if set(again.policy_ids) <= set(policies):
                    raise
                policies = sorted({*policies, *again.policy_ids})
            else:
                self.clearance = clearance
                return

    def _enter_with(self, grants: Sequence[_core.Grant]) -> _core.Permit:
        principal, held = self.layer.principal(self.agent), list(grants) or None  # none: nobody was asked
        return self.layer.parts.gate.enter(principal, self.action, self.resource, self.context, self.usage, held)

    async def _enter(self, grants: Sequence[_core.Grant]) -> _core.Permit:
        """Goes in; where only leased units of a shared quota lack, leases some and goes in again."""
        try:
            return self._enter_with(grants)
        except QuotaExceededError as refused:
            if not self.layer.parts.quota.short(refused):
                raise
        return await self._enter_leasing(grants)

    async def _enter_leasing(self, grants: Sequence[_core.Grant] = ()) -> _core.Permit:
        """Leases units and goes in, until it is in or there are no more."""
        layer = self.layer

        def enter() -> _core.Permit:
            # The wait for units may be long: who was revoked meanwhile, or whose delegation ended, does not go in.
            layer.parts.reach.require_fresh()
            return self._enter_with(grants)

        try:
            return await layer.parts.quota.enter(enter)
        except (OversightRequiredError, UnauthorizedError):
            raise
        except CretoError as refused:
            # No units came in time, or their authority does not answer: the gate, which only saw that some lacked, has
            # not recorded it.
            if getattr(refused, "ticket", None) is None:
                principal = layer.principal(self.agent)
                layer.parts.gate.refused(principal, self.action, self.resource, self.usage, str(refused))
            raise

    # --- after it -----------------------------------------------------------------------------------------------------

    async def finish(self, error: BaseException | None) -> None:
        """Charges or gives back, and records; before anything is awaited, so that a cancelled act holds nothing."""
        try:
            used = self._used(failed=error is not None)
            ticket = self.permit.settle(None if error is None else failure(error), used)
            if self.usage is None and used:
                # The gate holds nothing for an act that named no usage: what it charges at its end is counted here.
                parts = self.layer.parts
                parts.quota.reserve_nowait(parts.quota_path(self.agent), {}).commit(used)
            if self.strict:
                with anyio.CancelScope(shield=True):
                    await self.layer.parts.audit.durable(ticket)
        finally:
            # Also where the ledger takes no more, and where a cancellation hid that the request was marked executing.
            if self.clearance is not None:
                outcome: Outcome = "executed" if error is None else "failed"
                why = None if error is None else failure(error)
                await self.layer.parts.desk.settle(self.clearance, outcome, why, act=self.act.id)

    def _used(self, *, failed: bool) -> dict[str, int] | None:
        """What is charged, at the prices of now; None where that is what was reserved, or nothing of what failed."""
        used = self.used
        if failed and used is self.usage:
            return None
        # What is priced by time was refused when it was named; where it has such a price since, it is charged as it is.
        with contextlib.suppress(InvalidInputError):
            used = self.spending(used)
        return used if failed or used != self.usage else None

    def spending(self, usage: dict[str, int] | None) -> dict[str, int] | None:
        """Usage of this act with what it spends, where a budget counts that; see `spending`."""
        return spending(self.layer, self.agent, self.action, self.resource, usage)


def _dict(what: str, mapping: Mapping[str, V] | None) -> dict[str, V] | None:
    if mapping is None or type(mapping) is dict:
        return mapping
    if not isinstance(mapping, Mapping):
        raise InvalidInputError(f"{what}: give values by name, as a dict, not `{mapping!r}`")
    return dict(mapping)
