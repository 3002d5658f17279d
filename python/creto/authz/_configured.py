"""The configured policy set: read once, its signature checked over the very bytes that are installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto._foreign import text_of
from creto.authz._entities import entities_of, uid_of
from creto.authz._signed import read_keys, signed_at, verify_files
from creto.authz._starter import starter, starter_schema
from creto.errors import CretoError, InvalidInputError, SignatureVerificationFailedError

if TYPE_CHECKING:
    from creto.config import Settings
    from creto.nhi._agent import Summary

__all__ = [
    "PolicySet",
    "agent_entities",
    "configured",
    "in_file",
    "installed_shadow",
    "merged",
    "shadowed",
    "tried",
]

_PLACE = re.compile(r"line (\d+), column (\d+)|policies, line (\d+)")


@dataclass(frozen=True)
class PolicySet:
    """Texts that belong together.

    Args:
        policies: Cedar policies.
        schema: Their schema.
        entities: Entities from files, in Cedar's JSON form.
        files: Where the policies came from; empty for the starter set.
        lines: How many lines of the policies come from each.
        signed: When a trusted key signed it, in microseconds since the epoch; None where no signature is asked for.
    """

    policies: str
    schema: str
    entities: list[dict[str, Any]]
    files: tuple[Path, ...] = ()
    lines: tuple[int, ...] = ()
    signed: int | None = None

    @classmethod
    def of(cls, files: Sequence[tuple[Path, str]], schema: str | None) -> PolicySet:
        """Files and their texts as one set, without entities.

        Args:
            files: Of policies, in their order.
            schema: Its text; that of the starter sets without one.
        """
        return cls(
            "\n".join(text for _, text in files),
            schema if schema is not None else starter_schema(),
            [],
            tuple(path for path, _ in files),
            tuple(text.count("\n") + 1 for _, text in files),
        )

    def install(self, engine: _core.PolicyEngine, entities: str) -> tuple[bytes, list[dict[str, Any]]]:
        """Puts it in force; its digest and what is noted about it.

        Args:
            engine: Where.
            entities: In Cedar's JSON form.

        Raises:
            InvalidInputError: It is not right; the text has the file and the line in it.
        """
        try:
            return engine.install(self.policies, self.schema, entities)
        except InvalidInputError as error:
            raise InvalidInputError(_PLACE.sub(self._place, error.message)) from error

    def _place(self, found: re.Match[str]) -> str:
        if not self.files:
            return found[0]
        file, line = in_file(int(found[1] or found[3]), self.files, self.lines)
        return ":".join([str(file), str(line), *([found[2]] if found[2] else [])])


def in_file(line: int, files: Sequence[Path], lines: Sequence[int]) -> tuple[Path, int]:
    """The file that a line of several files' joined text is in, and which line of it that is.

    Args:
        line: From one.
        files: In the order in which they were joined.
        lines: How many each has.

    Example:
        >>> in_file(12, [Path("a.cedar"), Path("b.cedar")], [10, 5])[1]
        2
    """
    for file, count in zip(files, lines, strict=True):
        if line <= count:
            return file, line
        line -= count
    return files[-1], line


def configured(settings: Settings) -> PolicySet:
    """The set that `[authz]` names, or the starter set where it names none.

    Args:
        settings: The configuration.

    Raises:
        SignatureVerificationFailedError: `authz.trusted_keys` names keys, and none of them signed exactly these files.
        NotFoundError: A file is not there.
        IntegrityError: One that a trusted `creto.toml` names has changed since it was trusted.
        InvalidInputError: A file is not text in UTF-8, or one of entities is not a JSON array.
    """
    authz = settings.authz
    policies = settings.policy_files()
    schema = [(authz.schema_file, settings.read("authz.schema_file", authz.schema_file))] if authz.schema_file else []
    entities = settings.files("authz.entities", authz.entities)
    keys = settings.files("authz.trusted_keys", authz.trusted_keys)
    signed: int | None = None
    if keys:
        if not policies:
            raise SignatureVerificationFailedError(
                "`authz.trusted_keys` is set and `authz.policies` is not: the starter set is signed by nobody; "
                "name your policy files"
            )
        if authz.signature is None:
            raise SignatureVerificationFailedError(
                "`authz.trusted_keys` is set and `authz.signature` is not; name what `creto policy sign` wrote"
            )
        signature = text_of(authz.signature, settings.read("authz.signature", authz.signature))
        trusted = read_keys(text_of(*file) for file in keys)
        signed = signed_at(verify_files([*policies, *schema, *entities], signature, trusted))
    chosen = PolicySet.of(
        [(path, text_of(path, content)) for path, content in policies], text_of(*schema[0]) if schema else None
    )
    return replace(
        chosen,
        policies=chosen.policies if policies else starter(),
        entities=[entity for path, text in entities for entity in entities_of(text, f"`{path}`")],
        signed=signed,
    )


def shadowed(settings: Settings, chosen: PolicySet) -> PolicySet | None:
    """The set of `authz.shadow`, on the schema and the entities of the one in force; None where there is none.

    Args:
        settings: The configuration.
        chosen: The set in force.
    """
    files = settings.files("authz.shadow", settings.authz.shadow)
    if not files:
        return None
    beside = PolicySet.of([(path, text_of(path, content)) for path, content in files], chosen.schema)
    return replace(beside, entities=chosen.entities)


def installed_shadow(shadow: PolicySet | None, entities: str) -> _core.PolicyEngine | None:
    """The set that is asked beside the one in force; one that is not right refuses the configuration as a whole.

    Args:
        shadow: The set, if any.
        entities: In Cedar's JSON form.

    Raises:
        InvalidInputError: It is not right.
    """
    if shadow is None:
        return None
    engine = _core.PolicyEngine()
    try:
        shadow.install(engine, entities)
    except CretoError as error:
        raise InvalidInputError(f"the set of `authz.shadow`: {error}") from error
    return engine


def tried(settings: Settings) -> tuple[PolicySet, _core.PolicyEngine, list[dict[str, Any]]]:
    """The configured set, the engine of its own in which it was installed, and what is noted about it.

    Its shadow was installed too: where one of both is not right, nothing opens.

    Args:
        settings: The configuration.

    Raises:
        InvalidInputError: One is not right; the text has the file and the line in it.
    """
    chosen = configured(settings)
    engine, entities = _core.PolicyEngine(), json.dumps(chosen.entities)
    _digest, noted = chosen.install(engine, entities)
    installed_shadow(shadowed(settings, chosen), entities)
    return chosen, engine, noted


def agent_entities(agents: Iterable[Summary]) -> list[dict[str, Any]]:
    """The agents of a state folder as policies see them, with their teams and organisation.

    Args:
        agents: As the store lists them.
    """
    entities: dict[tuple[str, str], dict[str, Any]] = {}

    def add(kind: str, name: str, parents: list[tuple[str, str]], attributes: dict[str, Any]) -> None:
        entities[kind, name] = {
            "uid": {"type": kind, "id": name},
            "attrs": attributes,
            "parents": [{"type": t, "id": i} for t, i in parents],
        }

    for agent in agents:
        parents: list[tuple[str, str]] = []
        for place, name in enumerate(agent.path):
            kind = "Organization" if place == 0 else "Team"
            if (kind, name) not in entities:
                add(kind, name, parents[-1:] if kind == "Team" and place == 1 else [], {})
            parents.append((kind, name))
        add("Agent", agent.id, parents, {"revoked": agent.state == "revoked"})
    return list(entities.values())


def merged(agents: list[dict[str, Any]], files: list[dict[str, Any]]) -> str:
    """Both as one JSON array: of an agent that a file names too, the file adds attributes, tags and parents.

    Args:
        agents: From the store, which says who is revoked.
        files: From `authz.entities`.
    """
    known = {uid_of(entity): entity for entity in agents}
    for entity in files:
        uid = uid_of(entity)
        own = known.get(uid)
        if own is None:
            known[uid] = entity
            continue
        above = own.get("parents", [])
        parents = [*above, *(each for each in entity.get("parents", []) if each not in above)]
        known[uid] = {**entity, "attrs": {**entity.get("attrs", {}), **own.get("attrs", {})}, "parents": parents}
    return json.dumps(list(known.values()))
