"""Files of assertions: what must never be, for every request that there can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creto.authz._cases import EXPECTED, named_files, named_text, read_table, rows
from creto.authz._starter import starter_schema
from creto.errors import InvalidInputError

__all__ = ["Assertion", "Assertions"]


@dataclass(frozen=True)
class Assertion:
    """One assertion.

    Args:
        name: What it is called.
        requests: Which requests it speaks of: a Cedar scope with conditions.
        never: The answers that none of them may get.
    """

    name: str
    requests: str
    never: tuple[str, ...]


@dataclass(frozen=True)
class Assertions:
    """A file of assertions, with the set that they are about."""

    policies: str
    schema: str
    assertions: tuple[Assertion, ...]

    @classmethod
    def load(cls, path: Path) -> Assertions:
        """Reads a TOML or YAML file, and the policies and schema that it names beside it.

        Args:
            path: The file.

        Raises:
            InvalidInputError: The file, or what it names, is not right.
        """
        data = read_table(path)
        if "case" in data:
            raise InvalidInputError(f"{path} holds cases, no assertions: ask them with `creto policy test {path}`")
        unknown = set(data) - {"policies", "schema", "assert"}
        if unknown:
            raise InvalidInputError(
                f"{path}: `{min(map(str, unknown))}` is not known; there are policies, schema and assert"
            )
        policies = "\n".join(text for _, text in named_files(path, data))
        schema = named_text(path, data, "schema") or starter_schema()
        listed = [_assertion(path, number, each) for number, each in enumerate(rows(path, data, "assert"), 1)]
        if not listed:
            raise InvalidInputError(f"{path}: there is no assertion; write [[assert]] with name, requests and never")
        return cls(
            policies=policies,
            schema=schema,
            assertions=tuple(listed),
        )


def _assertion(path: Path, number: int, given: Mapping[str, Any]) -> Assertion:
    unknown = set(given) - {"name", "requests", "never"}
    if unknown:
        raise InvalidInputError(f"{path}, assertion {number}: `{min(map(str, unknown))}` is not known")
    requests = given.get("requests")
    if not isinstance(requests, str) or not requests.strip():
        raise InvalidInputError(
            f"{path}, assertion {number}: `requests` is missing; write a scope with conditions, such as "
            '(principal, action == Action::"fs:write", resource)'
        )
    never = given.get("never", ())
    never = (never,) if isinstance(never, str) else tuple(never) if isinstance(never, list) else ()
    wrong = [each for each in never if each not in EXPECTED]
    if not never or wrong:
        raise InvalidInputError(f"{path}, assertion {number}: `never` is one or more of allow, deny and ask")
    return Assertion(str(given.get("name") or f"assertion {number}"), requests, never)
