"""The plainest thing that keeps the store's contract with a ledger, for tests of the store alone."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creto.errors import LedgerFullError


class FileLedger:
    """A ledger as the store sees one: a file of records for each shard, each id in it once, on disk when it returns."""

    def __init__(self, folder: Path, shard: str) -> None:
        self.origin = shard
        self._path = folder / f"shard-{shard}"
        self._path.touch()
        self._lock = threading.Lock()
        self._seen = {json.loads(line)["id"] for line in self._whole_lines()}
        self.full = False

    def _whole_lines(self) -> list[str]:
        return [line for line in self._path.read_text().split("\n")[:-1] if line]

    def append_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self.full:
            raise LedgerFullError("the ledger cannot take more: the disk is full")
        with self._lock, self._path.open("a") as out:
            for record in records:
                if record["id"] not in self._seen:
                    self._seen.add(record["id"])
                    out.write(json.dumps(record) + "\n")
            out.flush()
            os.fsync(out.fileno())

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._whole_lines()]
