"""Sandboxes: a claim from the warm pool, the first output of a program, and the same from a cold start as the peer."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio

from creto.runtime import RUNSC_VERSION, Change, Pool, find_runsc

SAMPLES = 15
PYTHON = str(Path(sys.base_prefix) / "bin" / "python3")


class Yes:
    """Hooks that agree to everything: what they cost is measured elsewhere."""

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        return True

    async def command(self, argv: Sequence[str]) -> bool:
        return True

    async def changes(self, changes: list[Change]) -> list[Change]:
        return changes


def row(case: str, ours: list[float], peer: list[float], peer_name: str, version: str, note: str) -> None:
    middle = statistics.median(ours)
    quarters = statistics.quantiles(ours, n=4)
    print(
        json.dumps(
            {
                "area": "runtime",
                "case": case,
                "unit": "ms",
                "ours": middle * 1000,
                "peer": peer_name or None,
                "peer_version": version or None,
                "peer_value": statistics.median(peer) * 1000 if peer else None,
                "samples": len(ours),
                "spread": (quarters[2] - quarters[0]) / middle,
                "note": note,
            }
        ),
        flush=True,
    )


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def measure(backend: str, folder: Path) -> dict[str, list[float]]:
    """Claims a waiting sandbox, runs two programs in it, and reads what changed; the pool is full again before each."""
    took: dict[str, list[float]] = {"claim": [], "python": [], "command": [], "changes": []}
    project = folder / "project"
    project.mkdir(exist_ok=True)
    async with Pool({"warm_pool_min_size": 1, "warm_pool_max_size": 3}, folder / "state", backend=backend) as pool:
        for _ in range(SAMPLES):
            await pool.start(warm=1)
            begun = time.perf_counter()
            async with pool.claim("spiffe://creto.local/agent/bench", project, Yes()) as box:
                took["claim"].append(time.perf_counter() - begun)
                took["python"].append(await timed(lambda: box.run([PYTHON, "-c", "print(1)"])))
                took["command"].append(await timed(lambda: box.run(["true"])))
                await box.run(["touch", "new"])
                took["changes"].append(await timed(box.changes))
    return took


def cold_gvisor() -> tuple[list[float], str]:
    """What the field does without a pool: `runsc do`, once for each program."""
    runsc = str(find_runsc())
    version = RUNSC_VERSION if runsc.endswith(RUNSC_VERSION) else "of PATH"
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        command = [runsc, "--ignore-cgroups", "--platform=systrap", "--network=none", "do", PYTHON, "-c", "print(1)"]
        subprocess.run(command, capture_output=True, check=True)
        took.append(time.perf_counter() - begun)
    return took, version


def main() -> None:
    if os.geteuid() != 0:
        print("runtime: sandboxes need root here", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(prefix="creto-bench-") as folder:
        cold, version = cold_gvisor()
        for backend in ("gvisor", "process"):
            took = anyio.run(measure, backend, Path(folder))
            row(f"claim/{backend}", took["claim"], [], "", "", "a waiting sandbox, bound to agent, folder, secrets")
            whole = [claim + run for claim, run in zip(took["claim"], took["python"], strict=True)]
            peer = (cold, "runsc do", version) if backend == "gvisor" else ([], "", "")
            row(f"claim_and_python/{backend}", whole, peer[0], peer[1], peer[2], "claim, then `python -c` to its end")
            row(f"command/{backend}", took["command"], [], "", "", "`true`, from the call to its status")
            row(f"changes/{backend}", took["changes"], [], "", "", "listing one changed file")


if __name__ == "__main__":
    main()
