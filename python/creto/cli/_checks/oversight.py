"""Oversight: that an approval is good for one exact act and no other."""

from __future__ import annotations

import secrets
import time

from creto.cli._checks import Bench, Check

__all__ = ["CHECKS"]


def _other_act(bench: Bench) -> str:
    from creto import _core

    domain = bench.settings.common.trust_domain
    agent, approver = f"spiffe://{domain}/agent/doctor", f"spiffe://{domain}/approver/doctor"
    act = _core.Act(agent, "tool:call", "send_money", context={"amount": 10})
    other = _core.Act(agent, "tool:call", "send_money", context={"amount": 1000})
    key = _core.SigningKey.generate("standard")
    now = time.time_ns() // 1000
    nonce, expiry = secrets.token_bytes(16), now + 60_000_000
    answer = _core.oversight_answer(
        key=key,
        act=act,
        request="doctor",
        policy="doctor",
        nonce=nonce,
        expiry_us=expiry,
        approver=approver,
        approved=True,
        reason="",
        decided_us=now,
    )
    grant = _core.Grant.verify(answer, act, approver, key.verifying_key, now)
    if not grant.covers(act):
        raise AssertionError("a grant does not cover the act that it was given for")
    if grant.covers(other):
        raise AssertionError("a grant for 10 covers the same call with 1000")
    return "a signed approval covers its act, and not the same call with another amount"


CHECKS = [Check("oversight", "an approval used for another act", _other_act)]
