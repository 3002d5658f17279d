"""Sums by customer and meter in DuckDB, Polars and SQLite: `aggregate.py FILE`, a CSV of customer, meter, quantity."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

QUERY = "select customer, meter, sum(quantity), count(*) from events group by customer, meter"


def best(query: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of the best of three, and the sum of the sums."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        rows = query()
        times.append(time.perf_counter() - begun)
    return min(times), sum(int(row[2]) for row in rows)


def main(file: Path) -> None:
    frame = pl.read_csv(file)
    quick = duckdb.connect()
    quick.execute(f"create table events as select * from read_csv('{file}')")
    light = sqlite3.connect(":memory:")
    light.execute("create table events (customer text, meter text, quantity integer)")
    with file.open() as lines:
        light.executemany("insert into events values (?, ?, ?)", list(csv.reader(lines))[1:])
    grouped = frame.lazy().group_by("customer", "meter").agg(pl.col("quantity").sum(), pl.len())
    found = {
        "duckdb": (version("duckdb"), *best(lambda: quick.execute(QUERY).fetchall())),
        "polars": (version("polars"), *best(lambda: grouped.collect().rows())),
        "sqlite": (sqlite3.sqlite_version, *best(lambda: light.execute(QUERY).fetchall())),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
