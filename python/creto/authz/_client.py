"""The async face of the engine: it never waits, so every check has a form without `await` too."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from creto import _core
from creto._in_thread import in_thread
from creto.authz._entities import entities_of, entity_text, uid_of
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
    """An agent and an action looked up once, for repeated checks; good whatever is installed later.

    Example:
        >>> from creto.authz import AuthzClient
        >>> authz = AuthzClient()
        >>> _ = authz.install('permit (principal, action == Action::"tool:call", resource == Tool::"search");')
        >>> calls = authz.prepare("spiffe://creto.local/agent/a", "tool:call")
        >>> [calls.check_nowait(tool).outcome for tool in ("search", "shell")]
        ['allow', 'deny']
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: _core.Prepared) -> None:
        self._inner = inner

    def check_nowait(self, resource: str | None = None, context: dict[str, Any] | None = None) -> _core.Decision:
        """Decides; the resource is named where it was not prepared.

        Args:
            resource: On what; None where it was given to `prepare`.
            context: The circumstances, by name.

        Raises:
            InvalidInputError: The context holds a value that has no stated encoding.
        """
        return self._inner.check_nowait(resource, context)

    async def check(self, resource: str | None = None, context: dict[str, Any] | None = None) -> _core.Decision:
        """`check_nowait`, awaitable.

        Args:
            resource: On what; None where it was given to `prepare`.
            context: The circumstances, by name.

        Raises:
            InvalidInputError: The context holds a value that has no stated encoding.
        """
        return self._inner.check_nowait(resource, context)


def _name(agent: Any) -> str:
    return agent if type(agent) is str else str(getattr(agent, "id", agent))


class AuthzClient:
    """Decides acts by the installed policies.

    Args:
        engine: The engine to ask; one of its own by default, with nothing installed.
        sources: Where entities come from at `refresh`: files in Cedar's JSON, callables (async ones too) that give
            entities, or anything with a `policy_entities()` method. None of them is asked during a check.

    Raises:
        InvalidInputError: A source is none of these.

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
        for source in self.sources:
            if not (isinstance(source, Path) or callable(source) or hasattr(source, "policy_entities")):
                raise InvalidInputError(
                    f"`{source!r}` is no source of entities: give a Path, a callable, or what has `policy_entities()`"
                )
        self._known: dict[tuple[str, str], str] = {}
        # What was given with the policies; it counts again where a source no longer names what it named.
        self._given: dict[tuple[str, str], str] = {}
        # A source that was asked earlier must not have the last word over one that was asked later.
        self._refreshing = anyio.Lock()
        # What one thread installs is put beside what another has taken over by then.
        self._changing = threading.Lock()

    def install(
        self, policies: str, schema: str | None = None, entities: str | Iterable[Entity] = ()
    ) -> list[dict[str, Any]]:
        """Installs a policy set in place of the one before it, if it parses and validates.

        Args:
            policies: Cedar policies, or Cedar's JSON for them.
            schema: A schema in either syntax; the starter schema by default.
            entities: Entities in Cedar's JSON, or as mappings. What the sources gave at the last `refresh` stays
                beside them, and is the one that counts where both name an entity.

        Returns:
            What should be read, and does not stand in the way.

        Raises:
            InvalidInputError: It is not right; the set before it serves on.

        Example:
            >>> from creto.authz import AuthzClient
            >>> from creto.errors import InvalidInputError
            >>> authz = AuthzClient()
            >>> authz.install('permit (principal, action == Action::"tool:call", resource);')
            []
            >>> try:
            ...     authz.install("permit (principal, action, resource")
            ... except InvalidInputError:
            ...     authz.check_nowait("spiffe://creto.local/agent/a", "tool:call", "search").outcome
            'allow'
        """
        from creto.authz._starter import starter_schema

        text = entities if isinstance(entities, str) else f"[{','.join(map(entity_text, entities))}]"
        given: dict[tuple[str, str], str] = {}
        if self.sources:
            given = {uid_of(entity): entity_text(entity) for entity in entities_of(text or "[]", "the text")}
        with self._changing:
            if self._known:
                # A new set of policies does not make the sources' entities unknown: who was revoked stays revoked.
                text = f"[{','.join((given | self._known).values())}]"
            _, warnings = self.engine.install(policies, schema if schema is not None else starter_schema(), text)
            self._given = given
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

        Example:
            >>> from creto.authz import AuthzClient
            >>> authz = AuthzClient()
            >>> _ = authz.install('@oversight("desk") forbid (principal, action, resource);'
            ...                   'permit (principal, action == Action::"secret:use", resource);')
            >>> asked = authz.check_nowait("spiffe://creto.local/agent/a", "secret:use", "key")
            >>> asked.outcome, asked.policy_ids
            ('oversight', ['desk'])
        """
        return self.engine.check_nowait(agent if type(agent) is str else _name(agent), action, resource, context)

    async def check(self, request: CheckRequest) -> _core.Decision:
        """`check_nowait`, awaitable, over a request.

        Args:
            request: Who, what, on what.

        Raises:
            InvalidInputError: The context holds a value that has no stated encoding.

        Example:
            >>> import asyncio
            >>> from creto.authz import AuthzClient, CheckRequest
            >>> authz = AuthzClient()
            >>> request = CheckRequest("spiffe://creto.local/agent/a", "tool:call", "search")
            >>> asyncio.run(authz.check(request)).reason
            'no policy set is installed'
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

        Raises:
            InvalidInputError: No set is installed, the role is not one of these, a resource has no type, or a name
                cannot be read.

        Example:
            >>> import numpy as np
            >>> from creto.authz import AuthzClient
            >>> authz = AuthzClient()
            >>> _ = authz.install('permit (principal, action, resource == Tool::"search");')
            >>> rosters = (authz.roster("principal", ["spiffe://creto.local/agent/a"]),
            ...            authz.roster("action", ["tool:call"]), authz.roster("resource", ["search", "shell"], "Tool"))
            >>> first = np.zeros(3, dtype=np.uint32)
            >>> authz.check_many(first, first, np.array([1, 0, 1], dtype=np.uint32), rosters=rosters).tolist()
            [0, 1, 0]
        """
        listed = list(names)
        bare = next((name for name in listed if '::"' not in name), None) if role == "resource" and not kind else None
        if bare is not None:
            # A check takes the type from its action; here the actions are other columns, and it would meet nothing.
            raise InvalidInputError(f'the resource `{bare}` has no type: name it by `kind`, or write `Type::"{bare}"`')
        return self.engine.roster(role, listed, kind)

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
            InvalidInputError: The columns differ in length, a name cannot be read, a resource has no type, or what
                should be a place is no unsigned 32-bit integer.

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
                # Names as they are: an array of text would cut a zero byte off their end, and make two of them one.
                places: dict[Hashable, int] = {}
                given = names.tolist() if isinstance(names, np.ndarray) else names
                columns.append(np.array([places.setdefault(name, len(places)) for name in given], dtype=np.uint32))
                listed = [name if type(name) is str else _name(name) for name in places]
                tables.append(self.roster(role, listed, kind if role == "resource" else None))
            principals, verbs, things = tables
        else:
            principals, verbs, things = rosters
            columns = [_places(column) for column in (agents, actions, resources)]
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
            each with `word`, `text`, `value`, what it looks at (`given`) and `reached`.

        Raises:
            InvalidInputError: No set is installed, or the request cannot be read.

        Example:
            >>> from creto.authz import AuthzClient
            >>> authz = AuthzClient()
            >>> _ = authz.install('permit (principal, action == Action::"fs:read", resource)'
            ...                   'unless { context.path like "/*" };')
            >>> [told] = authz.explain("spiffe://creto.local/agent/a", "fs:read", "/etc", {"path": "/etc"})
            >>> told["holds"], told["conditions"][0]["given"]
            (False, [('context.path', '"/etc"')])
        """
        return self.engine.explain(_name(agent), action, resource, context)

    async def refresh(self) -> int:
        """Asks every source for its entities, and puts in force what changed; a source that fails changes nothing.

        Returns:
            How many entities were added, replaced or removed.

        Raises:
            InvalidInputError: A source gave what is not an entity, or does not fit the schema; no set is installed.
            OSError: A file cannot be read.

        Example:
            >>> import asyncio
            >>> from creto.authz import AuthzClient
            >>> def directory():
            ...     yield {"uid": {"type": "Agent", "id": "a"}, "attrs": {"role": "buyer"}, "parents": []}
            >>> authz = AuthzClient(sources=[directory])
            >>> _ = authz.install('permit (principal, action, resource) when { principal has role };')
            >>> asyncio.run(authz.refresh()), authz.check_nowait('Agent::"a"', "secret:use", "key").outcome
            (1, 'allow')
        """
        async with self._refreshing:
            fresh = await self._ask()
            return await in_thread(lambda: self._take(fresh))

    async def _ask(self) -> dict[tuple[str, str], Entity]:
        fresh: dict[tuple[str, str], Entity] = {}
        for source in self.sources:
            if isinstance(source, Path):
                given: Any = entities_of(await in_thread(source.read_bytes), f"`{source}`")
            else:
                ask = getattr(source, "policy_entities", source)
                given = ask()
                if hasattr(given, "__await__"):
                    given = await given
            if not isinstance(given, Iterable):
                raise InvalidInputError(f"{source!r} gave `{given!r}`: give entities, one after the other")
            for entity in given:
                fresh[uid_of(entity)] = entity
        return fresh

    def _take(self, fresh: dict[tuple[str, str], Entity]) -> int:
        texts = {uid: entity_text(entity) for uid, entity in fresh.items()}
        with self._changing:
            changed = [text for uid, text in texts.items() if self._known.get(uid) != text]
            dropped = [uid for uid in self._known if uid not in texts]
            changed += [self._given[uid] for uid in dropped if uid in self._given]
            gone = [uid for uid in dropped if uid not in self._given]
            if changed:
                self.engine.upsert_entities(f"[{','.join(changed)}]")
            if gone:
                self.engine.remove_entities(gone)
            self._known = texts
        return len(changed) + len(gone)


def _places(column: Sequence[str] | numpy.ndarray) -> numpy.ndarray:
    """A column of places in a roster; a conversion that would make another place of one is refused."""
    import numpy as np

    given = np.asarray(column)
    if given.dtype != np.uint32:
        top = np.iinfo(np.uint32).max
        if given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() > top):
            raise InvalidInputError("a place in a roster is an unsigned 32-bit integer, and this column holds others")
        given = given.astype(np.uint32)
    return np.ascontiguousarray(given)
