"""Microsoft's Agent Governance Toolkit and rego-cpp, asked the same as ours; run by an interpreter of their own.

Reads {"policies": [...], "requests": [...], "seconds": s, "least": n} from standard input and prints, for each peer,
its version, its answers and the nanoseconds of single calls.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

Policy = dict[str, Any]
Request = dict[str, Any]


def agt(policies: list[Policy], requests: list[Request]) -> Any:
    """One rule a policy; what others look up in entities is given with each request."""
    # It says of its own import path that it will move.
    warnings.simplefilter("ignore", DeprecationWarning)
    from agentmesh.governance.policy import Policy as AgtPolicy
    from agentmesh.governance.policy import PolicyEngine, PolicyRule

    rules = []
    for number, each in enumerate(policies):
        parts = [f"{name} == '{each[name]}'" for name in ("agent", "team", "action", "folder") if each[name]]
        cases = [" and ".join(parts)]
        if each["kind"] == "team":
            cases = [f"{cases[0]} and amount < 900"]
        elif each["kind"] == "owner":
            cases = [f"{cases[0]} and owned", f"{cases[0]} and level > 3"]
        elif each["kind"] == "forbid":
            cases = [f"{cases[0]} and amount > 500 and calm"]
        effect = "deny" if each["kind"] == "forbid" else "allow"
        rules.append(PolicyRule(name=f"rule-{number}", condition=" or ".join(cases), action=effect))
    engine = PolicyEngine(conflict_strategy="deny_overrides")
    engine.load_policy(AgtPolicy(name="bench", agents=["*"], rules=rules, default_action="deny"))
    contexts = [{**each, "owned": each["owner"] == each["agent"], "calm": not each["urgent"]} for each in requests]
    return lambda n: engine.evaluate("*", contexts[n]).allowed


def rego(policies: list[Policy], requests: list[Request]) -> Any:
    """One rule a policy, compiled once; what others look up in entities is given with each request."""
    from regopy import Interpreter

    lines = ["package bench", "default allow := false", "default deny := false"]
    for each in policies:
        names = [name for name in ("agent", "team", "action", "folder") if each[name]]
        scope = "; ".join(f'input.{name} == "{each[name]}"' for name in names)
        if each["kind"] == "agent":
            lines.append(f"allow if {{ {scope} }}")
        elif each["kind"] == "team":
            lines.append(f"allow if {{ {scope}; input.amount < 900 }}")
        elif each["kind"] == "owner":
            lines.append(f"allow if {{ {scope}; input.owner == input.agent }}")
            lines.append(f"allow if {{ {scope}; input.level > 3 }}")
        else:
            lines.append(f"deny if {{ {scope}; input.amount > 500; input.urgent == false }}")
    lines += ["permitted if { allow; not deny }"]
    interpreter = Interpreter()
    interpreter.add_module("bench", "\n".join(lines))
    bundle = interpreter.build("data.bench.permitted")

    def decide(n: int) -> bool:
        interpreter.set_input(requests[n])
        # What is not true is undefined here, whatever the default says.
        return str(interpreter.query_bundle(bundle)) == '{"expressions":[true]}'

    return decide


def main() -> None:
    """Measures each peer for as long as the samples last."""
    asked = json.load(sys.stdin)
    for name, package, build in (
        ("Agent Governance Toolkit", "agent-governance-toolkit-core", agt),
        ("rego-cpp", "regopy", rego),
    ):
        decide = build(asked["policies"], asked["requests"])
        answers, times = [], []
        budget = time.perf_counter() + asked["seconds"]
        for n in range(len(asked["requests"])):
            start = time.perf_counter_ns()
            answers.append(decide(n))
            times.append(time.perf_counter_ns() - start)
            if time.perf_counter() > budget and len(times) >= asked["least"]:
                break
        print(json.dumps({"peer": name, "version": version(package), "answers": answers, "times": times}), flush=True)


if __name__ == "__main__":
    main()
