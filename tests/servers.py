"""Real servers on loopback for the tests: PostgreSQL, NATS and SMTP, each on a free port, gone with the session.

A server that this machine lacks skips the tests that need it, and says what to install.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

import pytest

_names = itertools.count(1)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _needed(program: str, *folders: str, package: str) -> str:
    found = shutil.which(program)
    candidates = [Path(found)] if found else []
    for folder in folders:
        candidates += sorted(Path("/").glob(f"{folder.lstrip('/')}/{program}"), reverse=True)
    if not candidates:
        pytest.skip(f"needs {program}: apt-get install {package}")
    return str(candidates[0])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def _running(
    command: list[str], port: int, folder: Path, stop: signal.Signals = signal.SIGTERM, **options: object
) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, **options)  # type: ignore[call-overload]
        try:
            _wait_for(port, process, log)
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)


def _unprivileged() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running PostgreSQL's own database."""
    initdb = _needed("initdb", "/usr/lib/postgresql/*/bin", package="postgresql")
    server = _needed("postgres", "/usr/lib/postgresql/*/bin", package="postgresql")
    folder = Path(tempfile.mkdtemp(prefix="creto-pg-", dir="/tmp"))  # a short path: sockets have 108 bytes
    who = _unprivileged()
    if who:
        os.chown(folder, who["user"], who["group"])  # type: ignore[arg-type]
    try:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        subprocess.run(  # type: ignore[call-overload]
            [initdb, "-D", f"{folder}/data", "-U", "creto", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            env=environment,
            cwd=folder,
            **who,
        )
        port = free_port()
        command = [server, "-D", f"{folder}/data", "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
        command += [
            "-c",
            "fsync=off",
        ]  # nothing of it outlives the session; that commits are kept is PostgreSQL's promise
        with _running(command, port, folder, signal.SIGQUIT, env=environment, **who):
            yield f"postgresql://creto@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty database of one's own."""
    import psycopg

    name = f"test_{os.getpid()}_{next(_names)}"
    deadline = time.monotonic() + 20
    while True:
        try:
            with psycopg.connect(postgres_server, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:  # listening comes a little before answering
                raise
            time.sleep(0.1)
    return postgres_server.rpartition("/")[0] + f"/{name}"


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running NATS server with JetStream."""
    server = _needed("nats-server", str(Path(sys.executable).parent), package="nats-server (or: make venv)")
    folder = tmp_path_factory.mktemp("nats")
    port = free_port()
    command = [server, "--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(folder)]
    with _running(command, port, folder):
        yield f"nats://127.0.0.1:{port}"


class Mailbox:
    """What a mail server has taken in."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.messages: list[Message] = []

    def wait(self, count: int = 1, seconds: float = 60) -> list[Message]:
        """The messages, once there are `count`."""
        deadline = time.monotonic() + seconds
        while len(self.messages) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.messages)} of {count} messages came within {seconds} s")
            time.sleep(0.02)
        return self.messages


@pytest.fixture
def smtp() -> Iterator[Mailbox]:
    """A mail server that keeps what it is sent."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Message as Handler

    class Keep(Handler):
        def handle_message(self, message: Message) -> None:
            mailbox.messages.append(message)

    mailbox = Mailbox("127.0.0.1", free_port())
    controller = Controller(Keep(), hostname=mailbox.host, port=mailbox.port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of one's own, which `CRETO_STATE` names."""
    folder = tmp_path / "state"
    monkeypatch.setenv("CRETO_STATE", str(folder))
    return folder


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def python(state: Path) -> Iterator[Start]:
    """Starts further Python processes on the same state folder; kills those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CRETO_STATE": str(state)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
