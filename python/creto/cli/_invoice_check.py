"""`creto invoice verify|prove`: an invoice held against the ledger, and the proof of one of its events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from creto.cli._bar import bar
from creto.cli._frame import Frame, json_option, pass_frame
from creto.cli._public import brought_keys, ledger_files, ledger_options

__all__ = ["as_json", "prove", "verify"]


def as_json(document: dict[str, Any]) -> str:
    """A document as a file holds it."""
    return json.dumps(document, indent=1, ensure_ascii=False)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@ledger_options
@json_option
@pass_frame
def verify(frame: Frame, file: Path, ledger: str | None, most_mib: int, keys: tuple[Path, ...]) -> int:
    """Check an invoice, or the proof of one event, with what an outsider has: FILE, the public tiles, the public keys.

    \b
    Example:
      creto invoice verify invoice.json --ledger tiles --key ledger.pub
      creto invoice verify invoice.json --ledger https://ledger.example --key ledger.pub
    """
    from creto._foreign import json_value
    from creto.errors import InvalidInputError
    from creto.metering import verify_invoice
    from creto.metering._proof import PROOF, verify_event

    try:
        document = json_value(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} holds no invoice")
    trusted = brought_keys(frame, keys)
    if document.get("format") == PROOF:
        findings = verify_event(document, trusted)
    else:
        with ledger_files(frame, ledger, most_mib) as folder, bar("checking") as progress:
            findings = verify_invoice(document, folder, trusted, progress=progress)
    if frame.json:
        frame.show([{"what": found.what, "ok": found.ok, "detail": found.detail} for found in findings])
    else:
        for found in findings:
            mark = click.style("ok  ", fg="green") if found.ok else click.style("FAIL", fg="red", bold=True)
            frame.say(f"{mark} {found.what}: {found.detail}")
    return 0 if all(found.ok for found in findings) else 6


@click.command()
@click.argument("number")
@click.argument("line", type=int)
@click.argument("event", type=int)
@json_option
@pass_frame
def prove(frame: Frame, number: str, line: int, event: int) -> None:
    """Print a proof that one EVENT (its place in the LINE, from 1) was charged and is in the ledger.

    \b
    Example:
      creto invoice prove INV-2026-000001 1 1
    """
    from creto._count import counted
    from creto.errors import NotFoundError
    from creto.metering import Invoices
    from creto.metering._proof import prove_event

    with frame.store() as store:
        document = Invoices(store).find(number).document
    lines = {found["line"]: found for found in document["lines"]}
    if line not in lines:
        raise NotFoundError(f"invoice {number} has no line {line}; its lines are 1 to {len(lines)}")
    if not 1 <= event <= lines[line]["events"]:
        raise NotFoundError(
            f"line {line} of invoice {number} has {counted(lines[line]['events'], 'event')}, and none is number {event}"
        )
    click.echo(as_json(prove_event(document, line, event, frame.folder / "ledger")))
