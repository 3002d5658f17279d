"""One act's life as a page: who, for whom, by which policy and grant, at what cost, how it ended, and the proofs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from creto.errors import NotFoundError

if TYPE_CHECKING:
    from creto.audit._reading import Proof
    from creto.audit._record import AuditRecord

__all__ = ["life"]

_COLOUR = {"success": "good", "failure": "warn", "refused": "bad"}


def life(folder: Path, records: Sequence[AuditRecord]) -> str:
    """The page of an act: no script, no font, no network.

    Args:
        folder: The state folder, for the proofs.
        records: The records of the act.

    Returns:
        HTML text.
    """
    ordered = sorted(records, key=lambda record: record.timestamp)
    first, last = ordered[0], ordered[-1]
    ended = next((record.ended for record in reversed(ordered) if record.ended), "")
    # An intent that nothing followed is not a success: nobody knows.
    state = ended or ("unknown: no outcome was recorded" if first.kind == "intent" else first.kind)
    micros = (last.timestamp >> 12) - (first.timestamp >> 12)
    who = "".join(f"<li>{_text(link)}</li>" for link in (*first.delegation_chain, first.who))
    usage = next((record.usage for record in reversed(ordered) if record.usage), {})
    facts = [
        ("Act", first.act),
        ("Began", first.time.isoformat(sep=" ", timespec="microseconds")),
        ("Took", f"{micros / 1000:.3f} ms between first and last record" if len(ordered) > 1 else "one record"),
        ("Why", last.why or first.why),
        ("Policy set", first.policy or ""),
        ("Digest of the act", first.digest or ""),
        ("Cost", ", ".join(f"{quantity} {meter}" for meter, quantity in usage.items())),
    ]
    for name in ("grant", "request", "approver", "sandbox", "attestation", "path"):
        facts.extend((name.capitalize(), record.detail[name]) for record in ordered if name in record.detail)
    known = list(dict.fromkeys((name, value) for name, value in facts if value))
    steps = "".join(_step(folder, record, first.timestamp >> 12) for record in ordered)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(first.what)} {_text(first.resource)}</title><style>{_STYLE}</style></head><body><main>"
        f'<header><p class="what">{_text(first.what)}</p><h1>{_text(first.resource)}</h1>'
        f'<p class="state {_COLOUR.get(ended, "open")}">{_text(state)}</p></header>'
        f'<h2>Who</h2><ol class="chain">{who}</ol>'
        f"<h2>Facts</h2><dl>{''.join(f'<dt>{_text(n)}</dt><dd>{_text(v)}</dd>' for n, v in known)}</dl>"
        f'<h2>Life</h2><ol class="life">{steps}</ol></main></body></html>\n'
    )


def _step(folder: Path, record: AuditRecord, start: int) -> str:
    from creto.audit._reading import prove

    failure = record.outcome.get("failure", "") if not isinstance(record.outcome, str | None) else ""
    detail = "".join(f"<dt>{_text(n)}</dt><dd>{_text(v)}</dd>" for n, v in record.detail.items())
    try:
        proof = _proof(prove(folder / "ledger", record))
    except NotFoundError:
        proof = "<p class='soft'>On disk; no checkpoint covers it yet.</p>"
    at = ((record.timestamp >> 12) - start) / 1000
    return (
        f'<li class="{_COLOUR.get(record.ended, "open")}"><b>{_text(record.kind)}</b> '
        f'<span class="soft">+{at:.3f} ms, shard {_text(record.shard)}, record {record.index}</span>'
        f"{_paragraph(failure)}{f'<dl>{detail}</dl>' if detail else ''}{proof}</li>"
    )


def _proof(proof: Proof) -> str:
    head = f"In the ledger: under a checkpoint over {proof.size} records of {proof.origin}"
    return (
        f"<details><summary>{_text(head)}</summary><p>Root <code>{proof.root}</code></p>"
        f"<p>The record's bytes <code>{proof.entry.hex()}</code></p><pre>{_text(proof.text)}</pre></details>"
    )


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>" if text else ""


def _text(value: str | Iterable[str]) -> str:
    return html.escape(str(value))


_STYLE = r"""
:root { color-scheme: light dark; --ink: light-dark(#1d2330, #e8ebf2); --soft: light-dark(#5b6475, #a3acbd);
  --page: light-dark(#fbfbfd, #14171e); --card: light-dark(#fff, #1c212b); --rule: light-dark(#e3e6ed, #303846);
  --good: light-dark(#2c8a5b, #4cc38a); --warn: light-dark(#b4691f, #e8a35c); --bad: light-dark(#c0374a, #f07183);
  --open: light-dark(#2563c9, #7aa8ff) }
* { box-sizing: border-box } body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif } main { max-width: 900px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere } h2 { font-size: 16px; margin: 32px 0 10px }
.what { margin: 0; color: var(--soft); font-weight: 600 } .state { display: inline-block; margin: 12px 0 0;
  padding: 2px 12px; border-radius: 99px; border: 1.5px solid; font-weight: 600 }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) } .open { color: var(--open) }
.soft { color: var(--soft) } ol { list-style: none; margin: 0; padding: 0 }
.chain li { display: inline; overflow-wrap: anywhere }
.chain li + li::before { content: " \2192 "; color: var(--soft) }
.chain li:last-child { font-weight: 600 } dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px;
  margin: 8px 0 } dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.life { border-left: 2px solid var(--rule); margin-left: 7px }
.life > li { position: relative; padding: 0 0 18px 22px }
.life > li > * { color: var(--ink) } .life > li > .soft, .life > li p.soft { color: var(--soft) }
.life > li::before { content: ""; position: absolute; left: -7px; top: 6px; width: 12px; height: 12px;
  border-radius: 50%; background: currentColor } summary { cursor: pointer; color: var(--good) }
pre, code { font: 12px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px }
@media (max-width: 600px) { dl { grid-template-columns: 1fr } dd { margin-bottom: 6px } }
"""
