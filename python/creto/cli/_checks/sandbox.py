"""Sandboxes: that a program inside sees neither the host's secrets nor its network, and no more."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

import anyio

from creto.cli._checks import Bench, Check, Missing
from creto.errors import NotFoundError, SandboxSpawnFailedError

__all__ = ["CHECKS"]

# What a program that means harm tries first; each line of its answer names what it got.
_ESCAPE = """
import json, os, socket
got = []
for path in ("/etc/shadow", os.environ.get("DOCTOR_KEY", ""), "/run/docker.sock", "/proc/1/environ"):
    try:
        with open(path, "rb") as file:
            if b"doctor-host-secret" in file.read() or path == "/etc/shadow":
                got.append(path)
    except OSError:
        pass
for address in json.loads(os.environ["DOCTOR_ADDRESSES"]):
    try:
        with socket.create_connection(tuple(address), timeout=3) as line:
            # A connection alone is none to the outside: it ends at the proxy, which asks and then resets it.
            line.settimeout(3)
            line.sendall(b"GET / HTTP/1.0\\r\\nHost: doctor\\r\\n\\r\\n")
            answer = line.recv(64)
            if answer.split(b" ")[1:2] == [b"200"]:
                got.append("%s:%d" % tuple(address))
    except OSError:
        pass
print(json.dumps(got))
"""


class _Hooks:
    """Says no to everything but the trial itself."""

    async def egress(self, host: str, port: int, scheme: str | None) -> bool:
        return False

    async def command(self, argv: Sequence[str]) -> bool:
        return True

    async def changes(self, changes: Sequence[Any]) -> list[Any]:
        return []


class _Listener:
    """A server of the host's, on every address of it, that no sandbox may reach."""

    def __init__(self) -> None:
        self._server = socket.create_server(("", 0))
        self.port: int = self._server.getsockname()[1]
        self.heard: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, (host, *_) = self._server.accept()
                self.heard.append(host)
                line.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                line.close()

    def addresses(self) -> list[tuple[str, int]]:
        """Where it can be reached on the host: its loopback, and the address by which it would leave."""
        found = ["127.0.0.1"]
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks the routing table
            found.append(probe.getsockname()[0])
        return [(host, self.port) for host in dict.fromkeys(found)]

    def close(self) -> None:
        """Stops it."""
        self._server.close()


def _escape(backend: str) -> Any:
    def run(bench: Bench) -> str:
        from creto.runtime import Pool

        key = bench.scratch / "keys" / "doctor.key"
        key.write_text("doctor-host-secret")
        work = bench.scratch.parent / f"work-{backend}"
        work.mkdir(exist_ok=True)

        listener = bench.keep(found := _Listener(), found.close)
        addresses = [*listener.addresses(), ("1.1.1.1", 80), ("169.254.169.254", 80)]
        environment = {"DOCTOR_KEY": str(key), "DOCTOR_ADDRESSES": json.dumps(addresses)}

        async def main() -> list[str]:
            settings = bench.settings.runtime.model_copy(update={"warm_pool_min_size": 0, "warm_pool_max_size": 1})
            with anyio.fail_after(120):
                async with (
                    Pool(settings, bench.scratch, backend=backend) as pool,
                    pool.claim("doctor", work, _Hooks()) as box,
                ):
                    result = await box.run(["python3", "-c", _ESCAPE], env=environment)
            if result.status != 0:
                raise AssertionError(f"the trial program ended with {result.status}: {result.stderr[-300:]!r}")
            got: list[str] = json.loads(result.stdout)
            return got

        try:
            got = anyio.run(main)
        except (NotFoundError, SandboxSpawnFailedError) as error:
            raise Missing(str(error)) from error
        got += [f"the host's own server, from {host}" for host in listener.heard]
        if got:
            raise AssertionError(f"a program in the sandbox reached {', '.join(got)}")
        return "a hostile program reached no host file, no network and no metadata address"

    return run


CHECKS = [
    Check("sandbox", "an escape try in `gvisor`", _escape("gvisor")),
    Check("sandbox", "an escape try in `process`", _escape("process")),
]
