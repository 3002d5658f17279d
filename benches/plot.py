"""Draws docs/plots/*.svg from the rows of a report: nothing in a plot was not measured.

usage: plot.py [--report FILE] [name...]     the report is benches/report.json, which `make bench` writes
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPORT = HERE / "report.json"
PLOTS = HERE.parent / "docs" / "plots"
Rows = dict[tuple[str, str], dict[str, Any]]
# Told apart without colours too: the marks differ.
OURS, PEERS = "#1f6feb", ("#b4691f", "#2c8a5b", "#8250df", "#6e7781", "#cf222e")
MARKS = ("o", "s", "^", "D", "v", "P")


def figure(title: str, across: str, up: str) -> tuple[Any, Any]:
    """An empty plot in the style of all."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same report gives the same bytes, so that a plot changes only with what it shows.
    mpl.rcParams.update({"svg.hashsalt": "creto", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11})
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(True, which="major", color="#d8dee4", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return drawn, axes


def save(drawn: Any, name: str) -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    file = PLOTS / f"{name}.svg"
    drawn.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
    print(file.relative_to(HERE.parent))


_LABELS = {
    "sqlite-full": "SQLite {}, synchronous=FULL, one commit for all",
    "tessera-posix": "Tessera {} on POSIX files",
    "postgresql": "PostgreSQL {}, a commit each",
    "fdatasync-preallocated": "write + fdatasync, file written before",
    "fdatasync-growing": "write + fdatasync, file that grows",
}


def appends(rows: Rows) -> bool:
    """Durable appends a second against callers, ours and every peer that was measured beside it."""
    lines: dict[str, dict[int, float]] = {}
    for (area, case), row in rows.items():
        if area == "audit" and case.startswith("callers/"):
            _, callers, peer = case.split("/")
            lines.setdefault("creto", {})[int(callers)] = row["ours"]
            lines.setdefault(f"{peer} {row['peer_version'].split(',')[0]}", {})[int(callers)] = row["peer_value"]
    if not lines:
        return False
    drawn, axes = figure("Durable appends of 512 bytes", "callers that wait at once", "appends per second")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    peers = iter(PEERS * 2)
    for mark, (name, points) in zip(MARKS * 2, lines.items(), strict=False):
        peer, _, version = name.partition(" ")
        label = _LABELS.get(peer, name).format(version)
        ours = name == "creto"
        colour = OURS if ours else next(peers)
        axes.plot(
            *zip(*sorted(points.items()), strict=True),
            marker=mark,
            label=label,
            color=colour,
            linewidth=2.4 if ours else 1.4,
            zorder=3 if ours else 2,
        )
    ticks = sorted({callers for points in lines.values() for callers in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.legend(frameon=False, fontsize=9)
    save(drawn, "audit-appends")
    return True


def sizes(rows: Rows) -> bool:
    """How long opening and proving take against the number of records."""
    counts = {"100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
    lines = {
        "open, ms": {
            n: rows["audit", f"open/{name}"]["ours"] for name, n in counts.items() if ("audit", f"open/{name}") in rows
        },
        "prove one record, µs": {
            n: rows["audit", f"prove/{name}"]["ours"]
            for name, n in counts.items()
            if ("audit", f"prove/{name}") in rows
        },
    }
    if not all(lines.values()):
        return False
    drawn, axes = figure("Opening and proving, by the size of the ledger", "records", "ms to open, µs to prove")
    axes.set_xscale("log")
    for mark, colour, (name, points) in zip(MARKS, (OURS, PEERS[0]), lines.items(), strict=False):
        axes.plot(*zip(*sorted(points.items()), strict=True), marker=mark, color=colour, label=name, linewidth=2)
        for n, value in points.items():
            axes.annotate(
                f"{value:.3g}", (n, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=9
            )
    axes.set_ylim(0, 1.25 * max(value for points in lines.values() for value in points.values()))
    measured = {name: n for name, n in counts.items() if any(n in points for points in lines.values())}
    axes.set_xticks(list(measured.values()), list(measured))
    axes.minorticks_off()
    axes.legend(frameon=False)
    save(drawn, "audit-sizes")
    return True


PLOTTED: dict[str, Callable[[Rows], bool]] = {"audit-appends": appends, "audit-sizes": sizes}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(PLOTTED)}; all by default")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(PLOTTED))
    if unknown:
        parser.error(f"there is no plot `{unknown[0]}`; there are {', '.join(PLOTTED)}")
    if not args.report.exists():
        parser.error(f"there is no `{args.report}`; run `make bench` first")
    rows = {(row["area"], row["case"]): row for row in json.loads(args.report.read_text())}
    for name in args.names or PLOTTED:
        if not PLOTTED[name](rows):
            print(f"{name}: its rows are not in the report", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
