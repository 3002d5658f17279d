"""Entities in Cedar's JSON, as files and sources give them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from creto._foreign import json_value
from creto._plain import plain
from creto.errors import InvalidInputError

__all__ = ["entities_of", "entity_text", "uid_of"]


def entities_of(text: str | bytes, where: str) -> list[dict[str, Any]]:
    """The entities of a text.

    Args:
        text: A JSON array of them.
        where: What holds it, for the error.

    Raises:
        InvalidInputError: It is no JSON array of entities.
    """
    try:
        given = json_value(text)
    except ValueError as error:
        raise InvalidInputError(f"{where} holds no entities: {error}") from None
    if not isinstance(given, list):
        raise InvalidInputError(f"{where} holds no entities: write a JSON array of them")
    for entity in given:
        try:
            uid_of(entity)
        except InvalidInputError as error:
            raise InvalidInputError(f"{where} holds no entities: {error}") from None
    return given


def uid_of(entity: Mapping[str, Any]) -> tuple[str, str]:
    """Type and id of an entity.

    Raises:
        InvalidInputError: It has none.
    """
    try:
        uid = entity["uid"]
        uid = uid.get("__entity", uid)
        return str(uid["type"]), str(uid["id"])
    except (TypeError, KeyError, AttributeError):
        raise InvalidInputError(
            f"not an entity: {plain(repr(entity))}; "
            "write {'uid': {'type': ..., 'id': ...}, 'attrs': {}, 'parents': []}"
        ) from None


def entity_text(entity: Mapping[str, Any]) -> str:
    """An entity in Cedar's JSON; the same text for the same entity.

    Raises:
        InvalidInputError: It holds what JSON cannot.
    """
    try:
        return json.dumps(entity, sort_keys=True, default=_plain_mapping)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"not an entity: {plain(repr(entity))}: {error}") from None


def _plain_mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an attribute is {value!r}, which has no form in JSON; write it as Cedar's JSON does")
