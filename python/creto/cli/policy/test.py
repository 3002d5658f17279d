"""`creto policy test`: tables of requests with the answers that are expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli.policy._sets import FILE, short

__all__ = ["command"]


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
        for name in coverage.idle:
            frame.say(f"  no case reaches `{name}`")
        for policy, text, seen in coverage.one_sided:
            frame.say(f"  `{policy}`: seen {seen} only: {short(text)}")
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
