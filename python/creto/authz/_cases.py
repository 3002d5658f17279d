"""Tables of requests with the answers that are expected, and how much of a policy set they reach."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import InvalidInputError

__all__ = ["EXPECTED", "Case", "Coverage", "Result", "Table", "read_table"]

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
        trust_domain: Of agents given by their short name.
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
        unknown = set(data) - {"policies", "schema", "entities", "case"}
        if unknown:
            raise InvalidInputError(
                f"{path}: `{sorted(unknown)[0]}` is not known; there are policies, schema, entities and case"
            )
        policies = data.get("policies") or []
        files = [path.parent / name for name in ([policies] if isinstance(policies, str) else policies)]
        if not files:
            raise InvalidInputError(f"{path}: name the policy files under `policies`")
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        schema = data.get("schema")
        entities = data.get("entities", "[]")
        if isinstance(entities, list):
            import json

            entities = json.dumps(entities)
        elif entities != "[]":
            entities = (path.parent / entities).read_text(encoding="utf-8")
        from creto.authz._starter import starter_schema

        engine = _core.PolicyEngine()
        engine.install(
            text, (path.parent / schema).read_text(encoding="utf-8") if schema else starter_schema(), entities
        )
        cases = [_case(path, number, each, trust_domain) for number, each in enumerate(data.get("case", []), 1)]
        if not cases:
            raise InvalidInputError(f"{path}: there is no case; write [[case]] with agent, action, resource and expect")
        return cls(engine, cases, engine.policy_ids())

    def run(self) -> tuple[list[Result], Coverage]:
        """Asks every case."""
        coverage = Coverage(policies=dict.fromkeys(self.names, False))
        results = []
        for case in self.cases:
            decision = self.engine.check_nowait(case.agent, case.action, case.resource, case.context)
            outcome = {"oversight": "ask"}.get(decision.outcome, decision.outcome)
            why = {
                "allow": f"permitted by `{decision.permit}`",
                "ask": "asked by " + ", ".join(f"`{each}`" for each in decision.policy_ids),
            }.get(outcome, decision.reason or "")
            results.append(Result(case, outcome, why))
            coverage.add(self.engine.explain(case.agent, case.action, case.resource, case.context))
        return results, coverage


def read_table(path: Path) -> dict[str, Any]:
    """A file of tables, TOML or YAML.

    Args:
        path: The file.

    Raises:
        InvalidInputError: It does not read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix in (".yaml", ".yml"):
            from creto.config._contents import yaml_value

            data = yaml_value(text)
        else:
            data = tomllib.loads(text)
    except RecursionError as error:
        raise InvalidInputError(f"{path}: it is nested too deeply") from error
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"{path}: a table of cases is a mapping with `policies` and `case`")
    return data


def _case(path: Path, number: int, given: Mapping[str, Any], trust_domain: str) -> Case:
    def need(key: str) -> str:
        value = given.get(key)
        if not isinstance(value, str) or not value:
            raise InvalidInputError(f"{path}, case {number}: `{key}` is missing")
        return value

    unknown = set(given) - {"name", "agent", "action", "resource", "context", "expect", "policy"}
    if unknown:
        raise InvalidInputError(f"{path}, case {number}: `{sorted(unknown)[0]}` is not known")
    expect = need("expect")
    if expect not in EXPECTED:
        raise InvalidInputError(
            f"{path}, case {number}: `expect` is {', '.join(EXPECTED[:-1])} or {EXPECTED[-1]}, not `{expect}`"
        )
    agent = need("agent")
    if "://" not in agent and '"' not in agent:
        agent = f"spiffe://{trust_domain}/agent/{agent}"
    action, resource = need("action"), need("resource")
    context = {name: _value(value) for name, value in (given.get("context") or {}).items()}
    return Case(
        given.get("name") or f"{action} on {resource}", agent, action, resource, context, expect, given.get("policy")
    )


def _value(value: Any) -> Any:
    """Text stands for itself; `{decimal = "1.0"}` for Cedar's decimal, and likewise `ip`, `datetime`, `duration`."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name in ("decimal", "ip", "datetime", "duration") and isinstance(inner, str):
                return {"__extn": {"fn": name, "arg": inner}}
        return {name: _value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_value(inner) for inner in value]
    if isinstance(value, float):
        return Decimal(str(value))
    return value
