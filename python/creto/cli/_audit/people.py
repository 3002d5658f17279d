"""`creto audit erase`: what the ledger says about people, made unreadable."""

from __future__ import annotations

import sys

import click

from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["erase"]


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

    from creto import _core
    from creto.audit import AuditClient, Subjects, open_ledger
    from creto.erasure import Erased
    from creto.erasure import erase as make_unreadable
    from creto.memory import Precedents

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; give --yes to erase without being asked")
    if not yes:
        click.confirm(f"make all that is recorded about `{subject}` unreadable for good?", abort=True)
    sealer = frame.sealer()
    clock = _core.HybridLogicalClock(frame.folder / "clock")

    async def main() -> Erased:
        ledger = open_ledger(frame.folder, clock, sealer, trust_domain=frame.settings.common.trust_domain)
        audit = AuditClient(ledger, frame.folder)
        try:
            with frame.store() as store:
                return await make_unreadable(
                    subject,
                    audit=audit,
                    subjects=Subjects(frame.folder, sealer),
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
