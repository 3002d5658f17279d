"""What DuckDB takes for sums and tiers, in Decimal, of the same events: `invoice_peer.py FOLDER EVENTS [make]`.

With `make` the Parquet file is written, of the same words as benches/invoices.py has, in the order in which segments
have them: by customer and meter within each million. Without, it is read and priced, and time and totals printed.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np

START, MONTH = 1_793_491_200_000_000, 30 * 86_400_000_000
CHUNK = 1 << 20


def events(first: int, count: int, total: int) -> dict[str, np.ndarray]:
    n = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (n + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    collector = (n // np.uint64(10_000)) % np.uint64(100)
    customer = (collector * np.uint64(100) + z % np.uint64(100)).astype(np.int32)
    meter = ((z >> np.uint64(20)) % np.uint64(3)).astype(np.int8)
    quantity = 1 + ((z >> np.uint64(32)) % np.uint64(1000)).astype(np.int64)
    at = np.array([START + number * MONTH // total for number in range(first, first + count)], dtype=np.int64)
    order = np.lexsort((at, meter, customer))
    return {
        "customer": customer[order],
        "meter": meter[order],
        "quantity": quantity[order],
        "moment": at[order],
    }


def make(file: Path, total: int) -> None:
    db = duckdb.connect(str(file.with_suffix(".db")))
    db.execute("create table events (customer varchar, meter varchar, quantity bigint, moment bigint)")
    for first in range(0, total, CHUNK):
        columns = events(first, min(CHUNK, total - first), total)
        db.register("chunk", columns)
        db.execute(
            "insert into events select format('customer-{:05d}', customer), "
            "['requests', 'input_tokens', 'storage'][meter + 1], quantity, moment from chunk"
        )
        db.unregister("chunk")
    db.execute(f"copy events to '{file}' (format parquet)")
    db.close()
    file.with_suffix(".db").unlink()


# The prices of the bench: 0.0015 each, three steps, and 0.02 per 1,000 with 1,000 included.
PRICED = """
with sums as (
    select customer, meter, sum(quantity)::decimal(38, 0) as q, count(*) as n
    from read_parquet('{file}') where moment >= {start} and moment < {end} group by customer, meter
), priced as (
    select customer, meter, q, n, case meter
        when 'requests' then q * 0.00150::decimal(18, 5)
        when 'input_tokens' then least(q, 100000) * 0.00020::decimal(18, 5)
            + greatest(0, least(q, 1000000) - 100000) * 0.00015::decimal(18, 5)
            + greatest(0, q - 1000000) * 0.00010::decimal(18, 5)
        else greatest(0, q - 1000) * 0.00002::decimal(18, 5) end as exact
    from sums
), cents as (  -- half to even, in whole numbers: its own round_even goes by way of floats
    select *, (exact * 100000)::hugeint // 1000 as whole, (exact * 100000)::hugeint % 1000 as rest from priced
)
select customer, meter, q, n, whole + (rest > 500 or (rest = 500 and whole % 2 = 1))::int as amount
from cents order by customer, meter
"""


def price(file: Path) -> None:
    db = duckdb.connect()
    begun = time.perf_counter()
    rows = db.execute(PRICED.format(file=file, start=START, end=START + MONTH)).fetchall()
    seconds = time.perf_counter() - begun
    total = Decimal(sum(row[4] for row in rows)).scaleb(-2)
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
