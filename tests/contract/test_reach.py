"""What reach promises: decided in one process, known in all within a second, and denied where it cannot be known."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select, text

from creto.errors import ForkedError, UnauthorizedError
from creto.reach import EVERYTHING, Reach
from creto.store import Store, tables
from servers import Start

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio", "uvloop"])


def run(backend: str, main: object) -> object:
    if backend == "uvloop":
        return anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})  # type: ignore[arg-type]
    return anyio.run(main, backend=backend)  # type: ignore[arg-type]


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with Store(state) as opened:
        yield opened


@pytest.fixture
def reach(store: Store) -> Iterator[Reach]:
    with Reach(store) as opened:
        yield opened


def until(condition: object, seconds: float = 60) -> float:
    start = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() - start < seconds, f"not so within {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - start


TELLER = """
import sys, time
from creto.store import Store, tables
from creto.reach import Reach
reach = Reach(Store({place!r}))
for line in sys.stdin:
    topic, key = line.split()
    reach.publish(topic, key)
    print("told", flush=True)
"""


@BACKENDS
def test_what_one_process_publishes_another_hears_within_a_second(
    reach: Reach, state: Path, python: Start, backend: str
) -> None:
    teller = python(TELLER.format(place=str(state)))
    assert teller.stdin
    assert teller.stdout

    async def main() -> tuple[str, float]:
        async with reach.follow("oversight") as keys:
            teller.stdin.write("quota x\noversight r1\n")  # type: ignore[union-attr]
            teller.stdin.flush()  # type: ignore[union-attr]
            with anyio.fail_after(20):
                key = await anext(keys)
            first = time.monotonic()
            teller.stdin.write("oversight r2\n")  # type: ignore[union-attr]
            teller.stdin.flush()  # type: ignore[union-attr]
            with anyio.fail_after(20):
                assert await anext(keys) == "r2"
            return key, time.monotonic() - first

    key, seconds = run(backend, main)  # type: ignore[misc]
    assert key == "r1"
    assert seconds < 1


def test_where_no_datagram_comes_the_table_tells_within_a_second(
    reach: Reach, state: Path, python: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    reach.on("quota", heard.append)
    for path in (state / "run").glob("*.reach"):
        path.unlink()  # the others can no longer reach this process
    teller = python(TELLER.format(place=str(state)))
    assert teller.stdin
    assert teller.stdout
    teller.stdin.write("quota acme\n")
    teller.stdin.flush()
    assert teller.stdout.readline() == "told\n"
    assert until(lambda: heard == ["acme"]) < 1


def test_a_follower_hears_all_that_came_after_it_began_even_before_it_first_waits(reach: Reach, store: Store) -> None:
    async def main() -> list[str]:
        with store.begin() as tx:
            tx.publish("a", "before")
        reach.catch_up()
        keys = reach.follow("a")
        for key in ("1", "2", "2", "3"):
            reach.publish("a", key)
        reach.catch_up()
        with anyio.fail_after(60):
            return [await anext(keys) for _ in range(3)]

    assert anyio.run(main) == ["1", "2", "3"]


def test_what_is_rolled_back_is_never_heard(reach: Reach, store: Store) -> None:
    heard: list[str] = []
    reach.on("a", heard.append)
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        tx.publish("a", "1")
        _ = 1 // 0
    reach.publish("a", "2")
    reach.catch_up()
    assert heard == ["2"]


def test_one_who_slept_through_too_much_is_told_to_look_at_everything(store: Store, state: Path) -> None:
    with Reach(store) as reach:
        reach.publish("a", "0")
        heard: list[str] = []
        reach.on("a", heard.append)
        reach.catch_up()
        with reach._polling, store.begin() as tx:  # asleep
            for number in range(10_300):
                tx.publish("a", str(number))
        reach.catch_up()
    assert EVERYTHING in heard
    assert heard[-1] == "10299"


def test_the_socket_of_a_dead_process_is_cleared_away(reach: Reach, state: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(state / "run" / "1-dead.reach"))
    dead.close()
    reach.publish("a", "1")
    assert [path.name for path in (state / "run").glob("*dead*")] == []


def test_a_change_is_made_and_said_to_be_made_where_no_descriptor_is_left_to_wake_others_by(
    reach: Reach, store: Store
) -> None:
    reach.publish("policy", "first")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        os.close(taken.pop())
        reach.publish("policy", "second")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with store.read() as tx:
        assert [row.key for row in tx.all(select(tables.notices))] == ["first", "second"]


def test_a_process_that_stopped_reading_holds_up_nobody(reach: Reach, state: Path) -> None:
    full = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    full.bind(str(state / "run" / "1-full.reach"))
    start = time.monotonic()
    for number in range(40):  # more than its queue holds
        reach._wake_all()
        del number
    reach.publish("a", "1")
    assert time.monotonic() - start < 2
    full.close()


def test_a_folder_with_a_long_name_works(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120) / "state"
    with Store(deep) as store, Reach(store) as reach:
        heard = threading.Event()
        reach.on("a", lambda _: heard.set())
        reach.publish("a", "1")
        assert heard.wait(5)


def test_a_process_that_cannot_read_what_others_decided_denies(
    reach: Reach, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach.catch_up()
    reach.require_fresh()
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE notices RENAME TO gone"))
    until(lambda: not reach.fresh)
    with pytest.raises(UnauthorizedError, match=r"^denied: revocations and reloads by other processes cannot be read"):
        reach.require_fresh()
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE gone RENAME TO notices"))
    until(lambda: reach.fresh)
    reach.require_fresh()


def test_a_part_that_cannot_take_up_a_change_makes_the_process_deny_until_it_can(reach: Reach) -> None:
    broken = True
    taken: list[str] = []

    def take(key: str) -> None:
        if broken:
            raise OSError("no room")
        taken.append(key)

    reach.on("policy", take)
    reach.publish("policy", "p1")
    until(lambda: not reach.fresh)
    broken = False
    until(lambda: reach.fresh)
    assert taken == ["p1"]


def test_after_fork_the_child_hears_and_tells_for_itself(reach: Reach, store: Store) -> None:
    heard: list[str] = []
    reach.on("a", heard.append)
    follower = reach.follow("a")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine: list[str] = []
            reach.on("b", mine.append)
            reach.publish("a", "from the child")
            reach.publish("b", "to itself")
            until(lambda: mine == ["to itself"])
            try:
                anyio.run(follower.__anext__)
            except ForkedError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    until(lambda: "from the child" in heard)


def test_closing_takes_the_socket_away_and_ends_every_follower(store: Store, state: Path) -> None:
    reach = Reach(store)
    keys = reach.follow("a")
    assert len(list((state / "run").glob("*.reach"))) == 1
    reach.close()
    assert list((state / "run").iterdir()) == []

    async def main() -> list[str]:
        with anyio.fail_after(60):
            return [key async for key in keys]

    assert anyio.run(main) == []


def test_a_follower_that_waits_is_ended_by_a_close(store: Store) -> None:
    async def main(reach: Reach) -> list[str]:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                keys = reach.follow("a")
                heard: list[str] = []

                async def listen() -> None:
                    async for key in keys:
                        heard.append(key)

                group.start_soon(listen)
                await anyio.sleep(0.05)
                await anyio.to_thread.run_sync(reach.close)
        return heard

    for backend in ("asyncio", "trio"):
        assert anyio.run(main, Reach(store), backend=backend) == []


def test_processes_on_one_database_hear_each_other_without_a_socket(postgres: str, tmp_path: Path) -> None:
    with Store(postgres) as one, Store(postgres) as two, Reach(one) as teller, Reach(two) as listener:
        heard: list[str] = []
        listener.on("a", heard.append)
        teller.publish("a", "1")
        assert until(lambda: heard == ["1"]) < 1
