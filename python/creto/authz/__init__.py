"""Policy: Cedar policies decide what an agent may do, and what a human is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto._core import Decision as Decision
    from creto._core import PolicyEngine as PolicyEngine
    from creto.authz._client import AuthzClient as AuthzClient
    from creto.authz._client import CheckRequest as CheckRequest
    from creto.authz._client import PreparedCheck as PreparedCheck
    from creto.authz._starter import starter as starter
    from creto.authz._starter import starter_schema as starter_schema
    from creto.authz._starter import starters as starters

_HOMES = {
    "AuthzClient": "creto.authz._client",
    "CheckRequest": "creto.authz._client",
    "Decision": "creto._core",
    "PolicyEngine": "creto._core",
    "PreparedCheck": "creto.authz._client",
    "starter": "creto.authz._starter",
    "starter_schema": "creto.authz._starter",
    "starters": "creto.authz._starter",
}

__all__ = [
    "AuthzClient",
    "CheckRequest",
    "Decision",
    "PolicyEngine",
    "PreparedCheck",
    "starter",
    "starter_schema",
    "starters",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
