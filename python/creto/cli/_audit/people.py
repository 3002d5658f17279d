"""`creto audit erase`: what the ledger says about people, made unreadable."""

from __future__ import annotations

import click

from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["erase"]


@click.command()
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
@pass_frame
def erase(frame: Frame, subject: str, yes: bool) -> None:
    """Erase a person: what records say about SUBJECT becomes unreadable, in every copy, for good.

    Records and proofs stay as they are; that it was done is recorded, under the person's pseudonym.

    \b
    Example:
      creto audit erase ann@example.org
    """
    from creto import _core
    from creto.audit import Subjects, open_ledger

    if not yes:
        click.confirm(f"make all that is recorded about `{subject}` unreadable for good?", abort=True)
    sealer = _core.Sealer.open(frame.folder / "keys")
    subjects = Subjects(frame.folder, sealer)
    pseudonym = subjects.pseudonym(subject)
    erased = subjects.erase(subject)
    if erased:
        clock = _core.HybridLogicalClock(frame.folder / "clock")
        ledger = open_ledger(frame.folder, clock, sealer, trust_domain=frame.settings.common.trust_domain)
        try:
            ledger.append_blocking({"who": "creto", "what": "subject:erase", "resource": pseudonym, "why": "asked for"})
        finally:
            ledger.close_blocking()
    text = "erased" if erased else "nothing is known of this subject, or it was erased before"
    frame.show({"erased": erased, "pseudonym": pseudonym}, text)
