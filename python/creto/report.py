"""What happened, told from the ledger: the acts of a stretch of time as figures, a table and a page with a timeline.

It reads records and never the state that they led to, so that it can only tell what can be proved.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creto.config import Settings

__all__ = ["Act", "Report", "acts", "differences", "page", "price"]

_COLOURS = {
    "done": "var(--done)",
    "failed": "var(--failed)",
    "denied": "var(--denied)",
    "over quota": "var(--quota)",
    "asked": "var(--asked)",
    "unknown": "var(--unknown)",
}


@dataclass
class Act:
    """One act, put together from its records.

    Args:
        id: 32 hexadecimal digits, shared by the records of the act.
        who: SPIFFE id of the agent.
        what: The action, `namespace:verb`.
        resource: On what.
        status: `done`, `failed`, `denied`, `over quota` or `unknown` (an intent without an outcome).
        why: The policy, grant or rule that decided, or the reason of a failure.
        start: Microseconds since the Unix epoch.
        end: Likewise; equal to `start` for an act of one record.
        asked: True where a human was asked.
        usage: Quantities used, by meter.

    Example:
        >>> act = Act("01", "spiffe://a/agent/b", "http:get", "https://example.org", "done", "read-web", 0, 1500)
        >>> act.status, act.end - act.start
        ('done', 1500)
    """

    id: str
    who: str
    what: str
    resource: str
    status: str
    why: str
    start: int
    end: int
    asked: bool = False
    usage: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """What a page or a screen shows; every figure comes from the records, or was measured in the run it tells of.

    Args:
        title: The heading.
        acts: In order of time.
        sections: Further tables: heading, columns, rows.
        facts: Short facts by name, such as the ledger's root.

    Example:
        >>> denied = Act("01", "spiffe://a/agent/b", "http:get", "https://example.org", "denied", "no permit", 0, 0)
        >>> Report("Today", [denied]).counts()
        {'acts': 1, 'denied': 1, 'asked about': 0}
    """

    title: str
    acts: list[Act]
    facts: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many acts ended in which way, and how many were asked about."""
        counted = Counter(act.status for act in self.acts)
        return {
            "acts": len(self.acts),
            **{status: counted[status] for status in _COLOURS if counted[status]},
            "asked about": sum(act.asked for act in self.acts),
        }


def acts(records: Iterable[Mapping[str, Any]]) -> list[Act]:
    """Puts records together to acts, in order of time.

    Args:
        records: Ledger records as mappings with the fields of `AuditRecord`.

    Returns:
        One `Act` for each act id; events of the layer itself are left out.

    Example:
        >>> intent = {"act": "01", "who": "spiffe://a/agent/b", "what": "http:get", "resource": "u", "why": "p",
        ...           "kind": "intent", "timestamp": 4096, "outcome": None, "usage": {}}
        >>> outcome = {**intent, "kind": "outcome", "timestamp": 8192, "outcome": "success"}
        >>> [(act.status, act.end - act.start) for act in acts([intent, outcome])]
        [('done', 1)]
    """
    found: dict[str, Act] = {}
    for record in sorted(records, key=lambda record: record["timestamp"]):
        detail = record.get("detail") or {}
        if record["kind"] == "event":
            continue
        at = record["timestamp"] >> 12
        act = found.get(record["act"])
        if act is None:
            who, what, resource = record["who"], record["what"], record["resource"]
            act = found[record["act"]] = Act(record["act"], who, what, resource, "unknown", record["why"], at, at)
        act.end = at
        # The gate records the digest of an act where a human agreed to exactly that.
        act.asked = act.asked or detail.get("refused") == "oversight" or record.get("digest") is not None
        if record["kind"] == "refusal":
            act.status = "over quota" if detail.get("refused") == "quota" else "denied"
            act.why = record["why"]
        elif record["kind"] == "outcome":
            act.usage = dict(record.get("usage") or {})
            failure = record["outcome"]
            if failure in ("success", None):
                act.status = "done"
            else:
                act.status = "failed"
                act.why = str(failure.get("failure") if isinstance(failure, Mapping) else failure)
    return sorted(found.values(), key=lambda act: act.start)


def differences(records: Iterable[Mapping[str, Any]]) -> tuple[str, list[str], list[list[Any]]] | None:
    """A table of what the set in the shadow would have decided otherwise, for `Report.sections`; None where nothing.

    Args:
        records: Ledger records as mappings with the fields of `AuditRecord`.

    Example:
        >>> record = {"what": "policy:shadow", "why": "no policy permits it",
        ...           "detail": {"action": "fs:read", "was": "allow", "would": "deny"}}
        >>> differences([record, record])[2]
        [['fs:read', 'allow', 'deny', 'no policy permits it', 2]]
    """
    counted = Counter(
        (record["detail"]["action"], record["detail"]["was"], record["detail"]["would"], record["why"])
        for record in records
        if record["what"] == "policy:shadow"
    )
    rows = [[*key, count] for key, count in counted.most_common()]
    columns = ["action", "was", "would be", "why", "acts"]
    return ("What the set in the shadow would have decided otherwise", columns, rows) if rows else None


def page(report: Report) -> str:
    """The report as one HTML page that needs nothing else: no script, no font, no network.

    Args:
        report: What to show.

    Returns:
        HTML text.

    Example:
        >>> "<h1>An audit</h1>" in page(Report("An audit", [], {"agent": "reader"}))
        True
    """
    counts = "".join(
        f'<div class="count"><b>{number}</b><span>{html.escape(name)}</span></div>'
        for name, number in report.counts().items()
    )
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in report.facts.items()
    )
    sections = "".join(_section(*section) for section in report.sections)
    rows = [
        (_clock(act.start), _short(act.who), act.what, act.resource, act.status, "yes" if act.asked else "", act.why)
        for act in report.acts
    ]
    table = _section("Every act", ("time", "agent", "action", "resource", "ended", "asked", "why"), rows)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(report.title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{html.escape(report.title)}</h1><div class="counts">{counts}</div>'
        f"<h2>Timeline</h2>{_timeline(report.acts)}<h2>Facts</h2><dl>{facts}</dl>{sections}{table}</main></body></html>\n"
    )


def _section(heading: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    empty = f'<tr><td colspan="{len(columns)}">none</td></tr>'
    return (
        f'<h2>{html.escape(heading)}</h2><div class="wide" role="region" tabindex="0" '
        f'aria-label="{html.escape(heading)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body or empty}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    text = html.escape(str(value))
    if str(value) in _COLOURS:
        return f'<td><span class="status" style="--colour:{_COLOURS[str(value)]}">{text}</span></td>'
    return f'<td class="number">{text}</td>' if isinstance(value, int) else f"<td>{text}</td>"


def _timeline(shown: Sequence[Act]) -> str:
    if not shown:
        return "<p>No acts.</p>"
    first = min(act.start for act in shown)
    span = max(max(act.end for act in shown) - first, 1)
    lanes = list(dict.fromkeys((_short(act.who), act.what) for act in shown))
    left, width, height = 240, 1000, 26
    parts = []
    for row, (who, what) in enumerate(lanes):
        y = row * height + 18
        if row % 2 == 0:
            parts.append(f'<rect x="0" y="{y - 13}" width="{left + width + 20}" height="{height}" class="lane"/>')
        parts.append(
            f'<text x="6" y="{y + 4}">{html.escape(who)} <tspan class="what">{html.escape(what)}</tspan></text>'
        )
    for act in shown:
        y = lanes.index((_short(act.who), act.what)) * height + 18
        x = left + (act.start - first) / span * width
        long = max((act.end - act.start) / span * width, 5)
        tip = html.escape(f"{act.what} {act.resource}\n{act.status}: {act.why}\n{(act.end - act.start) / 1000:.1f} ms")
        ring = ' class="asked"' if act.asked else ""
        parts.append(
            f'<rect x="{x:.1f}" y="{y - 7}" width="{long:.1f}" height="14" rx="3" '
            f'style="fill:{_COLOURS[act.status]}"{ring}><title>{tip}</title></rect>'
        )
    bottom = len(lanes) * height + 10
    for tick in range(6):
        x = left + tick * width / 5
        parts.append(f'<line x1="{x}" y1="4" x2="{x}" y2="{bottom}" class="tick"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" class="scale">{tick * span / 5e6:.2f} s</text>')
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{name}</span>'
        for name, colour in _COLOURS.items()
        if any(act.status == name for act in shown)
    )
    ringed = '<span><i class="ring"></i>a human was asked</span>' if any(act.asked for act in shown) else ""
    return (
        '<div class="wide" role="region" tabindex="0" aria-label="timeline">'
        f'<svg viewBox="0 0 {left + width + 40} {bottom + 24}" role="img" '
        f'aria-label="acts over time">{"".join(parts)}</svg></div><p class="legend">{legend}{ringed}</p>'
    )


def _short(who: str) -> str:
    return who.rsplit("/", 1)[-1]


def _clock(micros: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]


_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2330, #e8ebf2); --soft: light-dark(#5b6475, #a3acbd);
  --page: light-dark(#fbfbfd, #14171e); --card: light-dark(#fff, #1c212b); --rule: light-dark(#e3e6ed, #303846);
  --done: light-dark(#237a4e, #4cc38a); --failed: light-dark(#96560f, #e8a35c); 
  --denied: light-dark(#c0374a, #f07183);
  --quota: light-dark(#8b46b8, #c58be8);
  --asked: light-dark(#2563c9, #7aa8ff); --unknown: light-dark(#667085, #8d97aa); }
* { box-sizing: border-box } body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif } main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0 0 18px } h2 { font-size: 17px; margin: 34px 0 10px }
.counts { display: flex; flex-wrap: wrap; gap: 10px } .count { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 10px 18px; min-width: 104px } .count b { display: block; font-size: 24px }
.count span { color: var(--soft) } .wide { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 8px }
svg { width: 100%; min-width: 760px; font-size: 12px } svg text { fill: var(--ink) }
svg .what { fill: var(--soft) } svg .lane { fill: light-dark(#f3f5f9, #212733) } svg .tick { stroke: var(--rule) }
svg .scale { text-anchor: middle; fill: var(--soft) } rect.asked { stroke: var(--asked); stroke-width: 2.5 }
.legend span { margin-right: 18px; color: var(--soft) } .legend i { display: inline-block; width: 12px; height: 12px;
  border-radius: 3px; margin-right: 6px; vertical-align: -1px } .legend .ring { border: 2.5px solid var(--asked) }
table { border-collapse: collapse; width: 100%; font-size: 13.5px }
th { text-align: left; white-space: nowrap; color: var(--soft);
  font-weight: 600 } th, td { padding: 5px 10px; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: anywhere } tr:last-child td { border-bottom: 0 } td.number { text-align: right }
.status { color: var(--colour); font-weight: 600; white-space: nowrap } dl { display: grid; margin: 0;
  grid-template-columns: max-content 1fr; gap: 4px 18px } dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums } td:nth-child(-n+3) { overflow-wrap: break-word } @media (max-width: 46rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0 } dd { margin-bottom: 8px } .wide table { min-width: 820px } }
@media print { body { background: #fff } }
"""


def price(records: Sequence[Any], settings: Settings) -> str:
    """What the usage of an act costs by the prices that are configured now, included units and minimum fees apart.

    Args:
        records: The records of the act.
        settings: With the prices.

    Returns:
        An amount in words; empty where nothing was used, or nothing has a price.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto.audit import AuditRecord
        >>> from creto.config import load
        >>> file = Path(tempfile.mkdtemp()) / "prices.toml"
        >>> _ = file.write_text('[[prices]]\\nmeter = "pages"\\nunit_price = "0.25"\\ncurrency = "EUR"\\n')
        >>> used = AuditRecord(who="spiffe://creto.local/agent/a", what="http:get", usage={"pages": 3})
        >>> price([used], load([file], environment={}, system=False))
        '0.75 EUR, at the prices of now'
    """
    from decimal import Decimal
    from fractions import Fraction

    from creto.metering import PriceBook

    used = next((record for record in reversed(records) if record.usage), None)
    prices = PriceBook.from_settings(settings)
    if used is None or not prices.prices:
        return ""
    customer = (json.loads(used.detail.get("path", "[]")) or [settings.common.trust_domain])[0]
    at = used.timestamp >> 12
    total, steps = Fraction(0), []
    for one in (period.price for period in prices.of(customer, at, at + 1)):
        quantity = used.usage.get(one.meter, 0)
        if quantity and one.model == "per_unit":
            total += Fraction(one.unit_price) * quantity / Fraction(one.per)
        elif quantity:
            steps.append(f"{one.meter} ({one.model})")
    text = (
        f"{Decimal(total.numerator) / total.denominator:.6f}".rstrip("0").rstrip(".")
        + f" {prices.currency_of(customer)}, at the prices of now"
    )
    # What a step or a package costs follows from the whole period: no one act has a share of it.
    return text + (f"; not in it, since priced over the whole period: {', '.join(sorted(set(steps)))}" if steps else "")
