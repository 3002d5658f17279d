"""The configured policy set: read once, its signature checked over the very bytes that are installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto.authz._entities import entities_of, uid_of
from creto.authz._signed import read_keys, signed_at, verify_files
from creto.authz._starter import starter, starter_schema
from creto.errors import InvalidInputError, SignatureVerificationFailedError

if TYPE_CHECKING:
    from creto.config import Settings
    from creto.nhi import Identities

__all__ = ["PolicySet", "agent_entities", "configured", "merged", "shadowed", "text_of"]


@dataclass(frozen=True)
class PolicySet:
    """Texts that belong together.

    Args:
        policies: Cedar policies.
        schema: Their schema.
        entities: Entities from files, in Cedar's JSON form.
        files: Where the policies came from; empty for the starter set.
        signed: When a trusted key signed it, in microseconds since the epoch; None where no signature is asked for.
    """

    policies: str
    schema: str
    entities: list[dict[str, Any]]
    files: tuple[Path, ...] = ()
    signed: int | None = None


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
    return PolicySet(
        policies="\n".join(text_of(*file) for file in policies) if policies else starter(),
        schema=text_of(*schema[0]) if schema else starter_schema(),
        entities=[entity for path, text in entities for entity in entities_of(text, f"`{path}`")],
        files=tuple(path for path, _ in policies),
        signed=signed,
    )


def shadowed(settings: Settings) -> str | None:
    """The policies of `authz.shadow`; None where there are none.

    Args:
        settings: The configuration.
    """
    files = settings.files("authz.shadow", settings.authz.shadow)
    return "\n".join(text_of(*file) for file in files) if files else None


def text_of(path: Path, content: bytes) -> str:
    """The text of a file.

    Args:
        path: Where it is, for the error.
        content: What is in it.

    Raises:
        InvalidInputError: It is not text in UTF-8.
    """
    try:
        return content.decode()
    except ValueError:
        raise InvalidInputError(f"{path}: it is not text in UTF-8") from None


def agent_entities(identities: Identities) -> list[dict[str, Any]]:
    """The agents of a state folder as policies see them, with their teams and organisation.

    Args:
        identities: The agents.
    """
    entities: dict[tuple[str, str], dict[str, Any]] = {}

    def add(kind: str, name: str, parents: list[tuple[str, str]], attributes: dict[str, Any]) -> None:
        entities[kind, name] = {
            "uid": {"type": kind, "id": name},
            "attrs": attributes,
            "parents": [{"type": t, "id": i} for t, i in parents],
        }

    for agent in identities.agents():
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
