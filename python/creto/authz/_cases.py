"""Tables of requests with the answers that are expected, and how much of a policy set they reach."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
from creto._circumstances import circumstances
from creto.errors import InvalidInputError
from creto.nhi._names import agent_id

__all__ = [
    "EXPECTED",
    "Case",
    "Coverage",
    "Result",
    "Table",
    "named_files",
    "named_text",
    "read_table",
    "rows",
    "written",
]

EXPECTED = ("allow", "deny", "ask")


@dataclass(frozen=True)
class Case:
    """One request and its expected answer."""

    name: str
    agent: str
    action: str
    resource: str
    context: dict[str, Any]
    expect: str
    policy: str | None


@dataclass(frozen=True)
class Result:
    """A case and what came of it."""

    case: Case
    outcome: str
    why: str

    @property
    def passed(self) -> bool:
        """True where the answer, and the policy where one is named, are as expected."""
        case = self.case
        return self.outcome == case.expect and (case.policy is None or case.policy in self.why.split("`"))


@dataclass
class Coverage:
    """Which policies decided something, and which conditions were seen both ways."""

    policies: dict[str, bool] = field(default_factory=dict)
    conditions: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, explained: list[dict[str, Any]]) -> None:
        """Counts what one request reached."""
        for policy in explained:
            name = policy["policy"]
            self.policies[name] = self.policies.get(name, False) or policy["holds"] is True
            for condition in policy["conditions"]:
                seen = self.conditions.setdefault((name, condition["text"]), set())
                if condition["reached"]:
                    seen.add(condition["value"])

    @property
    def idle(self) -> list[str]:
        """Policies that decided no case."""
        return sorted(name for name, held in self.policies.items() if not held)

    @property
    def one_sided(self) -> list[tuple[str, str, str]]:
        """Conditions that were not seen both true and false: policy, text, what was seen."""
        return [
            (policy, text, ", ".join(sorted(seen)) or "nothing")
            for (policy, text), seen in self.conditions.items()
            if not {"true", "false"} <= seen
        ]


class Table:
    """A table of cases with the set that they are for.

    Args:
        engine: The set, installed.
        cases: The requests.
        names: Of the set's policies.
    """

    def __init__(self, engine: _core.PolicyEngine, cases: list[Case], names: list[str]) -> None:
        self.engine = engine
        self.cases = cases
        self.names = names

    @classmethod
    def load(cls, path: Path, *, trust_domain: str = "creto.local") -> Table:
        """Reads a table from a TOML or YAML file, and the policies, schema and entities that it names beside it.

        Args:
            path: The file.
            trust_domain: Of agents given by their short name.

        Raises:
            InvalidInputError: The table, or what it names, is not right.
        """
        data = read_table(path)
        if "assert" in data:
            raise InvalidInputError(f"{path} holds assertions, no cases: prove them with `creto policy prove {path}`")
        unknown = set(data) - {"policies", "schema", "entities", "case"}
        if unknown:
            raise InvalidInputError(
                f"{path}: `{min(map(str, unknown))}` is not known; there are policies, schema, entities and case"
            )
        entities = data.get("entities")
        if isinstance(entities, list):
            import json

            given = json.dumps(entities, default=str)
        else:
            given = named_text(path, data, "entities") or "[]"
        from creto.authz._configured import PolicySet

        engine = _core.PolicyEngine()
        PolicySet.of(named_files(path, data), named_text(path, data, "schema")).install(engine, given)
        cases = [_case(path, number, each, trust_domain) for number, each in enumerate(rows(path, data, "case"), 1)]
        if not cases:
            raise InvalidInputError(f"{path}: there is no case; write [[case]] with agent, action, resource and expect")
        return cls(engine, cases, engine.policy_ids())

    def run(self) -> tuple[list[Result], Coverage]:
        """Asks every case; what its resource tells is in its context by itself, as where acts are let in."""
        coverage = Coverage(policies=dict.fromkeys(self.names, False))
        results = []
        for case in self.cases:
            try:
                context = circumstances(case.action, case.resource, case.context)
            except InvalidInputError as error:  # nothing is done on what may be another place: no policy is asked
                results.append(Result(case, "deny", error.message))
                continue
            try:
                decision = self.engine.check_nowait(case.agent, case.action, case.resource, context)
                explained = self.engine.explain(case.agent, case.action, case.resource, context)
            except InvalidInputError as error:  # it would be denied too, and is no case that anybody means
                raise InvalidInputError(f"case `{case.name}`: {error.what}") from None
            outcome = {"oversight": "ask"}.get(decision.outcome, decision.outcome)
            why = {
                "allow": f"permitted by `{decision.permit}`",
                "ask": "asked by " + ", ".join(f"`{each}`" for each in decision.policy_ids),
            }.get(outcome, decision.reason or "")
            results.append(Result(case, outcome, why))
            coverage.add(explained)
        return results, coverage


def named_files(path: Path, data: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The policy files that a table names beside it, each with its text.

    Args:
        path: The table.
        data: What is in it.

    Raises:
        InvalidInputError: It names none, or one that is not there.
    """
    named = data.get("policies") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise InvalidInputError(f"{path}: name the policy files under `policies`")
    return [(path.parent / name, _beside(path, name)) for name in named]


def named_text(path: Path, data: Mapping[str, Any], key: str) -> str | None:
    """The text of a file that a table names beside it; None where it names none.

    Args:
        path: The table.
        data: What is in it.
        key: Under which name it does.

    Raises:
        InvalidInputError: It is not the name of a file that can be read.
    """
    name = data.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"{path}: `{key}` is the name of a file")
    return _beside(path, name)


def _beside(path: Path, name: str) -> str:
    file = path.parent / name
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        raise InvalidInputError(f"{path} names `{file}`, which is not there or cannot be read") from None
    except ValueError:
        raise InvalidInputError(f"{path} names `{file}`, which is not text in UTF-8") from None


def rows(path: Path, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables of an array of tables.

    Args:
        path: The file.
        data: What is in it.
        key: The array's name.

    Raises:
        InvalidInputError: It is something else.
    """
    listed = data.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InvalidInputError(f"{path}: `{key}` is an array of tables; write [[{key}]]")
    return listed


def read_table(path: Path) -> dict[str, Any]:
    """A file of tables, TOML or YAML.

    Args:
        path: The file.

    Raises:
        InvalidInputError: It does not read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            from creto.config._contents import yaml_value

            data = yaml_value(text)
        else:
            data = tomllib.loads(text)
    except RecursionError as error:
        raise InvalidInputError(f"{path}: it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path}: it is not text in UTF-8") from error
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"{path}: it holds no tables; write `policies`, and [[case]] or [[assert]]")
    return data


def _case(path: Path, number: int, given: Mapping[str, Any], trust_domain: str) -> Case:
    def need(key: str) -> str:
        value = given.get(key)
        if not isinstance(value, str) or not value:
            raise InvalidInputError(f"{path}, case {number}: `{key}` is missing")
        return value

    unknown = set(given) - {"name", "agent", "action", "resource", "context", "expect", "policy"}
    if unknown:
        raise InvalidInputError(f"{path}, case {number}: `{min(map(str, unknown))}` is not known")
    if not isinstance(given.get("context", {}), dict):
        raise InvalidInputError(f"{path}, case {number}: `context` is a table")
    expect = need("expect")
    if expect not in EXPECTED:
        raise InvalidInputError(
            f"{path}, case {number}: `expect` is {', '.join(EXPECTED[:-1])} or {EXPECTED[-1]}, not `{expect}`"
        )
    agent = need("agent")
    if '"' not in agent:
        try:
            agent = agent_id(agent, trust_domain)
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}, case {number}: {error}") from error
    action, resource = need("action"), need("resource")
    context = {name: written(value) for name, value in (given.get("context") or {}).items()}
    name, policy = given.get("name"), given.get("policy")
    return Case(
        str(name) if name else f"{action} on {resource}",
        agent,
        action,
        resource,
        context,
        expect,
        None if policy is None else str(policy),
    )


def written(value: Any) -> Any:
    """A value of a context as people write it: `{decimal = "1.0"}` is Cedar's, likewise `ip`, `datetime`, `duration`.

    Args:
        value: As TOML, YAML or JSON gives it.

    Example:
        >>> written({"decimal": "1.0"}), written(["a", 0.1])
        ({'__extn': {'fn': 'decimal', 'arg': '1.0'}}, ['a', Decimal('0.1')])
    """
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name in ("decimal", "ip", "datetime", "duration") and isinstance(inner, str):
                return {"__extn": {"fn": name, "arg": inner}}
        return {name: written(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [written(inner) for inner in value]
    if isinstance(value, float):
        return Decimal(str(value))  # a case is written by hand: 0.1 is meant as it stands
    return value
