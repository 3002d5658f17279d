"""The native module under what processes go through: signals, threads, event loops, forks, ends at any time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import house as native
import pytest
from house import LIMIT, House

from creto import _bridge, _core
from creto.errors import CretoError, QuotaExceededError, TimeoutError, UnauthorizedError
from quickest import quickest

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio", "uvloop"])
NEVER = 2**62  # a ticket that no record will get


def run(backend: str, main: Callable[..., Any], *args: Any) -> Any:
    if backend == "uvloop":
        return anyio.run(main, *args, backend="asyncio", backend_options={"use_uvloop": True})
    return anyio.run(main, *args, backend=backend)


def script(state: Path, body: str) -> list[str]:
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    head += f"from pathlib import Path; from house import build, LIMIT\nhouse = build(Path({str(state)!r}))\n"
    return [sys.executable, "-c", head + textwrap.dedent(body)]


def counted(state: Path) -> int:
    """Outcomes that are in the ledger, after whoever held the shard has gone."""
    house = native.build(state)
    try:
        house.ledger.publish_blocking(10)
        total = 0
        for name in _core.ledger_shards(str(state / "ledger")):
            shard = _core.LedgerShard(str(state / "ledger" / name))
            checkpoint = shard.checkpoint()
            size = int(checkpoint["size"]) if checkpoint else 0
            total += sum(record["kind"] == "outcome" for record in shard.records(0, size, size)) if size else 0
        return total
    finally:
        house.ledger.close_blocking()


# --- signals ---------------------------------------------------------------------------------------------------------


WAITS = {
    "a record that never becomes durable": "house.ledger.durable_blocking(2**62, 60)",
    "the same without a deadline": "house.ledger.durable_blocking(2**62, None)",
    "an event loop": "anyio.run(_bridge.wait, lambda b, t: None)",
    "a trio loop": "anyio.run(_bridge.wait, lambda b, t: None, backend='trio')",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_ctrl_c_ends_a_blocking_wait_within_200_ms(state: Path, wait: str) -> None:
    body = f"""
    import time, anyio
    from creto import _bridge
    try:
        print("waiting", flush=True)
        {wait}
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    house.ledger.close_blocking()
    """

    def interrupted() -> float:
        process = subprocess.Popen(script(state, body), stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.5)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=40)[0]
        assert process.returncode == 0
        return float(out) - sent

    assert quickest(interrupted, 0.2) < 0.2


def test_a_blocking_wait_has_its_deadline(house: House) -> None:
    def waited() -> float:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="the deadline passed"):
            house.ledger.durable_blocking(NEVER, 0.25)
        return time.monotonic() - start

    assert 0.2 < quickest(waited, 2) < 2


def test_a_blocking_wait_lets_other_threads_run(house: House) -> None:
    def wait() -> None:
        with contextlib.suppress(TimeoutError):
            house.ledger.durable_blocking(NEVER, 1.0)

    waiting = threading.Thread(target=wait)
    waiting.start()
    steps = 0
    while waiting.is_alive():
        steps += 1
        time.sleep(0.001)
    assert steps > 10, "a wait that keeps the interpreter to itself leaves room for two"


# --- event loops -----------------------------------------------------------------------------------------------------


@BACKENDS
def test_work_that_ends_on_a_rust_thread_is_awaited_on_every_loop(house: House, backend: str) -> None:
    async def main() -> None:
        principal = house.principal()
        for number in range(20):
            ticket = house.act(principal, number)
            with anyio.fail_after(60):
                await _bridge.wait(lambda bridge, token, ticket=ticket: house.ledger.durable(ticket, bridge, token))

    run(backend, main)


@BACKENDS
def test_512_waits_at_once_are_all_woken(house: House, backend: str) -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        ticket = house.act(house.principal(), number)
        await _bridge.wait(lambda bridge, token: house.ledger.durable(ticket, bridge, token))
        done.append(number)

    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(512):
                    group.start_soon(one, number)

    run(backend, main)
    assert sorted(done) == list(range(512))


@BACKENDS
def test_a_cancelled_wait_is_forgotten_and_the_next_one_works(house: House, backend: str) -> None:
    async def main() -> None:
        for _ in range(3):
            with anyio.move_on_after(0.02) as scope:
                await _bridge.wait(lambda _bridge, _token: None)  # started, and never completed
            assert scope.cancelled_caught
        ticket = house.act(house.principal())
        with anyio.fail_after(60):
            await _bridge.wait(lambda bridge, token: house.ledger.durable(ticket, bridge, token))

    run(backend, main)


def test_loops_in_different_threads_get_their_own_completions(house: House) -> None:
    seen: dict[str, int] = {}

    async def main(name: str) -> None:
        for number in range(50):
            ticket = house.act(house.principal(name), number)
            await _bridge.wait(lambda bridge, token, ticket=ticket: house.ledger.durable(ticket, bridge, token))
        seen[name] = 50

    threads = [
        threading.Thread(target=run, args=(backend, main, f"{backend}-{number}"))
        for number, backend in enumerate(["asyncio", "trio", "uvloop", "asyncio"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 4


# --- threads ---------------------------------------------------------------------------------------------------------


def test_64_threads_get_exactly_the_quota_and_every_act_is_recorded(state: Path) -> None:
    house = native.build(state)
    allowed: list[int] = []
    refused: list[int] = []

    def work(me: int) -> None:
        principal = house.principal(f"worker-{me % 8}")
        mine = [0, 0]
        for number in range(100):
            try:
                house.act(principal, number)
                mine[0] += 1
            except QuotaExceededError as error:
                mine[1] += error.limit == LIMIT
        allowed.append(mine[0])
        refused.append(mine[1])

    threads = [threading.Thread(target=work, args=(me,)) for me in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    house.ledger.close_blocking()
    assert (sum(allowed), sum(refused)) == (LIMIT, 6400 - LIMIT)
    assert counted(state) == LIMIT


def test_64_threads_on_one_clock_never_see_the_same_time_twice(house: House) -> None:
    words: list[list[int]] = []

    def read() -> None:
        words.append([house.clock.now() for _ in range(500)])

    threads = [threading.Thread(target=read) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in words)
    assert len({word for mine in words for word in mine}) == 64 * 500


# --- fork ------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], Any]) -> str:
    """What `work()` returns, or raises, in a forked child that has 20 s."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child hung or died"
    return said


def test_the_parents_ledger_refuses_in_the_child_and_goes_on_in_the_parent(house: House) -> None:
    house.act(house.principal())
    said = in_child(lambda: house.ledger.append_blocking({"who": "child", "what": "child:write"}, 5))
    assert said.startswith("ForkedError: "), said
    house.ledger.durable_blocking(house.act(house.principal()), 10)


def test_a_wait_of_the_parents_fails_in_the_child(house: House) -> None:
    async def wait() -> None:
        with anyio.fail_after(60):
            await _bridge.wait(lambda bridge, token: house.ledger.durable(1, bridge, token))

    assert in_child(lambda: anyio.run(wait)).startswith("ForkedError: ")


def test_a_child_opens_its_own_shard_and_both_histories_are_whole(state: Path) -> None:
    house = native.build(state)
    principal = house.principal()
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            try:
                house.act(principal)
            except QuotaExceededError:
                return

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()

    def child() -> int:
        own = native.build(state)
        for number in range(50):
            own.act(own.principal("child"), number)
        own.ledger.close_blocking()
        return own.ledger.shard != house.ledger.shard

    said = in_child(child)
    stop.set()
    for thread in threads:
        thread.join()
    house.ledger.close_blocking()
    assert said == "True"
    assert len(_core.ledger_shards(str(state / "ledger"))) >= 2
    assert counted(state) >= 50


def test_the_clock_goes_on_in_parent_and_child_without_a_time_given_twice(house: House) -> None:
    before = house.clock.now()
    child = [int(word) for word in in_child(lambda: " ".join(str(house.clock.now()) for _ in range(2000))).split()]
    parent = [house.clock.now() for _ in range(2000)]
    assert before < min(child)
    assert not set(child) & set(parent)


# --- the end ---------------------------------------------------------------------------------------------------------


ENDS = {
    "the last line, threads writing": "",
    "sys.exit, threads writing": "sys.exit(0)",
    "os._exit, threads writing": "import os; os._exit(0)",
    "an exception": "sys.excepthook = lambda *_: None; raise RuntimeError",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_process_may_end_under_load_at_any_line(state: Path, end: str) -> None:
    body = f"""
    import sys, threading, time
    def busy():
        principal = house.principal()
        while True:
            try:
                house.act(principal)
            except Exception:
                return
    for _ in range(8):
        threading.Thread(target=busy, daemon=True).start()
    house.ledger.durable_blocking(house.act(house.principal()), 60)
    time.sleep(0.3)
    {end}
    """
    ended = subprocess.run(script(state, body), capture_output=True, text=True, timeout=60)
    assert ended.returncode in {0, 1}, ended.stderr
    assert "Fatal" not in ended.stderr
    assert "panicked" not in ended.stderr
    assert counted(state) > 0, "what was written is there, and the shard can be taken over"


def test_a_loop_may_end_with_waits_pending(state: Path) -> None:
    body = """
    import anyio
    from creto import _bridge
    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(_bridge.wait, lambda b, t: None)
            await anyio.sleep(0.1)
            raise SystemExit(7)
    for backend in ("asyncio", "trio"):
        try:
            anyio.run(main, backend=backend)
        except BaseException as error:
            print(type(error).__name__)
    """
    ended = subprocess.run(script(state, body), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stdout.split()) == 2


def test_killed_under_load_nothing_that_was_durable_is_lost(state: Path) -> None:
    body = """
    principal = house.principal()
    number = 0
    while True:
        house.ledger.durable_blocking(house.act(principal, number), 10)
        number += 1
        print(number, flush=True)
    """
    process = subprocess.Popen(script(state, body), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    first = process.stdout.readline()
    assert first == "1\n"
    assert process.stdout.readline() == "2\n"
    time.sleep(0.4)
    process.kill()
    durable = int(process.communicate()[0].split()[-1])
    assert counted(state) >= durable > 1


# --- refusals --------------------------------------------------------------------------------------------------------


def test_whatever_is_asked_the_gate_answers_with_one_of_our_errors_and_lives(house: House) -> None:
    """The panic inside that is a denial is provoked in the gate's own tests; here, all that Python can hand in."""
    principal = house.principal()
    hostile: list[tuple[Any, ...]] = [
        ("", ""),
        ("tool:call", "\0"),
        ("tool:call", "x" * 1_000_000),
        ("nocolon", "x"),
        ("tool:call", 'Tool::"a"b"'),
        ("tool:call", "x", {"deep": [[[[[[[[]]]]]]]]}),
        ("tool:call", "x", {"big": 2**63}),
        ("tool:call", "x", {"float": 1.5}),
        ("tool:call", "x", {"none": None}),
        ("tool:call", "x", {"\ud800": "lone surrogate"}),
        ("tool:call", "x", {}, {"tool_calls": 2**64}),
        ("tool:call", "x", {}, {"tool_calls": -1}),
        ("tool:call", "x", {}, {"no such meter": 1}),
    ]
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    hostile.append(("tool:call", "x", cyclic))
    for asked in hostile:
        with contextlib.suppress(CretoError, TypeError, ValueError, OverflowError, UnicodeEncodeError):
            house.gate.enter(principal, *asked).settle("tried only", None)
    with pytest.raises(UnauthorizedError):
        house.gate.enter(principal, "fs:read", "/etc/shadow", {"path": "/etc/shadow"}, None, None)
    house.act(principal)
