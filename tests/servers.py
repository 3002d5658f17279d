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


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
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
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)


def _unprivileged() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgreSQL:
    """A server on loopback, with what is needed to take it away and bring it back.

    Args:
        folder: Its own, with a short path: sockets have 108 bytes.
        settings: As of `postgresql.conf`, such as `max_connections=10`.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._settings = settings
        self._user = _unprivileged()
        self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])  # type: ignore[arg-type]
        initdb = _needed("initdb", "/usr/lib/postgresql/*/bin", package="postgresql")
        subprocess.run(  # type: ignore[call-overload]
            [initdb, "-D", f"{folder}/data", "-U", "creto", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            env=self._environment,
            cwd=folder,
            **self._user,
        )

    def url(self, database: str = "postgres", user: str = "creto") -> str:
        """The URL of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def running(self, *settings: str) -> Iterator[None]:
        """It answers within, and is gone at the end, as after a crash."""
        server = _needed("postgres", "/usr/lib/postgresql/*/bin", package="postgresql")
        command = [server, "-D", f"{self.folder}/data", "-p", str(self.port), "-k", str(self.folder)]
        # Nothing of it outlives the session; that commits are kept is PostgreSQL's promise.
        for setting in ("listen_addresses=127.0.0.1", "fsync=off", *self._settings, *settings):
            command += ["-c", setting]
        with _running(command, self.port, self.folder, signal.SIGQUIT, env=self._environment, **self._user):
            self.say("SELECT 1")
            yield

    def say(self, sql: str, database: str = "postgres") -> None:
        """Runs statements of its superuser's, once it answers."""
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.url(database), autocommit=True) as connection:
                    connection.execute(sql)  # type: ignore[arg-type]
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:  # listening comes a little before answering
                    raise
                time.sleep(0.1)

    def database(self, options: str = "") -> str:
        """The name of an empty database of one's own."""
        name = f"test_{os.getpid()}_{next(_names)}"
        self.say(f'CREATE DATABASE "{name}" {options}')
        return name


@contextlib.contextmanager
def postgresql(*settings: str) -> Iterator[PostgreSQL]:
    """A server that does not run yet, gone with its folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="creto-pg-", dir="/tmp"))
    try:
        yield PostgreSQL(folder, *settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL that runs as long as the tests."""
    with postgresql() as server, server.running():
        yield server


@pytest.fixture
def postgres(postgres_server: PostgreSQL) -> str:
    """The URL of an empty database of one's own."""
    return postgres_server.url(postgres_server.database())


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
