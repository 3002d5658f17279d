"""Draws docs/plots/policy.svg from benches/report.json: the time of one decision against the number of policies."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
OURS = "#0b6e4f"
COLOURS = ("#b5542f", "#5b6c9e", "#8a6d1d", "#7a3b69", "#4a4a4a", "#a03030")


def series(rows: list[dict[str, object]]) -> dict[str, list[tuple[int, float]]]:
    """Nanoseconds by number of policies, for each engine that was measured.

    Args:
        rows: The report's.
    """
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["area"] != "authz":
            continue
        case = str(row["case"])
        if match := re.fullmatch(r"python/peers/(\d+)/(.+)", case):
            ours, peer = "creto, from Python", f"{match[2]} {row['peer_version']}, from Python"
        elif match := re.fullmatch(r"rust/prepared/(\d+)", case):
            ours, peer = "creto, from Rust", f"cedar-policy {row['peer_version']}, from Rust"
        else:
            continue
        count = int(match[1])
        found.setdefault(ours, {})[count] = float(str(row["ours"]))
        if row["peer_value"] is not None:
            found.setdefault(peer, {})[count] = float(str(row["peer_value"]))
    return {name: sorted(points.items()) for name, points in found.items()}


def draw(lines: dict[str, list[tuple[int, float]]], out: Path) -> None:
    """Draws the lines, each named at its end."""
    mpl.rcParams.update({"svg.hashsalt": "creto", "font.size": 10, "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(9, 5.4))
    ends: list[tuple[float, int, str, str]] = []
    colours = iter(COLOURS)
    for name, points in lines.items():
        ours = name.startswith("creto")
        colour = OURS if ours else next(colours)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=2.4 if ours else 1.4, color=colour)
        count, value = points[-1]
        ends.append((value, count, name, colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    # Names that would lie on each other are moved apart.
    place = 0.0
    for value, count, name, colour in sorted(ends):
        place = max(value, place * 1.75)
        axes.annotate(name, (count, value), xytext=(count * 1.18, place), textcoords="data", va="center", color=colour)
    axes.set_xlim(8, 10_000 * 80)
    axes.set_xticks([10, 100, 1_000, 10_000], ["10", "100", "1,000", "10,000"])
    axes.xaxis.minorticks_off()
    ticks = {100.0: "100 ns", 1e3: "1 µs", 1e4: "10 µs", 1e5: "100 µs", 1e6: "1 ms", 1e7: "10 ms", 1e8: "100 ms"}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(
        min(value for points in lines.values() for _, value in points) / 2, max(value for value, *_ in ends) * 4
    )
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("policies in the set")
    axes.set_title("One decision: 2,000 agents, 4,000 resources, 20 actions (median)", loc="left", fontsize=11)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draws, or says what is not measured yet."""
    report = ROOT / "benches" / "report.json"
    lines = series(json.loads(report.read_text())) if report.exists() else {}
    if not lines:
        sys.exit("no decision was measured yet; run `make bench ONLY=authz`")
    draw(lines, ROOT / "docs" / "plots" / "policy.svg")


if __name__ == "__main__":
    main()
