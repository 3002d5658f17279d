"""Identities: that a revoked one is no longer accepted."""

from __future__ import annotations

from creto.cli._checks import Bench, Check
from creto.errors import CretoError

__all__ = ["CHECKS"]


def _revoked(bench: Bench) -> str:
    from creto.nhi import Identities

    identities = Identities(bench.store, trust_domain=bench.settings.common.trust_domain)
    identities.agent("doctor-a")
    identities.agent("doctor-b")
    hops = identities.delegate_blocking(
        "doctor-a", "doctor-b", attenuation="permit (principal, action, resource);", seconds=60
    )
    chain = identities.verify(hops)
    identities.revoke_blocking("doctor-a", "doctor")
    try:
        identities.verify(hops)
    except CretoError as error:
        return f"a delegation of {len(chain.links)} links held until its first was revoked ({error.kind})"
    raise AssertionError("a delegation by a revoked agent was accepted")


CHECKS = [Check("identity", "a delegation, then a revocation", _revoked)]
