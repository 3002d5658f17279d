"""One act's life as a page: who, for whom, by which policy and grant, at what cost, how it ended, and the proofs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from creto._foreign import json_value
from creto._plain import plain, quantities, values
from creto.errors import NotFoundError

if TYPE_CHECKING:
    from creto.audit._reading import Proof
    from creto.audit._record import AuditRecord

__all__ = ["STYLE", "life"]

_ATTESTED = "sandbox:attest"
_COLOUR = {"success": "good", "failure": "warn", "refused": "bad"}
# Said above in words of their own, or of use only to programs.
_KNOWN = ("request", "action", "resource", "agent", "reason", "path", "sandbox", "subject", "personal")
_SAID = {
    "intent": "Begun",
    "outcome": "Ended",
    "refusal": "Refused",
    _ATTESTED: "The agent's sandbox was attested",
    "oversight:requested": "Asked a human",
    "oversight:approved": "Approved",
    "oversight:denied": "Denied",
    "oversight:expired": "Nobody answered in time",
    "oversight:cancelled": "Withdrawn",
    "oversight:executing": "The yes was used, once",
    "oversight:executed": "The request was closed: done",
    "oversight:failed": "The request was closed: it failed",
    "oversight:unknown": "How it ended is unknown",
}

_FOOTER = (
    "The proof under each step needs nothing of this machine: <code>creto audit check-proof</code>, or any reader of "
    "C2SP tlog-proof, checks it with the public key."
)


def life(folder: Path, records: Sequence[AuditRecord], cost: str = "", *, above: str = "") -> str:
    """The page of an act: no script, no font, no network.

    Args:
        folder: The state folder, for the proofs.
        records: The records of the act, and of the oversight request that it waited for (`AuditClient.life`).
        cost: What its usage costs, in words.
        above: HTML that stands above it, such as a way back.

    Returns:
        HTML text.
    """
    ordered = sorted(records, key=lambda record: record.timestamp)
    own = [record for record in ordered if record.kind != "event"] or ordered
    first, last = own[0], own[-1]
    ended = next((record.ended for record in reversed(own) if record.ended), "")
    # An intent that nothing followed is not a success: nobody knows.
    state = ended or ("unknown: no outcome was recorded" if first.kind == "intent" else first.kind)
    # The sandbox may be hours older than the act.
    start = next((record for record in ordered if record.what != _ATTESTED), first).timestamp >> 12
    chain = "".join(f"<li>{_name(link)}</li>" for link in (*first.delegation_chain, first.who))
    shown = [record for record in ordered if record.timestamp >> 12 >= start]
    steps = "".join(_step(folder, record, start) for record in shown)
    sections = [
        ("Who", f'<ol class="chain">{chain}</ol>'),
        ("Why", _list(_why(own))),
        ("Human oversight", _list(_humans(ordered))),
        ("Cost", _list(_cost(own, cost))),
        ("Where", _list(_where(ordered))),
        ("Life", f'<ol class="life">{steps}</ol>'),
    ]
    took = f" in {_span((last.timestamp >> 12) - (first.timestamp >> 12))}" if len(own) > 1 else ""
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(first.what)} {_text(first.resource)}</title><style>{STYLE}</style></head><body><main>{above}"
        f'<header><p class="what">{_text(first.what)}</p><h1>{_text(first.resource)}</h1>'
        f'<p><span class="state {_COLOUR.get(ended, "open")}">{_text(state)}</span> '
        f'<span class="soft">{first.time:%Y-%m-%d %H:%M:%S} UTC{took}</span></p></header>{body}'
        f'<footer class="soft">Act <code>{_text(first.act)}</code>. {_FOOTER}</footer></main></body></html>\n'
    )


def _why(own: Sequence[AuditRecord]) -> list[tuple[str, str]]:
    decided = dict.fromkeys(record.why for record in own if record.why)
    facts = [("Decided by", why) for why in decided]
    facts += [("Policy set", record.policy) for record in own[:1] if record.policy]
    return facts + [("Digest of the act", record.digest) for record in own[-1:] if record.digest]


def _humans(ordered: Sequence[AuditRecord]) -> list[tuple[str, str]]:
    facts = []
    for record in ordered:
        if record.what == "oversight:requested":
            facts += [("Asked under", record.why), ("Request", record.detail.get("request", ""))]
        elif record.what in ("oversight:approved", "oversight:denied"):
            facts += [(_SAID[record.what] + " by", record.who), ("Reason", record.detail.get("reason", ""))]
            facts += [("Signed answer", text) for name, text in record.detail.items() if name.startswith("grant:")]
    return facts


def _cost(own: Sequence[AuditRecord], cost: str) -> list[tuple[str, str]]:
    usage = next((record.usage for record in reversed(own) if record.usage), {})
    used = ", ".join(quantities(usage))
    return [("Used", used), ("Price", cost if used else "")]


def _where(ordered: Sequence[AuditRecord]) -> list[tuple[str, str]]:
    facts = [("Sandbox", record.detail["sandbox"]) for record in ordered if "sandbox" in record.detail]
    for record in ordered:
        if record.what == _ATTESTED:
            backend = " ".join(record.detail.get(name, "") for name in ("backend", "level"))
            facts += [("Attested as", backend), ("Attestation", record.digest or "")]
    return facts


def _list(facts: Iterable[tuple[str, str]]) -> str:
    known = dict.fromkeys((name, value) for name, value in facts if value)
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_name(value)}</dd>" for name, value in known)
    return f"<dl>{rows}</dl>" if rows else ""


def _step(folder: Path, record: AuditRecord, start: int) -> str:
    from creto.audit._reading import prove

    failure = record.outcome.get("failure", "") if not isinstance(record.outcome, str | None) else ""
    detail = _list(fact for name, value in record.detail.items() if name not in _KNOWN for fact in _facts(name, value))
    try:
        proof = _proof(prove(folder / "ledger", record))
    except NotFoundError:
        proof = "<p class='soft'>On disk; no checkpoint covers it yet.</p>"
    said = _SAID.get(record.what if record.kind == "event" else record.kind, record.what)
    ending = f" as a {record.ended}" if record.kind == "outcome" and record.ended else ""
    at = _span((record.timestamp >> 12) - start)
    return (
        f'<li class="{_COLOUR.get(record.ended, "open")}"><b>{_text(said + ending)}</b> <span class="soft">+{at}, by '
        f"{_text(record.who.rsplit('/', 1)[-1])}, shard {_text(record.shard)}, record {record.index}</span>"
        f"{_paragraph(failure)}{_paragraph(record.detail.get('reason', ''))}{detail}{proof}</li>"
    )


def _facts(name: str, value: str) -> list[tuple[str, str]]:
    if name == "context":
        try:
            context = json_value(value)
        except ValueError:
            context = None
        if isinstance(context, dict):
            # Named as what they are: an argument of an agent's choosing is not taken for a fact of ours.
            return [(f"context: {argument}", text) for argument, text in values(context, 4000)]
    return [(name.replace("digest:", "Digest agreed to: ").replace("grant:", "Signed answer: "), value)]


def _span(micros: int) -> str:
    if micros < 1_000_000:
        return f"{micros / 1000:.3g} ms"
    seconds = micros / 1e6
    return f"{seconds:.3g} s" if seconds < 120 else f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def _name(value: str) -> str:
    """A name with its last part standing out; a digest in the letters of digests."""
    if value.startswith("spiffe://"):
        head, _, tail = value.rpartition("/")
        return f'<span class="soft">{_text(head)}/</span><b>{_text(tail)}</b>'
    is_digest = len(value) >= 32 and all(letter in "0123456789abcdef" for letter in value)
    return f"<code>{_text(value)}</code>" if is_digest else _text(value)


def _proof(proof: Proof) -> str:
    head = f"In the ledger: under a checkpoint over {proof.size} records of {proof.origin}"
    return (
        f"<details><summary>{_text(head)}</summary><p>Root <code>{proof.root}</code></p>"
        f"<p>The record's bytes <code>{proof.entry.hex()}</code></p><pre>{_text(proof.text)}</pre></details>"
    )


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>" if text else ""


def _text(value: str | Iterable[str]) -> str:
    # What agents wrote is spelt out: nothing in it may turn the line around or hide.
    return html.escape(plain(str(value), lines=True, most=200_000))


STYLE = r"""
:root { color-scheme: light dark; --ink: light-dark(#1d2330, #e8ebf2); --soft: light-dark(#5b6475, #a3acbd);
  --page: light-dark(#f5f6f9, #14171e); --card: light-dark(#fff, #1c212b); --rule: light-dark(#e3e6ed, #303846);
  --good: light-dark(#1f7a4d, #4cc38a); --warn: light-dark(#96560f, #e8a35c); --bad: light-dark(#b52a3f, #f07183);
  --open: light-dark(#2157b4, #7aa8ff) }
* { box-sizing: border-box } body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, sans-serif } main { max-width: 900px; margin: 0 auto; padding: 32px 20px 60px }
header p { margin: 0 } h1 { font-size: 26px; line-height: 1.25; margin: 2px 0 12px; overflow-wrap: anywhere }
h2 { font-size: 13px; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); margin: 0 0 10px }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 16px 20px;
  margin: 16px 0 0 } footer { margin: 22px 4px 0; font-size: 13px } section dl:last-child { margin-bottom: 0 }
.what { color: var(--soft); font-weight: 600 } .state { display: inline-block; padding: 1px 12px; margin-right: 6px;
  border-radius: 99px; border: 1.5px solid; font-weight: 600 }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) } .open { color: var(--open) }
.soft { color: var(--soft) } ol { list-style: none; margin: 0; padding: 0 }
.chain li { display: inline; overflow-wrap: anywhere }
.chain li + li::before { content: " \2192 "; color: var(--soft) }
dl { display: grid; grid-template-columns: minmax(130px, max-content) 1fr; gap: 4px 18px; margin: 6px 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere; min-width: 0 }
.life { border-left: 2px solid var(--rule); margin-left: 6px }
.life > li { position: relative; padding: 0 0 18px 22px } .life > li:last-child { padding-bottom: 0 }
.life > li > * { color: var(--ink) } .life > li > .soft, .life > li p.soft { color: var(--soft) }
.life > li > p { margin: 4px 0 } .life > li::before { content: ""; position: absolute; left: -7px; top: 6px;
  width: 12px; height: 12px; border-radius: 50%; background: currentColor; box-shadow: 0 0 0 3px var(--card) }
summary { cursor: pointer; color: var(--good); overflow-wrap: anywhere } details p { margin: 6px 0 }
pre, code { font: 12px/1.55 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
pre { background: var(--page); border: 1px solid var(--rule); border-radius: 8px; padding: 10px; margin: 6px 0 0 }
@media (max-width: 600px) { dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: 8px } }
@media print { body { background: #fff } section { break-inside: avoid } }
"""
