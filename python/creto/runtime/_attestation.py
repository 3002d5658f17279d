"""What a sandbox was made of, as a signed in-toto Statement: for whoever has to trust what came out of it.

There is no hardware root of trust here, and the statement says so: its level is `software`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creto.runtime._pool import Pool

__all__ = ["PREDICATE_TYPE", "attestation", "statement"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://creto.dev/attestation/sandbox/v1"


def statement(
    facts: Mapping[str, Any],
    *,
    agent: str,
    sandbox: str,
    policy_digest: str,
    egress_policy: Mapping[str, Any] | None = None,
    agent_key: str = "",
    nonce: str | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """The unsigned in-toto Statement about one claimed sandbox.

    Args:
        facts: As `Pool.facts` gives them.
        agent: The agent's SPIFFE id.
        sandbox: The sandbox's name, `Box.id`.
        policy_digest: SHA-256 of the policy snapshot that was in force, in hexadecimal.
        egress_policy: What is said about connections, if more is known than that each is asked about.
        agent_key: SHA-256 of the agent's public signing keys, in hexadecimal.
        nonce: The verifier's challenge, where there is one; random otherwise.
        now: The time of the claim.

    Example:
        >>> made = statement({"backend": "gvisor", "backendDigest": "ab", "imageDigest": "cd"}, agent="spiffe://x/agent/a",
        ...                  sandbox="creto-1-1", policy_digest="ef", nonce="00")
        >>> made["predicate"]["level"], made["subject"][0]["digest"]
        ('software', {'sha256': 'cd'})
    """
    subjects = [{"name": "image", "digest": {"sha256": facts["imageDigest"]}}]
    if facts.get("backendDigest"):
        subjects.append({"name": facts["backend"], "digest": {"sha256": facts["backendDigest"]}})
    predicate = {
        "level": "software",
        "agent": {"id": agent, "keyDigest": {"sha256": agent_key}} if agent_key else {"id": agent},
        "sandbox": sandbox,
        "policy": {"digest": {"sha256": policy_digest}},
        "egress": dict(egress_policy or {"default": "ask", "topology": "gateway namespace without a way on"}),
        "nonce": nonce or secrets.token_hex(16),
        "time": (now or datetime.now(UTC)).isoformat(),
        **{name: value for name, value in facts.items() if name not in ("imageDigest", "backendDigest")},
    }
    return {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE, "predicate": predicate}


async def attestation(pool: Pool, sign: Callable[[bytes], Any], **about: Any) -> Any:
    """Attests a claimed sandbox of `pool`: makes the statement and signs it.

    Args:
        pool: Where the sandbox comes from.
        sign: Gives the DSSE envelope of the statement's bytes, as the agent's or the operator's signing key makes it.
        about: As `statement` takes it.
    """
    made = statement(await pool.facts(), **about)
    return sign(json.dumps(made, sort_keys=True, separators=(",", ":")).encode())
