"""Clients that know nothing of creto read and check our ledger, as a folder and over HTTP: Go's own code for checksum
databases (x/mod/sumdb)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
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


def read(tlog: Path, shard: Path | str, *keys: str, seen: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = ["-seen", str(seen)] if seen else []
    return subprocess.run([tlog, *kept, shard, *keys], capture_output=True, text=True, timeout=60)


def write(folder: Path, key: _core.SigningKey, numbers: range, text: str = "") -> _core.Ledger:
    ledger = _core.Ledger(folder / "ledger", _core.HybridLogicalClock(folder / "clock"), key)
    for number in numbers:
        ledger.enqueue({"who": "w", "what": "a:b", "resource": f"{text}{number}"})
    return ledger


@pytest.fixture
def served(tmp_path: Path, key: _core.SigningKey) -> Iterator[Callable[..., str]]:
    """Starts `creto audit serve` on the ledger of a state folder, and gives its address."""
    started: list[subprocess.Popen[str]] = []

    def start(state: Path, *options: str) -> str:
        command = [sys.executable, "-m", "creto", "--state", state, "audit", "serve", "--json", *options]
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["url"])

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


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


def test_go_reads_over_http_while_the_log_is_written(
    state: Path, tlog: Path, key: _core.SigningKey, served: Callable[..., str]
) -> None:
    ledger = write(state, key, range(3_000))
    ledger.publish_blocking()
    url = served(state)
    ed25519 = _core.ledger_verifier_keys(ledger.origin, key.verifying_key)[0]
    first = read(tlog, f"{url}0000", ed25519)
    assert first.returncode == 0, first.stderr
    assert f"{ledger.origin} 3000 records, 1 signatures known, 1 others" in first.stdout
    seen = state.parent / "seen"
    seen.write_bytes(httpx.get(f"{url}0000/checkpoint", timeout=60).content)
    for number in range(3_000, 3_900):
        ledger.enqueue({"who": "w", "what": "a:b", "resource": str(number)})
    ledger.publish_blocking()
    later = read(tlog, f"{url}0000", ed25519, seen=seen)
    assert later.returncode == 0, later.stderr
    assert f"{ledger.origin} 3900 records" in later.stdout
    ledger.close_blocking()


def test_go_finds_out_a_rollback_and_a_fork_behind_a_server(
    state: Path, tlog: Path, key: _core.SigningKey, served: Callable[..., str]
) -> None:
    write(state, key, range(400)).close_blocking()
    older = state.parent / "older"
    shutil.copytree(state, older)
    ledger = write(state, key, range(400, 700))
    ledger.close_blocking()
    seen = state.parent / "seen"
    shutil.copy(state / "ledger/0000/checkpoint", seen)
    ed25519 = _core.ledger_verifier_keys(ledger.origin, key.verifying_key)[0]
    url = served(older)
    # By itself the older copy is as it was signed; only whoever has seen more knows better.
    assert read(tlog, f"{url}0000", ed25519).returncode == 0
    assert "rolled back: it holds 400 records, and 700 were seen" in read(tlog, f"{url}0000", ed25519, seen=seen).stderr
    write(older, key, range(400, 900), "other ").close_blocking()
    assert read(tlog, f"{url}0000", ed25519).returncode == 0
    forked = read(tlog, f"{url}0000", ed25519, seen=seen).stderr
    assert "forked: it does not extend the checkpoint over 700 records" in forked


def test_what_is_served_has_the_types_and_the_caching_of_the_specification(
    state: Path, key: _core.SigningKey, served: Callable[..., str]
) -> None:
    ledger = write(state, key, range(300))
    ledger.close_blocking()
    with httpx.Client(base_url=served(state), timeout=60) as client:
        checkpoint = client.get("/0000/checkpoint")
        assert checkpoint.content == (state / "ledger/0000/checkpoint").read_bytes()
        assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
        assert checkpoint.headers["cache-control"] == "no-cache"
        same = client.get("/0000/checkpoint", headers={"if-none-match": checkpoint.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        for name in ("tile/0/000", "tile/0/001.p/44", "tile/entries/000", "tile/entries/001.p/44", "tile/1/000.p/1"):
            tile = client.get(f"/0000/{name}")
            assert tile.content == (state / "ledger/0000" / name).read_bytes(), name
            assert tile.headers["content-type"] == "application/octet-stream"
            assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
        head = client.head("/0000/tile/0/000")
        assert (head.content, head.headers["content-length"]) == (b"", "8192")
        assert client.get("/").text == f"0000 {ledger.origin} 300\n"
        # Nothing else of the folder can be read, however it is asked for.
        for name in (
            "0000/origin",
            "0000/lock",
            "0000/segments/",
            "0000/../../keys",
            "%2e%2e/keys",
            "0000/tile/0/000.p/0",
            "0000/tile/64/000",
            "0000/tile/00/000",
            "0007/checkpoint",
            "0000/tile/0/0000",
            "keys/ledger.sealed",
        ):
            assert client.get(f"/{name}").status_code == 404, name
        assert client.post("/0000/checkpoint").status_code == 501
    with httpx.Client(base_url=served(state, "--without-records"), timeout=60) as client:
        assert client.get("/0000/tile/0/000").status_code == 200
        assert client.get("/0000/tile/entries/000").status_code == 404
