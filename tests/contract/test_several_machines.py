"""Two machines, a state folder each, that share one store in PostgreSQL as the guide says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select

import creto
from creto.audit import AuditClient
from creto.cli import main
from creto.metering import UsageEvent
from creto.store.tables import oversight_requests

POLICIES = """
@id("all") permit (principal, action, resource);
@id("payments-are-asked") @oversight("payments")
forbid (principal, action == Action::"tool:call", resource == Tool::"send_money");
"""


@pytest.fixture
def config(tmp_path: Path, postgres: str) -> Path:
    (tmp_path / "all.cedar").write_text(POLICIES)
    file = tmp_path / "house.toml"
    file.write_text(f'[common]\nstore_url = "{postgres}"\n[authz]\npolicies = ["all.cedar"]\n')
    with file.open("a") as more:
        more.write('[metering]\nlate_seconds = 31000000\n[[prices]]\nmeter = "pages"\nunit_price = "1.00"\n')
    return file


@pytest.fixture
def folders(tmp_path: Path, config: Path) -> tuple[Path, Path]:
    """The first machine's folder, and the second's with the first's sealing key."""
    here, there = tmp_path / "here", tmp_path / "there"
    with creto.open_blocking(here, config=[config]):
        pass
    (there / "keys").mkdir(mode=0o700, parents=True)
    there.chmod(0o700)
    for file in (here / "keys").glob("sealing.*"):
        shutil.copy2(file, there / "keys")
    return here, there


def recorded(folder: Path, action: str) -> Counter[str]:
    """How often each resource of an action is in a machine's ledger."""

    async def main() -> Counter[str]:
        client = AuditClient.reading(folder)
        await client.verify()
        return Counter(record.resource for record in await client.query(action=action, limit=100_000))

    return anyio.run(main)


def kept(layer: creto.EnablementLayer, name: str) -> None:
    with layer.parts.store.begin() as tx:
        tx.outbox({"what": "test:kept", "resource": name})


def test_what_one_machine_decided_stays_in_its_own_ledger_whatever_the_other_opens(
    config: Path, folders: tuple[Path, Path]
) -> None:
    here, there = folders
    with creto.open_blocking(here, config=[config]) as one:
        kept(one, "here 1")  # its row stays until the next transaction
        with creto.open_blocking(there, config=[config]) as two:
            assert one.parts.ledger.shard == two.parts.ledger.shard == "0000"
            kept(two, "there 1")
            kept(one, "here 2")
            two.parts.store.settle()
    with creto.open_blocking(there, config=[config]):
        pass
    assert recorded(here, "test:kept") == {"here 1": 1, "here 2": 1}
    assert recorded(there, "test:kept") == {"there 1": 1}


def test_what_a_killed_process_of_one_machine_left_waits_for_that_machine(
    config: Path, folders: tuple[Path, Path]
) -> None:
    here, there = folders
    code = f"""
import os, signal, creto
with creto.open_blocking({str(here)!r}, config=[{str(config)!r}]) as layer:
    layer.parts.audit.append_records = lambda records: os.kill(os.getpid(), signal.SIGKILL)
    with layer.parts.store.begin() as tx:
        tx.outbox({{"what": "test:kept", "resource": "left"}})
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    for folder in (there, here, there):
        with creto.open_blocking(folder, config=[config]):
            pass
    assert recorded(there, "test:kept") == {}
    assert recorded(here, "test:kept") == {"left": 1}


def test_how_an_act_of_a_killed_process_ended_is_said_by_the_folder_whose_ledger_has_it(
    config: Path, folders: tuple[Path, Path]
) -> None:
    here, there = folders
    code = f"""
import os, anyio, creto
async def main():
    async with creto.open({str(here)!r}, config=[{str(config)!r}]) as layer:
        desk = layer.parts.desk
        desk.approvers.add("ann")
        async def pay():
            dies = lambda: os.kill(os.getpid(), 9)
            await layer.perform(layer.agent("payer"), "tool:call", "send_money", dies, timeout=60)
        async with anyio.create_task_group() as group:
            group.start_soon(pay)
            while not desk.pending():
                await anyio.sleep(0.02)
            await anyio.to_thread.run_sync(desk.approve, desk.pending()[0], desk.approvers.named("ann"), "as agreed")
anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    states = []
    for folder in (there, here):
        with creto.open_blocking(folder, config=[config]) as layer, layer.parts.store.read() as tx:
            states.append(tx.scalar(select(oversight_requests.c.state)))
    # The first to look, on the same machine, knows that the process is dead, and nothing of what it did.
    assert states == ["executing", "unknown"]


def test_invoices_are_made_from_one_machines_ledger_and_the_others_refuse_to(
    config: Path, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = folders

    def creto_(folder: Path, *arguments: str) -> tuple[int, str, str]:
        code = main(["--state", str(folder), "--config", str(config), *arguments])
        return code, *capsys.readouterr()

    async def use(folder: Path, source: str, quantity: int) -> None:
        async with creto.open(folder, config=[config]) as layer:
            with layer.ingest() as ingest:
                at = 1_000_000 * (int(time.time()) - 40 * 86_400)
                await ingest.take([UsageEvent(source, "1", "acme", "pages", quantity, at)])

    anyio.run(use, here, "here", 10)
    anyio.run(use, there, "there", 5)
    month = time.strftime("%Y-%m", time.gmtime(time.time() - 40 * 86_400))
    run = ("invoice", "run", "--period", month)
    code, out, _ = creto_(here, *run)
    assert (code, "10.00 USD" in out) == (0, True)
    for arguments in (run, (*run, "--draft"), ("invoice", "prepay", "acme", "5"), ("invoice", "prepaid")):
        code, _, error = creto_(there, *arguments)
        assert code != 0
        assert "are made from another machine's ledger (`creto.local/ledger/" in error
        assert "run this there; what the ledger of this machine holds is not among them" in error
    assert creto_(here, "invoice", "prepay", "acme", "5")[0] == 0
    assert creto_(here, "invoice", "prepaid")[0] == 0
