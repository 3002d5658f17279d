"""What `creto audit` prints, writes and exits with."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from creto import _core
from creto.audit import AuditClient, Subjects, open_ledger
from creto.audit._publish import Publisher
from creto.cli import main
from creto.errors import ConnectionFailedError

ALICE = "spiffe://creto.local/agent/alice"


@pytest.fixture
def sealer() -> _core.Sealer:
    return _core.Sealer.ephemeral()


@pytest.fixture
def state(tmp_path: Path, sealer: _core.Sealer) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), sealer)
    act = {
        "who": ALICE,
        "what": "http:get",
        "resource": "https://example.org/",
        "act": "ab" * 16,
        "why": "policy `reads`",
    }
    ledger.append_blocking({**act, "kind": "intent", "delegation_chain": ["spiffe://creto.local/agent/lead"]})
    ledger.append_blocking({**act, "kind": "outcome", "outcome": "success", "usage": {"requests": 1}})
    ledger.append_blocking(
        {"who": ALICE, "what": "net:connect", "resource": "=cmd()", "kind": "refusal", "why": "no <permit>"}
    )
    ledger.close_blocking()
    return folder


@dataclass
class Result:
    exit_code: int
    output: str


def run(state: Path, *args: str) -> Result:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = main(["--state", str(state), "audit", *args])
    return Result(code, out.getvalue())


def test_tail_and_query_print_a_line_or_json_for_each_record(state: Path) -> None:
    lines = run(state, "tail", "-n", "2").output.splitlines()
    assert len(lines) == 2
    assert "refused" in lines[1]
    rows = json.loads(run(state, "query", "--agent", "alice", "--action", "http:*", "--since", "1h", "--json").output)
    assert [row["kind"] for row in rows] == ["intent", "outcome"]
    assert rows[0]["delegation_chain"] == ["spiffe://creto.local/agent/lead"]
    assert run(state, "query", "--outcome", "failure").output == "no record matches\n"
    assert run(state, "query", "--action", "http").output.endswith(
        "all actions that begin so are `--action 'http:*'`\n"
    )
    moment = lines[1].split("Z")[0] + "Z"  # as it is shown, in whatever zone the machine is
    every, since = (json.loads(run(state, "query", *more, "--json").output) for more in ([], ["--since", moment]))
    # What is shown is cut to the millisecond, in which several may lie.
    assert since == [one for one in every if one["time"][:23].replace("T", " ") >= moment[:23]]
    bad = run(state, "query", "--since", "yesterday")
    assert bad.exit_code == 2
    assert "neither a time such as 2026-05-01T12:00 nor how long ago" in bad.output


def test_tail_f_prints_what_another_process_writes_until_it_is_interrupted(state: Path, sealer: _core.Sealer) -> None:
    command = [sys.executable, "-m", "creto", "--state", str(state), "audit", "tail", "-n", "0", "-f", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stdout
    ledger, seen = open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), threading.Event()

    def write() -> None:
        while not seen.wait(0.1):
            ledger.append_blocking({"who": ALICE, "what": "tool:call", "resource": "new"})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert json.loads(process.stdout.readline())["resource"] == "new"
    finally:
        seen.set()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        writer.join()
        ledger.close_blocking()
    assert process.returncode == 130


def test_show_prints_the_act_and_writes_a_page_of_its_life(state: Path, tmp_path: Path) -> None:
    shown = run(state, "show", "ab" * 16)
    assert "policy `reads`" in shown.output
    assert json.loads(run(state, "show", "0000/2", "--json").output)[0]["resource"] == "=cmd()"
    page = tmp_path / "act.html"
    assert run(state, "show", "ab" * 16, "--html", str(page)).exit_code == 0
    text = page.read_text()
    assert "spiffe://creto.local/agent/</span><b>lead</b>" in text
    assert "Human oversight" not in text
    assert text.count("c2sp.org/tlog-proof@v1") == 2
    assert run(state, "show", "0000/2", "--html", str(page)).exit_code == 0
    assert "no &lt;permit&gt;" in page.read_text()
    missing = run(state, "show", "0000/9")
    assert missing.exit_code == 1
    assert "there is no record `0000/9`" in missing.output


def test_the_page_of_an_act_tells_who_was_asked_and_what_they_answered(state: Path, sealer: _core.Sealer) -> None:
    ledger = open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer)
    asked = {"act": "cd" * 16, "resource": "send_money", "why": "payments"}
    request = {"request": "cd" * 16, "reason": "invoice <checked>"}
    desk = "spiffe://creto.local/approver/release-desk"
    ledger.append_blocking({"who": ALICE, "what": "oversight:requested", **asked, "detail": {"request": "cd" * 16}})
    ledger.append_blocking({"who": desk, "what": "oversight:approved", **asked, "detail": request})
    act = {"who": ALICE, "what": "tool:call", "resource": "send_money", "act": "ef" * 16, "why": "use-tools"}
    ledger.append_blocking({**act, "kind": "intent"})
    ledger.append_blocking({**act, "what": "oversight:executing", "detail": {"request": "cd" * 16}})
    ledger.append_blocking({**act, "kind": "outcome", "outcome": {"failure": "no funds"}, "usage": {"tool_calls": 1}})
    ledger.close_blocking()
    page = state.parent / "act.html"
    assert run(state, "show", "ef" * 16, "--html", str(page)).exit_code == 0
    text = page.read_text()
    told = [
        "Approved by</dt><dd><span class=\"soft\">spiffe://creto.local/approver/</span><b>release-desk</b>",
        "invoice &lt;checked&gt;", "1 tool_calls", "Asked a human", "Begun", "The yes was used, once", "no funds",
    ]  # fmt: skip
    assert [fact for fact in told if fact not in text] == []
    assert text.count("c2sp.org/tlog-proof@v1") == 5


def test_the_page_of_an_act_in_a_sandbox_names_the_sandbox_and_its_attestation(
    state: Path, sealer: _core.Sealer
) -> None:
    ledger = open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer)
    attested = {"what": "sandbox:attest", "digest": "cd" * 32, "detail": {"backend": "gvisor", "level": "software"}}
    ledger.append_blocking({"who": ALICE, "resource": "box-older", **attested})
    ledger.append_blocking({"who": ALICE, "resource": "box-7", **attested})
    ledger.append_blocking({"who": "spiffe://creto.local/agent/bob", "resource": "box-of-bob", **attested})
    ledger.append_blocking(
        {
            "who": ALICE,
            "what": "net:connect",
            "resource": "example.org:443",
            "act": "ef" * 16,
            "kind": "refusal",
            "detail": {"sandbox": "box-7"},
        }
    )
    # A later one of the same agent, attested before the page is made.
    ledger.append_blocking({"who": ALICE, "resource": "box-newer", **attested})
    ledger.close_blocking()
    page = state.parent / "act.html"
    assert run(state, "show", "ef" * 16, "--html", str(page)).exit_code == 0
    text = page.read_text()
    assert "box-7" in text
    assert "gvisor software" in text
    assert "box-older" not in text
    assert "box-newer" not in text
    assert "box-of-bob" not in text
    assert text.count("c2sp.org/tlog-proof@v1") == 1


def test_verify_says_what_was_checked_and_exits_with_6_where_it_does_not_fit(state: Path, tmp_path: Path) -> None:
    kept, public = tmp_path / "kept", tmp_path / "creto.pub"
    public.write_text(run(state, "keys").output)
    args = ["verify", "--key", str(public), "--remember", str(kept)]
    assert "as they were signed: 3 records in 1 shard" in run(state, *args).output
    assert "extending 1 checkpoint seen before" in run(state, *args).output
    assert json.loads(run(state, "verify", "--json").output)[0]["size"] == 3
    other = tmp_path / "other.pub"
    other.write_text(_core.SigningKey.generate().verifying_key.to_text())
    assert run(state, "verify", "--key", str(other)).exit_code == 6
    bundle = next((state / "ledger/0000/tile/entries").glob("000.p/3"))
    bundle.write_bytes(bundle.read_bytes().replace(b"reads", b"roads"))
    broken = run(state, "verify")
    assert broken.exit_code == 6
    assert "record 0 does not hash to its leaf of the tree" in broken.output


def test_a_proof_goes_to_a_file_and_is_checked_elsewhere_with_the_public_key_alone(state: Path, tmp_path: Path) -> None:
    out, public, elsewhere = tmp_path / "line.tlog-proof", tmp_path / "creto.pub", tmp_path / "elsewhere"
    public.write_text(run(state, "keys").output)
    assert run(state, "prove", "0000/1", "--out", str(out)).exit_code == 0
    args = ["check-proof", str(out), "--key", str(public), "--json"]
    checked = json.loads(run(elsewhere, *args).output)
    assert checked["proved"] is True
    assert checked["record"]["usage"] == {"requests": 1}
    content = out.with_suffix(".cbor").read_bytes()
    out.with_suffix(".cbor").write_bytes(content.replace(b"requests", b"requestz"))
    assert run(elsewhere, *args).exit_code == 6
    assert not elsewhere.exists()


def test_a_ledger_is_verified_by_its_files_and_the_public_key_alone_and_what_is_none_is_no_success(
    state: Path, tmp_path: Path
) -> None:
    public, copied, elsewhere = tmp_path / "creto.pub", tmp_path / "copied", tmp_path / "elsewhere"
    public.write_text(run(state, "keys").output)
    shutil.copytree(state / "ledger", copied)
    args = ["--key", str(public), "--ledger"]
    assert "as they were signed: 3 records in 1 shard" in run(elsewhere, "verify", *args, str(copied)).output
    wrong = run(elsewhere, "verify", *args, str(tmp_path))
    assert (wrong.exit_code, "holds no ledger: its folders are shards" in wrong.output) == (1, True)
    assert not elsewhere.exists()
    nothing = run(elsewhere, "verify", "--key", str(public))
    assert (nothing.exit_code, "so nothing was checked" in nothing.output) == (1, True)


def test_export_writes_json_lines_csv_and_parquet(state: Path, tmp_path: Path) -> None:
    lines = tmp_path / "acts.jsonl"
    assert run(state, "export", str(lines)).output == f"wrote 3 records to {lines}\n"
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["ended"] for row in rows] == [None, "success", "refused"]
    table = tmp_path / "acts.csv"
    run(state, "export", str(table), "--outcome", "refused")
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    # A spreadsheet runs what begins with `=`.
    assert row["resource"] == "'=cmd()"
    duckdb = pytest.importorskip("duckdb", reason="Parquet is written by the extra creto[duckdb]")
    columns = tmp_path / "acts.parquet"
    assert run(state, "export", str(columns)).exit_code == 0
    found = duckdb.sql(f"select resource, timestamp from '{columns}' order by timestamp").fetchall()
    assert [resource for resource, _ in found] == [row["resource"] for row in rows]
    assert [word for _, word in found] == [row["timestamp"] for row in rows]
    assert run(state, "export", str(tmp_path / "acts.xml")).exit_code == 2


def test_verifier_keys_are_printed_for_public_clients(state: Path) -> None:
    ed25519, ml_dsa = run(state, "keys", "0000").output.splitlines()
    origin = (state / "ledger/0000/origin").read_text()
    assert ed25519.startswith(f"{origin}+")
    assert len(ml_dsa) > 2_000


def test_an_empty_state_folder_is_no_error(tmp_path: Path) -> None:
    assert run(tmp_path / "new", "verify").output == "the ledger has no record yet\n"
    assert run(tmp_path / "new", "tail").output == ""
    assert AuditClient.reading(tmp_path / "new").folder.name == "new"


def test_a_checkpoint_that_a_full_disk_cut_off_is_ended_passed_over_and_published_again(
    state: Path, tmp_path: Path
) -> None:
    kept, publish = tmp_path / "kept", "import sys; from creto.cli import main; sys.exit(main(sys.argv[1:]))"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000)); {publish}"
    command = [sys.executable, "-c", limited, "--state", str(state), "audit", "publish", str(kept)]
    assert subprocess.run(command, capture_output=True, text=True).returncode != 0
    assert kept.stat().st_size == 1_000
    with kept.open("rb+") as cut:
        cut.truncate(30)  # before its size has been written whole
    told = run(state, "verify", "--seen", str(kept))
    assert told.exit_code == 0
    assert f"{kept}: 1 of 1 checkpoints are not whole, and say nothing" in told.output
    assert run(state, "publish", str(kept)).output == f"published 1 checkpoint to {kept}\n"
    assert "extending 1 checkpoint seen before" in run(state, "verify", "--seen", str(kept)).output
    assert run(state, "publish", str(kept)).output == f"published 0 checkpoints to {kept}\n"


def test_checkpoints_are_published_to_a_file_that_finds_out_a_rollback(
    state: Path, tmp_path: Path, sealer: _core.Sealer
) -> None:
    kept = tmp_path / "kept"
    assert run(state, "publish", str(kept)).output == f"published 1 checkpoint to {kept}\n"
    older = tmp_path / "older"
    shutil.copytree(state, older)
    ledger = open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer)
    ledger.append_blocking({"who": ALICE, "what": "a:b"})
    ledger.close_blocking()
    assert run(state, "publish", str(kept)).output.startswith("published 1 ")
    assert run(state, "publish", str(kept)).output.startswith("published 0 ")
    assert "extending 2 checkpoints" in run(state, "verify", "--seen", str(kept)).output
    found = run(older, "verify", "--seen", str(kept))
    assert found.exit_code == 6
    assert "it was rolled back" in found.output


def test_checkpoints_are_posted_to_an_address_and_come_again_where_it_did_not_take_them(state: Path) -> None:
    taken: list[bytes] = []
    answers = [503, 200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        publisher = Publisher(state / "ledger", f"http://127.0.0.1:{server.server_address[1]}/checkpoints")
        with pytest.raises(ConnectionFailedError, match="did not take a checkpoint: it answered 503"):
            publisher.publish()
        assert (publisher.publish(), publisher.publish()) == (1, 0)
        server.shutdown()
    assert taken == [(state / "ledger/0000/checkpoint").read_bytes()] * 2
    assert run(state, "publish", "ftp://example.org/x").exit_code == 2


def test_reindex_says_how_many_records_there_are_and_a_persons_records_are_found(
    tmp_path: Path, sealer: _core.Sealer
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    sealer = _core.Sealer.open(folder / "keys")
    ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), sealer)
    ledger.append_blocking(Subjects(folder, sealer).sealed({"who": ALICE, "what": "crm:read"}, "ann", {"a": "b"}))
    ledger.append_blocking({"who": ALICE, "what": "crm:list"})
    ledger.close_blocking()
    assert run(folder, "reindex").output == "2 records are indexed\n"
    (row,) = json.loads(run(folder, "query", "--subject", "ann", "--json").output)
    assert row["what"] == "crm:read"


def test_a_person_is_erased_and_that_is_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    sealer = _core.Sealer.open(folder / "keys")
    subjects = Subjects(folder, sealer)
    ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), sealer)
    ledger.append_blocking(subjects.sealed({"who": ALICE, "what": "crm:read"}, "ann@example.org", {"born": "1970"}))
    ledger.close_blocking()
    kept = run(folder, "erase", "ann@example.org", "--yes")
    assert kept.exit_code == 3
    assert "(`audit.retention_days` is 183)" in kept.output
    assert run(folder, "erase", "ann@example.org", "--yes", "--early", "asked for").output == "erased\n"
    assert "erased before" in run(folder, "erase", "ann@example.org", "--yes", "--early", "again").output
    (row,) = json.loads(run(folder, "query", "--action", "subject:erase", "--json").output)
    assert (row["resource"], row["why"]) == (subjects.pseudonym("ann@example.org"), "asked for")


def test_an_address_that_cannot_be_listened_on_is_told_as_such(state: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = run(state, "serve", "--listen", f"127.0.0.1:{port}")
        assert (told.exit_code, "Address already in use" in told.output) == (2, True), told.output
    known = run(state, "keys", "0000").output.splitlines()[0]
    beyond = ["--listen", "127.0.0.1:65536", "--log", known, "--memory", str(tmp_path / "memory")]
    told = run(state, "witness", *beyond)
    assert (told.exit_code, "is no address to listen on" in told.output) == (2, True), told.output
