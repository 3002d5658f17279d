"""Attacks on the ledger by whoever can write to its folder between two runs, and holds none of its keys."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sqlite3
import struct
import threading
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

import creto
from creto import _core
from creto.audit import AuditClient, open_ledger, trusted_keys
from creto.audit._serve import serve
from creto.audit._witness import cosign
from creto.cli import main
from creto.errors import IntegrityError, NotFoundError
from creto.metering._shards import Shards


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


def test_a_log_without_the_checkpoint_that_was_seen_of_it_is_not_one_to_recover(state: Path) -> None:
    seen = [shard.note for shard in verified(state)]
    (state / "ledger/0001/checkpoint").unlink()
    with pytest.raises(IntegrityError, match=r"the log `.*/0001` was seen before and is not there any more"):
        verified(state, seen)
    with pytest.raises(NotFoundError, match="has records and no checkpoint"):
        verified(state)


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


def test_no_copy_of_a_log_is_cosigned_for_another(state: Path) -> None:
    shutil.copytree(state / "ledger/0000", state / "ledger/0002")
    shutil.rmtree(state / "ledger/0000")
    shutil.rmtree(state / "ledger/0001")
    with pytest.raises(IntegrityError, match="shard `0002` is a copy of another"):
        cosign(state / "ledger", "http://127.0.0.1:9", "w+00000000+AAAA")


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


def test_an_index_shows_no_record_twice_nor_where_it_does_not_belong(state: Path) -> None:
    def found() -> list[tuple[str, int]]:
        records = anyio.run(lambda: AuditClient.reading(state).query(action="crm:*"))
        return [(record.shard, record.index) for record in records]

    before = found()
    assert len(before) == 8
    with closing(sqlite3.connect(state / "index/ledger.db", isolation_level=None)) as index:
        last = index.execute("SELECT * FROM record ORDER BY time DESC").fetchone()
        index.execute(f"INSERT INTO record VALUES ({', '.join('?' * len(last))})", (last[0] + 4096, *last[1:]))
    assert found() == before
    with closing(sqlite3.connect(state / "index/ledger.db", isolation_level=None)) as index:
        index.execute("UPDATE record SET time = time + 4096000000 WHERE time = (SELECT min(time) FROM record)")
    assert found() == before


# --- a folder that somebody else has made -----------------------------------------------------------------------------


def test_a_served_ledger_leads_to_nothing_outside_of_it_and_waits_for_no_pipe(state: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a private key")
    shard = state / "ledger/0000"
    for place in (shard / "tile/7", shard / "batches"):
        place.mkdir(parents=True)
        (place / "000").symlink_to(secret)
        (place / "000001").symlink_to(secret)
        os.mkfifo(place / "001")
        os.mkfifo(place / "000002")
    (state / "ledger/0007").symlink_to(state / "keys")
    ports: list[int] = []
    threading.Thread(target=serve, args=(state / "ledger", "127.0.0.1:0", ports.append), daemon=True).start()
    while not ports:
        time.sleep(0.01)
    with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", headers={"range": "bytes=0-9"}, timeout=60) as client:
        for path in ("0000/tile/7/000", "0000/tile/7/001", "0000/batches/000001", "0000/batches/000002"):
            assert client.get(f"/{path}").status_code == 404, path
        assert client.get("/0000/checkpoint").status_code == 200


def test_an_export_is_written_through_no_link_that_waits_for_it(state: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for name in (f".acts.csv.{os.getpid()}", "seen.new", f".acts.csv.{os.getpid()}.jsonl"):
        (tmp_path / name).symlink_to(kept)
    assert main(["--state", str(state), "audit", "export", str(tmp_path / "acts.csv")]) == 0
    assert main(["--state", str(state), "audit", "verify", "--remember", str(tmp_path / "seen")]) == 0
    assert kept.read_text() == "mine"
    assert not (tmp_path / "acts.csv").is_symlink()
    assert not (tmp_path / "seen").is_symlink()
    assert not list(tmp_path.glob(".creto-*"))
    (tmp_path / f"events.new-{os.getpid()}").symlink_to(kept)
    assert main(["--state", str(state), "usage", "export", "-o", str(tmp_path / "events")]) == 0
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("place", ["0000/99999999999999999999", f"0000/{'9' * 5_000}", "0000/\u0663"])
def test_a_place_that_no_ledger_has_is_a_clear_error(
    state: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert main(["--state", str(state), "audit", "show", place]) == 1
    assert "there is no record `0000/" in capsys.readouterr().err


def test_no_spreadsheet_takes_what_an_agent_wrote_for_a_formula(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir(mode=0o700)
    ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), _core.Sealer.open(folder))
    # As they begin in some, after a line's end or the semicolon that separates cells where the comma is decimal.
    formulas = ["=1+1", "\n=1+1", " =1+1", "\uff1d1+1", "\u00a0@SUM(1)", "\ufeff-1", "\u200b+1", "x;=1+1", "x\r\n=1+1"]
    for text in formulas:
        ledger.append_blocking({"who": "w", "what": "crm:read", "resource": text})
    ledger.close_blocking()
    assert main(["--state", str(folder), "audit", "export", str(tmp_path / "acts.csv")]) == 0
    with (tmp_path / "acts.csv").open(newline="", encoding="utf-8") as file:
        written = [row["resource"] for row in csv.DictReader(file)]
    assert [text.replace("'", "") for text in written] == formulas
    for text in written:
        assert all(cell.strip()[:1] in ("'", "x") for cell in re.split(r"[;\r\n]+", text) if cell), text


def test_exported_usage_sends_a_terminal_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steering = "\x1b[2J\x9b2J\u202e"
    with creto.open_blocking(tmp_path / "state") as layer:
        layer.perform_blocking(layer.agent("a"), "tool:call", steering, lambda: 1, usage={"tool_calls": 1})
    assert main(["--state", str(tmp_path / "state"), "usage", "export"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["data"]["dimensions"]["resource"] == steering
    assert not set(steering[:1] + steering[4:5] + steering[-1:]) & set(out)
