"""An agent's keys: made, certified and sealed for the store; and unsealed into an agent that can act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from creto import _core
from creto.nhi._agent import Agent

__all__ = ["fresh_keys", "unsealed"]


def fresh_keys(
    authority: _core.Authority, sealer: _core.Sealer, id: str, generation: int, now: int, lifetime: int
) -> dict[str, Any]:
    """A row of `agent_keys` with new keys, vouched for by the authority.

    Args:
        authority: The trust domain's.
        sealer: Seals their secret halves.
        id: The agent's.
        generation: 1 for its first keys.
        now: Seconds since the epoch.
        lifetime: Seconds for which they hold.
    """
    suite = authority.domain.verifying_key.suite
    signing, kem = _core.SigningKey.generate(suite), _core.KemKey.generate(suite)
    return {
        "agent": id,
        "generation": generation,
        "fingerprint": signing.verifying_key.fingerprint,
        "statement": authority.issue(id, signing.verifying_key, kem.public(), now, lifetime),
        "sealed_signing_key": signing.seal(sealer, _label(id, generation, "signing")),
        "sealed_kem_key": kem.seal(sealer, _label(id, generation, "kem")),
        "valid_until": now + lifetime,
        "retires": None,
    }


def unsealed(
    sealer: _core.Sealer, identity: _core.Identity, name: str, path: tuple[str, ...], keys: Sequence[Row[Any]]
) -> Agent:
    """The agent: it signs with its newest keys, and opens with all that are still kept.

    Args:
        sealer: What sealed the keys.
        identity: What others know of it.
        name: The last part of its id.
        path: Names above it, organisation first.
        keys: Rows of `agent_keys`, the newest first.
    """
    id, newest = identity.id, keys[0]
    return Agent(
        id=id,
        name=name,
        path=path,
        identity=identity,
        signing_key=_core.SigningKey.unseal(
            newest.sealed_signing_key, sealer, _label(id, newest.generation, "signing")
        ),
        kem_keys=tuple(
            _core.KemKey.unseal(key.sealed_kem_key, sealer, _label(id, key.generation, "kem")) for key in keys
        ),
    )


def _label(id: str, generation: int, use: str) -> str:
    return f"agent {id} {generation} {use}"
