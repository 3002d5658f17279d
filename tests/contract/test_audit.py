"""What the ledger promises, through the native module."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto import _bridge, _core
from creto.errors import ForkedError, IntegrityError, InvalidInputError, NotFoundError, SignatureVerificationFailedError

AGENT = "spiffe://creto.local/agent/researcher"


def record(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "who": AGENT,
        "what": "http:get",
        "resource": f"https://example.org/{number}",
        "why": "policy `reads`",
        **fields,
    }


@pytest.fixture(scope="module")
def key() -> _core.SigningKey:
    return _core.SigningKey.generate()


@pytest.fixture
def clock(tmp_path: Path) -> _core.HybridLogicalClock:
    return _core.HybridLogicalClock(tmp_path / "clock")


@pytest.fixture
def ledger(tmp_path: Path, clock: _core.HybridLogicalClock, key: _core.SigningKey) -> Any:
    ledger = _core.Ledger(tmp_path / "ledger", clock, key)
    yield ledger
    ledger.close_blocking()


def test_a_record_comes_back_with_every_field(ledger: _core.Ledger) -> None:
    whole = record(
        delegation_chain=["spiffe://creto.local/agent/lead"],
        outcome={"failure": "no route"},
        timestamp=77 << 12,
        id="ab" * 16,
        act=b"\x01" * 16,
        kind="outcome",
        digest="cd" * 32,
        policy=b"\x02" * 32,
        usage={"requests": 3},
        detail={"purpose": "survey", "naïve": "ü"},
    )
    ledger.append_blocking(whole)
    size = ledger.publish_blocking()
    (back,) = ledger.reader().records(0, 1, size)
    assert back == {**whole, "act": "01" * 16, "policy": "02" * 32, "shard": "0000", "index": 0}


def test_what_is_left_out_is_filled_in(ledger: _core.Ledger) -> None:
    ledger.append_blocking(record())
    ledger.append_blocking(record())
    first, second = ledger.reader().records(0, 2, ledger.publish_blocking())
    assert first["kind"] == "event"
    assert first["outcome"] is None
    assert first["id"] != second["id"]
    assert first["act"] == first["id"]
    assert second["timestamp"] > first["timestamp"] > 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"agent": "x"}, "a record has no field `agent`"),
        ({"resource": 7}, "`resource` is no text"),
        ({"id": "xyz"}, "`id` is not 16 bytes, nor 32 hexadecimal digits"),
        ({"kind": "wish"}, "a kind is intent, outcome, refusal or event, not `wish`"),
        ({"outcome": "meh"}, 'an outcome is None, "success" or {"failure": text}, not `meh`'),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_written(ledger: _core.Ledger, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match="^" + re.escape(f"invalid input: {text}") + "$"):
        ledger.enqueue(record(**fields))
    assert ledger.publish_blocking() == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_append_at_once_and_each_is_told_its_index(ledger: _core.Ledger, backend: str) -> None:
    indexes: list[int] = []

    async def one(number: int) -> None:
        indexes.append(await _bridge.wait(lambda bridge, token: ledger.append(record(number), bridge, token)))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(256):
                group.start_soon(one, number)
        ticket = ledger.enqueue(record(256))
        await _bridge.wait(lambda bridge, token: ledger.durable(ticket, bridge, token))
        assert await _bridge.wait(ledger.publish) == 257

    anyio.run(main, backend=backend)
    assert sorted(indexes) == list(range(256))


def test_proofs_stand_by_themselves(ledger: _core.Ledger, key: _core.SigningKey) -> None:
    for number in range(300):
        ledger.enqueue(record(number))
    size = ledger.publish_blocking()
    shard = ledger.reader()
    proof, entry = shard.prove(123), shard.entry(123, size)
    assert proof.startswith("c2sp.org/tlog-proof@v1\nindex 123\n")
    checkpoint = _core.ledger_verify_proof(proof, entry, key.verifying_key)
    assert checkpoint["size"] == 300
    assert checkpoint["origin"] == ledger.origin
    with pytest.raises(IntegrityError):
        _core.ledger_verify_proof(proof, shard.entry(124, size), key.verifying_key)
    with pytest.raises(SignatureVerificationFailedError):
        _core.ledger_verify_proof(proof, entry, _core.SigningKey.generate().verifying_key)
    with pytest.raises(NotFoundError):
        shard.prove(300)


def test_records_with_fixed_ids_are_appended_once_whoever_offers_them(
    tmp_path: Path, clock: _core.HybridLogicalClock, key: _core.SigningKey
) -> None:
    rows = [record(n, id=f"{n:032x}", timestamp=clock.now()) for n in range(20)]
    ledger = _core.Ledger(tmp_path / "ledger", clock, key)
    ledger.append_records(rows[:12])
    ledger.close_blocking()
    ledger = _core.Ledger(tmp_path / "ledger", clock, key)
    ledger.append_records(rows)
    ledger.append_records(rows[3:7])
    size = ledger.publish_blocking()
    assert [r["id"] for r in ledger.reader().records(0, size, size)] == [row["id"] for row in rows]
    ledger.close_blocking()


_CHILD = """
import sys
from creto import _core
folder, count = sys.argv[1], int(sys.argv[2])
key = _core.SigningKey.unseal(bytes.fromhex(sys.argv[3]), _core.Sealer.open(folder + "/keys"), "ledger")
ledger = _core.Ledger(folder + "/ledger", _core.HybridLogicalClock(folder + "/clock"), key)
print(ledger.shard, flush=True)
sys.stdin.readline()
for number in range(count):
    ledger.append_blocking({"who": "w", "what": "a:b", "resource": str(number)})
    print(number, flush=True)
if count < 1_000_000:
    ledger.close_blocking()
"""


def start(folder: Path, count: int, key: _core.SigningKey) -> subprocess.Popen[str]:
    sealed = key.seal(_core.Sealer.open(folder / "keys"), "ledger").hex()
    command = [sys.executable, "-c", _CHILD, str(folder), str(count), sealed]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def test_ten_processes_write_one_folder_and_every_record_is_there(tmp_path: Path, key: _core.SigningKey) -> None:
    processes = [start(tmp_path, 50, key) for _ in range(10)]
    shards = {process.stdout.readline().strip() for process in processes if process.stdout}
    assert shards == {f"{n:04}" for n in range(10)}
    for process in processes:
        go(process)
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert _core.ledger_shards(tmp_path / "ledger") == sorted(shards)
    for name in shards:
        checkpoint = _core.LedgerShard(tmp_path / "ledger" / name).verify([key.verifying_key])
        assert checkpoint["size"] == 50


def test_killed_in_the_middle_nothing_acknowledged_is_lost_and_the_next_holder_settles_it(
    tmp_path: Path, clock: _core.HybridLogicalClock, key: _core.SigningKey
) -> None:
    for _ in range(3):
        process = start(tmp_path, 1_000_000, key)
        assert process.stdout
        assert process.stdout.readline().strip() == "0000"
        before = _core.LedgerShard(tmp_path / "ledger" / "0000").checkpoint()
        go(process)
        lines = [process.stdout.readline() for _ in range(400)]
        process.send_signal(signal.SIGKILL)
        lines += process.communicate()[0].splitlines(keepends=True)
        acknowledged = sum(line.endswith("\n") for line in lines)
        ledger = _core.Ledger(tmp_path / "ledger", clock, key)
        start_at = before["size"] if before else 0
        assert ledger.shard == "0000"
        size = ledger.publish_blocking()
        assert size >= start_at + acknowledged
        numbers = [r["resource"] for r in ledger.reader().records(start_at, size, size)]
        assert numbers == [str(n) for n in range(len(numbers))]
        ledger.close_blocking()
    _core.LedgerShard(tmp_path / "ledger" / "0000").verify([key.verifying_key])


def test_another_process_reads_and_verifies_while_one_writes(tmp_path: Path, key: _core.SigningKey) -> None:
    process = start(tmp_path, 1_000_000, key)
    assert process.stdout
    process.stdout.readline()
    go(process)
    # It says each number that is durable; unread, the full pipe would stop it.
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()
    shard, seen, sizes = _core.LedgerShard(tmp_path / "ledger" / "0000"), [], []
    deadline = time.monotonic() + 90
    while len(set(sizes)) < 3 and time.monotonic() < deadline:
        if shard.checkpoint():
            verified = shard.verify([key.verifying_key], seen)
            seen, sizes = [verified["note"]], [*sizes, verified["size"]]
        time.sleep(0.3)
    process.kill()
    drain.join()
    process.communicate()
    assert len(set(sizes)) >= 3
    assert sizes == sorted(sizes)


def test_a_forked_child_is_told_and_opens_its_own_and_the_parents_shard_stays_its_own(
    tmp_path: Path, clock: _core.HybridLogicalClock, key: _core.SigningKey
) -> None:
    ledger = _core.Ledger(tmp_path / "ledger", clock, key)
    ledger.append_blocking(record(0))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b"nothing"
        try:
            try:
                ledger.enqueue(record(1))
            except ForkedError:
                own = _core.Ledger(tmp_path / "ledger", clock, key)
                own.append_blocking(record(2))
                own.close_blocking()
                told = f"forked {own.shard}".encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"forked 0001"
    os.waitpid(pid, 0)
    ledger.append_blocking(record(3))
    ledger.close_blocking()
    assert _core.LedgerShard(tmp_path / "ledger" / "0000").verify([key.verifying_key])["size"] == 2


def test_the_lock_goes_with_its_holder_even_while_a_forked_child_lives(
    tmp_path: Path, clock: _core.HybridLogicalClock, key: _core.SigningKey
) -> None:
    ledger = _core.Ledger(tmp_path / "ledger", clock, key)
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        ledger.close_blocking()
        again = _core.Ledger(tmp_path / "ledger", clock, key)
        assert again.shard == "0000"
        again.close_blocking()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
