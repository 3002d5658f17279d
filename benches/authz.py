"""Policy decisions from Python: ours beside cedarpy, an SQL look-up, AGT and rego-cpp, asked the same."""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
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


def described(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """What each policy says, for every engine to be told in its own language."""
    found = []
    for n in range(count):
        who, team, folder = agent(draw.randrange(AGENTS)), f"team-{draw.randrange(50)}", f"folder-{draw.randrange(100)}"
        action = f"act:{draw.randrange(ACTIONS)}"
        kind = ("agent", "team", "owner", "forbid")[n % 4]
        one = kind in ("agent", "owner")
        found.append(
            {
                "kind": kind,
                "agent": who if one else None,
                "team": None if one else team,
                "action": None if kind == "owner" else action,
                "folder": None if kind == "agent" else folder,
            }
        )
    return found


def cedar(described: list[dict[str, Any]]) -> str:
    """The policies in Cedar."""
    lines = []
    for each in described:
        who = f'== Agent::"{each["agent"]}"' if each["agent"] else f'in Team::"{each["team"]}"'
        act = f' == Action::"{each["action"]}"' if each["action"] else ""
        inside = f' in Folder::"{each["folder"]}"' if each["folder"] else ""
        condition = {
            "agent": "",
            "team": " when { context has amount && context.amount < 900 }",
            "owner": " when { resource.owner == principal || principal.level > 3 }",
            "forbid": " when { context has amount && context.amount > 500 && context has urgent && !context.urgent }",
        }[each["kind"]]
        effect = "forbid" if each["kind"] == "forbid" else "permit"
        lines.append(f"{effect} (principal {who}, action{act}, resource{inside}){condition};")
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


def each(
    call: Callable[..., Any], asks: Sequence[tuple[Any, ...]], calls: int, repeats: int = 15
) -> tuple[float, float]:
    """Nanoseconds a call: the median over repeats, and their spread between the quartiles.

    Nothing of ours stands between the loop and the call: a lambda and a look-up would cost a third of what is measured.
    """
    given = [asks[i % len(asks)] for i in range(calls)]
    means = []
    for repeat in range(repeats):
        start = time.perf_counter_ns()
        for ask in given:
            call(*ask)
        if repeat:
            means.append((time.perf_counter_ns() - start) / calls)
    middle = statistics.median(means)
    quarters = statistics.quantiles(means, n=4)
    return middle, (quarters[2] - quarters[0]) / middle


def row(
    case: str,
    unit: str,
    ours: float,
    samples: int,
    spread: float,
    note: str,
    peer: tuple[str, str, float] | None = None,
) -> None:
    name, of, value = peer or (None, None, None)
    print(
        json.dumps(
            {
                "area": "authz",
                "case": case,
                "unit": unit,
                "ours": ours,
                "peer": name,
                "peer_version": of,
                "peer_value": value,
                "samples": samples,
                "spread": spread,
                "note": note,
            }
        ),
        flush=True,
    )


def requests(draw: random.Random, count: int, told: list[dict[str, Any]]) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Every other request fits the scope of some policy; the rest are drawn at will."""
    found = []
    for n in range(count):
        aim = draw.choice(told) if n % 2 else {"agent": None, "team": None, "action": None, "folder": None}
        team, folder = aim["team"] or f"team-{draw.randrange(50)}", aim["folder"] or f"folder-{draw.randrange(100)}"
        who = aim["agent"] or agent(int(team[5:]) + 50 * draw.randrange(AGENTS // 50))
        what = aim["action"] or f"act:{draw.randrange(ACTIONS)}"
        which = f"doc-{int(folder[7:]) + 100 * draw.randrange(DOCS // 100)}"
        context = {"amount": draw.randrange(1000), "purpose": "work", "urgent": draw.random() < 0.25}
        found.append((who, what, which, context))
    return found


def singles(decide: Callable[[int], bool], count: int, seconds: float, least: int) -> tuple[list[bool], list[int]]:
    """Answers and nanoseconds of single calls, for as long as `seconds` last."""
    answers, times = [], []
    budget = time.perf_counter() + seconds
    for n in range(count):
        start = time.perf_counter_ns()
        answers.append(decide(n))
        times.append(time.perf_counter_ns() - start)
        if time.perf_counter() > budget and len(times) >= least:
            break
    return answers, times


def sql(described: list[dict[str, Any]], asks: list[tuple[str, str, str, dict[str, Any]]]) -> Callable[[int], bool]:
    """The table of grants that one writes by hand, with its indexes; agents and documents are tables beside it."""
    base = sqlite3.connect(":memory:")
    base.executescript(
        "CREATE TABLE agents (id TEXT PRIMARY KEY, team TEXT, level INT) WITHOUT ROWID;"
        "CREATE TABLE docs (id TEXT PRIMARY KEY, folder TEXT, owner TEXT) WITHOUT ROWID;"
        "CREATE TABLE policies (kind TEXT, agent TEXT, team TEXT, action TEXT, folder TEXT);"
    )
    base.executemany(
        "INSERT INTO agents VALUES (?, ?, ?)", [(agent(n), f"team-{n % 50}", n % 6) for n in range(AGENTS)]
    )
    base.executemany(
        "INSERT INTO docs VALUES (?, ?, ?)", [(f"doc-{n}", f"folder-{n % 100}", agent(n % AGENTS)) for n in range(DOCS)]
    )
    columns = ("kind", "agent", "team", "action", "folder")
    base.executemany(
        "INSERT INTO policies VALUES (?, ?, ?, ?, ?)", [tuple(each[c] for c in columns) for each in described]
    )
    base.executescript(
        "CREATE INDEX by_agent ON policies (agent, kind);"
        "CREATE INDEX by_team ON policies (team, kind, action, folder);"
        "ANALYZE;"
    )
    query = """
    SELECT NOT EXISTS (SELECT 1 FROM policies WHERE team = (SELECT team FROM agents WHERE id = :agent)
                       AND kind = 'forbid' AND action = :action
                       AND folder = (SELECT folder FROM docs WHERE id = :doc) AND :amount > 500 AND NOT :urgent)
       AND (EXISTS (SELECT 1 FROM policies WHERE agent = :agent AND kind = 'agent' AND action = :action)
         OR EXISTS (SELECT 1 FROM policies WHERE agent = :agent AND kind = 'owner'
                    AND folder = (SELECT folder FROM docs WHERE id = :doc)
                    AND ((SELECT owner FROM docs WHERE id = :doc) = :agent
                         OR (SELECT level FROM agents WHERE id = :agent) > 3))
         OR EXISTS (SELECT 1 FROM policies WHERE team = (SELECT team FROM agents WHERE id = :agent)
                    AND kind = 'team' AND action = :action
                    AND folder = (SELECT folder FROM docs WHERE id = :doc) AND :amount < 900))
    """
    ready = [{"agent": who, "action": what, "doc": which, **context} for who, what, which, context in asks]
    return lambda n: bool(base.execute(query, ready[n]).fetchone()[0])


def others(described: list[dict[str, Any]], asks: list[tuple[str, str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Peers whose packages do not go with ours, in an environment of their own, made when it is first needed."""
    folder = Path(__file__).parent / "peers" / "policy"
    home = Path(sys.prefix) / "peers-policy"
    python = home / "bin" / "python"
    stamp = home / "requirements.txt"
    locked = (folder / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != locked:
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, home], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", python, folder / "requirements.txt"], check=True)
        stamp.write_text(locked)
    given = [
        {
            "agent": who,
            "team": f"team-{int(who.rpartition('-')[2]) % 50}",
            "level": int(who.rpartition("-")[2]) % 6,
            "action": what,
            "folder": f"folder-{int(which[4:]) % 100}",
            "owner": agent(int(which[4:]) % AGENTS),
            **context,
        }
        for who, what, which, context in asks
    ]
    asked = json.dumps({"policies": described, "requests": given, "seconds": 2.0, "least": 5})
    done = subprocess.run([python, folder / "peers.py"], input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def beside(count: int, listed: list[dict[str, Any]]) -> None:
    """Ours and every peer over the same policies and requests; all of them must give the same answers."""
    draw = random.Random(count)
    told = described(draw, count)
    asks = requests(draw, 2_000, told)
    text, entity_text = cedar(told), json.dumps(listed)
    authz = AuthzClient()
    authz.install(text, SCHEMA, entity_text)
    check = authz.engine.check_nowait
    expected = [check(*ask).allowed for ask in asks]
    ours, spread = each(check, asks, 20_000)
    theirs = [
        {"principal": f'Agent::"{w}"', "action": f'Action::"{a}"', "resource": f'Doc::"{d}"', "context": c}
        for w, a, d, c in asks
    ]
    answers, times = singles(lambda n: cedarpy.is_authorized(theirs[n], text, entity_text).allowed, len(asks), 3.0, 3)
    found = [{"peer": "cedarpy", "version": version("cedarpy"), "answers": answers, "times": times}]
    answers, times = singles(sql(told, asks), len(asks), 2.0, 100)
    found.append({"peer": "SQLite", "version": sqlite3.sqlite_version, "answers": answers, "times": times})
    for peer in [*found, *others(told, asks)]:
        if peer["answers"] != expected[: len(peer["answers"])]:
            raise AssertionError(f"{peer['peer']} answers otherwise at {count} policies")
        row(
            f"python/peers/{count}/{peer['peer']}", "ns", ours, len(peer["times"]), spread,
            f"one decision from Python, {count} policies; ours from 3 strings and a dict, the peer as its page says; "
            f"{sum(expected)} of {len(asks)} allowed, all answers equal",
            (peer["peer"], peer["version"], statistics.median(peer["times"])),
        )  # fmt: skip


def main() -> None:
    draw = random.Random(7)
    told = described(draw, POLICIES)
    text, listed = cedar(told), entities()
    authz = AuthzClient()
    authz.install(text, SCHEMA, listed)
    asks = requests(draw, REQUESTS, told)
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
    ours, spread = each(check, asks, 20_000)
    row(
        "python/check_nowait/1000", "ns", ours, 280_000, spread,
        "three strings and a context of 3 fields; cedarpy parses policies and entities in each call",
        ("cedarpy", version("cedarpy"), statistics.median(peer)),
    )  # fmt: skip
    ready = [(authz.engine.prepare(who, what, which),) for who, what, which, _ in asks[:512]]
    ours, spread = each(type(ready[0][0]).check_nowait, ready, 20_000)
    row("python/prepared/1000", "ns", ours, 280_000, spread, "agent, action and resource prepared; no context")

    rosters = (
        authz.roster("principal", [agent(n) for n in range(AGENTS)]),
        authz.roster("action", [f"act:{n}" for n in range(ACTIONS)]),
        authz.roster("resource", [f"doc-{n}" for n in range(DOCS)], "Doc"),
    )
    many = 200_000
    numbers = np.random.default_rng(1)
    columns = [numbers.integers(0, bound, many, dtype=np.uint32) for bound in (AGENTS, ACTIONS, DOCS)]
    ours, spread = each(lambda: authz.check_many(*columns, rosters=rosters), [()], 1, 12)
    note = "200,000 checks by places in numpy arrays, one thread, no context"
    row("python/check_many/1000", "checks/s", many / (ours / 1e9), 11 * many, spread, note)
    for count in (10, 100, 1_000, 10_000):
        beside(count, listed)


if __name__ == "__main__":
    main()
