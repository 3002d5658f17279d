"""Policy decisions from Python: ours beside cedarpy's over the same 1,000 policies, entities and requests."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import cedarpy
import numpy as np

from creto.authz import AuthzClient

AGENTS, DOCS, ACTIONS, POLICIES, REQUESTS = 2_000, 4_000, 20, 1_000, 4_096
NAMES = ", ".join(f'"act:{n}"' for n in range(ACTIONS))
FIELDS = "{ amount?: Long, purpose?: String, urgent?: Bool }"
SCHEMA = f"""
entity Team; entity Agent in [Team] = {{ level: Long }};
entity Folder; entity Doc in [Folder] = {{ owner: Agent, secret: Bool }};
action {NAMES} appliesTo {{ principal: Agent, resource: Doc, context: {FIELDS} }};
"""


def agent(n: int) -> str:
    return f"spiffe://creto.local/agent/agent-{n}"


def policies(draw: random.Random) -> str:
    lines = []
    for n in range(POLICIES):
        who, team, folder = agent(draw.randrange(AGENTS)), draw.randrange(50), draw.randrange(100)
        act = f'action == Action::"act:{draw.randrange(ACTIONS)}"'
        inside = f'resource in Folder::"folder-{folder}"'
        lines.append(
            [
                f'permit (principal == Agent::"{who}", {act}, resource);',
                f'permit (principal in Team::"team-{team}", {act}, {inside}) '
                "when { context has amount && context.amount < 900 };",
                f'permit (principal == Agent::"{who}", action, {inside}) '
                "when { resource.owner == principal || principal.level > 3 };",
                f'forbid (principal in Team::"team-{team}", {act}, {inside}) '
                "when { context has amount && context.amount > 500 && context has urgent && !context.urgent };",
            ][n % 4]
        )
    return "\n".join(lines)


def entities() -> list[dict[str, Any]]:
    agents = [
        {
            "uid": {"type": "Agent", "id": agent(n)},
            "attrs": {"level": n % 6},
            "parents": [{"type": "Team", "id": f"team-{n % 50}"}],
        }
        for n in range(AGENTS)
    ]
    docs = [
        {
            "uid": {"type": "Doc", "id": f"doc-{n}"},
            "attrs": {"owner": {"__entity": {"type": "Agent", "id": agent(n % AGENTS)}}, "secret": n % 7 == 0},
            "parents": [{"type": "Folder", "id": f"folder-{n % 100}"}],
        }
        for n in range(DOCS)
    ]
    return agents + docs


def each(call: Callable[[int], Any], calls: int, repeats: int = 15) -> tuple[float, float]:
    """Nanoseconds a call: the median over repeats, and their spread between the quartiles."""
    means = []
    for repeat in range(repeats):
        start = time.perf_counter_ns()
        for i in range(calls):
            call(i)
        if repeat:
            means.append((time.perf_counter_ns() - start) / calls)
    middle = statistics.median(means)
    quarters = statistics.quantiles(means, n=4)
    return middle, (quarters[2] - quarters[0]) / middle


def row(case: str, unit: str, ours: float, samples: int, spread: float, note: str, peer: float | None = None) -> None:
    print(
        json.dumps(
            {
                "area": "authz",
                "case": case,
                "unit": unit,
                "ours": ours,
                "peer": "cedarpy" if peer else None,
                "peer_version": version("cedarpy") if peer else None,
                "peer_value": peer,
                "samples": samples,
                "spread": spread,
                "note": note,
            }
        ),
        flush=True,
    )


def main() -> None:
    draw = random.Random(7)
    text, listed = policies(draw), entities()
    authz = AuthzClient()
    authz.install(text, SCHEMA, listed)
    asks = [
        (
            agent(draw.randrange(AGENTS)),
            f"act:{draw.randrange(ACTIONS)}",
            f"doc-{draw.randrange(DOCS)}",
            {"amount": draw.randrange(1000), "purpose": draw.choice(["test", "work"]), "urgent": draw.random() < 0.25},
        )
        for _ in range(REQUESTS)
    ]
    check = authz.engine.check_nowait

    listed_text = json.dumps(listed)
    theirs = [
        {
            "principal": f'Agent::"{who}"',
            "action": f'Action::"{what}"',
            "resource": f'Doc::"{which}"',
            "context": context,
        }
        for who, what, which, context in asks[:3]
    ]
    peer = []
    for request in theirs:
        start = time.perf_counter_ns()
        cedarpy.is_authorized(request, text, listed_text)
        peer.append(time.perf_counter_ns() - start)
    ours, spread = each(lambda i: check(*asks[i % REQUESTS]), 20_000)
    row(
        "python/check_nowait/1000", "ns", ours, 280_000, spread,
        "three strings and a context of 3 fields; cedarpy parses policies and entities in each call",
        statistics.median(peer),
    )  # fmt: skip
    ready = [authz.engine.prepare(who, what, which).check_nowait for who, what, which, _ in asks[:512]]
    ours, spread = each(lambda i: ready[i % 512](), 20_000)
    row("python/prepared/1000", "ns", ours, 280_000, spread, "agent, action and resource prepared; no context")

    rosters = (
        authz.roster("principal", [agent(n) for n in range(AGENTS)]),
        authz.roster("action", [f"act:{n}" for n in range(ACTIONS)]),
        authz.roster("resource", [f"doc-{n}" for n in range(DOCS)], "Doc"),
    )
    many = 200_000
    numbers = np.random.default_rng(1)
    columns = [numbers.integers(0, bound, many, dtype=np.uint32) for bound in (AGENTS, ACTIONS, DOCS)]
    ours, spread = each(lambda _: authz.check_many(*columns, rosters=rosters), 1, 12)
    note = "200,000 checks by places in numpy arrays, one thread, no context"
    row("python/check_many/1000", "checks/s", many / (ours / 1e9), 11 * many, spread, note)


if __name__ == "__main__":
    main()
