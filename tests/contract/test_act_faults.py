"""A fault at each system call of one whole act, store and ledger: what was promised is there, all else told clearly.

Errors and kills are injected by strace. A short write it could only pretend, so writes are cut short by a library that
is preloaded: it writes half of what was asked and says so.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

import creto
from creto.store.tables import mailbox
from one_act import RESOURCE
from servers import PostgreSQL

PROGRAM = [sys.executable, str(Path(__file__).resolve().parent.parent / "one_act.py")]
CALLS = (
    "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,link,linkat,pwrite64,write,pread64,read,fallocate,"
    "ftruncate,fdatasync,fsync,msync,syncfs,flock,getdents64"
)
# `make crash` takes them all.
MOST = 1_000_000 if "CRETO_CRASH_FOLDER_STATES" in os.environ else 16
has_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing: `make test` installs it")


def lead(state: Path, *options: str, calls: str = CALLS, url: str = "") -> tuple[list[str], str]:
    """The act under strace: what it told, line by line, and all that it wrote."""
    command = ["strace", "-f", "-yy", "-qq", "-e", f"trace={calls}", *options, *PROGRAM, str(state)]
    given = {**os.environ, "CRETO_COMMON__STORE_URL": url} if url else None
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=given)
    told = [line.removeprefix("LIFE ") for line in done.stdout.splitlines() if line.startswith("LIFE ")]
    return told, done.stdout + done.stderr


def calls_of_the_act(log: Path, where: str) -> list[tuple[str, int]]:
    """Which calls of the act touch the state folder, or the server: names, and their numbers in strace, by thread."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], None] = {}
    begun = False
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None:
            continue
        thread, name, arguments = match.groups()
        counts[thread, name] += 1
        begun |= "LIFE BEGUN" in arguments
        if begun and where in arguments:
            found[name, counts[thread, name]] = None
    return sorted(found)


def faults(calls: list[tuple[str, int]]) -> list[str]:
    """Each call with each fault that it can have."""
    made = []
    for name, number in calls:
        made += [f"{name}:{fault}:when={number}" for fault in ("error=EIO", "error=ENOSPC", "signal=KILL")]
        if name in ("openat", "pwrite64", "write", "pread64", "read", "fallocate", "flock", "ftruncate", "fdatasync"):
            made.append(f"{name}:error=EINTR:when={number}")
        if name in ("pwrite64", "write", "fallocate", "openat"):
            made.append(f"{name}:error=ENOSPC:when={number}+")
    return made


def broken(state: Path, told: list[str], killed: bool, config: list[Path] | None = None) -> str | None:
    """Which promise the folder does not keep, once it is opened again without faults."""
    if not killed and not (told and re.match("DONE|FAILED", told[-1])):
        return "it ended without a word"
    for line in told:
        if line.startswith(("REFUSED", "FAILED")) and not re.fullmatch(r"\w+ \w+: .{15,}", line):
            return f"an error that tells nothing: {line}"
    with creto.open_blocking(state, config=config or []) as layer:
        audit = layer.parts.audit
        records = layer.call_blocking(lambda: audit.query(resource=RESOURCE))
        every = [record.id for record in layer.call_blocking(lambda: audit.query(limit=100_000))]
        kinds = [record.kind for record in records]
        ended = [record.ended for record in records if record.kind == "outcome"]
        if len(every) != len(set(every)):
            return "a record is there twice"
        if "RAN" in told and "intent" not in kinds:
            return "it ran, and its intent is not in the ledger"
        if "RAN" not in told and "success" in ended:
            return "it did not run, and is on record as a success"
        if "ACK" in told and (sorted(kinds), ended) != (["intent", "outcome"], ["success"]):
            return f"it was acknowledged, and on record is {kinds}, {ended}"
        again = layer.agent("researcher")
        layer.perform_blocking(again, "tool:call", "after", lambda: None, usage={"requests": 1})
        layer.call_blocking(audit.verify)
        with layer.parts.store.read() as tx:
            kept = {row.message_id for row in tx.all(select(mailbox.c.message_id))}
        for line in told:
            kind, _, key = line.partition(" ")
            if kind == "SENT" and key not in kept:
                return f"message {key} was sent, and is gone"
    if config:
        return None
    with closing(sqlite3.connect(state / "creto.db")) as connection:
        whole = connection.execute("pragma integrity_check").fetchone() == ("ok",)
    return None if whole else "the store is damaged"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("act")
    told, output = lead(folder / "state", "-o", str(folder / "log"))
    assert [line.split(" ")[0] for line in told] == ["BEGUN", "RAN", "ACK", "SENT", "DONE"], output
    assert broken(folder / "state", told, killed=False) is None
    return calls_of_the_act(folder / "log", str(folder / "state"))


# Each act is led by a program of its own, under strace, and what it left is opened by the whole product.
@pytest.mark.timeout(86_400 if MOST > 1_000 else 600)
@has_strace
def test_a_fault_at_any_call_of_an_act_loses_nothing_that_was_promised(
    calls: list[tuple[str, int]], tmp_path: Path
) -> None:
    assert {name for name, _ in calls} >= {"openat", "pwrite64", "fdatasync"}
    every = faults(calls)
    chosen = every[:: -(-len(every) // MOST)]

    def endure(number: int) -> str | None:
        fault, state = chosen[number], tmp_path / f"{number}"
        told, output = lead(state, "-o", "/dev/null", "-e", f"inject={fault}")
        if "BEGUN" not in told:
            return None  # strace counts calls by their names, and this one came before the act
        wrong = "a panic" if "panicked" in output else broken(state, told, "KILL" in fault)
        shutil.rmtree(state)
        return wrong and f"{fault}: {wrong}; it told {told}\n{output[-2_000:]}"

    with ThreadPoolExecutor(2) as workers:
        wrong = [one for one in workers.map(endure, range(len(chosen))) if one]
    print(f"{len(chosen)} of {len(every)} faults injected")
    assert wrong == []


# Each is led against a database of its own.
@pytest.mark.timeout(86_400 if MOST > 1_000 else 600)
@has_strace
def test_a_fault_at_any_word_with_postgresql_loses_nothing_that_was_promised(
    postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    words = "sendto,recvfrom"

    def endure(number: int | None, *options: str) -> tuple[list[str], str, str | None]:
        state, config = tmp_path / f"{number}", tmp_path / f"{number}.toml"
        url = postgres_server.url(postgres_server.database())
        config.write_text(f'[common]\nstore_url = "{url}"\n')
        told, output = lead(state, *options, calls=words + ",write", url=url)
        wrong = "a panic" if "panicked" in output else broken(state, told, "KILL" in options[-1], [config])
        shutil.rmtree(state)
        return told, output, wrong

    told, output, wrong = endure(None, "-o", str(tmp_path / "log"))
    assert ([line.split(" ")[0] for line in told], wrong) == (["BEGUN", "RAN", "ACK", "SENT", "DONE"], None), output
    found = [call for call in calls_of_the_act(tmp_path / "log", f":{postgres_server.port}]") if call[0] != "write"]
    assert {name for name, _ in found} == set(words.split(","))
    # Not a reset of what is sent: on a line that lives, libpq then waits for what the server has to say about it.
    faults_of = {"sendto": ["signal=KILL"], "recvfrom": ["signal=KILL", "error=ECONNRESET"]}
    every = [f"{name}:{fault}:when={n}" for name, n in found for fault in faults_of[name]]
    chosen = every[:: -(-len(every) // (MOST // 2))]

    def under(number: int) -> str | None:
        told, output, wrong = endure(number, "-o", "/dev/null", "-e", f"inject={chosen[number]}")
        return wrong and f"{chosen[number]}: {wrong}; it told {told}\n{output[-2_000:]}"

    with ThreadPoolExecutor(2) as workers:
        failed = [one for one in workers.map(under, range(len(chosen))) if one]
    print(f"{len(chosen)} of {len(every)} faults injected")
    assert failed == []


def test_writes_that_are_all_cut_short_are_gone_on_with(tmp_path: Path) -> None:
    library, state = tmp_path / "short.so", tmp_path / "state"
    source = Path(__file__).resolve().parent.parent / "short_writes.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    given = {**os.environ, "LD_PRELOAD": str(library), "SHORT_WRITES": str(tmp_path)}
    # First that it cuts at all.
    wrote = "import os, sys; print(os.write(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), b'x' * 100))"
    command = [sys.executable, "-c", wrote, str(tmp_path / "file")]
    assert subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout == "50\n"
    done = subprocess.run([*PROGRAM, str(state)], env=given, capture_output=True, text=True, timeout=120)
    told = [line.removeprefix("LIFE ") for line in done.stdout.splitlines()]
    assert [line.split(" ")[0] for line in told] == ["BEGUN", "RAN", "ACK", "SENT", "DONE"], done.stdout + done.stderr
    cut = re.search(r"SHORT (\d+)", done.stderr)
    assert cut is not None
    assert int(cut[1]) > 100
    assert broken(state, told, killed=False) is None
