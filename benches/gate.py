"""The gate from Python: enter and settle over the real quota, ledger and clock, and one act through the layer."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import anyio

import creto
from creto import _core
from creto.audit import open_ledger
from creto.metering import QuotaEnforcer

SCHEMA = """
entity Agent; entity Doc;
action "doc:note" appliesTo {
  principal: Agent, resource: Doc, context: { amount: Long, purpose: String, urgent: Bool },
};
"""
AGENT = "spiffe://creto.local/agent/reader"


def policies() -> str:
    lines = [
        f'@id("p{n}") @audit("after") permit (principal == Agent::"{AGENT}-{n}", action, resource);' for n in range(999)
    ]
    return "\n".join([*lines, f'@id("mine") @audit("after") permit (principal == Agent::"{AGENT}", action, resource);'])


def row(case: str, means: list[float], samples: int, note: str) -> None:
    middle = statistics.median(means)
    quarters = statistics.quantiles(means, n=4)
    print(
        json.dumps(
            {
                "area": "gate",
                "case": case,
                "unit": "ns",
                "ours": middle,
                "peer": None,
                "peer_version": None,
                "peer_value": None,
                "samples": samples,
                "spread": (quarters[2] - quarters[0]) / middle,
                "note": note,
            }
        ),
        flush=True,
    )


def enter_settle(folder: Path) -> None:
    clock = _core.HybridLogicalClock(folder / "clock")
    ledger = open_ledger(folder, clock, _core.Sealer.ephemeral())
    rules = [
        {"scope": scope, "meter": meter, "limit": 10**15, "window": "30d", "share": "process"}
        for scope in ("organisation:org", "team:team", "agent:project", "agent:agent")
        for meter in ("calls", "tokens")
    ]
    policy = _core.PolicyEngine()
    policy.install(policies(), SCHEMA)
    gate = _core.Gate(policy, QuotaEnforcer(rules), ledger, clock)
    principal = gate.principal(AGENT, ["org", "team", "project", "agent"])
    context, usage = {"amount": 5, "purpose": "survey", "urgent": False}, {"calls": 1, "tokens": 700}
    means = []
    for _ in range(41):
        start = time.perf_counter_ns()
        for _ in range(2_000):
            gate.enter(principal, "doc:note", "doc-1", context, usage).settle()
        means.append((time.perf_counter_ns() - start) / 2_000)
        time.sleep(0.02)
    row("python/enter_settle", means, 82_000, "context of 3 fields as a dict, 1,000 policies, 2 meters x 4 levels")
    ledger.close_blocking()


async def perform(folder: Path) -> None:
    (folder / "policies.cedar").write_text('@audit("after") permit (principal, action, resource);')
    config = folder / "bench.toml"
    config.write_text(f'[authz]\npolicies = ["{folder}/policies.cedar"]\n[audit]\ndurability = "relaxed"\n')
    async with creto.open(state=folder / "state", config=[config]) as layer:
        agent = layer.agent("reader")

        async def nothing() -> None:
            return None

        means = []
        for _ in range(21):
            start = time.perf_counter_ns()
            for _ in range(500):
                await layer.perform(agent, "tool:call", "nothing", nothing)
            means.append((time.perf_counter_ns() - start) / 500)
            await anyio.sleep(0.02)
        row(
            "python/perform_relaxed",
            means,
            10_500,
            "await layer.perform of a coroutine that does nothing",
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        enter_settle(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(perform, Path(folder))


if __name__ == "__main__":
    main()
