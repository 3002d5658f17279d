"""`creto policy test`: tables of requests with the answers that are expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, short

__all__ = ["command"]

_MOST = 40
"""Lines that are shown of what no case reached."""


@click.command("test")
@click.argument("tables", nargs=-1, required=True, type=FILE)
@json_option
@pass_frame
def command(frame: Frame, tables: tuple[Path, ...]) -> None:
    """Ask the requests of a table (TOML or YAML), compare the answers, and show what no case reached.

    \b
    Example:
      creto policy test policies/coding.toml
    """
    from creto.authz._cases import Table

    failed = 0
    report: list[dict[str, Any]] = []
    for path in tables:
        table = Table.load(path, trust_domain=frame.settings.common.trust_domain)
        results, coverage = table.run()
        for result in results:
            mark = click.style("ok    ", fg="green") if result.passed else click.style("FAILED", fg="red")
            frame.say(f"{mark} {result.case.name}: {result.outcome}, {result.why}")
            if not result.passed:
                failed += 1
                wanted = result.case.expect + (f" by `{result.case.policy}`" if result.case.policy else "")
                frame.say(f"       expected {wanted}")
        decided = sum(coverage.policies.values())
        both = len(coverage.conditions) - len(coverage.one_sided)
        frame.say(
            f"{path}: {sum(result.passed for result in results)} of {len(results)} cases pass; "
            f"{decided} of {len(coverage.policies)} policies decided a case, "
            f"{both} of {len(coverage.conditions)} conditions were seen true and false"
        )
        _some(frame, [f"no case reaches `{name}`" for name in coverage.idle])
        _some(frame, [f"`{policy}`: seen {seen} only: {short(text)}" for policy, text, seen in coverage.one_sided])
        report.append(
            {
                "table": str(path),
                "cases": [
                    {
                        "name": result.case.name,
                        "expect": result.case.expect,
                        "outcome": result.outcome,
                        "why": result.why,
                        "passed": result.passed,
                    }
                    for result in results
                ],
                "idle_policies": coverage.idle,
                "one_sided_conditions": [
                    {"policy": policy, "text": text, "seen": seen} for policy, text, seen in coverage.one_sided
                ],
            }
        )
    if frame.json:
        frame.show(report)
    if failed:
        raise click.exceptions.Exit(1)


def _some(frame: Frame, lines: list[str]) -> None:
    """The first of many lines, and how many there are beside them."""
    for line in lines[:_MOST]:
        frame.say(f"  {line}")
    if len(lines) > _MOST:
        frame.say(f"  and {len(lines) - _MOST:,} more like these; `--json` names them all")
