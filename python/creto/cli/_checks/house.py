"""Configuration, state folder, store, clock, reach."""

from __future__ import annotations

import os
import threading
import time

from creto.cli._checks import Bench, Check

__all__ = ["CHECKS"]


def _configuration(bench: Bench) -> str:
    count = len(bench.settings.sources)
    bench.settings.policy_files()
    left_out = f"; {'; '.join(bench.settings.warnings)}" if bench.settings.warnings else ""
    return (f"{count} file{'s' if count != 1 else ''} read" if count else "defaults only") + left_out


def _folder(bench: Bench) -> str:
    from creto.store import open_folder

    found = os.statvfs(open_folder(bench.folder))
    free = found.f_bavail * found.f_frsize
    if free < 64 << 20:
        raise OSError(f"only {free >> 20} MiB are free on the disk of `{bench.folder}`; records need room")
    return f"`{bench.folder}` is the owner's alone, {free >> 30} GiB free"


def _store(bench: Bench) -> str:
    from sqlalchemy import text

    from creto.store import Store, tables

    class Undo(Exception):  # noqa: N818
        """Takes the trial write back."""

    url = bench.settings.common.store_url
    start = time.perf_counter()
    with Store(url.get_secret_value() if url else bench.folder) as store:
        try:
            with store.begin() as tx:
                made = tx.insert_once(tables.meta, name="creto doctor", value="")
                twice = tx.insert_once(tables.meta, name="creto doctor", value="")
                raise Undo
        except Undo:
            pass
        with store.read() as tx:
            left = tx.scalar(text("SELECT count(*) FROM meta WHERE name = 'creto doctor'"))
            whole = tx.scalar(text("PRAGMA quick_check")) if store.folder else "ok"
        place = store.place
    if not made or twice or left:
        raise AssertionError(f"`{place}` does not keep rows unique, or does not take a transaction back")
    if whole != "ok":
        raise AssertionError(f"`{place}` is damaged: {whole}")
    return f"wrote, took back and checked `{place}` in {(time.perf_counter() - start) * 1000:.0f} ms"


def _clock(bench: Bench) -> str:
    from creto import _core

    words = [bench.clock.now() for _ in range(1000)]
    if sorted(set(words)) != words:
        raise AssertionError("the clock gave the same time twice, or went back")
    real = _core.HybridLogicalClock(str(bench.folder / "clock"))
    ahead = real.ahead()
    jumps, last, refused = real.jumps()
    if ahead > 60:
        raise AssertionError(f"the folder's time is {ahead:.0f} s ahead of this machine's; set the machine's clock")
    steps = f"; {jumps} steps of the wall clock seen, the last {last:.0f} s" if jumps else ""
    return f"1000 readings, each later than the one before{steps}" + (f"; {refused} refused" if refused else "")


def _reach(bench: Bench) -> str:
    from creto.reach import Reach

    heard = threading.Event()
    with Reach(bench.store) as reach:
        reach.on("doctor", lambda _key: heard.set())
        start = time.perf_counter()
        reach.publish("doctor", "hello")
        if not heard.wait(10):
            raise AssertionError("a notice was not heard within 10 s; processes would not learn of revocations")
        return f"a notice came round in {(time.perf_counter() - start) * 1000:.0f} ms"


CHECKS = [
    Check("configuration", "load every source", _configuration),
    Check("state folder", "owner, mode and room", _folder),
    Check("store", "a write, a second one refused, both taken back", _store),
    Check("clock", "1000 readings in order", _clock),
    Check("reach", "a notice from publish to hearing", _reach),
]
