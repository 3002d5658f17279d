"""Acts on record, put together again as far as the ledger tells, and asked of another policy set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from creto import _core
from creto._circumstances import facts_of
from creto._foreign import json_value
from creto.errors import InvalidInputError

__all__ = ["Act", "Replayed", "replayed"]

_REQUIRED = re.compile(r"`context\.([^`]+)`(?= \(.*\) is missing$)")


@dataclass(frozen=True)
class Act:
    """What the records of one act tell.

    Args:
        who: The acting agent.
        action: `namespace:verb`.
        resource: On what.
        was: `allow`, `ask` or `deny`, as policy decided.
        chain: For whom, the first delegator first.
        context: The circumstances that are known; a name that is known to have been left out is not there.
        known: Every name that is known, given or not.
    """

    who: str
    action: str
    resource: str
    was: str
    chain: tuple[str, ...]
    context: dict[str, Any]
    known: frozenset[str]

    @classmethod
    def read(cls, records: Iterable[Mapping[str, Any]]) -> Iterator[Act]:
        """The acts that records tell of, in the order of their first record.

        Args:
            records: As the ledger gives them.
        """
        acts: dict[Any, list[Mapping[str, Any]]] = {}
        for record in records:
            if str(record["kind"]) in ("intent", "outcome", "refusal"):
                acts.setdefault(record["act"], []).append(record)
        for told in acts.values():
            first = told[0]
            context = derived(first["what"], first["resource"])
            known = set(context)
            was = "allow"
            for record in told:
                detail = record["detail"]
                if "context" in detail:
                    recorded = _recorded(detail["context"])
                    known |= set(recorded)
                    context |= {name: value for name, value in recorded.items() if value is not None}
                if record["digest"] or detail.get("refused") == "oversight":
                    was = "ask"  # a human agreed to exactly this act, or did not
                if detail.get("refused") == "policy":
                    was = "deny"
            chain = tuple(first["delegation_chain"])
            yield cls(first["who"], first["what"], first["resource"], was, chain, context, frozenset(known))


@dataclass(frozen=True)
class Replayed:
    """An act, and what another set says of it.

    Args:
        act: The act.
        now: `allow`, `ask` or `deny`.
        why: The policies that decide, or the reason of a denial.
        unknown: What the set looks at and the ledger does not tell; empty where the replay is exact.
    """

    act: Act
    now: str
    why: str
    unknown: tuple[str, ...]


def replayed(engine: _core.PolicyEngine, act: Act) -> Replayed:
    """Asks a set about an act, for every link of its chain as the gate does.

    Args:
        engine: The set.
        act: The act.
    """
    others = [link for link in act.chain if link != act.who]
    lacking = [name for name in engine.reads(act.action) if name not in act.known]
    lacking = _looked_at(engine, act, (act.who, *others), lacking) if lacking else []
    unknown = [f"`context.{name}`" if name != "*" else "the context as a whole" for name in lacking]
    if others:
        unknown.append("what the delegation was narrowed to")
    asked: list[str] = []
    permit: str | None = None
    for who in (act.who, *others):
        try:
            decision = engine.check_nowait(who, act.action, act.resource, act.context)
        except InvalidInputError as error:  # what cannot be read is denied by the gate too
            return Replayed(act, "deny", str(error), tuple(unknown))
        if decision.outcome == "deny":
            # What the schema requires was given at the time, or the act would have been refused: it is not on record.
            required = _REQUIRED.search(decision.reason or "")
            if required and required[1] not in act.known and required[0] not in unknown:
                unknown.append(required[0])
            prefix = "" if who == act.who else f"`{who}`, for whom the agent acts, may not: "
            return Replayed(act, "deny", f"{prefix}{decision.reason}", tuple(unknown))
        asked += decision.policy_ids
        permit = permit or decision.permit
    if asked:
        return Replayed(act, "ask", ", ".join(sorted(set(asked))), tuple(unknown))
    return Replayed(act, "allow", permit or "", tuple(unknown))


def _looked_at(engine: _core.PolicyEngine, act: Act, links: Iterable[str], names: list[str]) -> list[str]:
    """Of these names those that a condition looks at which this act comes to; a doubt counts as a look."""
    try:
        told = [policy for who in links for policy in engine.explain(who, act.action, act.resource, act.context)]
    except InvalidInputError:
        return names
    texts = [each["text"] for policy in told for each in policy["conditions"] if each["reached"]]
    return [name for name in names if any(_mentions(text, name) for text in texts)]


def _mentions(text: str, name: str) -> bool:
    if not name.isidentifier():
        return "context" in text  # as a whole, or by a name that stands in quotes
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def derived(action: str, resource: str) -> dict[str, Any]:
    """What a resource tells of its circumstances, by the action's vocabulary.

    Args:
        action: `namespace:verb`.
        resource: On what.

    Example:
        >>> derived("net:connect", "example.org:443")
        {'host': 'example.org', 'port': 443}
    """
    try:
        return facts_of(action, resource)
    except InvalidInputError:  # what stood there led nowhere for certain
        return {}


def _recorded(text: Any) -> dict[str, Any]:
    """What a record tells of the context; nothing where it is not of our form."""
    try:
        told = json_value(text)
    except (ValueError, TypeError):
        return {}
    return told if isinstance(told, dict) else {}
