"""A store on PostgreSQL: agents, oversight, messages and the outbox, between processes, as they are on SQLite."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from sqlalchemy import func, select

import creto
from creto.audit import AuditClient
from creto.cli import main
from creto.config import Price
from creto.metering import EventEvidence, Invoices, PriceBook, UsageEvent
from creto.store import Store
from creto.store.tables import agent_keys, grants, mailbox, outbox, oversight_requests
from servers import Start

POLICIES = """
@id("all") permit (principal, action, resource);
@id("payments-are-asked") @oversight("payments")
forbid (principal, action == Action::"tool:call", resource == Tool::"send_money");
"""


@pytest.fixture
def config(tmp_path: Path, state: Path, postgres: str) -> Path:
    (tmp_path / "all.cedar").write_text(POLICIES)
    file = tmp_path / "postgresql.toml"
    file.write_text(f'[common]\nstore_url = "{postgres}"\n[authz]\npolicies = ["all.cedar"]\n')
    return file


def lines(process: subprocess.Popen[str], seconds: float = 60) -> list[str]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out.splitlines()


def test_processes_that_make_an_agent_at_once_make_one_and_a_revocation_binds_in_all(
    config: Path, state: Path, postgres: str, python: Start
) -> None:
    made = python_all(
        python,
        f"""
import creto
with creto.open_blocking(config=[{str(config)!r}]) as layer:
    print(layer.agent("worker").id)
""",
        3,
    )
    assert made == ["spiffe://creto.local/agent/worker"] * 3
    waiting = python(f"""
import creto, sys
with creto.open_blocking(config=[{str(config)!r}]) as layer:
    worker = layer.agent("worker")
    print(layer.perform_blocking(worker, "tool:call", "search", lambda: "found"), flush=True)
    sys.stdin.readline()
    try:
        layer.perform_blocking(worker, "tool:call", "search", lambda: "found")
    except creto.UnauthorizedError as error:
        print("refused:", error)
""")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "found\n"

    async def revoke() -> None:
        async with creto.open(config=[config]) as layer:
            await layer.parts.identities.revoke("worker")
            await anyio.sleep(1)  # within which it binds everywhere

    anyio.run(revoke)
    out, err = waiting.communicate("\n", timeout=60)
    assert out.startswith("refused: "), err
    with Store(postgres) as store, store.read() as tx:
        assert tx.scalar(select(func.count()).select_from(agent_keys)) == 1


def python_all(python: Start, code: str, count: int) -> list[str]:
    started = [python(code) for _ in range(count)]
    return [line for process in started for line in lines(process)]


def test_a_yes_given_in_one_process_is_used_once_by_the_process_that_asked(
    config: Path, state: Path, postgres: str, python: Start
) -> None:
    asking = python(f"""
import creto
with creto.open_blocking(config=[{str(config)!r}]) as layer:
    agent = layer.agent("payer")
    for number in range(2):
        try:
            pay = "tool:call", "send_money", lambda: "sent"
            print(layer.perform_blocking(agent, *pay, context={{"to": "DE89"}}, timeout=60))
        except creto.UnauthorizedError as error:
            print("refused:", error)
""")

    async def answer() -> None:
        async with creto.open(config=[config]) as layer:
            desk = layer.parts.desk
            desk.approvers.add("ann")
            answered: set[str] = set()
            with anyio.fail_after(60):
                for give in (desk.approve, desk.deny):
                    while not (waiting := [one for one in desk.pending() if one.id not in answered]):
                        await anyio.sleep(0.02)
                    await anyio.to_thread.run_sync(give, waiting[0], desk.approvers.named("ann"), "as agreed")
                    answered.add(waiting[0].id)

    anyio.run(answer)
    first, second = lines(asking)
    assert first == "sent"
    assert second.startswith("refused: ")
    with Store(postgres) as store, store.read() as tx:
        states = Counter(row.state for row in tx.all(select(oversight_requests.c.state)))
        assert states == {"executed": 1, "denied": 1}
        used = tx.all(select(grants.c.answer, grants.c.consumed))
        assert sorted((row.answer, row.consumed is not None) for row in used) == [("approved", True), ("denied", False)]


def test_the_commands_of_approvers_answer_what_a_process_asks(config: Path, state: Path, python: Start) -> None:
    asking = python(f"""
import creto
with creto.open_blocking(config=[{str(config)!r}]) as layer:
    pay = "tool:call", "send_money", lambda: "sent"
    print(layer.perform_blocking(layer.agent("payer"), *pay, timeout=60))
""")

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "creto", "--config", str(config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "spiffe://creto.local/approver/ann" in said("approver", "add", "ann")
    end = time.monotonic() + 60
    while not (waiting := json.loads(said("approve", "--json"))):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "approved" in said("approve", "--as", "ann", "--yes", waiting[0]["id"])
    assert lines(asking) == ["sent"]


def test_a_second_machine_opens_the_store_with_the_first_ones_sealing_key_and_shows_what_was_used_on_both(
    config: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with config.open("a") as file:
        file.write('[[quotas]]\nscope = "agent"\nmeter = "calls"\nlimit = 4\nwindow = "day"\n')
    other = tmp_path / "other"

    def act(folder: Path) -> str:
        with creto.open_blocking(folder, config=[config]) as layer:
            return layer.perform_blocking(layer.agent("w"), "tool:call", "t", lambda: "done", usage={"calls": 2})

    assert act(state) == "done"
    with pytest.raises(creto.EncryptionFailedError, match=r"copy `keys/sealing\.\*` of the folder that made the store"):
        act(other)
    shutil.rmtree(other)
    (other / "keys").mkdir(mode=0o700, parents=True)
    other.chmod(0o700)
    shutil.copy2(state / "keys" / "sealing.key", other / "keys")
    assert main(["--state", str(other), "--config", str(config), "quota", "explain", "w", "calls=3"]) == 4
    assert "calls (day): 2 of 4 used, 2 left it does not fit" in " ".join(capsys.readouterr().out.split())
    assert act(other) == "done"
    with pytest.raises(creto.QuotaExceededError, match="4 of 4 used"):
        act(state)
    third = tmp_path / "third"
    shutil.copytree(other / "keys", third / "keys")
    third.chmod(0o700)
    here = ["--state", str(third), "--config", str(config), "quota"]
    assert main([*here, "set", "agent", "calls", "5", "--window", "day"]) == 0
    assert main([*here, "boost", "agent:spiffe://creto.local/agent/w", "calls", "3", "--for", "1h"]) == 0
    capsys.readouterr()
    assert main([*here, "explain", "w", "calls=5"]) == 4
    assert "4 of 8 used, 4 left" in capsys.readouterr().out
    assert main([*here, "explain", "w", "calls=4"]) == 0


def test_a_quota_that_another_machine_lowers_binds_what_is_leased_here_already(
    config: Path, state: Path, tmp_path: Path
) -> None:
    with config.open("a") as file:
        file.write('[[quotas]]\nscope = "agent"\nmeter = "calls"\nlimit = 100000\nwindow = "day"\n')
    other = tmp_path / "other"
    with creto.open_blocking(state, config=[config]) as layer:
        agent = layer.agent("w")

        def act() -> str:
            return layer.perform_blocking(agent, "tool:call", "t", lambda: "done", usage={"calls": 1})

        assert act() == "done"  # and thousands more are leased
        shutil.copytree(state / "keys", other / "keys")
        other.chmod(0o700)

        def limited_to(units: int) -> None:
            setting = ["quota", "set", "agent", "calls", str(units), "--window", "day"]
            assert main(["--state", str(other), "--config", str(config), *setting]) == 0
            time.sleep(2)  # it binds within one, and this machine may be busy

        limited_to(2)
        assert act() == "done"
        with pytest.raises(creto.QuotaExceededError, match="2 of 2 used"):
            act()
        limited_to(3)
        assert act() == "done"


def test_each_message_is_handed_to_one_of_the_processes_that_read_an_inbox(
    config: Path, state: Path, postgres: str, python: Start
) -> None:
    count = 40
    code = f"""
import creto, anyio
async def main():
    async with creto.open(config=[{str(config)!r}]) as layer:
        async with layer.inbox(layer.agent("reader")) as inbox:
            print("ready", flush=True)
            with anyio.move_on_after(60):
                async for message in inbox:
                    await message.ack()
                    if message.text == "end":
                        break
                    print(message.text, flush=True)
anyio.run(main)
"""

    async def send() -> None:
        async with creto.open(config=[config]) as layer:
            writer = layer.agent("writer")
            layer.agent("reader")
            readers = [python(code) for _ in range(2)]
            for reader in readers:
                assert reader.stdout is not None
                await anyio.to_thread.run_sync(reader.stdout.readline)
            for number in range(count):
                await layer.send(writer, "reader", str(number).encode(), content_type="text/plain")
            for _ in readers:
                await layer.send(writer, "reader", b"end", content_type="text/plain")
            for reader in readers:
                read.extend(await anyio.to_thread.run_sync(lines, reader))

    read: list[str] = []
    anyio.run(send)
    assert sorted(map(int, read)) == list(range(count))
    with Store(postgres) as store, store.read() as tx:
        states = Counter(row.state for row in tx.all(select(mailbox.c.state)))
    assert states == {"acked": count + 2}


def test_killed_between_commit_and_ledger_a_process_leaves_records_that_the_next_appends_once(
    config: Path, state: Path, postgres: str, python: Start
) -> None:
    dying = python(f"""
import os, signal, creto
from creto.store.tables import meta
with creto.open_blocking(config=[{str(config)!r}]) as layer:
    store, ledger = layer.parts.store, layer.parts.audit
    for number in range(20):
        with store.begin() as tx:
            tx.insert(meta, name=f"kept {{number}}", value="x")
            id = number.to_bytes(16, "big").hex()
            tx.outbox({{"id": id, "who": "w", "what": "test:kept", "resource": str(number)}})
    def die(records):
        os.kill(os.getpid(), signal.SIGKILL)  # committed, and not in the ledger yet
    ledger.append_records = die
    with store.begin() as tx:
        tx.outbox({{"id": (20).to_bytes(16, "big").hex(), "who": "w", "what": "test:kept", "resource": "20"}})
""")
    dying.communicate(timeout=60)
    assert dying.returncode == -signal.SIGKILL
    with Store(postgres) as store, store.read() as tx:
        left = {
            json.loads(row.record)["resource"] if isinstance(row.record, str) else row.record["resource"]
            for row in tx.all(select(outbox.c.record))
        }
    assert "20" in left

    async def later() -> None:
        async with creto.open(config=[config]):
            pass
        records = await AuditClient.reading(state).query(action="test:kept")
        assert Counter(record.resource for record in records) == {str(number): 1 for number in range(21)}
        await AuditClient.reading(state).verify()

    anyio.run(later)
    with Store(postgres) as store, store.read() as tx:
        waiting = [row.record for row in tx.all(select(outbox.c.record))]
    assert [record for record in waiting if record["what"] == "test:kept"] == []


def test_invoices_are_read_back_as_they_were_made_and_what_was_paid_in_advance_is_taken_off(postgres: str) -> None:
    book = PriceBook([Price(meter="pages", unit_price="0.25")], "EUR")
    used = EventEvidence([UsageEvent("app", str(n), customer, "pages", 10, 5) for n, customer in enumerate(["ü", "b"])])
    with Store(postgres) as store:
        invoices = Invoices(store)
        credit = invoices.prepay("b", "EUR", Decimal("1.00"))
        made = invoices.run(book, 0, 86_400_000_000, "UTC", used)
        assert {one.document["customer"]: (one.document["total"], one.document["due"]) for one in made} == {
            "b": ("2.50", "1.50"),
            "ü": ("2.50", "2.50"),
        }
        for one in made:
            assert invoices.find(one.number) == one
        found = next(one for one in made if one.document["credits"])
        assert found.document["credits"] == [{"credit": credit, "amount": "1.00"}]
        assert invoices.void(found.number).state == invoices.find(found.number).state == "void"
        assert invoices.find(found.number).digest == found.digest
