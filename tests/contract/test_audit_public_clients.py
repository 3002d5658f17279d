"""Clients that know nothing of creto read and check our folder: Go's own code for checksum databases (x/mod/sumdb)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from creto import _core

SOURCE = Path(__file__).parents[1] / "public" / "tlog"


@pytest.fixture(scope="module")
def tlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go on this machine, so no public client to read the ledger with")
    program = tmp_path_factory.mktemp("tlog") / "tlog"
    subprocess.run([go, "build", "-o", program, "."], cwd=SOURCE, check=True, timeout=110)
    return program


@pytest.fixture(scope="module")
def key() -> _core.SigningKey:
    return _core.SigningKey.generate()


def read(tlog: Path, shard: Path, *keys: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tlog, shard, *keys], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("counts", [[1], [255, 1, 1], [700, 37], [66_000, 5]])
def test_go_reads_every_record_and_checks_proofs_between_sizes(
    tmp_path: Path, tlog: Path, key: _core.SigningKey, counts: list[int]
) -> None:
    clock = _core.HybridLogicalClock(tmp_path / "clock")
    for count in counts:
        ledger = _core.Ledger(tmp_path / "ledger", clock, key)
        for number in range(count):
            ledger.enqueue({"who": "w", "what": "a:b", "resource": str(number)})
        ledger.close_blocking()
    shard = tmp_path / "ledger" / ledger.shard
    ed25519, ml_dsa = _core.ledger_verifier_keys(ledger.origin, key.verifying_key)
    found = read(tlog, shard, ed25519)
    assert found.returncode == 0, found.stderr
    # The post-quantum line is one that this client does not know, and passes over.
    assert f"{ledger.origin} {sum(counts)} records, 1 signatures known, 1 others" in found.stdout
    assert ml_dsa.split("+")[0] == ledger.origin


def test_go_refuses_another_key_and_a_changed_tile(tmp_path: Path, tlog: Path, key: _core.SigningKey) -> None:
    ledger = _core.Ledger(tmp_path / "ledger", _core.HybridLogicalClock(tmp_path / "clock"), key)
    for number in range(300):
        ledger.enqueue({"who": "w", "what": "a:b", "resource": str(number)})
    ledger.close_blocking()
    shard = tmp_path / "ledger" / ledger.shard
    other = _core.ledger_verifier_keys(ledger.origin, _core.SigningKey.generate().verifying_key)[0]
    assert "note has no verifiable signatures" in read(tlog, shard, other).stderr
    tile = shard / "tile/0/000"
    content = bytearray(tile.read_bytes())
    content[0] ^= 1
    tile.write_bytes(content)
    own = _core.ledger_verifier_keys(ledger.origin, key.verifying_key)[0]
    assert read(tlog, shard, own).returncode != 0
