"""What DuckDB takes for the sums and the tiers, in Decimal, of the same events as Parquet: `invoice_peer.py FOLDER EVENTS [make]`.

With `make` the Parquet file is written, from the same words as `usage_events` makes its events of, in the order in which creto's segments
have them: by customer and meter within each million. Without, it is read and priced, and the time and the totals printed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb
import numpy as np

METERS = ["requests", "input_tokens", "storage"]
START, MONTH = 1_793_491_200_000_000, 30 * 86_400_000_000
CHUNK = 1 << 20


def events(first: int, count: int, total: int) -> dict[str, np.ndarray]:
    n = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    customer, meter = (z % np.uint64(10_000)).astype(np.int32), ((z >> np.uint64(20)) % np.uint64(3)).astype(np.int8)
    quantity = 1 + ((z >> np.uint64(32)) % np.uint64(1000)).astype(np.int64)
    at = START + (n.astype(object) * MONTH // total).astype(np.int64) if total * MONTH >= 2**63 else None
    if at is None:
        at = START + n.astype(np.int64) * MONTH // total
    order = np.lexsort((at, meter, customer))
    return {
        "customer": customer[order],
        "meter": meter[order],
        "quantity": quantity[order],
        "at": at[order],
    }


def make(file: Path, total: int) -> None:
    db = duckdb.connect(str(file.with_suffix(".db")))
    db.execute("create table events (customer varchar, meter varchar, quantity bigint, at bigint)")
    for first in range(0, total, CHUNK):
        columns = events(first, min(CHUNK, total - first), total)
        db.register("chunk", columns)
        db.execute(
            "insert into events select format('customer-{:05d}', customer), "
            "['requests', 'input_tokens', 'storage'][meter + 1], quantity, at from chunk"
        )
        db.unregister("chunk")
    db.execute(f"copy events to '{file}' (format parquet)")
    db.close()
    file.with_suffix(".db").unlink()


# The prices of the bench: 0.0015 each, three steps, and 0.02 per 1,000 with 1,000 included.
PRICED = """
with sums as (
    select customer, meter, sum(quantity)::decimal(38, 0) as q, count(*) as n
    from read_parquet('{file}') where at >= {start} and at < {end} group by customer, meter
), priced as (
    select customer, meter, q, n, case meter
        when 'requests' then q * 0.0015::decimal(18, 4)
        when 'input_tokens' then least(q, 100000) * 0.00020::decimal(18, 5)
            + greatest(0, least(q, 1000000) - 100000) * 0.00015::decimal(18, 5)
            + greatest(0, q - 1000000) * 0.00010::decimal(18, 5)
        else greatest(0, q - 1000) * 0.00002::decimal(18, 5) end as exact
    from sums
)
select customer, meter, q, n, round_even(exact, 2) as amount from priced order by customer, meter
"""


def price(file: Path) -> None:
    db = duckdb.connect()
    begun = time.perf_counter()
    rows = db.execute(PRICED.format(file=file, start=START, end=START + MONTH)).fetchall()
    seconds = time.perf_counter() - begun
    total = sum(row[4] for row in rows)
    events = sum(row[3] for row in rows)
    print(
        json.dumps({"version": duckdb.__version__, "value": seconds, "total": f"{total:.2f}", "events": events}),
    )


if __name__ == "__main__":
    file = Path(sys.argv[1]) / "events.parquet"
    if sys.argv[3:] == ["make"]:
        make(file, int(sys.argv[2]))
    else:
        price(file)
