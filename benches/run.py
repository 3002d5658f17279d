"""Runs the benches of every area, ours and the peers in one run, and writes benches/report.json.

usage: run.py [--only AREA[,AREA]] [--list]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from figures import times

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REPORT = HERE / "report.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", metavar="AREA", help="comma-separated areas of goals.toml")
    parser.add_argument("--list", action="store_true", help="print the areas and their cases, run nothing")
    args = parser.parse_args()
    goals = tomllib.loads((HERE / "goals.toml").read_text())
    if args.list:
        for area, cases in goals.items():
            print(area, *cases, sep="\n  ")
        return 0
    areas = args.only.split(",") if args.only else list(goals)
    unknown = sorted(set(areas) - set(goals))
    if unknown:
        parser.error(f"no such area: {', '.join(unknown)}; there are {', '.join(goals)}")

    commands: list[tuple[str, list[str]]] = []
    for area in areas:
        if (HERE / "src" / "bin" / f"{area}.rs").exists():
            commands.append((area, ["cargo", "run", "--quiet", "--release", "-p", "creto-benches", "--bin", area]))
        if (HERE / f"{area}.py").exists():
            commands.append((area, [sys.executable, str(HERE / f"{area}.py")]))
    if any(command[0] == sys.executable for _, command in commands):
        _release_module()

    rows = {(row["area"], row["case"]): row for row in json.loads(REPORT.read_text())} if REPORT.exists() else {}
    failed = []
    for area, command in commands:
        print(f"-- {area}: {' '.join(command[-3:])}", file=sys.stderr)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            row = json.loads(line)
            rows[row["area"], row["case"]] = row
            print(_describe(row, goals.get(row["area"], {}).get(row["case"])))
            REPORT.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        if process.wait():
            failed.append(area)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _release_module() -> None:
    """Python benches measure the release build of the native module."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "creto-python"], cwd=ROOT, check=True)
    target = ROOT / "python" / "creto" / "_core.abi3.so"
    fresh = target.with_suffix(".new")
    fresh.write_bytes((ROOT / "target" / "release" / "lib_core.so").read_bytes())
    fresh.replace(target)


def _describe(row: dict[str, Any], goal: dict[str, object] | None) -> str:
    ours, ratio = row["ours"], times(row)
    text = f"{row['area'] + '/' + str(row['case']):48} {ours:>14,.6g} {row['unit']:<12}"
    if ratio is not None:
        text += f" {ratio:>10,.3g} x {row['peer']} {row['peer_version']}"
    if goal:
        bounds = [f"{key} {goal[key]:g}" for key in ("max", "min", "min_ratio") if key in goal]
        text += f"   goal: {', '.join(bounds)}"
    return text


if __name__ == "__main__":
    sys.exit(main())
