"""Records as files for other tools: JSON Lines, CSV, Parquet."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto._plain import cell
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto._progress import Progress
    from creto.audit._client import AuditClient
    from creto.audit._record import AuditRecord

__all__ = ["export", "in_place_of"]

_COLUMNS = (
    "time", "timestamp", "who", "delegation_chain", "what", "resource", "why", "ended", "failure", "kind", "id", "act",
    "digest", "policy", "usage", "detail", "shard", "index",
)  # fmt: skip


def _row(record: AuditRecord) -> dict[str, Any]:
    failure = record.outcome.get("failure") if isinstance(record.outcome, Mapping) else None
    return {
        **{name: record[name] for name in _COLUMNS if name in record},
        "time": record.time.isoformat(),
        "ended": record.ended or None,
        "failure": failure,
    }


def export(
    client: AuditClient,
    out: Path,
    form: str,
    filters: Mapping[str, Any],
    *,
    indexing: Progress | None = None,
    writing: Progress | None = None,
) -> int:
    """Writes the records that match, whole or not at all; they are never all in memory.

    Args:
        client: The ledger.
        out: The file; one that is there is replaced.
        form: `jsonl`, `csv` or `parquet`.
        filters: As of `AuditClient.query`.
        indexing: Told how far the index is.
        writing: Told how many records are written, and how many there are.

    Returns:
        How many records.

    Raises:
        InvalidInputError: The form is none of these, or what writes it is not installed.
    """

    writers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
    if form not in writers:
        raise InvalidInputError(f"`{form}` is no form to export to; say --format jsonl, csv or parquet")
    total, pages = client.pages(progress=indexing, **filters)
    written = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal written
        for page in pages:
            yield from map(_row, page)
            written += len(page)
            if writing:
                writing(out.name, written, total)

    with in_place_of(out) as new:
        writers[form](rows(), new)
    return written


@contextmanager
def in_place_of(out: Path) -> Iterator[Path]:
    """A file to write that takes the place of another once it is whole.

    It is in a folder of its own: under a name that others foresee, a link of theirs could wait.
    """
    with tempfile.TemporaryDirectory(prefix=".creto-", dir=out.absolute().parent) as ours:
        new = Path(ours, out.name)
        yield new
        new.replace(out)


def _jsonl(rows: Iterable[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=dict) + "\n")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    nested = {name: json.dumps(row[name], ensure_ascii=False) for name in ("delegation_chain", "usage", "detail")}
    return {**row, **nested}


def _csv(rows: Iterable[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, list[str](_COLUMNS))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: cell(v) if isinstance(v, str) else v for name, v in _flat(row).items()})


def _parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    try:
        import duckdb
    except ImportError as error:
        raise InvalidInputError("Parquet is written by DuckDB: pip install 'creto[duckdb]'") from error
    lines = path.with_name(f"{path.name}.jsonl")
    try:
        _jsonl(map(_flat, rows), lines)
        types = dict.fromkeys(_COLUMNS, "VARCHAR") | {
            "timestamp": "UBIGINT",
            "index": "UBIGINT",
            "time": "TIMESTAMPTZ",
        }
        with duckdb.connect() as connection:
            columns = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in types.items()) + "}"
            source = f"read_json(?, format = 'newline_delimited', columns = {columns})"
            connection.execute(
                f"COPY (SELECT * FROM {source}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)",  # noqa: S608
                [str(lines)],
            )
    finally:
        lines.unlink(missing_ok=True)
