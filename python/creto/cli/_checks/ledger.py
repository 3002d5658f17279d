"""Ledger: that a record is durable and provable, and that a tampered copy is found out."""

from __future__ import annotations

import shutil
from pathlib import Path

from creto._count import counted
from creto.cli._checks import Bench, Check
from creto.errors import CretoError

__all__ = ["CHECKS"]


def _write(bench: Bench) -> Path:
    from creto import _core
    from creto.audit import open_ledger

    sealer = _core.Sealer.open(str(bench.scratch / "keys"))
    ledger = open_ledger(bench.scratch, bench.clock, sealer)
    try:
        for number in range(20):
            ledger.append_blocking({"who": "doctor", "what": "doctor:try", "resource": f"record number {number}"}, 10)
        ledger.publish_blocking(10)
        shard = ledger.shard
    finally:
        ledger.close_blocking()
    return bench.scratch / "ledger" / shard


def _tampered(bench: Bench) -> str:
    from creto import _core
    from creto.audit import trusted_keys

    shard = _write(bench)
    keys = trusted_keys(bench.scratch)
    size = _core.LedgerShard(str(shard)).verify(keys)["size"]
    copy = bench.scratch / "tampered"
    shutil.copytree(shard, copy)
    changed = 0
    for file in sorted(path for path in copy.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if b"record number 7" in content:
            file.chmod(0o600)
            file.write_bytes(content.replace(b"record number 7", b"record number 9"))
            changed += 1
    if not changed:
        raise AssertionError("the record was not found in the copy, so nothing could be changed")
    try:
        _core.LedgerShard(str(copy)).verify(keys)
    except CretoError as error:
        return f"{size} records verified; a copy with one changed was found out ({error.kind})"
    raise AssertionError("a copy with one record changed was accepted as whole")


def _own(bench: Bench) -> str:
    from creto import _core
    from creto.audit import trusted_keys

    folder = bench.folder / "ledger"
    shards = _core.ledger_shards(str(folder)) if folder.is_dir() else []
    sizes = []
    for shard in shards:
        reader = _core.LedgerShard(str(folder / shard))
        if reader.checkpoint() is not None:
            sizes.append(int(reader.verify(trusted_keys(bench.folder))["size"]))
    if not sizes:
        return "empty so far"
    return f"{counted(sum(sizes), 'record')} in {counted(len(sizes), 'shard')} verified against signed checkpoints"


CHECKS = [
    Check("ledger", "a tampered record", _tampered),
    Check("ledger", "verify the folder's own", _own),
]
