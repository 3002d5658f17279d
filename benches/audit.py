"""The ledger from Python: tasks that append at once, and appends that do not wait."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from creto import _bridge, _core

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


def main() -> None:
    # Beside the build, not in a temporary folder that may be memory.
    scratch = HERE.parent / "target" / "bench-scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        ledger = _core.Ledger(
            folder / "ledger", _core.HybridLogicalClock(folder / "clock"), _core.SigningKey.generate()
        )
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


if __name__ == "__main__":
    main()
