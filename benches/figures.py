"""Writes docs/figures.md: every row of a report beside its peer and its goal, also where the goal is missed.

usage: figures.py [--report FILE]     the report is benches/report.json, which `make bench` writes
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPORT = HERE / "report.json"
PAGE = HERE.parent / "docs" / "figures.md"
HEAD = """# Figures

Every row that `make bench` wrote into `benches/report.json`, ours and the peer's from one run on one machine. They hold
for that machine: run it on yours. What a case is, stands in `benches/goals.toml` and in the last column. **Times** says
how many times as fast (or as small) as the peer creto is: below 1 the peer is ahead. Goals are what creto sets out to
reach; a missed one is shown as missed.
"""
AREAS = {
    "authz": "Policy",
    "gate": "A whole act, from policy to record",
    "messaging": "Messages",
    "nhi": "Delegation chains",
    "audit": "The ledger",
    "consensus": "The clock",
    "memory": "Memory",
    "metering": "Quota and billing",
    "runtime": "Sandboxes",
}


def times(row: dict[str, Any]) -> float | None:
    """How many times better than the peer's a row is."""
    ours, peer = row["ours"], row.get("peer_value")
    if not peer or not ours:
        return None
    return float(ours / peer if row["unit"].endswith("/s") else peer / ours)


def missed(goal: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a row is short of its goal."""
    ratio = times(row)
    return (
        row["ours"] > goal.get("max", float("inf"))
        or row["ours"] < goal.get("min", 0)
        or ("min_ratio" in goal and (ratio is None or ratio < goal["min_ratio"]))
    )


def number(value: float) -> str:
    """Three digits, or all of a larger whole number, parted by commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def page(rows: list[dict[str, Any]], goals: dict[str, Any]) -> str:
    """The page.

    Args:
        rows: The report.
        goals: By area and case.
    """
    parts, met, short = [], 0, 0
    for area, title in AREAS.items():
        lines = [f"\n## {title}\n", "| case | ours | peer | times | goal | what it is |", "|---|---|---|---|---|---|"]
        for row in sorted((row for row in rows if row["area"] == area), key=lambda row: str(row["case"])):
            goal, ratio = goals.get(area, {}).get(row["case"], {}), times(row)
            bounds = [
                text
                for key, text in (("max", "at most {}"), ("min", "at least {}"), ("min_ratio", "{} times"))
                if key in goal
                for text in [text.format(number(goal[key]))]
            ]
            told = ", ".join(bounds)
            if bounds:
                short += missed(goal, row)
                met += not missed(goal, row)
                told += " (**missed**)" if missed(goal, row) else " (met)"
            peer = f"{row['peer']} {row.get('peer_version') or ''}".strip() if row.get("peer_value") else ""
            theirs = f"{peer}: {number(row['peer_value'])}" if peer else ""
            note = " ".join(str(row.get("note") or "").split()).replace("|", "/")
            cells = [f"`{row['case']}`", f"{number(row['ours'])} {row['unit']}", theirs, number(ratio) if ratio else ""]
            lines.append("| " + " | ".join([*cells, told, note]) + " |")
        if len(lines) > 3:
            parts += lines
    count = f"\n{met} of {met + short} goals with a row are met.\n"
    return HEAD + count + "\n".join(parts) + "\n"


def main() -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, default=REPORT)
    args = parser.parse_args()
    if not args.report.exists():
        parser.error(f"there is no `{args.report}`; run `make bench` first")
    goals = tomllib.loads((HERE / "goals.toml").read_text())
    PAGE.write_text(page(json.loads(args.report.read_text()), goals), encoding="utf-8")
    print(PAGE.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
