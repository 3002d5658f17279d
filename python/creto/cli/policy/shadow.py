"""`creto policy shadow`: what the set of `authz.shadow` would have decided otherwise."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["command"]


@click.command("shadow")
@click.option("--limit", default=100_000, show_default=True, help="At most so many records, the latest.")
@json_option
@pass_frame
def command(frame: Frame, limit: int) -> None:
    """Say what the set of `authz.shadow` would have decided otherwise, by the acts on record.

    Each difference is a record `policy:shadow` beside the act's own. Nothing of it was enforced.

    \b
    Example:
      creto policy shadow
    """
    from creto.audit import AuditClient

    client = AuditClient.reading(frame.folder)

    async def read() -> list[Any]:
        return await client.query(action="policy:shadow", limit=limit)

    counts: Counter[tuple[str, ...]] = Counter()
    last: dict[tuple[str, ...], str] = {}
    for record in frame.run(read):
        detail = record["detail"]
        key = (str(record["policy"])[:12], detail["was"], detail["would"], detail["action"], record["why"])
        counts[key] += 1
        last[key] = record["resource"]
    rows = [[*key, count, last[key]] for key, count in counts.most_common()]
    frame.table(
        ["set", "was", "would be", "action", "why", "acts", "the last on"],
        rows,
        empty="no difference is on record"
        + ("" if frame.settings.authz.shadow else "; `authz.shadow` names the set to ask beside the one in force"),
    )
