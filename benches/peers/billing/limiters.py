"""Nanoseconds of four checks in a row, as four levels need, by other limiters: a line of JSON for each."""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import limits
import pyrate_limiter
import redis
import throttled

LEVELS = ("acme", "research", "reader", "lead")
MOST = 2**62


def told(name: str, number: str, call: Callable[[], Any], calls: int = 200, repeats: int = 101) -> None:
    """Prints the median over short batches."""
    for _ in range(calls):
        call()
    means = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        means.append((time.perf_counter_ns() - start) / calls)
    print(json.dumps({"name": name, "version": number, "value": statistics.median(means)}), flush=True)


def limits_on(storage: Any) -> Callable[[], Any]:
    limiter, item = limits.strategies.FixedWindowRateLimiter(storage), limits.RateLimitItemPerHour(MOST)
    keys = [LEVELS[: place + 1] for place in range(len(LEVELS))]
    return lambda: [limiter.hit(item, *key) for key in keys]


def pyrate() -> Callable[[], Any]:
    limiters = [pyrate_limiter.Limiter(pyrate_limiter.Rate(MOST, pyrate_limiter.Duration.HOUR)) for _ in LEVELS]
    return lambda: [limiter.try_acquire(level, blocking=False) for limiter, level in zip(limiters, LEVELS, strict=True)]


def throttled_py() -> Callable[[], Any]:
    limiter = throttled.Throttled(
        using=throttled.RateLimiterType.FIXED_WINDOW.value,
        quota=throttled.per_hour(MOST),
        store=throttled.MemoryStore(),
    )
    return lambda: [limiter.limit(level) for level in LEVELS]


@contextmanager
def redis_server() -> Iterator[tuple[str, str] | None]:
    """Address and version of a server of one's own on loopback, in memory only; None where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        for _ in range(200):
            try:
                number = str(client.info("server")["redis_version"])  # type: ignore[index]
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        else:
            raise RuntimeError("redis-server does not answer")
        yield f"redis://127.0.0.1:{port}/0", number
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    told("limits", version("limits"), limits_on(limits.storage.MemoryStorage()))
    told("pyrate-limiter", version("pyrate-limiter"), pyrate())
    told("throttled-py", version("throttled-py"), throttled_py())
    with redis_server() as server:
        if server is None:
            print("redis-server is not installed: `.ci/setup bench` installs it", file=sys.stderr)
            return
        url, number = server
        told("limits on Redis", f"{version('limits')}, {number}", limits_on(limits.storage.RedisStorage(url)), 50)


if __name__ == "__main__":
    main()
