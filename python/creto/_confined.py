"""Puts a sandbox under the layer: each program, connection and change is an act, performed in the layer's order."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from creto._circumstances import facts_of
from creto._course import spending
from creto._in_thread import in_thread
from creto._in_view import asked_by, hidden_in, marked_by, secrets_of
from creto.config._sources import system_folders
from creto.errors import CretoError, InvalidInputError, UnauthorizedError
from creto.runtime import Box, Change, Connection, Pool, statement

if TYPE_CHECKING:
    from creto._act import Act
    from creto._parts import Parts
    from creto.config._governed import Governed
    from creto.config._settings import Settings
    from creto.layer import EnablementLayer
    from creto.nhi import Agent

__all__ = ["Confinement", "LayerHooks", "confined", "pool_of"]

Patience = float | Callable[[str, str], float | None] | None
_MOST_DENIED = 1000


class _StatusError(Exception):
    """A program ended with another status than 0: the outcome of its act, and no error of anybody's here."""


class Confinement(TypedDict, total=False):
    """What every way into a sandbox takes: all of it may be left out."""

    backend: str | None
    env: Mapping[str, str] | None
    hosts: Mapping[str, str] | None
    secrets: Mapping[str, str] | None
    timeout: Patience


class LayerHooks:
    """Decides for one sandbox by asking the layer.

    Args:
        layer: Who decides, charges and records.
        agent: On whose behalf.
        workdir: The folder that it works in.
        timeout: Seconds to wait for a human, where one has to agree, or a function that tells them by action and
            resource; the configuration's unless given.
    """

    def __init__(self, layer: EnablementLayer, agent: Agent, workdir: Path, timeout: Patience = None) -> None:
        self._layer = layer
        self._agent = agent
        self._workdir = workdir
        self._timeout = timeout
        self._found: tuple[Settings, Governed] | None = None
        self.denied: deque[tuple[str, str, CretoError]] = deque(maxlen=_MOST_DENIED)
        """The newest acts that were refused: action, resource and why. The ledger has them all."""

    def inside(self, sandbox: str) -> None:
        """Has the acts from now on be recorded as the sandbox's."""
        self._agent = self._agent.inside(sandbox)

    def _patience(self, action: str, resource: str) -> float | None:
        return self._timeout(action, resource) if callable(self._timeout) else self._timeout

    async def perform(
        self, action: str, resource: str, context: dict[str, Any], usage: dict[str, int], preview: str | None = None
    ) -> tuple[str, ...]:
        """Performs an act whose operation is the sandbox's own, and gives who agreed to it.

        What is refused is noted in `denied`, and raised.
        """
        try:
            return await self._layer.perform(
                self._agent,
                action,
                resource,
                _approvers,
                context=context,
                usage=usage,
                preview=preview,
                timeout=self._patience(action, resource),
            )
        except CretoError as error:
            self.denied.append((action, resource, error))
            raise

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        """Performs `net:connect`; returns once it is recorded."""
        return await self.connection(Connection(host, port, scheme, None))

    async def connection(self, connection: Connection) -> bool:
        """Performs `net:connect`, and notes on the connection which policies humans answered for it, and who."""
        resource, context = f"{connection.host}:{connection.port}", _circumstances(connection)
        asked = asked_by(self._layer, self._agent, "net:connect", resource, context)
        connection.approvers = await self.perform("net:connect", resource, context, {"connections": 1})
        connection.agreed = frozenset(asked or ())
        return True

    async def _covers(self, agreed: frozenset[str], approvers: Sequence[str], asking: Sequence[str]) -> bool:
        """Whether what these approvers agreed to answers all that asks, and they may still answer for it."""
        if not agreed.issuperset(asking):
            return False
        known = await in_thread(self._layer.parts.desk.approvers.all) if asking else []
        still = [approver for approver in known if approver.id in approvers]
        return all(any(approver.may_answer(policy) for approver in still) for policy in asking)

    async def ended(self, connection: Connection) -> str | None:
        """Why a connection counts no more: who made it or agreed to it may not by now, or policy says otherwise."""
        resource = f"{connection.host}:{connection.port}"
        asking = asked_by(self._layer, self._agent, "net:connect", resource, _circumstances(connection))
        if asking is not None and await self._covers(connection.agreed, connection.approvers, asking):
            return None
        why = f"`net:connect` on `{resource}`: it was let through, and would not be any more"
        self._record("refusal", "net:connect", resource, why, {"refused": "open connection"}, {})
        return why

    async def request(self, connection: Connection, method: str, target: str) -> bool:
        """Performs `http:<method>` for a plain HTTP request.

        What asks about it and was answered for this very connection is not asked again. A connection that policy lets
        through, or that another policy asks about, answers nothing for the request, and no other connection does.
        """
        host, port = connection.host, connection.port
        action = f"http:{method.lower()}"
        path = "" if target == "*" else target  # of the server as a whole, and no part of its name
        url = f"http://{host}{path}" if port == 80 else f"http://{host}:{port}{path}"
        context = facts_of(action, url)
        asking = asked_by(self._layer, self._agent, action, url, context)
        if asking and await self._covers(connection.agreed, connection.approvers, asking):
            await self._account(action, url, {"requests": 1}, asking)
        else:
            await self.perform(action, url, context, {"requests": 1})
        return True

    async def _account(self, action: str, resource: str, usage: dict[str, int], policies: Sequence[str]) -> None:
        """Charges and records an act that a human agreed to as part of another."""
        parts = self._layer.parts
        path = parts.quota_path(self._agent)
        usage = spending(self._layer, self._agent, action, resource, usage) or usage
        try:
            held = await parts.quota.reserve(path, usage)
        except CretoError as error:
            self.denied.append((action, resource, error))
            raise
        held.commit()
        why = f"agreed to with its connection: {', '.join(policies)}"
        self._record("outcome", action, resource, why, {"path": json.dumps(list(path))}, usage)

    def _record(
        self, kind: str, action: str, resource: str, why: str, detail: dict[str, str], usage: dict[str, int]
    ) -> None:
        self._layer.parts.record(
            {
                "who": self._agent.id,
                "delegation_chain": [link for link, _ in self._agent.chain],
                "what": action,
                "resource": resource,
                "why": why,
                "kind": kind,
                "outcome": "success" if kind == "outcome" else None,
                "usage": usage,
                "detail": {**detail, "sandbox": self._agent.sandbox},
            }
        )

    async def command(self, argv: Sequence[str]) -> bool:
        """Performs `process:exec`, as an act of its own."""
        await self.perform("process:exec", argv[0], {"argv": " ".join(argv)}, {"programs": 1})
        return True

    async def program(self, argv: Sequence[str], run: Callable[[], Awaitable[int]]) -> None:
        """Performs `process:exec` from the program's start to its end; its exit status is the outcome."""
        started = False

        async def operation() -> bool:
            nonlocal started
            started = True
            status = await run()
            if status != 0:
                raise _StatusError(f"exit status {status}")
            return True

        context = {"argv": " ".join(argv)}
        try:
            _ended: bool = await self._layer.perform(
                self._agent,
                "process:exec",
                argv[0],
                operation,
                context=context,
                usage={"programs": 1},
                timeout=self._patience("process:exec", argv[0]),
            )
        except _StatusError:
            pass
        except CretoError as error:
            if not started:
                self.denied.append(("process:exec", argv[0], error))
            raise

    async def changes(self, changes: list[Change]) -> list[Change]:
        """Performs `fs:write` for each change, and gives back those that may be carried out."""
        self._found = None  # the folders may be other ones by now
        agreed: list[tuple[Change, tuple[frozenset[str], tuple[str, ...]]]] = []
        refused: set[str] = set()
        for change in changes:
            if change.refused:
                refused.add(change.path)
                continue
            # A folder that stays away takes what is in it along.
            if any(change.path.startswith(f"{path}/") for path in refused):
                continue
            try:
                agreed.append((change, await self._write(change)))
            except CretoError:
                if change.kind == "added" and change.shape == "folder":
                    refused.add(change.path)
        # Humans may have thought for hours about those that came later.
        return [change for change, yes in agreed if await self._stands(change, *yes)]

    async def _stands(self, change: Change, agreed: frozenset[str], approvers: tuple[str, ...]) -> bool:
        """Whether a change that was agreed to may still be carried out."""
        asking = asked_by(self._layer, self._agent, "fs:write", change.name, _facts(change))
        if asking is not None and await self._covers(agreed, approvers, asking):
            found = self._found
            if found is None or found[0] is self._layer.parts.live.current or await self._ours(change) is None:
                return True
        why = f"`fs:write` on `{change.name}`: it was agreed to, and would not be any more"
        self._refuse(change, why, "agreement")
        return False

    def _governed(self) -> Governed:
        """What no agent changes; looked for anew where the configuration was reloaded while a human thought."""
        live = self._layer.parts.live
        if self._found is None or self._found[0] is not live.current:
            self._found = (live.current, live.governed())
        return self._found[1]

    async def _ours(self, change: Change) -> str | None:
        """What a change would touch that no agent may; None where it touches nothing of that."""
        governed = self._governed().why(
            self._workdir / change.path,
            link=change.shape == "link",
            empty=change.shape == "folder" and change.kind == "added",
        )
        marked = marked_by(self._workdir, change.path)
        if governed is None and marked is not None:
            import anyio

            if await anyio.to_thread.run_sync(hidden_in, self._layer, self._agent, self._workdir, marked):
                governed = "what marks a folder as installed, which would have files in view that policy hides"
        return governed

    def _refuse(self, change: Change, why: str, refused: str) -> UnauthorizedError:
        self._record("refusal", "fs:write", change.name, why, {"refused": refused}, {})
        error = UnauthorizedError(why)
        self.denied.append(("fs:write", change.name, error))
        return error

    async def _write(self, change: Change) -> tuple[frozenset[str], tuple[str, ...]]:
        """Performs `fs:write`; gives the policies that humans answered, and who they were."""
        governed = await self._ours(change)
        if governed is not None:
            why = (
                f"`fs:write` on `{change.name}`: it is {governed}; "
                "whoever answers for the agent changes it, outside of the sandbox"
            )
            raise self._refuse(change, why, "configuration")
        context = _facts(change)
        asked = asked_by(self._layer, self._agent, "fs:write", change.name, context)
        approvers = await self.perform(
            "fs:write", change.name, context, {"files_changed": 1}, change.diff or str(change)
        )
        return frozenset(asked or ()), approvers


@asynccontextmanager
async def confined(
    layer: EnablementLayer,
    agent: Agent,
    workdir: str | os.PathLike[str] = ".",
    *,
    backend: str | None = None,
    env: Mapping[str, str] | None = None,
    hosts: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    timeout: Patience = None,
) -> AsyncIterator[Box]:
    """A sandbox whose every act goes through the layer; `EnablementLayer.sandbox`.

    Args:
        layer: Who decides, charges and records.
        agent: Who is inside.
        workdir: The folder that it works in; what it changes there is asked about by `Box.settle`.
        backend: `gvisor` or `process`; the configuration's unless said.
        env: More environment for programs.
        hosts: Names that lead to an address of your choice, beside the configuration's. A sandbox with names of its own
            is made for the purpose, and not claimed from the layer's pool.
        secrets: More secrets, beside those that are kept for the agent.
        timeout: Seconds to wait for a human, where one has to agree, or a function that tells them by action and
            resource; the configuration's unless given.

    Raises:
        UnauthorizedError: The agent may not read the folder.
        InvalidInputError: It is no folder, or holds creto's own state, keys or configuration, or lies in them.
        SandboxSpawnFailedError: No sandbox could be started.
    """
    import anyio

    folder = await anyio.to_thread.run_sync(Path(workdir).resolve)
    if not await anyio.to_thread.run_sync(folder.is_dir):
        raise InvalidInputError(
            f"the working folder `{workdir}` is no folder on this machine; make it, or name another"
        )
    hooks = LayerHooks(layer, agent, folder, timeout)
    await hooks.perform("fs:read", ".", {"path": "."}, {})
    hidden = await anyio.to_thread.run_sync(hidden_in, layer, agent, folder)
    kept = await anyio.to_thread.run_sync(secrets_of, layer, agent)
    pool = layer.pool(backend) if hosts is None else pool_of(layer.parts, backend, hosts)
    try:
        async with pool.claim(
            agent.id, folder, hooks, secrets={**kept, **(secrets or {})}, env=env, hidden=hidden
        ) as box:
            hooks.inside(box.id)
            # Beside the program: measuring an image for the first time takes a second or more.
            box.attest(lambda: attest(layer, pool, agent, box))
            yield box
    finally:
        if hosts is not None:
            await pool.close()


def pool_of(parts: Parts, backend: str | None, hosts: Mapping[str, str] | None = None) -> Pool:
    """A pool as the configuration says; with names of its own, one that keeps nothing waiting.

    Args:
        parts: Whose configuration and state folder.
        backend: `gvisor` or `process`; the configuration's unless given.
        hosts: Names that lead to an address of the caller's choice.
    """
    settings = parts.settings.runtime.model_dump()
    if hosts is not None:
        settings["warm_pool_min_size"] = 0
    # No agent may read or rewrite what decides about it.
    return Pool(settings, parts.folder, backend=backend, hosts=hosts, protected=system_folders())


def _approvers(act: Act) -> tuple[str, ...]:
    return act.approvers


def _facts(change: Change) -> dict[str, Any]:
    context: dict[str, Any] = {"path": change.name, "change": change.kind}
    if change.size_after is not None:
        context["bytes"] = change.size_after
    if change.digest_after:
        context["sha256"] = change.digest_after
    if change.shape == "file" and (change.mode_after or 0) & 0o111 & ~(change.mode_before or 0):
        context["executable"] = True  # the content may be the same as before, and the act is not
    if change.opened:
        context["mode"] = change.opened
    return context


def _circumstances(connection: Connection) -> dict[str, Any]:
    scheme = {"scheme": connection.scheme} if connection.scheme else {}
    return {"host": connection.host, "port": connection.port, **scheme}


async def attest(layer: EnablementLayer, pool: Pool, agent: Agent, box: Box) -> str:
    """The signed attestation of a claimed sandbox, as DSSE JSON, signed with the agent's own keys, and recorded.

    Args:
        layer: Whose policy was in force.
        pool: Where the sandbox comes from.
        agent: Who is inside.
        box: The sandbox.
    """
    import hashlib

    from creto import _core

    made = statement(
        await pool.facts(),
        agent=agent.id,
        sandbox=box.id,
        policy_digest=(layer.parts.policy.digest or b"").hex(),
        agent_key=agent.signing_key.verifying_key.fingerprint,
    )
    payload = json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
    envelope = _core.dsse_sign(agent.signing_key, _core.IN_TOTO, payload)
    layer.parts.audit.log_nowait(
        {
            "who": agent.id,
            "what": "sandbox:attest",
            "resource": box.id,
            "kind": "event",
            "outcome": "success",
            "digest": hashlib.sha256(payload).digest(),
            "detail": {"backend": made["predicate"]["backend"], "level": made["predicate"]["level"]},
        }
    )
    return envelope
