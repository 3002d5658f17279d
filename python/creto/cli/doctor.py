"""`creto doctor`: tries every part for real; it never takes an import, or a file that is there, for a proof."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module

import click

from creto.cli._failure import leaf
from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["command"]


@click.command()
@click.argument("parts", nargs=-1)
@json_option
@pass_frame
def command(frame: Frame, parts: tuple[str, ...]) -> int:
    """Try every part, or only PARTS, and say what was seen.

    Each line is something that was done just now: a denial, a forged signature, a tampered record, an escape from a
    sandbox. What could change the state folder is tried in a scratch folder. Exit code 1 where something failed;
    what is only missing (an optional backend, say) is no failure.

    \b
    Example:
      creto doctor sandbox ledger
    """
    from creto.cli._checks import MODULES, Bench, Missing, Status

    checks = [check for name in MODULES for check in import_module(f"creto.cli._checks.{name}").CHECKS]
    known = list(dict.fromkeys(check.part for check in checks))
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise click.UsageError(f"there is no part `{unknown[0]}`; there are {', '.join(known)}")
    bench = Bench(frame.folder, frame.settings)
    rows: list[tuple[str, str, Status, float, str]] = []
    try:
        for check in checks:
            if parts and check.part not in parts:
                continue
            start = time.perf_counter()
            status: Status = "ok"
            try:
                seen = check.run(bench)
            except Missing as error:
                status, seen = "missing", str(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what this check saw
                cause = leaf(error)
                status, seen = "failed", str(cause) or type(cause).__name__
            rows.append((check.part, check.name, status, time.perf_counter() - start, seen))
    finally:
        bench.close()
    if frame.json:
        keys = ("part", "tried", "status", "seconds", "seen")
        frame.show([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        _print(rows)
    return 1 if any(status == "failed" for _, _, status, _, _ in rows) else 0


def _print(rows: Sequence[tuple[str, str, str, float, str]]) -> None:
    colours = {"ok": "green", "missing": "yellow", "failed": "red"}
    width = max(len(part) for part, *_ in rows)
    for part, tried, status, seconds, seen in rows:
        mark = click.style(f"{status:<7}", fg=colours[status], bold=status == "failed")
        click.echo(f"{mark}  {part:<{width}}  {tried}  ({seconds * 1000:.0f} ms)")
        for line in seen.splitlines():
            click.echo(f"{'':>{width + 11}}{line}")
    counts = {status: sum(row[2] == status for row in rows) for status in colours}
    click.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count))
