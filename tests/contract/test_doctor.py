"""What doctor promises: it does things, it finds what is wrong, and what it tries could fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from creto.authz import starter_schema
from creto.cli import main
from creto.cli._checks import Bench, Missing, ledger, policy, sandbox
from creto.config import load
from creto.store import open_folder


def rows(capsys: pytest.CaptureFixture[str], *parts: str) -> dict[str, dict[str, str]]:
    code = main(["doctor", *parts, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if any(row["status"] == "failed" for row in found) else 0)
    return {f"{row['part']}: {row['tried']}": row for row in found}


@pytest.fixture
def bench(state: Path) -> Bench:
    return Bench(open_folder(state), load(environment={}, system=False))


def test_on_a_sound_machine_nothing_fails(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    found = rows(capsys)
    assert {row["part"] for row in found.values()} >= {
        "configuration",
        "state folder",
        "store",
        "clock",
        "reach",
        "crypto",
        "policy",
        "quota",
        "ledger",
        "identity",
        "oversight",
        "messages",
        "sandbox",
    }
    assert {name: row["seen"] for name, row in found.items() if row["status"] == "failed"} == {}


def test_what_it_tries_leaves_the_state_folder_as_it_was(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    rows(capsys, "store", "ledger", "identity", "messages", "oversight")
    from sqlalchemy import func, select

    from creto.store import Store, tables

    with Store(state) as store, store.read() as tx:
        for table in tables.metadata.sorted_tables:
            assert tx.scalar(select(func.count()).select_from(table)) == 0, table.name
    assert list((state / "ledger").iterdir()) == []


def test_a_damaged_store_is_found(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    open_folder(state)
    (state / "creto.db").write_bytes(b"no database" * 1000)
    [row] = rows(capsys, "store").values()
    assert row["status"] == "failed"
    assert "is damaged" in row["seen"]


def test_a_tampered_ledger_of_the_folder_is_found(
    capsys: pytest.CaptureFixture[str], state: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "scratch", property(lambda self: self.folder))
    shard = ledger._write(bench)
    monkeypatch.undo()
    monkeypatch.setenv("CRETO_STATE", str(state))
    assert rows(capsys, "ledger")["ledger: verify the folder's own"]["seen"].startswith("20 records in 1 shard ")
    tampered = [path for path in shard.rglob("*") if path.is_file() and b"record number 7" in path.read_bytes()]
    assert tampered
    for path in tampered:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b"record number 7", b"record number 8"))
    assert rows(capsys, "ledger")["ledger: verify the folder's own"]["status"] == "failed"


def test_an_engine_that_allows_everything_is_found(bench: Bench) -> None:
    bench.engine.install("permit (principal, action, resource);", starter_schema(), "[]")
    with pytest.raises(AssertionError, match="let an agent read /etc/shadow"):
        policy._denial(bench)


def test_outside_a_sandbox_the_escape_try_gets_out(tmp_path: Path) -> None:
    """Else the check could not fail."""
    key = tmp_path / "key"
    key.write_text("doctor-host-secret")
    listener = sandbox._Listener()
    environment = {**os.environ, "DOCTOR_KEY": str(key), "DOCTOR_ADDRESSES": json.dumps(listener.addresses())}
    ran = subprocess.run([sys.executable, "-c", sandbox._ESCAPE], env=environment, capture_output=True, text=True)
    listener.close()
    got = json.loads(ran.stdout)
    assert str(key) in got
    assert [each for each in got if each.endswith(f":{listener.port}")]
    assert listener.heard


def test_a_backend_that_this_machine_lacks_is_missing_and_no_failure(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRETO_RUNSC", str(tmp_path / "runsc"))
    with pytest.raises(Missing, match="runsc`, which is no program"):
        sandbox._escape("gvisor")(bench)
