"""What a sandbox was made of, as a signed in-toto Statement: for whoever has to trust what came out of it.

There is no hardware root of trust here, and the statement says so: its level is `software`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["PREDICATE_TYPE", "statement"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://creto.dev/attestation/sandbox/v1"


def statement(
    facts: Mapping[str, Any], *, agent: str, agent_key: str, sandbox: str, policy_digest: str
) -> dict[str, Any]:
    """The unsigned in-toto Statement about one claimed sandbox.

    Args:
        facts: As `Pool.facts` gives them.
        agent: The agent's SPIFFE id.
        agent_key: SHA-256 of the agent's public signing keys, in hexadecimal.
        sandbox: The sandbox's name, `Box.id`.
        policy_digest: SHA-256 of the policy snapshot that was in force, in hexadecimal.

    Example:
        >>> facts = {"backend": "gvisor", "backendDigest": "ab", "imageDigest": "cd"}
        >>> made = statement(facts, agent="spiffe://x/agent/a", agent_key="01", sandbox="creto-1-1", policy_digest="ef")
        >>> made["predicate"]["level"], made["subject"][0]["digest"]
        ('software', {'sha256': 'cd'})
    """
    subjects = [{"name": "image", "digest": {"sha256": facts["imageDigest"]}}]
    if facts.get("backendDigest"):
        subjects.append({"name": facts["backend"], "digest": {"sha256": facts["backendDigest"]}})
    predicate = {
        "level": "software",
        "agent": {"id": agent, "keyDigest": {"sha256": agent_key}},
        "sandbox": sandbox,
        "policy": {"digest": {"sha256": policy_digest}},
        "egress": {"default": "ask", "topology": "gateway namespace without a way on"},
        "nonce": secrets.token_hex(16),
        "time": datetime.now(UTC).isoformat(),
        **{name: value for name, value in facts.items() if name not in ("imageDigest", "backendDigest")},
    }
    return {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE, "predicate": predicate}
