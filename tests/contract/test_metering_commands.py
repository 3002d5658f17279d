"""`creto quota`, `usage` and `invoice` on a real state folder, and what several processes on it see of each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as day_time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from creto import open_blocking
from creto.cli import main

CONFIG = """
[metering]
time_zone = "Europe/Zurich"

[[quotas]]
scope = "agent"
meter = "tool_calls"
limit = 5
window = "day"

[[quotas]]
scope = "organisation"
meter = "tool_calls"
limit = 50
window = "month"

[[prices]]
meter = "tool_calls"
unit_price = "0.10"
description = "Calls of tools"
"""
ACT = """
import asyncio, os, sys, creto
from pathlib import Path
async def main(times, end):
    async with creto.open(config=[Path(sys.argv[1])]) as layer:
        agent = layer.agent("reader")
        for number in range(times):
            try:
                await layer.perform(agent, "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
            except creto.CretoError as error:
                print(error, flush=True)
                break
            print(number + 1, flush=True)
        if end == "die":
            os.kill(os.getpid(), 9)
        if end == "wait":
            sys.stdin.readline()
            await layer.perform(agent, "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
            print("one more", flush=True)
asyncio.run(main(int(sys.argv[2]), sys.argv[3]))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    file = tmp_path / "house.toml"
    file.write_text(CONFIG)
    return file


def acting(config: Path, times: int, end: str = "close") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ACT, str(config), str(times), end]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def lines(process: subprocess.Popen[str]) -> list[str]:
    return process.communicate(timeout=90)[0].splitlines()


Command = Callable[..., Any]


@pytest.fixture
def creto(config: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str, code: int = 0) -> Any:
        status = main(["--config", str(config), *arguments])
        said = capsys.readouterr()
        assert (status or 0) == code, said
        return json.loads(said.out) if "--json" in arguments else said.out + said.err

    return run


def test_from_acts_to_a_verified_invoice(config: Path, creto: Command, tmp_path: Path) -> None:
    assert lines(acting(config, 4)) == ["1", "2", "3", "4"]
    shown = creto("quota", "show", "--json")
    assert [(row["level"], row["used"], row["limit"]) for row in shown] == [("agent", 4, 5), ("organisation", 4, 50)]
    assert "████" in creto("quota", "show")
    usage = creto("usage", "--by", "agent", "--per", "day", "--period", "48h", "--json")
    assert [(row["agent"], row["quantity"], row["events"]) for row in usage] == [
        ("spiffe://creto.local/agent/reader", 4, 4)
    ]
    page = tmp_path / "usage.html"
    creto("usage", "--period", "48h", "--html", str(page))
    assert "tool_calls" in page.read_text()

    made = creto("invoice", "run", "--period", "48h", "--json")
    assert [(row["customer"], row["total"], row["state"]) for row in made] == [("creto.local", "0.40", "finalized")]
    number = made[0]["number"]
    file = tmp_path / "invoice.json"
    creto("invoice", "show", number, "-o", str(file))
    # The invoice's own record is not in the ledger before a process with a ledger has run.
    lines(acting(config, 0))
    said = creto("invoice", "verify", str(file))
    assert "4 events in the ledger make 4 of `tool_calls`, which cost 0.40" in said
    assert "holds the invoice's digest" in said
    file.write_text(file.read_text().replace('"amount": "0.40"', '"amount": "0.30"'))
    assert "cost 0.40, and the line says 0.30" in creto("invoice", "verify", str(file), code=6)

    proof = tmp_path / "proof.json"
    proof.write_text(creto("invoice", "prove", number, "1", "4"))
    assert "the event is in the commitment of line 1 of INV" in creto("invoice", "verify", str(proof))
    html = creto("invoice", "show", number, "--format", "html")
    assert "Calls of tools" in html
    assert creto("invoice", "show", number, "--format", "csv").count("\n") == 2
    assert "Calls of tools" in creto("invoice", "show", number)


def test_programs_are_told_times_with_their_zone_and_days_in_it(config: Path, creto: Command) -> None:
    lines(acting(config, 1))
    zurich = ZoneInfo("Europe/Zurich")
    today = datetime.now(zurich).date()
    (agent, _) = creto("quota", "show", "--json")
    assert datetime.fromisoformat(agent["resets"]) == datetime.combine(today + timedelta(1), day_time(), zurich)
    (used,) = creto("usage", "--per", "day", "--period", "today", "--json")
    assert datetime.fromisoformat(used["from"]) == datetime.combine(today, day_time(), zurich)
    soon = datetime.now(zurich)
    ends = [
        creto("quota", "boost", "agent:reader", "tool_calls", "5", "--for", "2h", "--json")["until"],
        creto("invoice", "prepay", "acme", "10", "--for", "2h", "--json")["expires"],
        creto("invoice", "prepaid", "--json")[0]["until"],
    ]
    for each in map(datetime.fromisoformat, ends):
        assert each.utcoffset() in (timedelta(hours=1), timedelta(hours=2))  # in winter and in summer
        assert timedelta(hours=2) <= each - soon + timedelta(seconds=1) < timedelta(hours=2, minutes=2)
    (made,) = creto("invoice", "run", "--draft", "--period", "today", "--json")
    assert (made["from"], made["to"]) == (f"{today}", f"{today + timedelta(1)}")


def test_an_invoice_says_who_it_is_from_and_for_and_so_does_a_credit_note_on_it(
    config: Path, creto: Command, tmp_path: Path
) -> None:
    config.write_text(
        CONFIG
        + """
[issuer]
name = "Model House <AG>"
address = ["Bahnhofstrasse 1", "8001 Zürich"]
tax_id = "CHE-123.456.789 MWST"

[[customers]]
id = "creto.local"
name = "Creto & Sons"
reference = "PO 4711"
"""
    )
    lines(acting(config, 2))
    number = creto("invoice", "run", "--period", "48h", "--json")[0]["number"]
    note = creto("invoice", "credit", number, "--reason", "a gift", "--json")["number"]
    for made in (number, note):
        text = creto("invoice", "show", made)
        assert "from Model House <AG>, Bahnhofstrasse 1, 8001 Zürich, tax id CHE-123.456.789 MWST" in text
        assert "to Creto & Sons, reference PO 4711" in text
        page = creto("invoice", "show", made, "--format", "html")
        assert "Model House &lt;AG&gt;<br>Bahnhofstrasse 1<br>8001 Zürich<br>tax id CHE-123.456.789 MWST" in page
        assert "Creto &amp; Sons<br>reference PO 4711" in page
    file = tmp_path / "invoice.json"
    creto("invoice", "show", number, "-o", str(file))
    assert "holds the invoice's digest" in creto("invoice", "verify", str(file))
    file.write_text(file.read_text().replace("PO 4711", "PO 4712"))
    assert "FAIL recorded" in creto("invoice", "verify", str(file), code=6)
    config.write_text(CONFIG + '[[customers]]\nid = "acme"\n[[customers]]\nid = "acme"\n')
    assert "`acme` is there twice" in creto("usage", code=2)


def test_a_fee_is_charged_to_customers_that_are_known(config: Path, creto: Command, tmp_path: Path) -> None:
    fee = '[[prices]]\nmeter = "base"\nmodel = "flat"\nunit_price = "49.00"\n'
    config.write_text(CONFIG + fee)
    lines(acting(config, 1))
    wrong = creto("invoice", "run", "--period", "48h", "--customer", "acmee", code=1)
    assert "`acmee` used nothing in this period, was never invoiced, and stands neither in `[[customers]]`" in wrong
    assert creto("invoice", "list", "--json") == []
    config.write_text(CONFIG + fee + '[[customers]]\nid = "acme"\n')
    (made,) = creto("invoice", "run", "--period", "48h", "--customer", "acme", "--json")
    assert made["total"] == "49.00"
    refused = creto("invoice", "show", made["number"], "-o", str(tmp_path / "invoice.pdf"), code=2)
    assert "`.pdf` is no form of an invoice: write to .txt, .json, .csv or .html" in refused
    assert not (tmp_path / "invoice.pdf").exists()
    creto("invoice", "show", made["number"], "-o", str(tmp_path / "invoice.TXT"))
    assert "49.00 USD flat" in (tmp_path / "invoice.TXT").read_text()


def test_a_time_taken_for_a_dimension_is_told(config: Path, creto: Command) -> None:
    lines(acting(config, 1))
    assert "nothing that was used has a `hour`; by time it is `--per hour`" in creto("usage", "--by", "hour")
    assert "warning" not in creto("usage", "--by", "agent")


def test_two_processes_share_one_quota_and_a_third_finds_it_spent(config: Path, creto: Command) -> None:
    racers = [acting(config, 9) for _ in range(2)]
    done = sum(line.isdigit() for racer in racers for line in lines(racer))
    done += sum(line.isdigit() for line in lines(acting(config, 9)))
    assert done == 5
    refused = lines(acting(config, 1))
    assert "1 more of `tool_calls` (day in Europe/Zurich) by agent" in refused[0]
    assert creto("quota", "explain", "creto.local/spiffe://creto.local/agent/reader", "tool_calls=1", code=4)


def test_a_quota_that_names_an_agent_is_in_place_of_that_of_each(config: Path, creto: Command) -> None:
    creto("quota", "set", "agent:reader", "tool_calls", "2", "--window", "day")
    assert [line.isdigit() for line in lines(acting(config, 9))] == [True, True, False]
    assert "2 of 2 used" in creto("quota", "explain", "reader", "tool_calls=1", code=4)
    assert "2 of 2 used" in creto("quota", "explain", "creto.local/any/reader", "tool_calls=1", code=4)
    creto("quota", "boost", "agent:reader", "tool_calls", "1")
    assert [line.isdigit() for line in lines(acting(config, 9))] == [True, False]
    creto("quota", "set", "agent:reader", "tool_calls", "6", "--window", "day")  # more than each has, too
    assert sum(line.isdigit() for line in lines(acting(config, 9))) == 4


def test_money_is_shown_as_money(config: Path, creto: Command) -> None:
    creto("quota", "set", "agent", "cost:EUR", "5.00", "--window", "month", "--soft", "90", "--soft", "30")
    with open_blocking(config=[config]) as layer:
        rules = layer.parts.quota.rules_in_force()
        assert [rule["soft"] for rule in rules if rule["meter"] == "cost:EUR"] == [[30, 90]]
        spent = {"cost:EUR": 1_500_000_000}
        layer.perform_blocking(layer.agent("reader"), "tool:call", "add", lambda: 1, usage=spent)
    assert "1.50 EUR  5.00 EUR" in creto("quota", "show", "--meter", "cost:EUR")
    assert "1.50 EUR of 5.00 EUR used, 3.50 EUR left" in creto("quota", "explain", "reader", "cost:EUR=1")
    assert creto("quota", "show", "--meter", "cost:EUR", "--json")[0]["used"] == 1_500_000_000


def test_what_a_killed_process_used_stays_used_and_what_it_only_leased_comes_back(config: Path) -> None:
    killed = acting(config, 3, "die")
    assert lines(killed) == ["1", "2", "3"]
    assert killed.returncode == -signal.SIGKILL
    # The next process takes the shard over, settles what was leased by its records, and has the rest: 2 of 5.
    assert [line for line in lines(acting(config, 9)) if line.isdigit()] == ["1", "2"]


def test_a_quota_set_and_a_boost_bind_in_a_running_process_within_a_second(config: Path, creto: Command) -> None:
    running = acting(config, 5, "wait")
    assert running.stdout is not None
    assert running.stdin is not None
    assert [running.stdout.readline().strip() for _ in range(5)] == ["1", "2", "3", "4", "5"]
    said = creto("quota", "boost", "agent:spiffe://creto.local/agent/reader", "tool_calls", "1", "--for", "1h")
    assert "may use 1 more of tool_calls until" in said
    time.sleep(1.5)
    assert running.communicate("go\n", timeout=60)[0].splitlines() == ["one more"]
    creto("quota", "set", "agent", "tool_calls", "100", "--window", "day", "--json")
    assert len(lines(acting(config, 20))) == 20


def cloud_event(number: int, **more: Any) -> dict[str, Any]:
    moment = datetime.now(UTC).isoformat()
    data = {"meter": "pages", "quantity": str(number), "dimensions": {"team": "ab"[number % 2]}}
    own = {"specversion": "1.0", "id": str(number), "source": "gateway", "type": "creto.usage.pages"}
    return {**own, "subject": "acme", "time": moment, "data": data, **more}


def test_usage_is_taken_in_from_files_each_event_once_and_shown(creto: Command, tmp_path: Path) -> None:
    lines, listed = tmp_path / "collected.jsonl", tmp_path / "more.json"
    lines.write_text("".join(json.dumps(cloud_event(number)) + "\n" for number in range(1, 1001)))
    listed.write_text(json.dumps([cloud_event(number) for number in range(996, 1006)]))
    assert creto("usage", "import", str(lines), str(listed), "--json") == [
        {"file": str(lines), "taken": 1000, "known_before": 0},
        {"file": str(listed), "taken": 5, "known_before": 5},
    ]
    assert creto("usage", "import", str(lines)).split()[-2:] == ["0", "1000"]
    used = creto("usage", "--by", "team", "--period", "48h", "--json")
    assert [(row["meter"], row["team"], row["quantity"], row["events"]) for row in used] == [
        ("pages", "a", sum(range(2, 1006, 2)), 502),
        ("pages", "b", sum(range(1, 1006, 2)), 503),
    ]


def test_usage_is_written_out_as_cloudevents_that_another_folder_takes_in(
    config: Path, creto: Command, tmp_path: Path
) -> None:
    collected, out, other = tmp_path / "collected.jsonl", tmp_path / "out.jsonl", tmp_path / "other"
    events = [cloud_event(number, subject=["acme", "globex"][number % 2]) for number in range(20)]
    collected.write_text("".join(json.dumps(event) + "\n" for event in events))
    creto("usage", "import", str(collected))
    with open_blocking(config=config) as layer:
        layer.perform_blocking(layer.agent("reader"), "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
    assert creto("usage", "export", "--period", "48h", "-o", str(out)) == f"21 events written to {out}\n"
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["source"], one["id"]) for one in written[:20]] == [(one["source"], one["id"]) for one in events]
    assert (written[20]["source"], written[20]["type"]) == ("ledger", "creto.usage.tool_calls")
    # Those of one customer, to standard output; taken in elsewhere they add up to the same.
    lines = creto("usage", "export", "--period", "48h", "--customer", "acme", "--meter", "pages")
    assert isinstance(lines, str)
    out.write_text(lines)
    taken = creto("--state", str(other), "usage", "import", str(out), "--json")
    assert taken == [{"file": str(out), "taken": 10, "known_before": 0}]
    assert creto("--state", str(other), "usage", "export", "--period", "48h") == lines
    assert creto("usage", "export", "--period", "2001-01") == ""
    # A file of that name is whole or as it was.
    creto("usage", "export", "--period", "now", "-o", str(out), code=2)
    assert out.read_text() == lines
    assert [file.name for file in tmp_path.glob("out.jsonl*")] == ["out.jsonl"]


def test_what_is_left_of_a_prepaid_credit_is_listed_and_held_against_the_ledger(creto: Command, tmp_path: Path) -> None:
    made = creto("invoice", "prepay", "acme", "5.00", "--for", "90d", "--json")
    (row,) = creto("invoice", "prepaid", "--json")
    assert {name: row[name] for name in ("credit", "customer", "granted", "taken", "left", "faults")} == {
        **{"credit": made["id"], "customer": "acme", "granted": "5.00", "taken": "0", "left": "5.00"},
        "faults": [],
    }
    assert creto("invoice", "prepaid", "--customer", "globex") == "nothing was paid in advance\n"
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "creto.db", isolation_level=None)) as store:
        store.execute("update credits set \"left\" = '500.00'")
    assert f"{made['id']}: the store says that 500.00 is left, and the ledger 5.00" in creto(
        "invoice", "prepaid", code=6
    )


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("{", "line 3, is not JSON"),
        ("[1]", "line 3: a CloudEvent is a JSON object"),
        (json.dumps(cloud_event(3, subject="")), "event 3: "),
        (
            json.dumps(cloud_event(3, data={"meter": "pages", "quantity": "nan"})),
            "the quantity `nan` is no whole number",
        ),
        (
            json.dumps(cloud_event(3, data={"meter": "pages", "quantity": "1e9"})),
            "the quantity `1e9` is no whole number",
        ),
        (json.dumps(cloud_event(3, time="2001-01-01T00:00:00Z")), "event 3: usage event `3`: it is older than"),
    ],
)
def test_one_bad_event_leaves_the_whole_file_out(creto: Command, tmp_path: Path, bad: str, text: str) -> None:
    file = tmp_path / "collected.jsonl"
    file.write_text("\n".join([*(json.dumps(cloud_event(number)) for number in (1, 2)), bad]))
    assert text in creto("usage", "import", str(file), code=2)
    assert creto("usage", "--period", "48h", "--json") == []


def test_an_invoice_is_verified_against_a_ledger_that_is_served_elsewhere(
    config: Path, creto: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('[[prices]]\nmeter = "pages"\nunit_price = "0.5"\n')
    file, invoice, key = tmp_path / "collected.jsonl", tmp_path / "invoice.json", tmp_path / "ledger.pub"
    file.write_text("\n".join(json.dumps(cloud_event(number)) for number in range(1, 601)))
    creto("usage", "import", str(file))
    number = creto("invoice", "run", "--period", "48h", "--json")[0]["number"]
    creto("invoice", "show", number, "-o", str(invoice))
    lines(acting(config, 300))  # the invoice's own record, and more tiles than one
    key.write_text(creto("audit", "keys"))
    command = [
        sys.executable,
        "-m",
        "creto",
        "--config",
        str(config),
        "audit",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        url = f"http://127.0.0.1:{json.loads(serving.stdout.readline())['port']}"
        # An outsider has the file and the keys; all else comes from the address.
        monkeypatch.setenv("CRETO_STATE", str(tmp_path / "outsider"))
        check = "invoice", "verify", str(invoice), "--ledger", url, "--key", str(key)
        said = creto(*check)
        assert "600 events in the ledger make 180300 of `pages`, which cost 90150" in said
        assert "holds the invoice's digest" in said
        batches = next((tmp_path / "state" / "ledger" / "0000" / "batches").iterdir())
        content = bytearray(batches.read_bytes())
        content[200] ^= 1
        batches.write_bytes(content)
        assert "was changed" in creto(*check, code=6)
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=60)
    assert "does not answer" in creto(*check, code=1)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_invoice_at_once_make_one_invoice_a_customer_and_numbers_without_gaps(
    kind: str, config: Path, creto: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    customers = 12
    prices = '[[prices]]\nmeter = "pages"\nunit_price = "0.5"\n'
    url = request.getfixturevalue("postgres") if kind == "postgresql" else ""
    config.write_text((f'[common]\nstore_url = "{url}"\n' if url else "") + prices)
    file = tmp_path / "collected.jsonl"
    events = [cloud_event(n, subject=f"customer-{n % customers:02}") for n in range(1, 10 * customers + 1)]
    file.write_text("\n".join(map(json.dumps, events)))
    creto("usage", "import", str(file))
    command = [sys.executable, "-m", "creto", "--config", str(config), "invoice", "run", "--period", "48h", "--json"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [racer.communicate(timeout=90) for racer in racers]
    made = [
        one for (out, _), racer in zip(said, racers, strict=True) if racer.returncode == 0 for one in json.loads(out)
    ]
    assert sorted(one["customer"] for one in made) == [f"customer-{n:02}" for n in range(customers)]
    year = datetime.now(UTC).year
    assert sorted(one["number"] for one in made) == [f"INV-{year}-{n:06}" for n in range(1, customers + 1)]
    assert sum(float(one["total"]) for one in made) == sum(range(1, 10 * customers + 1)) / 2
    beaten = [err for (_, err), racer in zip(said, racers, strict=True) if racer.returncode]
    assert all("was invoiced for this time by INV-" in err for err in beaten), beaten
    # A void one keeps its number, and what replaces it gets the next.
    number = made[0]["number"]
    creto("invoice", "void", number)
    again = creto("invoice", "run", "--period", "48h", "--customer", made[0]["customer"], "--json")
    assert [(one["customer"], one["number"]) for one in again] == [
        (made[0]["customer"], f"INV-{year}-{customers + 1:06}")
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["quota", "set", "nobody", "m", "1"], "write `organisation`, `team` or `agent`"),
        (["quota", "set", "team", "m", "much"], "limit `much`: write a number"),
        (["quota", "boost", "team", "tool_calls", "1"], "name one, as in `team:research`"),
        (["quota", "boost", "team:x", "nothing", "1"], "no quota of `nothing` lies on it"),
        (["invoice", "run", "--period", "soon"], "period `soon`"),
        (["invoice", "run", "--period", "this-month"], "has not ended"),
        (["invoice", "show", "INV-1"], "there is no invoice `INV-1`"),
        (["usage", "--only", "team"], "write NAME=VALUE"),
        (["invoice", "prepay", "acme", "nan"], "amount `nan`"),
        (["invoice", "prepay", "acme", "--", "-5"], "-5 USD: write a positive amount below 10^18"),
        (["invoice", "prepay", "acme", "1e999999"], "USD: write a positive amount below 10^18"),
        (["invoice", "prepay", "acme", "5", "--currency", "EUX"], "currency `EUX`: write one of ISO 4217"),
        (["invoice", "prepay", "acme", "5.5", "--currency", "JPY"], "5.5 JPY: write a positive amount"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(creto: Command, arguments: list[str], text: str) -> None:
    assert text in " ".join(creto(*arguments, code=1 if "INV-1" in arguments else 2).split())


def test_an_acts_page_prices_what_one_act_can_have_a_share_of_and_names_the_rest(
    config: Path, tmp_path: Path, creto: Command
) -> None:
    steps = 'tiers = [{up_to = 1000, unit_price = "0.002"}, {unit_price = "0.001"}]'
    config.write_text(CONFIG + f'\n[[prices]]\nmeter = "tokens"\nmodel = "graduated"\n{steps}\n')
    with open_blocking(config=config) as layer:
        agent = layer.agent("reader")
        used = {"tool_calls": 2, "tokens": 1500}
        layer.perform_blocking(agent, "tool:call", "add", lambda: 1, usage=used)
    found = creto("audit", "query", "--outcome", "success", "--action", "tool:*", "--json")[-1]
    creto("audit", "show", f"{found['shard']}/{found['index']}", "--html", str(tmp_path / "act.html"))
    page = (tmp_path / "act.html").read_text()
    assert "0.2 USD, at the prices of now; not in it, since priced over the whole period: tokens (graduated)" in page


def test_an_invoice_can_be_verified_as_soon_as_it_has_its_number_though_nothing_else_runs(
    config: Path, tmp_path: Path, creto: Command
) -> None:
    with open_blocking(config=config) as layer:
        layer.perform_blocking(layer.agent("reader"), "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
    draft = creto("invoice", "run", "--period", "this-month", "--draft", "--json")[0]
    number = creto("invoice", "finalize", draft["id"], "--json")["number"]
    creto("invoice", "show", number, "-o", str(tmp_path / "invoice.json"))
    assert "FAIL" not in creto("invoice", "verify", str(tmp_path / "invoice.json"))
    assert "has no line 9; its lines are 1 to 1" in creto("invoice", "prove", number, "9", "1", code=1)
    assert "has 1 event, and none is number 99" in creto("invoice", "prove", number, "1", "99", code=1)


def test_long_work_says_how_far_it_is_where_a_terminal_shows_it(config: Path, tmp_path: Path, creto: Command) -> None:
    with open_blocking(config=config) as layer:
        for _ in range(3):
            layer.perform_blocking(layer.agent("reader"), "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
    invoice = tmp_path / "invoice.json"
    creto("invoice", "show", creto("invoice", "run", "--period", "1h", "--json")[0]["number"], "-o", str(invoice))
    for command, told in [
        (["usage", "--period", "1h"], "reading 0000"),
        (["quota", "show"], "counting 0000"),
        (["invoice", "verify", str(invoice)], "checking 0000"),
        (["invoice", "run", "--draft", "--period", "yesterday"], "records added up"),
        (["usage", "export"], "reading 0000"),
    ]:
        terminal, screen = os.openpty()
        full = [sys.executable, "-m", "creto", "--config", str(config), *command]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        shown = subprocess.run(full, stdout=subprocess.PIPE, stderr=screen, env=environment, timeout=60, check=True)
        os.close(screen)
        seen = b""
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 65536):
                seen += piece
        os.close(terminal)
        assert told in seen.decode(), command
        # What is printed is as it is without a terminal: the bar is on standard error alone.
        assert told not in shown.stdout.decode()
        assert shown.stdout.decode() == creto(*command)
