"""The async face of the engine: it never waits, so every check has a form without `await` too."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy

__all__ = ["AuthzClient", "CheckRequest", "PreparedCheck"]

Entity = Mapping[str, Any]
EntitySource = Path | Callable[[], Iterable[Entity]] | Callable[[], Awaitable[Iterable[Entity]]] | Any


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is asked before an act.

    Args:
        agent: Who acts: a SPIFFE id, an agent with an `id`, or `Type::"id"`.
        action: `namespace:verb`, such as `http:get`.
        resource: On what; a bare id where the schema has one type for the action, else `Type::"id"`.
        context: The circumstances, by name.

    Example:
        >>> CheckRequest("spiffe://creto.local/agent/a", "fs:read", "notes.md", {"path": "notes.md"}).action
        'fs:read'
    """

    agent: Any
    action: str
    resource: str
    context: Mapping[str, Any] | None = None


class PreparedCheck:
    """An agent and an action looked up once, for repeated checks; good whatever is installed later."""

    __slots__ = ("_inner",)

    def __init__(self, inner: _core.Prepared) -> None:
        self._inner = inner

    def check_nowait(self, resource: str | None = None, context: dict[str, Any] | None = None) -> _core.Decision:
        """Decides; the resource is named where it was not prepared.

        Args:
            resource: On what; None where it was given to `prepare`.
            context: The circumstances, by name.
        """
        return self._inner.check_nowait(resource, context)

    async def check(self, resource: str | None = None, context: dict[str, Any] | None = None) -> _core.Decision:
        """`check_nowait`, awaitable."""
        return self._inner.check_nowait(resource, context)


def _name(agent: Any) -> str:
    return agent if type(agent) is str else str(getattr(agent, "id", agent))


class AuthzClient:
    """Decides acts by the installed policies.

    Args:
        engine: The engine to ask; one of its own by default, with nothing installed.
        sources: Where entities come from at `refresh`: files in Cedar's JSON, callables (async ones too) that give
            entities, or anything with a `policy_entities()` method. None of them is asked during a check.

    Example:
        >>> from creto.authz import AuthzClient
        >>> authz = AuthzClient()
        >>> _ = authz.install('permit (principal, action == Action::"tool:call", resource);')
        >>> authz.check_nowait("spiffe://creto.local/agent/a", "tool:call", "search").outcome
        'allow'
        >>> authz.check_nowait("spiffe://creto.local/agent/a", "secret:use", "key").reason
        'no policy permits it'
    """

    def __init__(self, engine: _core.PolicyEngine | None = None, *, sources: Iterable[EntitySource] = ()) -> None:
        self.engine = engine if engine is not None else _core.PolicyEngine()
        self.sources = tuple(sources)
        self._known: dict[tuple[str, str], str] = {}

    def install(
        self, policies: str, schema: str | None = None, entities: str | Iterable[Entity] = ()
    ) -> list[dict[str, Any]]:
        """Installs a policy set in place of the one before it, if it parses and validates.

        Args:
            policies: Cedar policies, or Cedar's JSON for them.
            schema: A schema in either syntax; the starter schema by default.
            entities: Entities in Cedar's JSON, or as mappings.

        Returns:
            What should be read, and does not stand in the way.

        Raises:
            InvalidInputError: It is not right; the set before it serves on.
        """
        from creto.authz._starter import starter_schema

        text = entities if isinstance(entities, str) else json.dumps(list(entities))
        _, warnings = self.engine.install(policies, schema if schema is not None else starter_schema(), text)
        self._known.clear()
        return warnings

    def check_nowait(
        self, agent: Any, action: str, resource: str, context: dict[str, Any] | None = None
    ) -> _core.Decision:
        """Decides; every doubt is a denial, and nothing is raised for one.

        Args:
            agent: Who acts.
            action: `namespace:verb`.
            resource: On what.
            context: The circumstances, by name: text, integers, booleans, lists, dicts, Decimal, IP addresses,
                datetimes, timedeltas.

        Raises:
            InvalidInputError: The context holds a value that has no stated encoding.
        """
        return self.engine.check_nowait(agent if type(agent) is str else _name(agent), action, resource, context)

    async def check(self, request: CheckRequest) -> _core.Decision:
        """`check_nowait`, awaitable, over a request.

        Args:
            request: Who, what, on what.
        """
        context = request.context
        return self.engine.check_nowait(
            _name(request.agent),
            request.action,
            request.resource,
            context if context is None or type(context) is dict else dict(context),
        )

    def prepare(self, agent: Any, action: str, resource: str | None = None) -> PreparedCheck:
        """Looks up an agent and an action, and the resource where it is known, for repeated checks.

        Args:
            agent: Who acts.
            action: `namespace:verb`.
            resource: On what; left out where each check names its own.

        Raises:
            InvalidInputError: No set is installed, or a name cannot be read.
        """
        return PreparedCheck(self.engine.prepare(_name(agent), action, resource))

    def roster(self, role: str, names: Sequence[str], kind: str | None = None) -> _core.Roster:
        """Looks up names once, so that `check_many` can be given their places as numpy arrays.

        Args:
            role: `principal`, `action` or `resource`.
            names: The names, in the order in which they are numbered.
            kind: The type of bare resources.
        """
        return self.engine.roster(role, list(names), kind)

    def check_many(
        self,
        agents: Sequence[str] | numpy.ndarray,
        actions: Sequence[str] | numpy.ndarray,
        resources: Sequence[str] | numpy.ndarray,
        *,
        rosters: tuple[_core.Roster, _core.Roster, _core.Roster] | None = None,
        kind: str | None = None,
    ) -> numpy.ndarray:
        """Decides many acts without circumstances, all by one version of policies and entities.

        Args:
            agents: Names, or with `rosters` their places as unsigned 32-bit integers; one for each act.
            actions: The same of actions.
            resources: The same of resources.
            rosters: Principals, actions and resources looked up by `roster`.
            kind: The type of bare resources, where names are given.

        Returns:
            One unsigned byte for each act: 0 denied, 1 allowed, 2 a human has to agree.

        Raises:
            InvalidInputError: The columns differ in length, or a name cannot be read.

        Example:
            >>> from creto.authz import AuthzClient
            >>> authz = AuthzClient()
            >>> _ = authz.install('permit (principal, action, resource == Tool::"search");')
            >>> agents, actions = ["spiffe://t/agent/a"] * 2, ["tool:call"] * 2
            >>> authz.check_many(agents, actions, ["search", "shell"], kind="Tool").tolist()
            [1, 0]
        """
        import numpy as np

        if rosters is None:
            columns = []
            tables = []
            for role, names in (("principal", agents), ("action", actions), ("resource", resources)):
                unique, places = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
                tables.append(self.engine.roster(role, unique.tolist(), kind if role == "resource" else None))
                columns.append(places.astype(np.uint32))
            principals, verbs, things = tables
        else:
            principals, verbs, things = rosters
            columns = [np.ascontiguousarray(column, dtype=np.uint32) for column in (agents, actions, resources)]
        codes = self.engine.check_places(principals, verbs, things, *columns)
        return np.frombuffer(codes, dtype=np.uint8)

    def explain(
        self, agent: Any, action: str, resource: str, context: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Every policy whose scope fits, each of its conditions with its value, in cedar-policy's words.

        Args:
            agent: Who acts.
            action: `namespace:verb`.
            resource: On what.
            context: The circumstances, by name.

        Returns:
            For each policy: `policy`, `effect`, `oversight`, `holds` (None where a condition erred) and `conditions`,
            each with `word`, `text`, `value` and `reached`.

        Raises:
            InvalidInputError: No set is installed, or the request cannot be read.
        """
        return self.engine.explain(_name(agent), action, resource, context)

    async def refresh(self) -> int:
        """Asks every source for its entities, and puts in force what changed; a source that fails changes nothing.

        Returns:
            How many entities were added, replaced or removed.

        Raises:
            InvalidInputError: A source gave what is not an entity, or does not fit the schema.
        """
        import anyio.to_thread

        fresh: dict[tuple[str, str], Entity] = {}
        for source in self.sources:
            if isinstance(source, Path):
                given: Any = json.loads(await anyio.to_thread.run_sync(source.read_text))
            else:
                ask = getattr(source, "policy_entities", source)
                given = ask()
                if hasattr(given, "__await__"):
                    given = await given
            for entity in given:
                fresh[_uid(entity)] = entity
        texts = {uid: json.dumps(entity, sort_keys=True) for uid, entity in fresh.items()}
        changed = [text for uid, text in texts.items() if self._known.get(uid) != text]
        gone = [uid for uid in self._known if uid not in texts]
        if changed:
            self.engine.upsert_entities(f"[{','.join(changed)}]")
        if gone:
            self.engine.remove_entities(gone)
        self._known = texts
        return len(changed) + len(gone)


def _uid(entity: Entity) -> tuple[str, str]:
    try:
        uid = entity["uid"]
        uid = uid.get("__entity", uid)
        return str(uid["type"]), str(uid["id"])
    except (TypeError, KeyError, AttributeError):
        raise InvalidInputError(
            f"not an entity: {entity!r}; write {{'uid': {{'type': ..., 'id': ...}}, 'attrs': {{}}, 'parents': []}}"
        ) from None
