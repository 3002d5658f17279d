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


def _curves(axes: Any, lines: dict[str, dict[int, float]]) -> None:
    """Two curves, each point with its figure."""
    for mark, colour, (name, points) in zip(MARKS, (OURS, PEERS[0]), lines.items(), strict=False):
        axes.plot(*zip(*sorted(points.items()), strict=True), marker=mark, color=colour, label=name, linewidth=2)
        for n, value in points.items():
            axes.annotate(
                f"{value:.3g}", (n, value), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=9
            )


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
    _curves(axes, lines)
    axes.set_ylim(0, 1.25 * max(value for points in lines.values() for value in points.values()))
    measured = {name: n for name, n in counts.items() if any(n in points for points in lines.values())}
    axes.set_xticks(list(measured.values()), list(measured))
    axes.minorticks_off()
    axes.legend(frameon=False)
    save(drawn, "audit-sizes")
    return True


def checks(rows: Rows) -> bool:
    """How long a check of a quota takes against the number of agents, ours and governor's."""
    counts = {"1000": 1_000, "10k/uniform": 10_000, "100k/uniform": 100_000, "1M/uniform": 1_000_000}
    found = {n: rows["metering", f"rust/4-level/{name}"] for name, n in counts.items() if _measured(rows, name)}
    if len(found) < 2:
        return False
    lines = {
        "creto": {n: row["ours"] for n, row in found.items()},
        f"governor {next(iter(found.values()))['peer_version']}": {n: row["peer_value"] for n, row in found.items()},
    }
    drawn, axes = figure("A check of a quota on four levels, uniform agents", "agents", "ns a check")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _curves(axes, lines)
    axes.set_xticks(list(found), [f"{n:,}" for n in found])
    axes.minorticks_off()
    axes.legend(frameon=False)
    save(drawn, "metering-checks")
    return True


def _measured(rows: Rows, name: str) -> bool:
    return (rows.get(("metering", f"rust/4-level/{name}")) or {}).get("peer_value") is not None


def threads(rows: Rows) -> bool:
    """What a second thread adds, by what the two have in common."""
    cases = {
        "organisations of their own": "many-organisations",
        "one organisation": "one-organisation",
        "one agent": "one-agent",
    }
    bars = {
        label: rows["metering", f"rust/2-threads/{case}"]["ours"]
        for label, case in cases.items()
        if ("metering", f"rust/2-threads/{case}") in rows
    }
    if len(bars) < len(cases):
        return False
    drawn, axes = figure(
        "Checks a second by two threads", "what the threads have in common", "times those of one thread"
    )
    drawn_bars = axes.bar(list(bars), list(bars.values()), color=[PEERS[3], OURS, PEERS[0]], width=0.55)
    axes.bar_label(drawn_bars, fmt="{:.2f}")
    axes.axhline(1, color="#57606a", linewidth=1, linestyle="--")
    axes.set_ylim(0, 2.2)
    save(drawn, "metering-threads")
    return True


PLOTTED: dict[str, Callable[[Rows], bool]] = {
    "audit-appends": appends,
    "audit-sizes": sizes,
    "metering-checks": checks,
    "metering-threads": threads,
}


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
