"""The ledger from Python: tasks that append at once, and appends that do not wait; then peers by callers, in one run.

usage: audit.py [python|queries|callers]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from creto import _bridge, _core
from peers import appends

HERE = Path(__file__).resolve().parent


def print_row(case: str, unit: str, ours: float, samples: int, spread: float, note: str) -> None:
    row = {"area": "audit", "case": case, "unit": unit, "ours": ours, "peer": None, "peer_version": None}
    print(json.dumps({**row, "peer_value": None, "samples": samples, "spread": spread, "note": note}), flush=True)


def record(number: int) -> dict[str, Any]:
    return {
        "who": "spiffe://creto.local/agent/researcher",
        "what": "tool:call",
        "resource": "search",
        "why": "policy `tools`",
        "kind": "outcome",
        "outcome": "success",
        "id": number.to_bytes(16, "big"),
    }


async def tasks(ledger: _core.Ledger, seconds: float, numbers: Any) -> float:
    """256 tasks on one event loop, each awaiting that its record is on disk."""
    done, end = 0, time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        while time.perf_counter() < end:
            fields = record(next(numbers))
            await _bridge.wait(partial(ledger.append, fields))
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(256)))
    return done / (time.perf_counter() - start)


def spread(samples: list[float]) -> float:
    return (max(samples) - min(samples)) / statistics.median(samples)


def queries(folder: Path, count: int = 1_000_000) -> None:
    """How fast the index of queries is made, and answers; the peer of an answer is a look at every record."""
    from creto.audit._filter import Filter
    from creto.audit._index import LedgerIndex
    from creto.audit._reading import scan

    folder.mkdir()
    ledger = _core.Ledger(folder / "ledger", _core.HybridLogicalClock(folder / "clock"), _core.SigningKey.generate())
    for number in range(count):
        fields = record(number + 1)
        fields["who"] = f"spiffe://creto.local/agent/worker-{number % 1_000}"
        fields["resource"] = f"https://example.org/{number * 7_919 % 100_003}"
        ledger.enqueue(fields)
    ledger.close_blocking()
    index = LedgerIndex(folder / "ledger", folder / "index" / "ledger.db")
    start = time.perf_counter()
    index.catch_up()
    rate = count / (time.perf_counter() - start)
    size = (folder / "index" / "ledger.db").stat().st_size / count
    print_row(
        "index/1M", "records/s", rate, 1, 0.0, f"the index of queries made from nothing; {size:.0f} bytes a record"
    )
    wanted = Filter(agent="spiffe://creto.local/agent/worker-77", outcome="success")
    times = []
    for _ in range(20):
        start = time.perf_counter()
        index.catch_up()
        found = index.latest(wanted, 100)
        times.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    looked = scan(folder / "ledger", wanted, limit=100)
    peer = (time.perf_counter() - start) * 1e3
    assert found == looked
    note = "the latest 100 records of one agent in 1,000 that ended well, read from the ledger and compared"
    row = {"area": "audit", "case": "query/1M", "unit": "ms", "ours": statistics.median(times), "peer": "scan"}
    row |= {"peer_version": "every record looked at, from the latest back", "peer_value": peer, "samples": len(times)}
    print(json.dumps({**row, "spread": spread(times), "note": note}), flush=True)


def median(measured: list[tuple[str, float]]) -> tuple[str, float]:
    return measured[0][0], statistics.median(rate for _, rate in measured)


def with_peers(folder: Path, seconds: float = 2.0) -> None:
    """Ours and every peer with as many callers, one after the other on one disk."""
    program = HERE.parent / "target" / "release" / "audit"
    raw = [appends.fdatasync(folder, seconds, preallocated=kind) for kind in (True, False)]
    with appends.postgresql(folder) as postgresql:
        for callers in (1, 4, 16, 64, 256):
            done = subprocess.run([program, "callers", str(callers)], capture_output=True, text=True, check=True)
            ours = json.loads(done.stdout.splitlines()[-1])
            peers = {"sqlite-full": median([appends.sqlite(folder, callers, seconds / 2) for _ in range(3)])}
            if (found := appends.tessera(folder, callers, seconds)) is not None:
                peers["tessera-posix"] = found
            if postgresql is not None:
                rates = [(postgresql.version, postgresql.rate(callers, seconds)) for _ in range(3)]
                peers["postgresql"] = median(rates)
            if callers == 1:
                for version, micros in raw:
                    peers[f"fdatasync-{version.split(',')[0]}"] = (version, 1e6 / micros)
            for peer, (version, rate) in peers.items():
                row = {"area": "audit", "case": f"callers/{callers}/{peer}", "unit": "appends/s", "ours": ours["ours"]}
                row |= {"peer": peer, "peer_version": version, "peer_value": rate, "samples": ours["samples"]}
                note = (
                    "512 bytes, durable before it is acknowledged, as many outstanding as there are callers; "
                    + _HOW[peer]
                )
                print(json.dumps({**row, "spread": ours["spread"], "note": note}), flush=True)


_HOW = {
    "sqlite-full": "the peer commits the rows of all callers at once, WAL, synchronous=FULL",
    "tessera-posix": "the peer's callers wait until their entry is sequenced and integrated on disk",
    "postgresql": "the peer's callers are connections of pgbench, one row a commit, the server's defaults",
    "fdatasync-preallocated": "the peer writes and syncs into a file that was written before",
    "fdatasync-growing": "the peer writes and syncs at the end of a file that grows",
}


def from_python(folder: Path) -> None:
    ledger = _core.Ledger(folder / "ledger", _core.HybridLogicalClock(folder / "clock"), _core.SigningKey.generate())
    numbers = iter(range(1, 1 << 60))
    rates = [asyncio.run(tasks(ledger, 2.0, numbers)) for _ in range(5)]
    note = "256 tasks on one asyncio loop, each awaits that its record is on disk"
    print_row("python/256", "appends/s", statistics.median(rates), len(rates), spread(rates), note)
    records = [record(next(numbers)) for _ in range(20_000)]
    enqueue, times = ledger.enqueue, []
    for _ in range(15):
        start = time.perf_counter()
        for fields in records[:1_000]:
            enqueue(fields)
        times.append((time.perf_counter() - start) / 1_000 * 1e9)
        ledger.publish_blocking()
        records = records[1_000:]
    note = "ledger.enqueue(record) of a dict of 7 fields, 1,000 in a row, then flushed"
    print_row("python/append_nowait", "ns", statistics.median(times), len(times) * 1_000, spread(times), note)
    ledger.close_blocking()


def main() -> None:
    chosen = sys.argv[1] if len(sys.argv) > 1 else None
    # Beside the build, not in a temporary folder that may be memory.
    scratch = HERE.parent / "target" / "bench-scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        if chosen in (None, "python"):
            from_python(Path(name))
        if chosen in (None, "queries"):
            queries(Path(name) / "queries")
        if chosen in (None, "callers"):
            with_peers(Path(name))


if __name__ == "__main__":
    main()
