"""The desk: where an act waits for a human, and where the answer is used, once."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import anyio

from creto import _core
from creto._plain import is_text, plain
from creto._process import alive
from creto.errors import (
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    OversightRequiredError,
    UnauthorizedError,
)
from creto.oversight import _transitions as transitions
from creto.oversight._approvers import Approver, Approvers, covers
from creto.oversight._request import GRACE_US, Request
from creto.reach import EVERYTHING, Follower, Reach
from creto.store import Store, Transaction

__all__ = ["Announcer", "Clearance", "Desk", "Found", "Recall"]

# What the ledger knows of an act: not even that it was to begin, nothing more than that, that it began, how it ended.
Found = Literal["elsewhere", "nothing", "intent", "success", "failure"]
_AFTER: dict[Found, tuple[transitions.Outcome, str | None]] = {
    "nothing": ("failed", "it did not start: its process ended before the intent was recorded"),
    "intent": ("unknown", "its process ended between intent and outcome; look before you try again"),
    "success": ("executed", None),
    "failure": ("failed", None),
}


class Announcer(Protocol):
    """Tells approvers, over channels, that a request waits; never decides, never blocks the desk."""

    def wanted(self, request: Request) -> Mapping[str, float]:
        """Names of the channels that want a request, each with the seconds after which it does."""
        ...

    def announce(self, request: Request) -> None:
        """Starts telling; failures are recorded, not raised."""
        ...

    def resume(self) -> int:
        """Sends what is due by now, and what a process that is gone had left unsent; returns how many began."""
        ...

    def close(self) -> None:
        """Stops telling; what is not sent yet stays written as unsent."""
        ...


class Recall(Protocol):
    """What the desk needs of `creto.memory`: past decisions that are like this one."""

    def recall_like(self, request: Request, most: int = 3) -> list[dict[str, Any]]:
        """At most `most` past decisions, the most alike first."""
        ...


@dataclass(frozen=True, slots=True)
class Clearance:
    """The verified grants for one act; good for one execution.

    Args:
        request: The request that was approved.
        grants: One for each policy that asked.

    Example:
        >>> import asyncio, tempfile, creto
        >>> from creto import _core
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         desk, buyer = layer.parts.desk, layer.agent("buyer")
        ...         act = _core.Act(buyer.id, "tool:call", "send_money", context={"amount": 250})
        ...         asked = asyncio.create_task(desk.ask(act, ["payments"]))
        ...         async with desk.changes() as changed:
        ...             request = desk.find(await anext(changed))
        ...         ann, _token = desk.approvers.add("ann")
        ...         desk.approve(request, ann)
        ...         clearance = await asked
        ...         return clearance.approvers, clearance.grants[0].covers(act)
        >>> asyncio.run(main())
        (('spiffe://creto.local/approver/ann',), True)
    """

    request: Request
    grants: tuple[_core.Grant, ...]

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who agreed."""
        return tuple(sorted({grant.approver for grant in self.grants}))


class Desk:
    """Asks humans, takes their answers, and lets an approved act be executed once.

    Args:
        store: Where requests and grants are decided.
        reach: Wakes waiters in all processes on the folder.
        approvers: Who may answer.
        timeout: Seconds that a request waits for an answer, where `ask` says nothing else.
        precedents: Recalls past decisions for the approver, if any.
        announcer: Tells approvers over channels, if any.

    Example:
        >>> import asyncio, tempfile, creto
        >>> from creto import _core
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         desk, buyer = layer.parts.desk, layer.agent("buyer")
        ...         act = _core.Act(buyer.id, "tool:call", "send_money", context={"amount": 250})
        ...         asked = asyncio.create_task(desk.ask(act, ["payments"]))
        ...         async with desk.changes() as changed:
        ...             request = desk.find(await anext(changed))
        ...         ann, _token = desk.approvers.add("ann", policies=["payments"])
        ...         desk.approve(request, ann, "invoice checked")
        ...         await desk.execute(await asked)
        ...         return desk.find(request.id).state
        >>> asyncio.run(main())
        'executing'
    """

    def __init__(
        self,
        store: Store,
        reach: Reach,
        approvers: Approvers,
        *,
        timeout: float = 3600.0,
        precedents: Recall | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        self.store = store
        self.approvers = approvers
        self.timeout = timeout
        self.precedents = precedents
        self.announcer = announcer
        self._reach = reach

    # --- the one who asks ---------------------------------------------------------------------------------------------

    async def ask(
        self,
        act: _core.Act,
        policy_ids: Sequence[str],
        *,
        timeout: float | None = None,
        hold: float | None = None,
        shared: bool = False,
        policy_version: str | None = None,
        preview: str | None = None,
        cost: str | None = None,
        sandbox: str | None = None,
    ) -> Clearance:
        """Asks humans to agree to exactly this act and waits, asleep, until each policy has its grant.

        Args:
            act: The act; edited arguments make another one.
            policy_ids: Every oversight policy that asks.
            timeout: Seconds that the request waits for an answer.
            hold: Seconds that this call waits; the request lives on after that. None: as long as the request.
            shared: Take part in a request for the same act that others wait for, in place of making a second one.
            policy_version: Digest of the policy set; recorded.
            preview: What would change, as a diff; shown.
            cost: What it would cost; shown.
            sandbox: Where the act comes from, if from one; recorded.

        Returns:
            The grants, verified against the approvers' keys. `execute` uses them up.

        Raises:
            UnauthorizedError: An approver said no; the text names who and why.
            OversightRequiredError: Nobody answered in time, or the request was cancelled.
        """
        policies = sorted(set(policy_ids))
        if not policies:
            raise InvalidInputError("an act is asked about under at least one policy")
        if timeout is not None and (
            not isinstance(timeout, int | float) or timeout != timeout
        ):  # the last is no number
            raise InvalidInputError(f"timeout `{timeout!r}`: give the seconds to wait for a human, as a number")
        lifetime = self.timeout if timeout is None else timeout
        opened: list[tuple[Request, bool]] = []

        def open_(tx: Transaction) -> None:
            opened.append(self._open(tx, act, policies, lifetime, shared, policy_version, preview, cost, sandbox))

        async with self.changes() as keys:
            try:
                await self.store.run(open_)
                request, made = opened[0]
                if made and self.announcer is not None:
                    self.announcer.announce(request)
                request = await self._decided(request, keys, hold)
            except anyio.get_cancelled_exc_class():
                # Nobody is left to do the act: an answer would be for nothing. Others who wait for it keep it. Asyncio
                # may cancel while the request is written, which it is then all the same.
                for asked, _ in opened:
                    with suppress(NotFoundError):  # it was not, after all
                        await self.store.surely(
                            transitions.cancel, asked.id, who=act.agent, reason="the caller gave up", only_waiter=True
                        )
                raise
        # Whoever answered may hold no ledger (a command, the inbox): their record is ours to append, before we go on.
        await anyio.to_thread.run_sync(self.store.settle)
        return await self._cleared(request, act, policies)

    def _open(
        self,
        tx: Transaction,
        act: _core.Act,
        policies: Sequence[str],
        lifetime: float,
        shared: bool,
        policy_version: str | None,
        preview: str | None,
        cost: str | None,
        sandbox: str | None,
    ) -> tuple[Request, bool]:
        waiting = transitions.attach(tx, act, policies, shared=shared)
        if waiting is not None:
            return waiting, False
        made = transitions.write(
            tx,
            id=secrets.token_hex(16),
            act=act,
            policies=policies,
            nonce=secrets.token_bytes(16),
            expiry_us=(tx.now >> 12) + int(lifetime * 1e6) + GRACE_US,
            policy_version=policy_version,
            preview=preview,
            cost=cost,
            sandbox=sandbox,
            wanted=(lambda _: {}) if self.announcer is None else self.announcer.wanted,
        )
        return made, True

    async def _decided(self, request: Request, keys: AsyncIterator[str], hold: float | None) -> Request:
        now_us = await self.store.fetch(lambda tx: tx.now >> 12)
        left = max(0.0, (request.answer_by_us - now_us) / 1e6)
        with anyio.move_on_after(left if hold is None else min(hold, left)):
            if not request.open:
                return request
            async for key in keys:
                if key not in (request.id, EVERYTHING):
                    continue
                request = await self.store.fetch(transitions.find, request.id)
                if not request.open:
                    return request
        # Time is over. An answer may have come in this very moment: the store decides.
        await self.store.run(transitions.expire_due)
        return await self.store.fetch(transitions.find, request.id)

    async def _cleared(self, request: Request, act: _core.Act, policies: Sequence[str]) -> Clearance:
        if request.core != act.core() or not set(request.policies) >= set(policies):
            raise IntegrityError(f"the request `{request.id[:8]}` was changed in the store while it waited")
        what = f"`{plain(request.action)}` on `{plain(request.resource)}`"
        if request.state == "denied":
            rows = await self.store.fetch(transitions.grants_of, request.id)
            for row in rows:
                if row.answer == "denied":
                    key = _core.VerifyingKey.from_text(row.public_keys)
                    _core.Grant.verify_denial(row.statement.decode(), request.act, row.approver, key)
            why = f": {request.reason}" if request.reason else ""
            raise UnauthorizedError(f"{what} was denied by `{request.decided_by}`{why}")
        if request.open:
            raise OversightRequiredError(
                f"{what} still waits for a human (request `{request.id[:8]}`, policy `{request.policies[0]}`)",
                policy_id=request.policies[0],
            )
        if request.state != "approved":
            ended = {"expired": "nobody answered in time", "cancelled": "the request was cancelled"}
            raise OversightRequiredError(
                f"{what} needs a human to agree: {ended.get(request.state, f'its request is {request.state}')} "
                f"(request `{request.id[:8]}`, policy `{request.policies[0]}`)",
                policy_id=request.policies[0],
            )
        return await self.store.fetch(self._verified, request)

    def _verified(self, tx: Transaction, request: Request) -> Clearance:
        """Checks every signature anew: whoever can write to the store cannot thereby agree to anything."""
        act, now_us, held = request.act, tx.now >> 12, []
        for row in transitions.grants_of(tx, request.id):
            if row.standing != "active" or not covers(row.policies, row.policy_id):
                continue
            key = self.approvers.vouched(row.approver, row).verifying_key
            grant = _core.Grant.verify(row.statement.decode(), act, row.approver, key, now_us)
            if grant.request != request.id or grant.digest != request.digest(row.policy_id):
                raise IntegrityError(f"the grant kept for request `{request.id[:8]}` was given for another one")
            held.append(grant)
        lacking = set(request.policies) - {grant.policy_id for grant in held}
        if lacking:
            raise OversightRequiredError(
                f"the policy `{min(lacking)}` has no usable grant in request `{request.id[:8]}`", policy_id=min(lacking)
            )
        return Clearance(request, tuple(held))

    async def execute(self, clearance: Clearance, *, act: str | None = None) -> Request:
        """Uses the grants up and marks the act as executing, in one transaction; call it just before the act.

        Args:
            clearance: What `ask` gave.
            act: Id that the act's records share in the ledger, 32 hexadecimal digits.

        Raises:
            OversightRequiredError: They were used already, have expired, or an approver was revoked.
        """
        return await self.store.run(transitions.execute, clearance.request.id, act)

    async def settle(
        self,
        clearance: Clearance,
        outcome: transitions.Outcome,
        reason: str | None = None,
        *,
        act: str | None = None,
    ) -> Request:
        """Says how the act ended; said in any case, whoever cancels the caller meanwhile.

        Args:
            clearance: What `ask` gave.
            outcome: How it ended.
            reason: Why it failed.
            act: Id that was given to `execute`; a request that is not executing as this act is left as it is.

        Raises:
            InvalidInputError: It was not executing, and no `act` is given.
        """
        return await self.store.surely(transitions.settle, clearance.request, outcome, reason, act)

    def changes(self) -> Follower:
        """Ids of requests that change from this call on, in any process; iterate it in its own `async with`."""
        return self._reach.follow(transitions.TOPIC)

    # --- the one who answers ------------------------------------------------------------------------------------------

    def pending(self) -> list[Request]:
        """Requests that wait for an answer, the oldest first; those whose time is over are ended."""
        with self.store.begin() as tx:
            transitions.expire_due(tx)
            return transitions.waiting(tx)

    def all(self, limit: int = 200) -> list[Request]:
        """Requests in any state, the newest first."""
        with self.store.read() as tx:
            return transitions.listed(tx, None, limit)

    def find(self, prefix: str) -> Request:
        """The request whose id begins with `prefix`.

        Raises:
            NotFoundError: None does.
            InvalidInputError: Several do.
        """
        with self.store.read() as tx:
            return transitions.find(tx, prefix)

    def announcements(self, request: Request) -> list[dict[str, Any]]:
        """How each channel's announcement went: channel, state, attempts, detail."""
        with self.store.read() as tx:
            return transitions.announced(tx, request.id)

    def precedents_of(self, request: Request) -> list[dict[str, Any]]:
        """Past decisions like this one, the most alike first; empty where there is no memory."""
        return [] if self.precedents is None else self.precedents.recall_like(request)

    def approve(self, request: Request, approver: Approver, reason: str = "") -> Request:
        """Agrees to exactly the act in `request`, as the approver saw it, for each policy the approver may answer for.

        Raises:
            UnauthorizedError: The approver asked for it, acts in its chain, or may not answer for its policies.
            InvalidInputError: It does not wait for an answer any more.
        """
        return self._answer(request, approver, True, reason)

    def deny(self, request: Request, approver: Approver, reason: str = "") -> Request:
        """Says no.

        Raises:
            UnauthorizedError: As for `approve`.
            InvalidInputError: It does not wait for an answer any more.
        """
        return self._answer(request, approver, False, reason)

    def _answer(self, request: Request, approver: Approver, approved: bool, reason: str) -> Request:
        if approver.id == request.agent or approver.id in request.chain:
            raise UnauthorizedError(
                f"`{approver.name}` takes part in this act of `{request.agent}`, so another approver must answer"
            )
        policies = [policy for policy in request.policies if approver.may_answer(policy)]
        if not policies:
            raise UnauthorizedError(
                f"`{approver.name}` may not answer for the policy `{request.policies[0]}`; "
                f"the approver's policies are {', '.join(sorted(approver.policies)) or 'none'}"
            )
        if not request.shows_its_act:
            raise IntegrityError(f"the request `{request.id[:8]}` shows another act than the one that would be done")
        if not is_text(reason):
            raise InvalidInputError("the reason holds half of a character, which no record can hold; write it anew")
        key = self.approvers.key(approver)
        with self.store.read() as tx:
            decided_us = tx.now >> 12
        statements = {
            policy: _core.oversight_answer(
                key,
                request.act,
                request=request.id,
                policy=policy,
                nonce=request.nonce,
                expiry_us=request.expiry_us,
                approver=approver.id,
                approved=approved,
                reason=reason,
                decided_us=decided_us,
            )
            for policy in policies
        }
        with self.store.begin() as tx:
            return transitions.answer(
                tx, request, approver=approver.id, approved=approved, reason=reason, statements=statements
            )

    def cancel(self, request: Request, *, who: str, reason: str = "") -> Request:
        """Takes a request back.

        Raises:
            InvalidInputError: The act has begun, or the request is over.
        """
        with self.store.begin() as tx:
            return transitions.cancel(tx, request.id, who=who, reason=reason)

    # --- after a crash ------------------------------------------------------------------------------------------------

    async def recover(self, found: Callable[[str], Awaitable[Found]]) -> list[Request]:
        """Says how acts ended whose process is gone; none of them is run again.

        No intent in the ledger: it did not start. An intent and no outcome: unknown.

        Args:
            found: What the ledger knows of an act, by the id that its records share.

        Returns:
            The requests that were settled.
        """
        await self.store.run(transitions.expire_due)
        if self.announcer is not None:
            await anyio.to_thread.run_sync(self.announcer.resume)
        left = await self.store.fetch(lambda tx: transitions.listed(tx, ["executing"], 10_000))
        settled = []
        for request in left:
            if alive(request.holder):
                continue
            known = await found(request.ledger_act)
            if known == "elsewhere":
                continue  # it is in the ledger of another state folder that shares the store, which will say
            outcome, reason = _AFTER[known]
            with suppress(InvalidInputError):  # another process settled it
                settled.append(await self.store.run(transitions.settle, request, outcome, reason))
        return settled

    def close(self) -> None:
        """Stops announcing; requests that wait go on waiting."""
        if self.announcer is not None:
            self.announcer.close()
