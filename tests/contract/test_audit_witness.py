"""A witness finds out what nobody inside can see: a rollback, a fork, a history written anew with the stolen key."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from creto import _core
from creto.audit import open_ledger
from creto.audit._witness import cosign
from creto.errors import ConnectionFailedError, IntegrityError, SignatureVerificationFailedError


@pytest.fixture
def sealer() -> _core.Sealer:
    return _core.Sealer.ephemeral()


def write(state: Path, sealer: _core.Sealer, count: int, what: str = "x") -> None:
    ledger = open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer)
    for number in range(count):
        ledger.enqueue({"who": "w", "what": "a:b", "resource": f"{what} {number}"})
    ledger.close_blocking()


@pytest.fixture
def state(tmp_path: Path, sealer: _core.Sealer) -> Path:
    (tmp_path / "state").mkdir()
    write(tmp_path / "state", sealer, 300)
    return tmp_path / "state"


def key_of(state: Path) -> str:
    origin = (state / "ledger/0000/origin").read_text()
    key = _core.VerifyingKey.from_text(next((state / "keys").glob("*.pub")).read_text())
    return _core.ledger_verifier_keys(origin, key)[0]


@pytest.fixture
def witness(tmp_path: Path, state: Path) -> Iterator[tuple[str, str]]:
    """The URL and the verifier key of a witness in a process of its own."""
    command = [sys.executable, "-m", "creto", "--json", "audit", "witness", "--listen", "127.0.0.1:0"]
    command += ["--log", key_of(state), "--memory", str(tmp_path / "memory")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    told = json.loads(process.stdout.readline())
    try:
        yield f"http://127.0.0.1:{told['port']}", told["witness"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_log_that_grows_is_cosigned_each_time(state: Path, sealer: _core.Sealer, witness: tuple[str, str]) -> None:
    url, key = witness
    for size, more in ((300, 0), (300, 127), (427, 0)):
        (note,) = cosign(state / "ledger", url, key).values()
        assert note.split("\n")[1] == str(size)
        assert _core.ledger_cosigned(note, key)
        write(state, sealer, more)
    with pytest.raises(SignatureVerificationFailedError, match="the cosignature of witness"):
        cosign(state / "ledger", url, other_witness(state))


def other_witness(state: Path) -> str:
    other = _core.LedgerWitness(state / "other", "creto.local/witness", _core.SigningKey.generate(), [])
    return other.verifier_key


def test_a_rollback_is_found(tmp_path: Path, state: Path, sealer: _core.Sealer, witness: tuple[str, str]) -> None:
    shutil.copytree(state / "ledger", tmp_path / "older")
    write(state, sealer, 50)
    cosign(state / "ledger", *witness)
    with pytest.raises(IntegrityError, match="holds 300 records, but the witness saw 350: it was rolled back"):
        cosign(tmp_path / "older", *witness)


def test_a_fork_is_found(tmp_path: Path, state: Path, sealer: _core.Sealer, witness: tuple[str, str]) -> None:
    shutil.copytree(state, tmp_path / "branch")
    write(state, sealer, 50, "one")
    write(tmp_path / "branch", sealer, 80, "other")
    cosign(state / "ledger", *witness)
    with pytest.raises(IntegrityError, match="is not the log whose 350 records the witness saw"):
        cosign(tmp_path / "branch/ledger", *witness)


def test_a_history_written_anew_with_the_stolen_key_is_found(
    tmp_path: Path, state: Path, sealer: _core.Sealer, witness: tuple[str, str]
) -> None:
    cosign(state / "ledger", *witness)
    forged = tmp_path / "forged"
    shutil.copytree(state / "keys", forged / "keys")
    (forged / "ledger/0000").mkdir(parents=True)
    shutil.copy(state / "ledger/0000/origin", forged / "ledger/0000/origin")
    write(forged, sealer, 400, "forged")
    with pytest.raises(IntegrityError, match="it was forked or written anew"):
        cosign(forged / "ledger", *witness)


def test_a_log_that_the_witness_does_not_know_and_a_witness_that_is_not_there_are_told(
    tmp_path: Path, sealer: _core.Sealer, witness: tuple[str, str]
) -> None:
    (tmp_path / "unknown").mkdir()
    write(tmp_path / "unknown", sealer, 1)
    with pytest.raises(ConnectionFailedError, match="the witness answers 404 about shard `0000`: unknown log"):
        cosign(tmp_path / "unknown/ledger", *witness)
    with pytest.raises(ConnectionFailedError, match="does not answer"):
        cosign(tmp_path / "unknown/ledger", "http://127.0.0.1:9", witness[1])
