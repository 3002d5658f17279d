"""What the index of queries promises: the answers of a look at every record, whatever becomes of its file."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from creto import _core
from creto.audit import AuditClient, AuditRecord, _index
from creto.audit._filter import Filter
from creto.audit._reading import scan

AGENTS = [f"spiffe://creto.local/agent/{name}" for name in ("ann", "bob", "cleo")]
ACTIONS = ["http:get", "http:post", "net:connect", "tool:call"]
RESOURCES = ["https://example.org/", "https://example.org/a", "https://example.net/", "search", "äöü/ß", ""]
PEOPLE = ["0a" * 16, "0b" * 16]


@pytest.fixture(scope="module")
def key() -> _core.SigningKey:
    return _core.SigningKey.generate()


def random_record(rng: random.Random, number: int) -> dict[str, Any]:
    kind = rng.choice(["intent", "outcome", "refusal", "event"])
    record: dict[str, Any] = {
        "who": rng.choice(AGENTS),
        "what": rng.choice(ACTIONS),
        "resource": rng.choice(RESOURCES),
        "kind": kind,
        "id": number.to_bytes(16, "big"),
        "act": (number // 2).to_bytes(16, "big"),
        "delegation_chain": rng.sample(AGENTS, rng.randrange(3)),
    }
    if kind == "outcome":
        record["outcome"] = rng.choice(["success", {"failure": "no route"}])
    if rng.random() < 0.2:
        record["detail"] = {"subject": rng.choice(PEOPLE), "personal": "sealed"}
    return record


def write(folder: Path, key: _core.SigningKey, count: int, seed: int = 1, first: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    ledger = _core.Ledger(folder / "ledger", _core.HybridLogicalClock(folder / "clock"), key)
    for number in range(first, first + count):
        ledger.enqueue(random_record(rng, number))
    ledger.close_blocking()
    return ledger.shard


def query(folder: Path, **filters: Any) -> list[AuditRecord]:
    async def main() -> list[AuditRecord]:
        return await AuditClient.reading(folder).query(**filters)

    return anyio.run(main)


def ids(records: list[AuditRecord]) -> list[str]:
    return [record.id for record in records]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, key: _core.SigningKey) -> Iterator[Path]:
    """Two shards that were written at once, one of them held open still, with records under no checkpoint yet."""
    folder = tmp_path_factory.mktemp("mixed")
    clock = _core.HybridLogicalClock(folder / "clock")
    rng = random.Random(7)
    one, two = (_core.Ledger(folder / "ledger", clock, key, checkpoint_seconds=600.0) for _ in range(2))
    for number in range(900):
        (one, two)[number % 2].enqueue(random_record(rng, number))
        if number == 600:
            one.publish_blocking()
            two.publish_blocking()
    two.close_blocking()
    one.durable_blocking(one.enqueue(random_record(rng, 900)))
    yield folder
    one.close_blocking()


def some(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.sampled_from(values))


@settings(max_examples=150)
@given(
    agent=some([*AGENTS, "nobody"]),
    action=some([*ACTIONS, "http:*", "*", "n*", "nothing:*"]),
    resource=some([*RESOURCES, "https://example.org/*", "*", "ä*", "https*"]),
    kind=some(["intent", "outcome", "refusal", "event"]),
    outcome=some(["success", "failure", "refused"]),
    subject=some([*PEOPLE, "0c" * 16]),
    act=st.one_of(st.none(), st.integers(0, 460).map(lambda n: n.to_bytes(16, "big").hex())),
    id=st.one_of(st.none(), st.none(), st.integers(0, 910).map(lambda n: n.to_bytes(16, "big").hex())),
    window=st.one_of(st.none(), st.tuples(st.integers(0, 900), st.integers(0, 900))),
    limit=st.sampled_from([1, 7, 1000]),
)
def test_the_index_finds_what_looking_at_every_record_finds(
    mixed: Path, window: tuple[int, int] | None, limit: int, **fields: str | None
) -> None:
    every = scan(mixed / "ledger", Filter())
    since, until = (every[at].timestamp for at in window) if window else (None, None)
    wanted = Filter(**fields, since=since, until=until)
    from creto.audit._index import LedgerIndex

    index = LedgerIndex(mixed / "ledger", mixed / "index" / "ledger.db")
    index.catch_up()
    found = index.latest(wanted, limit)
    assert found == scan(mixed / "ledger", wanted, limit=limit)
    if limit == 1000:
        assert [record for page in index.each(wanted) for record in page] == found
        assert index.count(wanted) == len(found)


def test_each_query_takes_in_what_has_come_since_and_a_new_process_goes_on_there(
    tmp_path: Path, key: _core.SigningKey
) -> None:
    write(tmp_path, key, 300)
    assert len(query(tmp_path)) == 300
    write(tmp_path, key, 50, seed=2, first=300)
    assert ids(query(tmp_path, limit=60)) == ids(scan(tmp_path / "ledger", Filter(), limit=60))
    code = (
        "import sys; from pathlib import Path; from creto.audit._index import LedgerIndex\n"
        "folder = Path(sys.argv[1]); print(LedgerIndex(folder / 'ledger', folder / 'index/ledger.db').catch_up())"
    )
    write(tmp_path, key, 7, seed=3, first=350)
    taken = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert taken.stdout == "7\n"


def test_processes_that_index_at_once_make_one_index(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path, key, 3_000)
    code = (
        "import sys; from pathlib import Path; from creto.audit import _index\n"
        "_index._BATCH = 50; folder = Path(sys.argv[1])\n"
        "print(_index.LedgerIndex(folder / 'ledger', folder / 'index/ledger.db').catch_up())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    taken = [int(process.communicate(timeout=120)[0]) for process in started]
    assert sum(taken) == 3_000
    assert ids(query(tmp_path, limit=5_000)) == ids(scan(tmp_path / "ledger", Filter(), limit=5_000))


def test_killed_while_it_indexes_it_goes_on_from_the_last_whole_batch(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path, key, 20_000)
    code = (
        "import sys, time; from pathlib import Path; from creto.audit import _index\n"
        "_index._BATCH = 20; folder = Path(sys.argv[1]); print('up', flush=True)\n"
        "def slow(_shard, done, _all): time.sleep(60 if done > 10_000 else 0)\n"  # it does not end before it is killed
        "_index.LedgerIndex(folder / 'ledger', folder / 'index/ledger.db').catch_up(slow)"
    )
    file = tmp_path / "index" / "ledger.db"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    reached = 0
    while process.poll() is None and reached < 100:
        time.sleep(0.01)
        if file.exists():
            with sqlite3.connect(file, timeout=30) as connection:
                try:
                    reached = (connection.execute("SELECT next FROM shard").fetchone() or [0])[0]
                except sqlite3.OperationalError:
                    continue  # not made yet
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with sqlite3.connect(file) as connection:
        reached = connection.execute("SELECT next FROM shard").fetchone()[0]
        assert connection.execute("SELECT count(*), max(at) + 1 FROM record").fetchone() == (reached, reached)
    assert 0 < reached < 20_000
    assert ids(query(tmp_path, limit=30_000)) == ids(scan(tmp_path / "ledger", Filter(), limit=30_000))


@pytest.mark.parametrize("damage", ["no database", "half", "empty", "another format", "rows that are not there"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, key: _core.SigningKey, damage: str) -> None:
    write(tmp_path, key, 500)
    query(tmp_path)
    file = tmp_path / "index" / "ledger.db"
    match damage:
        case "no database":
            file.write_bytes(b"not a database" * 100)
        case "half":
            content = bytearray(file.read_bytes())
            content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
            file.write_bytes(content)
        case "empty":
            file.write_bytes(b"")
        case "another format":
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA user_version = 77")
        case _:
            with sqlite3.connect(file) as connection:
                connection.execute("UPDATE record SET id = id + 1")
    assert ids(query(tmp_path)) == ids(scan(tmp_path / "ledger", Filter()))
    assert ids(query(tmp_path, agent=AGENTS[0])) == ids(scan(tmp_path / "ledger", Filter(agent=AGENTS[0])))


def test_a_ledger_that_was_put_in_anothers_place_is_indexed_anew(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path / "one", key, 400)
    write(tmp_path / "two", key, 500, seed=2, first=10_000)
    query(tmp_path / "one")
    shutil.rmtree(tmp_path / "one" / "ledger")
    shutil.copytree(tmp_path / "two" / "ledger", tmp_path / "one" / "ledger")
    assert ids(query(tmp_path / "one")) == ids(query(tmp_path / "two"))


def test_where_no_index_can_be_made_every_record_is_looked_at(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path, key, 300)
    (tmp_path / "index").write_text("a file where the folder would be")
    assert ids(query(tmp_path, action="http:*")) == ids(scan(tmp_path / "ledger", Filter(action="http:*")))


def test_reindexing_says_how_many_records_there_are_and_how_far_it_is(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path, key, 300)
    told: list[tuple[str, int, int]] = []

    async def main() -> int:
        return await AuditClient.reading(tmp_path).reindex(lambda *far: told.append(far))

    assert anyio.run(main) == 300
    assert anyio.run(main) == 300
    assert told == [("0000", 300, 300)] * 2


def test_whoever_is_cancelled_does_not_wait_for_what_is_verified(tmp_path: Path, key: _core.SigningKey) -> None:
    write(tmp_path, key, 10)
    checked, go, ended = threading.Event(), threading.Event(), threading.Event()

    def progress(_shard: str, done: int, _all: int) -> None:
        if done == 10:
            checked.set()
            go.wait(60)
            ended.set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: AuditClient.reading(tmp_path).verify([key.verifying_key], progress=progress))
            while not checked.is_set():
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        assert not ended.is_set()
        go.set()

    anyio.run(main)
    assert ended.wait(60)


def test_whoever_is_cancelled_does_not_wait_for_the_index_and_it_goes_on_from_there(
    tmp_path: Path, key: _core.SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, key, 2_000)
    monkeypatch.setattr(_index, "_BATCH", 10)
    told: list[int] = []
    go = threading.Event()

    def progress(_shard: str, done: int, _all: int) -> None:
        told.append(done)
        go.wait(60)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: AuditClient.reading(tmp_path).query(progress=progress))
            while not told:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        go.set()

    anyio.run(main)
    assert ids(query(tmp_path, limit=3_000)) == ids(scan(tmp_path / "ledger", Filter(), limit=3_000))
    assert told == [10]
