"""Pools of real sandboxes for the tests, and servers that nothing inside may reach."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto.errors import NotFoundError
from creto.runtime import Box, Change, Pool, find_runsc

AGENT = "spiffe://creto.local/agent/tester"
BACKENDS = ("gvisor", "process")


def why_not(backend: str) -> str | None:
    """Why a backend cannot be tried on this machine, if it cannot."""
    if os.geteuid() != 0:
        return f"the backend `{backend}` needs root for its namespaces"
    if backend == "gvisor":
        try:
            find_runsc()
        except NotFoundError as error:
            return str(error)
    return None


@dataclass
class Answers:
    """Hooks that say what a test tells them to, and remember what they were asked."""

    allow: Sequence[str] = ()
    asked: list[tuple[str, int, str | None]] = field(default_factory=list)

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        self.asked.append((host, port, scheme))
        return host in self.allow

    async def command(self, argv: Sequence[str]) -> bool:
        return True

    async def changes(self, changes: list[Change]) -> list[Change]:
        return [change for change in changes if change.refused is None]


@dataclass
class Bench:
    """A pool, a working folder and a way to claim."""

    pool: Pool
    state: Path
    project: Path
    backend: str
    seen: list[str] = field(default_factory=list)
    """Requests that came to `packages.example`."""

    @contextlib.asynccontextmanager
    async def box(self, hooks: Any = None, **options: Any) -> AsyncIterator[Box]:
        async with self.pool.claim(AGENT, self.project, hooks or Answers(), **options) as box:
            yield box


@dataclass
class Served:
    """A pool whose sandboxes know `packages.example`, a server of this machine at `port`."""

    pool: Pool
    state: Path
    backend: str
    port: int
    seen: list[str]

    def bench(self, project: Path) -> Bench:
        """A new working folder; requests of the test before are forgotten."""
        project.mkdir()
        self.seen.clear()
        return Bench(self.pool, self.state, project, self.backend, self.seen)


@contextlib.contextmanager
def served(backend: str, state: Path, size: dict[str, Any]) -> Iterator[Served]:
    """A pool of this size and its server; skips the test where the backend cannot be tried."""
    skip_unless(backend)
    with http_server() as (port, seen):
        pool = Pool(size, state, backend=backend, hosts={"packages.example": f"127.0.0.1:{port}"})
        yield Served(pool, state, backend, port, seen)
        anyio.run(pool.close)


async def sh(box: Box, script: str, **options: Any) -> str:
    """Runs a shell script inside and gives back all that it printed."""
    result = await box.run(["bash", "-c", f"exec 2>&1; {script}"], **options)
    return result.stdout.decode(errors="replace").strip()


@contextlib.contextmanager
def http_server(body: bytes = b"served\n", host: str = "127.0.0.1") -> Iterator[tuple[int, list[str]]]:
    """A server that answers every request with `body`: its port, and the requests that came."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append(f"{self.headers['Host']}{self.path}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1], seen
        server.shutdown()


@contextlib.contextmanager
def udp_server(port: int = 0) -> Iterator[tuple[socket.socket, int]]:
    """A socket on every address of this machine that takes datagrams, as a server far away would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        server.settimeout(0.5)
        yield server, server.getsockname()[1]


def own_address() -> str:
    """An address of this machine that is not loopback; 127.0.0.1 where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.99", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def skip_unless(backend: str) -> None:
    """Skips the test, naming the reason, where the backend cannot be tried."""
    reason = why_not(backend)
    if reason:
        pytest.skip(reason)
