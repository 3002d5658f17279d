"""A hop of a delegation: its terms, how it is signed, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from creto import _core
from creto.nhi._agent import Agent

__all__ = ["Terms", "sign_hop"]

_EVERYTHING = "permit(principal, action, resource);"
_SECONDS = 3600
_RECORDED = 1000  # characters of an attenuation that the record shows


class Terms(TypedDict, total=False):
    """What `Identities.delegate` takes: all of it may be left out."""

    attenuation: str
    audience: str | None
    seconds: int
    depth: int
    previous: Sequence[str]


def sign_hop(
    signer: Agent, delegatee: _core.Identity, chain: _core.Chain | None, terms: Terms, audience: str, now: int
) -> tuple[str, dict[str, Any]]:
    """Signs a hop that follows a chain, or starts one.

    Args:
        signer: Who passes on.
        delegatee: Who may act for it.
        chain: What was verified so far; it ends at the signer.
        terms: What is passed on.
        audience: Where it counts.
        now: Seconds since the epoch.

    Returns:
        The hop as DSSE JSON, and its record.

    Raises:
        InvalidInputError: It would reach further than the chain.
    """
    expiry = now + terms.get("seconds", _SECONDS)
    if chain is not None:
        expiry = min(expiry, chain.expiry)
    attenuation, depth = terms.get("attenuation", _EVERYTHING), terms.get("depth", 0)
    hop = _core.delegate(
        signer.id,
        signer.signing_key,
        delegatee,
        attenuation=attenuation,
        audience=audience,
        issued_at=now,
        expiry=expiry,
        depth=depth,
        previous=chain,
    )
    return hop, {
        "who": signer.id,
        "what": "identity:delegate",
        "resource": delegatee.id,
        "delegation_chain": chain.links if chain else [],
        "detail": {"audience": audience, "expiry": expiry, "depth": depth, "attenuation": attenuation[:_RECORDED]},
    }
