"""Invoices of a month of many events: 10,000 finalized ones from segments, against DuckDB over the same as Parquet.

usage: invoices.py [EVENTS [FOLDER]]; by default CRETO_BENCH_EVENTS and a folder under target/; made once.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START, MONTH = 1_793_491_200_000_000, 30 * 86_400_000_000
EVENTS = 100_000_000
PEER = Path(__file__).parent / "peers" / "billing" / "invoice_peer.py"


def prices() -> Any:
    """The price book: per unit, three steps, and units included."""
    from creto.config import Price
    from creto.metering import PriceBook

    steps = [
        {"up_to": 100_000, "unit_price": "0.00020"},
        {"up_to": 1_000_000, "unit_price": "0.00015"},
        {"unit_price": "0.00010"},
    ]
    return PriceBook(
        [
            Price(meter="requests", unit_price="0.0015"),
            Price(meter="input_tokens", model="graduated", tiers=steps),
            Price(meter="storage", unit_price="0.02", per=1000, included=1000),
        ],
        "USD",
    )


def invoice(folder: Path) -> None:
    """Invoices the month once, in this process, and prints how long it took and what it held."""
    from creto.metering import Invoices, LedgerEvidence
    from creto.store import Store

    book = prices()
    state = Path(tempfile.mkdtemp(dir=folder))
    with Store(state) as store:
        begun = time.perf_counter()
        evidence = LedgerEvidence(folder / "ledger", recount=True)
        made = Invoices(store).run(book, START, START + MONTH, "UTC", evidence)
        seconds = time.perf_counter() - begun
    shutil.rmtree(state)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "invoices": len(made),
                "total": str(sum(Decimal(one.document["total"]) for one in made)),
                "events": sum(line["events"] for one in made for line in one.document["lines"]),
            }
        )
    )


def told(command: list[str]) -> Any:
    """The last line that a command prints, read as JSON."""
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def made(folder: Path, events: int) -> None:
    """Makes the events, once."""
    if (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    build = ["cargo", "run", "--quiet", "--release", "-p", "creto-benches", "--bin", "usage_events", "--"]
    subprocess.run([*build, str(folder), str(events)], check=True, cwd=ROOT, stdout=sys.stderr)
    subprocess.run([sys.executable, str(PEER), str(folder), str(events), "make"], check=True)
    (folder / "made").touch()


def main(events: int, folder: Path) -> None:
    made(folder, events)
    own = [told([sys.executable, __file__, "one", str(folder)]) for _ in range(3)]
    peer = [told([sys.executable, str(PEER), str(folder), str(events)]) for _ in range(3)]
    for one in own:
        assert one["events"] == events == peer[0]["events"], (one, peer[0])
        assert Decimal(one["total"]) == Decimal(peer[0]["total"]), (one, peer[0])
    seconds = sorted(one["seconds"] for one in own)
    theirs = sorted(one["value"] for one in peer)
    note = (
        f"{events:,} events of 10,000 customers and 3 meters in segments; a fresh process adds every row up again, holds "
        f"the segments' sums against it, rates, and finalizes {own[0]['invoices']:,} invoices in one transaction; totals "
        "equal the peer's to the cent; the peer: group by and tiers in Decimal, no invoices, no commitments"
    )
    case = "invoices/100M" if events == EVENTS else f"invoices/{events}"
    row = {"area": "metering", "peer": "duckdb", "peer_version": peer[0]["version"], "samples": 3, "note": note}
    spread = (seconds[-1] - seconds[0]) / seconds[1]
    print(json.dumps({**row, "case": case, "unit": "s", "ours": seconds[1], "peer_value": theirs[1], "spread": spread}))
    memory = {"case": f"{case}/memory", "unit": "MiB", "ours": max(one["mebibytes"] for one in own), "spread": 0.0}
    print(json.dumps({**row, **memory, "peer": None, "peer_version": None, "peer_value": None}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        invoice(Path(sys.argv[2]))
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("CRETO_BENCH_EVENTS", EVENTS))
        main(count, Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "target" / f"bench-events-{count}")
