"""Attacks on the ledger by whoever can write to its folder between two runs, and holds none of its keys."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto import _core
from creto.audit import AuditClient, open_ledger, trusted_keys
from creto.cli import main
from creto.errors import IntegrityError
from creto.metering._verify import Shards


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A closed ledger of two shards: three records in one, five in the other."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    sealer, clock = _core.Sealer.open(folder), _core.HybridLogicalClock(folder / "clock")
    ledgers = [open_ledger(folder, clock, sealer) for _ in range(2)]
    for ledger, count in zip(ledgers, (3, 5), strict=True):
        for number in range(count):
            ledger.append_blocking({"who": "w", "what": "crm:read", "resource": f"order {number}"})
    for ledger in ledgers:
        ledger.close_blocking()
    return folder


def verified(state: Path, seen: list[str] | None = None) -> list[Any]:
    keys = trusted_keys(state)
    return anyio.run(lambda: AuditClient.reading(state).verify(keys, seen=seen or ()))


def test_a_log_cannot_stand_in_the_place_of_one_that_was_removed(state: Path) -> None:
    seen = [shard.note for shard in verified(state)]
    removed, other = state / "ledger/0000", state / "ledger/0001"
    name = (removed / "origin").read_bytes()
    shutil.rmtree(removed)
    shutil.copytree(other, removed)
    (removed / "origin").write_bytes(name)
    with pytest.raises(
        IntegrityError, match="shard `0000` is a copy of another: its checkpoint is of the log `.*/0001`"
    ):
        verified(state, seen)
    # Nor without it: the file that no signature covers decides about nothing.
    shutil.rmtree(removed)
    shutil.copytree(other, state / "aside")
    (other / "origin").write_bytes(name)
    with pytest.raises(IntegrityError, match=r"the log `.*/0000` was seen before and is not there any more"):
        verified(state, seen)


def test_no_log_counts_twice(state: Path) -> None:
    shutil.copytree(state / "ledger/0000", state / "ledger/0002")
    with pytest.raises(IntegrityError, match="shard `0002` is a copy of another"):
        verified(state)
    with pytest.raises(IntegrityError, match="shard `0002` is a copy of another"):
        Shards(state / "ledger", trusted_keys(state)).of("0002")


def _forged(segment: Path) -> None:
    """Puts a record behind the last one, with a checksum that is right: it is no secret."""
    content, at, last = bytearray(segment.read_bytes()), 512, b""
    while length := struct.unpack_from("<I", content, at)[0]:
        last = bytes(content[at : at + 20 + length])
        at += -(-(20 + length) // 8) * 8
    payload = last[20:].replace(b"crm:read", b"crm:edit")
    head = struct.pack("<I", len(payload))
    place = struct.pack("<QI", struct.unpack_from("<Q", last, 8)[0] + 1, 0)
    frame = head + struct.pack("<I", zlib.crc32(head + place + payload)) + place + payload
    content[at : at + len(frame)] = frame
    segment.write_bytes(content)


def test_what_nothing_vouches_for_yet_is_not_called_checked(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (segment,) = (file for file in (state / "ledger/0001/segments").iterdir() if file.name != "next")
    _forged(segment)
    # It is found, since whatever is on disk is, and nobody is told that it was checked.
    [found] = anyio.run(lambda: AuditClient.reading(state).query(action="crm:edit"))
    assert not found.covered
    assert [(shard.size, shard.unsigned) for shard in verified(state)] == [(3, 0), (5, 1)]
    assert main(["--state", str(state), "audit", "verify"]) == 0
    said = "as they were signed: 8 records in 2 shards\nnot checked: 1 record on disk that no checkpoint covers yet\n"
    assert said in capsys.readouterr().out
