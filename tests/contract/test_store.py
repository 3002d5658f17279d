"""What the store promises: one winner, all or nothing, and every decided record in the ledger exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import func, select, text

from creto.errors import (
    AlreadyExistsError,
    ForkedError,
    InternalError,
    InvalidInputError,
    LedgerFullError,
    TimeoutError,
    UnauthorizedError,
)
from creto.store import Commit, Store, Transaction, open_folder, tables
from file_ledger import FileLedger
from servers import Start


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, state: Path) -> Iterator[Store]:
    place: str | Path = request.getfixturevalue("postgres") if request.param == "postgres" else state
    with Store(place) as opened:
        yield opened


def rows(store: Store, table: Any = tables.meta) -> int:
    with store.read() as tx:
        return int(tx.scalar(select(func.count()).select_from(table)))


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_is_made_for_its_owner_alone(state: Path) -> None:
    os.umask(old := os.umask(0))
    try:
        open_folder(state)
    finally:
        os.umask(old)
    assert [oct(path.stat().st_mode & 0o777) for path in (state, state / "keys", state / "run")] == ["0o700"] * 3


def test_a_folder_that_others_may_enter_is_refused_with_the_command_that_mends_it(state: Path) -> None:
    state.mkdir(mode=0o750)
    with pytest.raises(UnauthorizedError, match=rf"has mode 0750, .* run `chmod 700 {state}`"):
        Store(state)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(state: Path) -> None:
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    with pytest.raises(UnauthorizedError, match="belongs to user 65534, but this process runs as user 0"):
        Store(state)


def test_a_store_that_a_newer_creto_wrote_is_refused_and_left_alone(state: Path) -> None:
    with Store(state) as store, store.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        InvalidInputError,
        match=r"written by another creto \(schema 9999, this one knows up to .*use the version that wrote it",
    ):
        Store(state)


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as tx:
        context = MigrationContext.configure(tx.connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_schema_is_one_step_behind_nothing() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from creto.store import _schema

    config = Config()
    config.set_main_option("script_location", "creto.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == _schema.HEAD


def test_sqlite_keeps_commits_through_power_loss(state: Path) -> None:
    with Store(state) as store, store.read() as tx:
        assert tx.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert tx.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert tx.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_damaged_store_is_called_damaged(state: Path) -> None:
    from creto.errors import IntegrityError

    open_folder(state)
    (state / "creto.db").write_bytes(b"this is no database " * 400)
    with pytest.raises(IntegrityError, match="is damaged: .*restore it from a backup"):
        Store(state)


def test_a_full_disk_is_called_full_where_sqlite_speaks_of_an_io_error(state: Path) -> None:
    script = """if True:
        import os, sys
        from creto.store import Store
        state, full = sys.argv[1], f"{sys.argv[1]}/all-that-there-is"
        Store(state).close()
        with open(full, "wb", buffering=0) as fill:
            while os.statvfs(state).f_bavail:
                fill.write(bytes(4096))
        try:
            Store(state)
        except Exception as error:
            print(error, "because of", error.__cause__)
        os.unlink(full)
        Store(state).close()
        print("there is room again")
        """
    state.mkdir(mode=0o700)
    inside = 'mount -t tmpfs -o size=2m,mode=700 none "$1" && exec "$0" -c "$2" "$1"'
    command = ["unshare", "-rm", "sh", "-c", inside, sys.executable, str(state), script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        "creto.db` is full; free some room and try again because of (sqlite3.OperationalError) disk I/O" in done.stdout
    )
    assert done.stdout.endswith("there is room again\n"), done.stderr


def test_a_url_that_cannot_be_used_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidInputError, match="cannot use `mysql`") as caught:
        Store("mysql://root:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


# --- one transaction -------------------------------------------------------------------------------------------------


def test_all_of_a_transaction_counts_or_nothing_of_it(store: Store) -> None:
    heard: list[Commit] = []
    store.listeners.append(heard.append)
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        tx.insert(tables.meta, name="a", value="1")
        tx.number("invoice/2026")
        tx.outbox({"what": "agent:create"})
        tx.publish("agents", "a")
        _ = 1 // 0
    assert (rows(store), rows(store, tables.outbox), rows(store, tables.notices), heard) == (0, 0, 0, [])
    with store.begin() as tx:
        assert tx.number("invoice/2026") == 1, "the number came back with the roll-back"


def test_a_row_that_is_there_already_is_an_error_that_says_so(store: Store) -> None:
    with store.begin() as tx:
        tx.insert(tables.meta, name="a", value="1")
    with pytest.raises(AlreadyExistsError, match="has such a row already"), store.begin() as tx:
        tx.insert(tables.meta, name="a", value="2")


def test_what_a_read_sees_does_not_change_under_it(store: Store) -> None:
    with store.read() as tx:
        before = tx.scalar(select(func.count()).select_from(tables.meta))
        with store.begin() as other:
            other.insert(tables.meta, name="a", value="1")
        assert tx.scalar(select(func.count()).select_from(tables.meta)) == before == 0


def test_a_read_cannot_write(store: Store) -> None:
    with store.read() as tx, pytest.raises(InternalError, match="begun by `read` cannot write"):
        tx.insert(tables.meta, name="a", value="1")


def test_a_second_transaction_in_one_thread_is_refused_rather_than_waited_for(store: Store) -> None:
    with store.begin(), pytest.raises(InternalError, match="is open in this thread already"), store.begin():
        pass


def test_a_writer_that_waits_too_long_is_told_so(state: Path) -> None:
    with Store(state) as one, Store(state, timeout=0.2) as two, one.begin():
        with pytest.raises(TimeoutError, match="stayed busy") as caught, two.begin():
            pass
        assert caught.value.should_retry


def test_what_cannot_be_scrubbed_while_another_process_writes_is_told_as_any_wait_for_it(state: Path) -> None:
    busy = pytest.raises(TimeoutError, match=r"the store .*creto.db` stayed busy: database is locked")
    with Store(state) as writer, Store(state, timeout=0.2) as store, writer.begin(), busy:
        store.scrub()


def test_words_beyond_the_signed_range_keep_their_order(store: Store) -> None:
    words = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    with store.begin() as tx:
        for word in reversed(words):
            tx.insert(tables.secrets, name=str(word), agent="*", sealed=b"", created=word)
    with store.read() as tx:
        assert [row[0] for row in tx.all(select(tables.secrets.c.created).order_by(tables.secrets.c.created))] == words


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_callers_run_on_worker_threads_and_lose_no_update(store: Store, backend: str) -> None:
    def add(tx: Transaction) -> int:
        value = int(tx.scalar(select(tables.meta.c.value).where(tables.meta.c.name == "n")) or 0) + 1
        tx.execute(tables.meta.delete())
        tx.insert(tables.meta, name="n", value=str(value))
        return value

    async def main() -> str:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(store.run, add)
        return str(await store.fetch(lambda tx: tx.scalar(select(tables.meta.c.value))))

    assert anyio.run(main, backend=backend) == "40"


def test_a_cancelled_caller_leaves_a_whole_transaction_behind(store: Store) -> None:
    begun = threading.Event()

    def slow(tx: Transaction) -> None:
        tx.insert(tables.meta, name="a", value="1")
        begun.set()
        time.sleep(0.3)
        tx.insert(tables.meta, name="b", value="1")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(store.run, slow)
            while not begun.is_set():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(main)
    assert rows(store) == 2


def test_a_caller_that_asyncio_itself_cancels_waits_for_the_end_of_its_transaction(store: Store) -> None:
    """`wait_for`, `timeout` and `Task.cancel` know no shields."""
    begun, go = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        tx.insert(tables.meta, name="a", value="1")
        begun.set()
        go.wait(60)

    async def main() -> None:
        task = asyncio.create_task(store.run(slow))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.05)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert rows(store) == 1


# --- racing ----------------------------------------------------------------------------------------------------------


def test_among_racing_threads_exactly_one_wins_each_row(store: Store) -> None:
    won: list[int] = []
    with store.begin() as tx:
        tx.insert(tables.epochs, name="turn", value=0)

    def race(me: int) -> None:
        for turn in range(20):
            with store.begin() as tx:
                if tx.swap(
                    tables.epochs, (tables.epochs.c.name == "turn") & (tables.epochs.c.value == turn), value=turn + 1
                ):
                    won.append(me)

    threads = [threading.Thread(target=race, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 20


RACER = """
import sys
from creto.store import Store, tables
place, me = sys.argv[1] if len(sys.argv) > 1 else {place!r}, {me!r}
store = Store(place)
sys.stdin.readline()
won = 0
for i in range(60):
    with store.begin() as tx:
        won += tx.insert_once(tables.meta, name=str(i), value=me)
        tx.number("race")
print(won)
"""


def test_two_processes_racing_for_the_same_rows_share_them_out_with_none_lost_or_doubled(
    store: Store, state: Path, python: Start, request: pytest.FixtureRequest
) -> None:
    place = store._url or str(state)
    racers = [python(RACER.format(place=place, me=str(me))) for me in range(2)]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(won) == 60
    with store.begin() as tx:
        assert tx.number("race") == 121


def test_processes_that_open_a_new_folder_at_once_all_succeed(state: Path, python: Start) -> None:
    code = "from creto.store import Store; Store().close(); print('open')"
    processes = [python(code) for _ in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in outputs] == ["open\n"] * 4, outputs


def test_threads_that_open_new_stores_at_once_each_make_the_tables_of_their_own(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def open_(number: int) -> int:
        start.wait()
        with Store(tmp_path / f"{number}") as store:
            return rows(store)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(open_, range(6))) == [0] * 6


# --- the outbox ------------------------------------------------------------------------------------------------------


def test_a_committed_record_is_in_the_ledger_when_begin_ends(store: Store, tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path, "1")
    store.attach(ledger)
    with store.begin() as tx:
        record = tx.outbox({"who": "spiffe://x/agent/a", "what": "agent:create", "digest": b"\x01", "usage": {"n": 2}})
        now = tx.now
    [kept] = ledger.records()
    assert (kept["id"], kept["timestamp"], kept["digest"], kept["usage"]) == (record, now, "01", {"n": 2})


def test_records_decided_without_a_ledger_wait_for_whoever_has_one(store: Store, tmp_path: Path) -> None:
    with store.begin() as tx:
        first = tx.outbox({"what": "oversight:approve"})
        second = tx.outbox({"what": "oversight:approve"})
    ledger = FileLedger(tmp_path, "1")
    assert store.attach(ledger) == 2
    assert [record["id"] for record in ledger.records()] == [first, second]
    assert rows(store, tables.outbox) == 0


def test_the_rows_of_a_dead_holder_go_to_whoever_takes_its_shard_and_to_no_other(store: Store, tmp_path: Path) -> None:
    dead = FileLedger(tmp_path, "7")
    dead.full = True
    store.attach(dead)
    with pytest.raises(LedgerFullError), store.begin() as tx:
        record = tx.outbox({"what": "x:y"})
    other = FileLedger(tmp_path, "8")
    assert store.attach(other) == 0
    with store.read() as tx:
        assert tx.all(select(tables.outbox.c.shard).distinct()) == [("7",)]
    heir = FileLedger(tmp_path, "7")
    assert store.attach(heir) == 1
    assert [kept["id"] for kept in heir.records()] == [record]


def test_while_the_ledger_takes_nothing_no_further_transaction_is_begun(store: Store, tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path, "1")
    store.attach(ledger)
    ledger.full = True
    with pytest.raises(LedgerFullError), store.begin() as tx:
        first = tx.outbox({"what": "x:y"})
    with pytest.raises(LedgerFullError), store.begin() as tx:
        raise AssertionError("begun all the same")
    ledger.full = False
    with store.begin() as tx:
        second = tx.outbox({"what": "x:z"})
    assert [record["id"] for record in ledger.records()] == [first, second]


def test_a_record_with_a_field_that_none_has_is_refused_and_nothing_is_decided(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="a record has no field `wat`; it has act, "), store.begin() as tx:
        tx.insert(tables.meta, name="a", value="1")
        tx.outbox({"wat": 1})
    assert rows(store) == 0


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from file_ledger import FileLedger
from creto.store import Store, tables
store = Store({place!r})
store.attach(FileLedger(Path({ledger!r}), "1"))
print("ready", flush=True)
i = 0
while True:
    with store.begin() as tx:
        i = tx.number("work")
        tx.insert(tables.meta, name=f"row {{i}}", value="")
        tx.outbox({{"what": "work:do", "resource": f"row {{i}}"}})
    print(i, flush=True)
"""


def test_killed_at_any_moment_every_committed_row_has_its_record_exactly_once(state: Path, tmp_path: Path) -> None:
    code = WRITER.format(tests=str(Path(__file__).parent.parent), place=str(state), ledger=str(tmp_path))
    answered = 0
    for round_ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        answered = max(answered, int(process.stdout.readline()))
        # At a different depth of the loop each time; an odd sleep, not a multiple of what a commit takes.
        time.sleep(0.05 + 0.0137 * round_)
        process.send_signal(signal.SIGKILL)
        out = process.communicate()[0].split()
        answered = max([answered, *(int(line) for line in out)])
    with Store(state) as store:
        ledger = FileLedger(tmp_path, "1")
        store.attach(ledger)
        with store.read() as tx:
            decided = {row[0] for row in tx.all(select(tables.meta.c.name))}
        recorded = Counter(record["resource"] for record in ledger.records())
        assert recorded == Counter(decided)
        assert len(decided) >= answered > 0, "what was answered was not lost"
        assert rows(store, tables.outbox) == 0


# --- fork ------------------------------------------------------------------------------------------------------------


def in_child(work: Any) -> str:
    """What `work()` returns, or raises, in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_after_fork_the_child_opens_anew_and_both_go_on(store: Store) -> None:
    with store.begin() as tx:
        tx.insert(tables.meta, name="parent", value="1")

    def child() -> int:
        with store.begin() as tx:
            tx.insert(tables.meta, name="child", value="1")
        return rows(store)

    assert in_child(child) == "2"
    with store.begin() as tx:
        tx.insert(tables.meta, name="parent again", value="1")
    assert rows(store) == 3


def test_a_transaction_in_flight_fails_in_the_child_and_commits_in_the_parent(store: Store) -> None:
    with store.begin() as tx:
        tx.insert(tables.meta, name="a", value="1")
        said = in_child(lambda: tx.insert(tables.meta, name="b", value="1"))
    assert said.startswith("ForkedError: the transaction on ")
    assert rows(store) == 1


def test_a_block_that_ends_in_the_child_touches_nothing_of_the_parent(store: Store) -> None:

    pid = -1
    try:
        with store.begin() as tx:
            tx.insert(tables.meta, name="a", value="1")
            pid = os.fork()
    except ForkedError:
        os._exit(0 if pid == 0 else 1)
    if pid == 0:
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rows(store) == 1


LEAVER = """
import os, sys
from creto.store import Store, tables
store = Store({place!r})
with store.begin() as tx:
    tx.insert(tables.meta, name="before", value="")
    if os.fork() == 0:
        sys.exit(0)  # through the whole of Python's own end
    os.wait()
    tx.insert(tables.meta, name="after", value="")
with store.begin() as tx:
    tx.insert(tables.meta, name="later", value="")
print("whole")
"""


def test_a_child_that_exits_leaves_the_parents_session_alone(store: Store, state: Path, python: Start) -> None:
    out, err = python(LEAVER.format(place=store._url or str(state))).communicate(timeout=60)
    assert out == "whole\n", err
    assert rows(store) == 3
