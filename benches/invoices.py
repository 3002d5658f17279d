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
METERS = ["requests", "input_tokens", "storage"]
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


def series_of(first: int, count: int) -> tuple[Any, Any, Any]:
    """Customer, meter and quantity of events by their numbers, from SplitMix64 (Steele, Lea, Flood 2014).

    A collector sends 10,000 events at a time, of its 100 customers; there are 100 collectors. The peer has the same.
    """
    import numpy as np

    n = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    customer = (n // np.uint64(10_000)) % np.uint64(100) * np.uint64(100) + z % np.uint64(100)
    meter, quantity = (z >> np.uint64(20)) % np.uint64(3), 1 + (z >> np.uint64(32)) % np.uint64(1_000)
    return customer.astype(np.int64), meter.astype(np.int64), quantity.astype(np.int64)


def take(folder: Path, events: int) -> None:
    """Takes events in, in batches of 10,000, and puts them in order."""
    import numpy as np

    from creto import _core
    from creto.metering import LedgerEvidence

    clock = _core.HybridLogicalClock(str(folder / "clock"))
    ledger = _core.Ledger(str(folder / "ledger"), clock, _core.SigningKey.generate())
    ingest = _core.UsageIngest(ledger, str(folder / "ledger"), clock)
    known = [("collector", f"customer-{n // 3:05}", METERS[n % 3], {"region": "eu"}) for n in range(30_000)]
    begun = time.perf_counter()
    for first in range(0, events, 10_000):
        count = min(10_000, events - first)
        customer, meter, quantity = series_of(first, count)
        used, which = np.unique(customer * 3 + meter, return_inverse=True)
        at = [START + n * MONTH // events for n in range(first, first + count)]
        ids = [f"{n:012x}" for n in range(first, first + count)]
        taken = ingest.take(
            [known[n] for n in used.tolist()], which.astype(np.uint32), np.array(at, dtype=np.uint64), quantity, ids
        )
        if first // 10_000 % 64 == 63:
            ledger.durable_blocking(taken[2])
    ledger.publish_blocking(600)
    ingest.close()
    ledger.close_blocking()
    taken_in = time.perf_counter() - begun
    begun = time.perf_counter()
    LedgerEvidence(folder / "ledger")
    print(
        f"{events:,} events taken in {taken_in:.1f} s, put in order in {time.perf_counter() - begun:.1f} s",
        file=sys.stderr,
    )


def made(folder: Path, events: int) -> None:
    """Makes the events, once: as a ledger with segments, and as Parquet."""
    if (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, __file__, "take", str(folder), str(events)], check=True)
    subprocess.run([sys.executable, str(PEER), str(folder), str(events), "make"], check=True)
    (folder / "made").touch()


def main(events: int = EVENTS, folder: Path | None = None) -> None:
    """Prints the rows of the report."""
    folder = folder or ROOT / "target" / f"bench-events-{events}"
    made(folder, events)
    own = [told([sys.executable, __file__, "one", str(folder)]) for _ in range(3)]
    peer = [told([sys.executable, str(PEER), str(folder), str(events)]) for _ in range(3)]
    for one in own:
        assert one["events"] == events == peer[0]["events"], (one, peer[0])
        assert Decimal(one["total"]) == Decimal(peer[0]["total"]), (one, peer[0])
    seconds = sorted(one["seconds"] for one in own)
    theirs = sorted(one["value"] for one in peer)
    note = (
        f"{events:,} events of 10,000 customers and 3 meters in segments; a fresh process adds every row up again, "
        f"holds the segments' sums against it, rates, and finalizes {own[0]['invoices']:,} invoices at once; "
        "totals equal the peer's to the cent; the peer: group by and tiers in Decimal, no invoices, no commitments"
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
    elif sys.argv[1:2] == ["take"]:
        take(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("CRETO_BENCH_EVENTS", EVENTS))
        main(count, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
