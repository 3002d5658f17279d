"""What a durable append of 512 bytes costs elsewhere on the same disk: raw files, SQLite, PostgreSQL, Tessera."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BODY = b"x" * 512

__all__ = ["fdatasync", "postgresql", "sqlite", "tessera"]


def _rate(step: Callable[[], int], seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        count += step()
    return count / (now - start)


def fdatasync(folder: Path, seconds: float, *, preallocated: bool) -> tuple[str, float]:
    """One caller that writes and syncs; a file that is written before, or one that grows with each write.

    Returns:
        What was measured, and microseconds (the median).
    """
    file = folder / "raw"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        if preallocated:
            os.pwrite(descriptor, bytes(32 << 20), 0)
            os.fsync(descriptor)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and len(times) < 60_000:
            start = time.perf_counter()
            os.pwrite(descriptor, BODY, len(times) * len(BODY))
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - start) * 1e6)
        return ("preallocated" if preallocated else "growing") + ", 512 bytes", statistics.median(times)
    finally:
        os.close(descriptor)
        file.unlink()


def sqlite(folder: Path, callers: int, seconds: float) -> tuple[str, float]:
    """WAL, synchronous=FULL; as many rows in one commit as there are callers, which one thread commits for all.

    Returns:
        The version, and rows a second.
    """
    file = folder / "peer.db"
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE records(id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        rows = [(BODY,)] * callers

        def commit() -> int:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO records(body) VALUES (?)", rows)
            connection.execute("COMMIT")
            return callers

        return sqlite3.sqlite_version, _rate(commit, seconds)
    finally:
        connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)


def tessera(folder: Path, callers: int, seconds: float) -> tuple[str, float] | None:
    """Tessera on a POSIX folder, each caller waiting until its entry is integrated on disk; None where there is no Go.

    Returns:
        The version, and entries a second.
    """
    go = shutil.which("go")
    if go is None:
        return None
    place = folder / "tessera"
    program = folder / "tessera-bench"
    if not program.exists():
        subprocess.run([go, "build", "-o", program, "."], cwd=HERE / "tessera", check=True)
    command = [program, place, str(callers), str(max(1, round(seconds)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    shutil.rmtree(place, ignore_errors=True)
    if done.returncode:
        print(f"tessera: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    version, rate = done.stdout.split()
    return version, float(rate)


class PostgreSQL:
    """A server of one's own with its defaults, which sync each commit, and pgbench to write to it."""

    def __init__(self, bin: Path, port: int, who: dict[str, Any], environment: dict[str, str], folder: Path) -> None:
        self._bin, self._port, self._who, self._environment = bin, port, who, environment
        self._folder = folder
        self.version = subprocess.run(
            [bin / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        self._psql("CREATE TABLE records(id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body BYTEA NOT NULL)")

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://bench@127.0.0.1:{self._port}/postgres"

    def _psql(self, statement: str) -> None:
        command = [
            self._bin / "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
            "-U",
            "bench",
            "-c",
            statement,
            "postgres",
        ]
        subprocess.run(command, check=True, capture_output=True, env=self._environment, **self._who)

    def rate(self, callers: int, seconds: float) -> float:
        """Rows a second: each caller a connection, each row a commit of its own; the server groups what it can."""
        script = self._folder / "insert.sql"
        if not script.exists():
            script.write_text(f"INSERT INTO records(body) VALUES (decode('{BODY.hex()}', 'hex'));\n")
            script.chmod(0o644)
        command = [
            self._bin / "pgbench",
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
            "-U",
            "bench",
            "-n",
            "-M",
            "prepared",
        ]
        command += ["-c", str(callers), "-j", "2", "-T", str(max(1, round(seconds))), "-f", str(script), "postgres"]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=True, **self._who)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        if found is None:
            raise RuntimeError(done.stdout)
        self._psql("TRUNCATE records")
        return float(found[1])


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL | None]:
    """A running server on the same disk; None where it, or its pgbench, is not installed."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)
    if not candidates:
        yield None
        return
    bin, place = candidates[0].parent, folder / "postgresql"
    place.mkdir()
    sockets = tempfile.mkdtemp(prefix="creto-bench-", dir="/tmp")
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses root
        user = next(entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        for owned in (place, Path(sockets)):
            os.chown(owned, user.pw_uid, user.pw_gid)
        for above in (place, *place.parents):
            if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o001)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": sockets}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = [bin / "initdb", "-D", place / "data", "-U", "bench", "-A", "trust", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, env=environment, cwd=sockets, **who)
    command = [bin / "postgres", "-D", place / "data", "-p", str(port), "-k", sockets, "-h", "127.0.0.1"]
    command += ["-c", "max_connections=300"]
    with (folder / "postgresql.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=sockets, **who)
        try:
            deadline = time.monotonic() + 60
            ready = [bin / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready, capture_output=True, env=environment, check=False).returncode:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start: see {log.name}")
                time.sleep(0.1)
            yield PostgreSQL(bin, port, who, environment, Path(sockets))
        finally:
            server.terminate()
            server.wait(30)
            shutil.rmtree(sockets, ignore_errors=True)
