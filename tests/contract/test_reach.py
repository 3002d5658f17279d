"""What reach promises: decided in one process, known in all within a second, and denied where it cannot be known."""

from __future__ import annotations

import os
import resource
import socket
import sys
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
from quickest import quickest
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

    async def main() -> tuple[str, list[float]]:
        async with reach.follow("oversight") as keys:
            teller.stdin.write("quota x\noversight r1\n")  # type: ignore[union-attr]
            teller.stdin.flush()  # type: ignore[union-attr]
            with anyio.fail_after(60):
                key = await anext(keys)
            seconds = []
            for number in range(8):
                begun = time.monotonic()
                teller.stdin.write(f"oversight {number}\n")  # type: ignore[union-attr]
                teller.stdin.flush()  # type: ignore[union-attr]
                with anyio.fail_after(60):
                    assert await anext(keys) == f"{number}"
                seconds.append(time.monotonic() - begun)
            return key, seconds

    key, seconds = run(backend, main)  # type: ignore[misc]
    assert key == "r1"
    assert min(seconds) < 1  # a busy machine holds up any one of them


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

    def told() -> float:
        heard.clear()
        teller.stdin.write("quota acme\n")  # type: ignore[union-attr]
        teller.stdin.flush()  # type: ignore[union-attr]
        assert teller.stdout.readline() == "told\n"  # type: ignore[union-attr]
        return until(lambda: heard == ["acme"])

    assert quickest(told, 1) < 1


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

    def told() -> float:
        start = time.monotonic()
        for _ in range(40):  # more than its queue holds
            reach._wake_all()
        reach.publish("a", "1")
        return time.monotonic() - start

    assert quickest(told, 2) < 2
    full.close()


def test_a_folder_with_a_long_name_works(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120) / "state"
    with Store(deep) as store, Reach(store) as reach:
        heard = threading.Event()
        reach.on("a", lambda _: heard.set())
        reach.publish("a", "1")
        assert heard.wait(60)


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


def test_a_child_that_slept_since_the_fork_hears_what_came_meanwhile_before_it_is_fresh(
    reach: Reach, store: Store
) -> None:
    """A revocation, say: a worker that was forked ahead and begins to work later must know of it."""
    heard: list[str] = []
    reach.on("a", heard.append)
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(told, 1)
            reach._read_at = 0.0  # so long it slept
            if reach.fresh:
                code = 0 if heard == ["while it slept"] else 2
        finally:
            os._exit(code)
    reach.publish("a", "while it slept")
    os.write(tell, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(told)
    os.close(tell)


def test_one_who_asks_to_be_called_late_is_told_to_look_at_everything(reach: Reach) -> None:
    reach.follow("a").close()  # from here on it listens
    early: list[str] = []
    reach.on("a", early.append)
    reach.publish("a", "1")
    reach.catch_up()
    late: list[str] = []
    reach.on("a", late.append)  # who had read the store before that
    assert (early, late) == (["1"], [EVERYTHING])


def test_followers_come_and_go_while_others_are_told(reach: Reach) -> None:
    standing = [reach.follow("b") for _ in range(1_000)]
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            reach.follow("a").close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    coming = threading.Thread(target=come_and_go)
    coming.start()
    try:
        for number in range(400):
            reach._dispatch("a", str(number))
    finally:
        ended.set()
        coming.join()
        sys.setswitchinterval(interval)
    assert len(reach._followers) == len(standing)


def test_it_is_not_fresh_between_one_look_and_the_next_where_there_is_more_than_one_look_takes(
    reach: Reach, store: Store
) -> None:
    ages: list[float] = []
    reach.on("a", lambda _: ages.append(reach._read_at))
    with reach._polling, store.begin() as tx:
        for number in range(1_001):
            tx.publish("a", str(number))
    reach.catch_up()
    assert len(ages) == 1_001
    assert ages[-1] == ages[0] < reach._read_at


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

        def told() -> float:
            heard.clear()
            teller.publish("a", "1")
            return until(lambda: heard == ["1"])

        assert quickest(told, 1) < 1
