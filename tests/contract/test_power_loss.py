"""Power may fail at any moment: what was promised by then is there afterwards, in store, ledger and keys alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import power
from power import Op

HERE = Path(__file__).resolve().parent.parent
# `make crash` asks for more.
STATES = int(os.environ.get("CRETO_CRASH_FOLDER_STATES", "240"))
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: `make test` installs it")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Op], Path, Path]:
    """One run of `durable.py`, as the steps that it asked of the disk; the log, and the state folder."""
    folder = tmp_path_factory.mktemp("power")
    state, log = folder / "state", folder / "log"
    ops = power.record([sys.executable, str(HERE / "durable.py"), str(state)], state, log)
    return ops, log, state


def test_the_record_of_a_run_rebuilds_the_folder_that_the_run_left(run: tuple[list[Op], Path, Path]) -> None:
    ops, _, state = run
    files, _, promised = power.left([*ops, Op("ack")], len(ops), str(state), _All())
    for path, data in files.items():
        # What is mapped is not in the record.
        if not path.endswith("/clock"):
            assert Path(path).read_bytes() == data, path
    assert {promise.path for promise in promised} == {
        "agent",
        "approver",
        "approved",
        "running",
        "performed",
        "message",
        "rotated",
        "revoked",
        "secret",
        "spent",
        "usage",
        "dismissed",
        "leaving",
        "received",
        "answered",
        "person",
        "erased",
        "invoice",
    }


def test_no_promise_is_broken_in_any_state_that_a_loss_of_power_can_leave(
    run: tuple[list[Op], Path, Path], tmp_path: Path
) -> None:
    _, log, state = run
    workers, each = [], -(-STATES // 2)
    for first in (0, each):
        scratch = tmp_path / str(first)
        scratch.mkdir()
        command = [sys.executable, str(HERE / "power.py"), str(log), str(state), str(scratch)]
        workers.append(subprocess.Popen([*command, str(first), str(first + each)], stdout=subprocess.PIPE, text=True))
    wrong = [worker.communicate()[0].strip() for worker in workers]
    assert wrong == ["", ""]


@pytest.mark.parametrize(
    ("bug", "what"),
    [
        pytest.param(lambda op: op.kind == "sync" and op.path.endswith("-wal"), "store", id="the log of the store"),
        pytest.param(lambda op: op.kind == "sync" and "/segments/" in op.path, "ledger", id="the ledger's segments"),
        pytest.param(lambda op: op.kind == "sync" and "/batches/" in op.path, "batches", id="batches of usage"),
        pytest.param(lambda op: op.kind == "sync folder" and op.path.endswith("/keys"), "keys", id="names of keys"),
        pytest.param(lambda op: op.kind == "sync folder", "names", id="every name"),
    ],
)
def test_a_sync_that_is_left_out_is_found(
    run: tuple[list[Op], Path, Path], tmp_path: Path, bug: power.Chosen, what: str
) -> None:
    ops, _, state = run
    kept = [op for op in ops if not bug(op)]
    assert len(kept) < len(ops), f"nothing of the {what} is synced at all"
    assert power.explore(kept, str(state), tmp_path, range(2_000)) is not None


class _All(power.Chance):
    """As if all that was asked for had reached the disk."""

    def choice(self, seq: power.Shares) -> float:
        return 1.0

    def random(self) -> float:
        return 0.0
