"""Counts the instructions of the hot paths and holds them against benches/counts.json.

usage: counts.py [--renew]

What changed shows, on any machine and under any load. Counted by callgrind, inside one function of the program `counts`
and whatever it calls; other threads do not count.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ON_FILE = HERE / "counts.json"
CASES = (
    "policy/strings",
    "policy/strings/context",
    "policy/prepared/context",
    "quota/take/prepared",
    "quota/consume/strings",
    "quota/reserve_commit/prepared",
    "gate/enter_settle",
    "gate/enter_settle/context",
    "gate/enter_settle/4-links",
)
# Names are hashed with a key that is drawn at each start, so a look-up takes a step more or less.
TOLERANCE = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--renew", action="store_true", help="write what is counted to benches/counts.json")
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions cannot be counted: install valgrind (`apt-get install valgrind`)", file=sys.stderr)
        return 1
    build = ["cargo", "build", "--quiet", "--release", "-p", "creto-benches", "--bin", "counts"]
    subprocess.run(build, cwd=ROOT, check=True)
    on_file: dict[str, float] = json.loads(ON_FILE.read_text()) if ON_FILE.exists() else {}
    counts, worse = {}, []
    print(f"{'case':32} {'on file':>9} {'now':>9} {'change':>8}   instructions a call")
    for case in CASES:
        counts[case] = count(case)
        before = on_file.get(case)
        change = counts[case] / before - 1 if before else 0.0
        if before is None or change > TOLERANCE:
            worse.append(case)
        print(f"{case:32} {before or '-':>9} {counts[case]:>9} {change:>+8.1%}")
    if args.renew:
        ON_FILE.write_text(json.dumps(counts, indent=1) + "\n")
    elif worse:
        above = f"more than {TOLERANCE:.0%} above what is on file, or not on file: {', '.join(worse)}"
        print(f"{above}; mend it, or say why and renew them: `make counts ARGS=--renew`", file=sys.stderr)
        return 1
    return 0


def count(case: str) -> int:
    """Instructions of one call of `case`."""
    with tempfile.TemporaryDirectory(prefix="creto-counts-") as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--collect-atstart=no",
            "--toggle-collect=*counts*measured*",
            f"--callgrind-out-file={folder}/out",
            str(ROOT / "target" / "release" / "counts"),
            case,
        ]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        if process.returncode:
            raise SystemExit(f"counts.py: `{case}` failed: {process.stderr.strip().splitlines()[-1]}")
        calls = int(process.stdout)
        return round(int(process.stderr.rpartition("Collected :")[2].split()[0]) / calls)


if __name__ == "__main__":
    sys.exit(main())
