"""Names of agents: the short one within a trust domain, and the whole SPIFFE id."""

from __future__ import annotations

import re

from creto.errors import InvalidInputError

__all__ = ["agent_id", "name_of"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,120}")


def agent_id(name: str, trust_domain: str) -> str:
    """The SPIFFE id of an agent.

    Args:
        name: A name in the trust domain, or a whole id.
        trust_domain: Where a name belongs.

    Raises:
        InvalidInputError: It is neither.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"`{name!r}` cannot name an agent: a name is text")
    if name.startswith("spiffe://"):
        return name
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise InvalidInputError(
            f"`{name}` cannot name an agent: use 1 to 120 letters, digits, `.`, `-` and `_`, or a whole SPIFFE id"
        )
    return f"spiffe://{trust_domain}/agent/{name}"


def name_of(id: str) -> str:
    """The last part of an id."""
    return id.rsplit("/", 1)[-1]
