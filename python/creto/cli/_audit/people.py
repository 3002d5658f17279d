"""`creto audit erase` and `expire`: what the ledger says about people, made unreadable."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from creto.cli._frame import Frame, json_option, pass_frame

if TYPE_CHECKING:
    from creto.audit import AuditClient, Subjects

__all__ = ["erase", "expire"]


@click.command()
@click.argument("subject")
@click.option("--early", metavar="WHY", default="", help="Why before the retention has passed; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
@pass_frame
def erase(frame: Frame, subject: str, early: str, yes: bool) -> None:
    """Erase a person: what records say about SUBJECT becomes unreadable, in every copy, for good.

    Past oversight requests that name the person are emptied too, and forgotten by what recalls them. Records and proofs
    stay as they are; that it was done is recorded, under the person's pseudonym. What was recorded within
    `audit.retention_days` (183) is erased only with a reason.

    \b
    Example:
      creto audit erase ann@example.org --early "asked for under GDPR article 17"
    """
    from dataclasses import asdict

    from creto.erasure import Erased
    from creto.erasure import erase as make_unreadable
    from creto.memory import Precedents

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; give --yes to erase without being asked")
    if not yes:
        click.confirm(f"make all that is recorded about `{subject}` unreadable for good?", abort=True)

    async def main() -> Erased:
        audit, subjects = _opened(frame)
        try:
            with frame.store() as store:
                return await make_unreadable(
                    subject,
                    audit=audit,
                    subjects=subjects,
                    store=store,
                    precedents=Precedents(store),
                    retention_days=frame.settings.audit.retention_days,
                    early=early,
                )
        finally:
            await audit.close()

    erased = frame.run(main)
    text = "erased" if erased.key else "nothing is known of this subject, or it was erased before"
    if erased.requests:
        text += f"; past oversight requests emptied: {erased.requests}"
    if erased.still_open:
        text += f"; open ones that name the person, so erase again once they have ended: {erased.still_open}"
    frame.show(asdict(erased), text)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say who would be erased, and erase nobody.")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
@pass_frame
def expire(frame: Frame, dry_run: bool, yes: bool) -> None:
    """Erase everybody about whom nothing has been recorded for `audit.retention_days`, and at least 183 days.

    What their records say about them becomes unreadable, in every copy, for good, and past oversight requests that name
    them are emptied; records and proofs stay as they are.
    Each erasure is recorded, under the person's pseudonym. Run it from a timer, with --yes.

    \b
    Example:
      creto audit expire --dry-run
    """
    from creto.audit import AuditClient, Subjects
    from creto.erasure import FLOOR_DAYS
    from creto.erasure import expire as erase_expired
    from creto.memory import Precedents

    if not dry_run and not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; give --yes to erase without being asked")
    days = max(frame.settings.audit.retention_days, FLOOR_DAYS)
    if not dry_run and not yes:
        click.confirm(
            f"make all that is recorded about whom nothing came for {days} days unreadable for good?", abort=True
        )

    async def main() -> list[str]:
        if dry_run:
            audit, subjects = AuditClient.reading(frame.folder), Subjects(frame.folder, frame.sealer())
        else:
            audit, subjects = _opened(frame)
        try:
            with frame.store() as store:
                return await erase_expired(
                    audit=audit,
                    subjects=subjects,
                    store=store,
                    precedents=Precedents(store),
                    retention_days=days,
                    look_only=dry_run,
                )
        finally:
            await audit.close()

    expired = frame.run(main)
    head = f"nothing was recorded for {days} days about {len(expired)} people"
    text = f"{head}; {'nobody was erased: --dry-run' if dry_run else 'they are erased'}" if expired else f"{head}"
    frame.show({"days": days, "expired": expired, "erased": not dry_run}, "\n".join([text, *expired]))


def _opened(frame: Frame) -> tuple[AuditClient, Subjects]:
    """The ledger, for writing, and the keys of people."""
    from creto import _core
    from creto.audit import AuditClient, Subjects, open_ledger

    sealer = frame.sealer()
    clock = _core.HybridLogicalClock(frame.folder / "clock")
    ledger = open_ledger(frame.folder, clock, sealer, trust_domain=frame.settings.common.trust_domain)
    return AuditClient(ledger, frame.folder), Subjects(frame.folder, sealer)
