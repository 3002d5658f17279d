"""Attacks on the way out of a sandbox: what a connection carries, what it costs, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from creto.runtime import Pool
from sandboxes import BACKENDS, Answers, Bench, http_server, skip_unless

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pool, Path, str]]:
    skip_unless(request.param)
    state = tmp_path_factory.mktemp("state")
    size = {"warm_pool_min_size": 1, "warm_pool_max_size": 2}
    with http_server() as (port, _):
        pool = Pool(size, state, backend=request.param, hosts={"packages.example": f"127.0.0.1:{port}"})
        yield pool, state, request.param
        anyio.run(pool.close)


@pytest.fixture
def bench(pool: tuple[Pool, Path, str], tmp_path: Path) -> Bench:
    project = tmp_path / "project"
    project.mkdir()
    return Bench(pool[0], pool[1], project, pool[2])


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
        with anyio.fail_after(20):
            while len(box.connections) + box.before["refused"] < 3000:
                await anyio.sleep(0.02)
        assert len(box.connections) <= 1000
        assert {(c.host, c.port, c.allowed) for c in box.connections} == {("8.8.8.8", 80, False)}


REQUESTS = """
import http.client
one = http.client.HTTPConnection("packages.example")
for n in range(200):
    one.request("GET", f"/{n}?" + "x" * 60_000)
    one.getresponse().read()
"""


async def test_what_is_kept_of_a_connection_s_requests_is_bounded_too(bench: Bench) -> None:
    async with bench.box(Answers(allow=["packages.example"])) as box:
        result = await box.run(["python3", "-c", REQUESTS])
        assert result.status == 0, result.stderr
        [connection] = box.connections
        assert connection.requests is not None
        assert connection.requests[-1].startswith("GET /199?")
        assert sum(map(len, connection.requests)) <= 50 * 500
