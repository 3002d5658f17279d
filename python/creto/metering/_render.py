"""Invoices and usage as people read them: text, CSV, and pages that print well. Nothing here works anything out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from creto._count import counted, measured
from creto._plain import cell
from creto.metering._heads import HEADS
from creto.metering._usage import Bucket

__all__ = ["bars", "ends_of", "invoice_csv", "invoice_html", "invoice_text", "period_text", "price_text", "usage_html"]

_LABELS = {"tax_id": "tax id", "reference": "reference"}
_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1b1f24, #e6e9ee); --soft: light-dark(#5b6472, #9aa4b2);
  --rule: light-dark(#d8dde4, #333a44); --fill: light-dark(#2f6fdb, #6ea3ff); --page: light-dark(#fff, #14171b); }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2.5rem auto;
  max-width: 54rem; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 0; } p { margin: .25rem 0; } .soft { color: var(--soft); }
table { width: 100%; border-collapse: collapse; margin: 1.5rem 0; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--rule);
  padding: .4rem .5rem; }
td { border-bottom: 1px solid var(--rule); padding: .5rem; vertical-align: top; }
.heads { display: flex; flex-wrap: wrap; gap: 1rem 4rem; margin-top: 1.25rem; }
.number { text-align: right; white-space: nowrap; } tfoot td { border: 0; padding: .25rem .5rem; }
tfoot tr.total td { font-weight: 700; font-size: 1.1rem; border-top: 2px solid var(--ink); padding-top: .5rem; }
code { font: 12px/1.4 ui-monospace, monospace; color: var(--soft); overflow-wrap: anywhere; }
.bar { background: var(--fill); height: .9rem; border-radius: 2px; min-width: 1px; margin-top: .3rem; }
.wide { width: 45%; } td { overflow-wrap: anywhere; } td.when { white-space: nowrap; }
@media screen and (max-width: 40rem) {
  body { margin: 1.25rem auto; }
  table, tbody, tfoot, tr, td { display: block; width: auto; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { border-bottom: 1px solid var(--rule); padding: .5rem 0; }
  td, td.number { border: 0; padding: .15rem 0; display: flex; justify-content: space-between; gap: 1rem;
    text-align: right; }
  td[data-name]::before { content: attr(data-name); color: var(--soft); flex: none; }
  td.what { display: block; text-align: left; font-weight: 600; } td.what code { font-weight: 400; }
  td.what::before, td.wide::before { content: none; } td.wide { width: auto; } td.wide .bar { flex: none; }
  tfoot tr { display: flex; justify-content: space-between; }
  tfoot td, tfoot tr.total td { border: 0; padding: .25rem 0; }
  tfoot tr.total { border-top: 2px solid var(--ink); margin-top: -1px; }
}
@media print { body { margin: 0; max-width: none; font-size: 11pt; }
  .bar { print-color-adjust: exact; } tr { break-inside: avoid; } }
"""


def price_text(price: Mapping[str, Any], currency: str) -> str:
    """A price in a few words."""
    unit, per = price.get("unit_price", "0"), price.get("per", "1")
    match price["model"]:
        case "per_unit":
            text = f"{unit} {currency}" + ("" if per == "1" else f" per {per}")
        case "flat":
            text = f"{unit} {currency} flat"
        case "package":
            text = f"{unit} {currency} per package of {per}"
        case "percentage":
            text = f"{unit} %"
        case "dynamic":
            text = "as each event states"
        case "commitment":
            text = f"tops the invoice up to {unit} {currency}"
        case model:
            steps = [
                f"{'then' if tier.get('up_to') is None else 'to ' + tier['up_to']} {tier.get('unit_price', '0')}"
                for tier in price.get("tiers", [])
            ]
            text = f"{model}: {', '.join(steps)}"
    for name, words in (("included", "{} included"), ("discount", "less {} %"), ("minimum", "at least {}")):
        if name in price:
            text += f", {words.format(price[name])}"
    return text


def _title(document: Mapping[str, Any]) -> str:
    kind = "Credit note" if document["kind"] == "credit_note" else "Invoice"
    return f"{kind} {document['number'] or '(draft)'}"


def ends_of(document: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """When the period of an invoice begins and ends, in its own time zone."""
    zone = ZoneInfo(document["time_zone"])
    start, end = (datetime.fromisoformat(document[name]).astimezone(zone) for name in ("start", "end"))
    return start, end


def period_text(document: Mapping[str, Any]) -> str:
    """When an invoice is for: days, the last one included, where it begins and ends with days in its own time zone."""
    start, end = ends_of(document)
    if (start.hour, start.minute, end.hour, end.minute) == (0, 0, 0, 0):
        last = end - timedelta(hours=1)
        days = f"{start:%Y-%m-%d}" if start.date() == last.date() else f"{start:%Y-%m-%d} to {last:%Y-%m-%d}"
        return f"{days} ({document['time_zone']})"
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} ({document['time_zone']})"


def _when(document: Mapping[str, Any]) -> str:
    """When an invoice is for, and the day on which it got its number."""
    period = period_text(document)
    if "issued" not in document:
        return period
    issued = datetime.fromisoformat(document["issued"]).astimezone(ZoneInfo(document["time_zone"]))
    return f"{period}, issued {issued:%Y-%m-%d}"


def _heads(document: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Who it is from and for, as far as it says so, in lines."""
    for name, word in zip(HEADS, ("from", "to"), strict=True):
        if said := document.get(name):
            lines = [said.get("name", ""), *said.get("address", ())]
            lines += [f"{label} {said[key]}" for key, label in _LABELS.items() if said.get(key)]
            yield word, [line for line in lines if line]


def _quantity(line: Mapping[str, Any]) -> str:
    """What a line's price is multiplied by: of a fee the share of the period that it holds for, of a top-up nothing."""
    model = line["price"]["model"]
    if model == "commitment":
        return ""
    return str(line["share"] if model == "flat" and "before" not in line else line["quantity"])


def _number_text(text: str) -> str:
    """A quantity with its thousands set apart; a fraction as it is."""
    whole, point, rest = text.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-").isdigit() else text


def invoice_text(document: Mapping[str, Any], width: int = 100) -> str:
    """An invoice for a terminal.

    Args:
        document: The invoice.
        width: In columns.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from creto._plain import plain

    currency = document["currency"]
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False)
    console.print(f"{_title(document)}  {document['state']}", markup=False)
    console.print(f"{plain(document['customer'])}, {_when(document)}", markup=False)
    for word, head in _heads(document):
        console.print(f"{word} {plain(', '.join(head))}", markup=False)
    if document["kind"] == "credit_note":
        console.print(f"on {document['credits_invoice']}: {plain(document['reason'])}", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("line")
    table.add_column("what")
    table.add_column("quantity", justify="right")
    table.add_column("price")
    table.add_column(currency, justify="right")
    for line in document["lines"]:
        table.add_row(
            *(str(line["line"]), Text(plain(line["description"])), _number_text(_quantity(line))),
            *(Text(plain(price_text(line["price"], currency))), line["amount"]),
        )
    if document["lines"]:
        console.print(table)
    console.print(f"total {document['total']} {currency}", markup=False, justify="right")
    if document["credits"]:
        console.print(f"due after prepaid credits {document['due']} {currency}", markup=False, justify="right")
    for line in document["lines"]:
        if line["events"]:
            said = f"line {line['line']}: {counted(line['events'], 'event')}, commitment {line['commitment']}"
            console.print(said, markup=False)
    for found in document["unpriced"]:
        unpriced = f"no price: {found['quantity']} of {plain(found['meter'])} ({counted(found['events'], 'event')})"
        console.print(unpriced, markup=False)
    return out.getvalue().rstrip()


def invoice_csv(document: Mapping[str, Any]) -> str:
    """An invoice's lines as CSV, with a header; texts that a spreadsheet would run as formulas are quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ["line", "meter", "description", "start", "end", "quantity", "amount", "events", "commitment"]
    writer.writerow(["invoice", "customer", "currency", *columns])
    for line in document["lines"]:
        head = [document["number"], document["customer"], document["currency"]]
        told = {**line, "quantity": _quantity(line)}
        writer.writerow([_plain(value) for value in [*head, *(told[column] for column in columns)]])
    return out.getvalue()


def _plain(value: Any) -> str:
    text = str(value)
    return text if _number(text) else cell(text)


def _number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).replace("/", "", 1).isdigit()


def invoice_html(document: Mapping[str, Any]) -> str:
    """An invoice as one page without anything from elsewhere, which prints well."""
    from creto.metering._invoice import digest

    currency = escape(document["currency"])
    rows = "".join(
        f"<tr><td data-name=line>{line['line']}</td><td class=what>{escape(line['description'])}{_evidence(line)}</td>"
        f"<td class=number data-name=quantity>{escape(_number_text(_quantity(line)))}</td>"
        f"<td data-name=price>{escape(price_text(line['price'], document['currency']))}</td>"
        f"<td class=number data-name={currency}>{escape(line['amount'])}</td></tr>"
        for line in document["lines"]
    )
    credits = "".join(
        f"<tr><td colspan=4 class=number>prepaid credit</td><td class=number>-{escape(credit['amount'])}</td></tr>"
        for credit in document["credits"]
    )
    due = (
        f"<tr class=total><td colspan=4 class=number>due</td><td class=number>{escape(document['due'])}</td></tr>"
        if document["credits"]
        else ""
    )
    reason = ""
    if document["kind"] == "credit_note":
        reason = f"<p>on {escape(document['credits_invoice'])}: {escape(document['reason'])}</p>"
    unpriced = "".join(
        f"<p class=soft>no price: {escape(found['quantity'])} of {escape(found['meter'])}"
        f" ({counted(found['events'], 'event')})</p>"
        for found in document["unpriced"]
    )
    table = f"""<table>
<thead><tr><th scope=col>line<th scope=col>what<th scope=col class=number>quantity<th scope=col>price
<th scope=col class=number>{currency}</tr></thead>
<tbody>{rows}</tbody>
<tfoot><tr class=total><td colspan=4 class=number>total</td><td class=number>{escape(document["total"])}</td></tr>
{credits}{due}</tfoot></table>{unpriced}
<p class=soft>Every line commits to its events in the ledger: <code>creto invoice verify FILE</code> checks them.</p>"""
    if document["kind"] == "credit_note":
        total = f"<td>credit</td><td class=number>{escape(document['total'])} {currency}</td>"
        table = f"<table><tfoot><tr class=total>{total}</tr></tfoot></table>"
    heads = "".join(
        f"<div><span class=soft>{word}</span><br>{'<br>'.join(map(escape, head))}</div>"
        for word, head in _heads(document)
    )
    heads = f"<div class=heads>{heads}</div>" if heads else ""
    body = f"""<h1>{escape(_title(document))}</h1>
<p>{escape(document["customer"])} <span class=soft>&middot; {escape(document["state"])}</span></p>
<p class=soft>{escape(_when(document))}</p>{heads}{reason}
{table}
<p class=soft><code>sha256 {digest(document)}</code></p>"""
    return _page(_title(document), body)


def _evidence(line: Mapping[str, Any]) -> str:
    if not line["events"]:
        return ""
    return f"<br><code>{counted(line['events'], 'event')}, commitment {escape(line['commitment'])}</code>"


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def bars(values: Sequence[float], width: int) -> list[str]:
    """Bars of block characters, to an eighth of a column; the greatest fills the width.

    Args:
        values: Not negative.
        width: In columns.

    Example:
        >>> bars([4, 2, 0], 4)
        ['████', '██', '']
    """
    greatest = max(values, default=0)
    found = []
    for value in values:
        eighths = round(value / greatest * width * 8) if greatest else 0
        found.append("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip())
    return found


def usage_html(
    title: str,
    columns: Sequence[str],
    buckets: Sequence[tuple[str, str, Bucket]],
    *,
    period: str = "",
    beside: Mapping[str, Sequence[str | int]] | None = None,
) -> str:
    """Usage as one page: a table for each meter, with a bar for each bucket on that meter's own scale.

    Args:
        title: Of the page.
        columns: Names of the dimensions grouped by.
        buckets: The meter, when the bucket is, as text, and the bucket.
        period: From when until when, as text.
        beside: Further columns by name, such as what it costs: a text or a number for each bucket.
    """
    further = beside or {}
    heads = "".join(f"<th scope=col>{escape(column)}" for column in columns)
    numbers = "".join(f"<th scope=col class=number>{escape(name)}" for name in ("quantity", *further))
    parts = []
    for meter in dict.fromkeys(name for name, _, _ in buckets):
        own = [(when, bucket, place) for place, (name, when, bucket) in enumerate(buckets) if name == meter]
        greatest = max([*(bucket.value for _, bucket, _ in own), Fraction(0)]) or Fraction(1)
        rows = "".join(
            f"<tr><td class=when data-name=from>{escape(when)}</td>{_group(columns, bucket)}"
            + _numbers({"quantity": _value(meter, bucket), **{name: texts[place] for name, texts in further.items()}})
            + "<td class=wide aria-hidden=true>"
            f"<div class=bar style='width:{max(0.0, float(bucket.value / greatest)):.2%}'></div></td></tr>"
            for when, bucket, place in own
        )
        head = f"<thead><tr><th scope=col>from{heads}{numbers}<td></tr></thead>"
        parts.append(f"<h2>{escape(meter)}</h2><table>{head}<tbody>{rows}</tbody></table>")
    if not parts:
        parts.append("<p class=soft>Nothing was used.</p>")
    when = f"<p class=soft>{escape(period)}</p>" if period else ""
    return _page(title, f"<h1>{escape(title)}</h1>{when}{''.join(parts)}")


def _numbers(values: Mapping[str, str | int]) -> str:
    return "".join(
        f"<td class=number data-name='{escape(name)}'>{escape(each if isinstance(each, str) else f'{each:,}')}</td>"
        for name, each in values.items()
    )


def _group(columns: Sequence[str], bucket: Bucket) -> str:
    return "".join(
        f"<td data-name='{escape(column)}'>{escape(name)}</td>"
        for column, name in zip(columns, bucket.group, strict=True)
    )


def _value(meter: str, bucket: Bucket) -> str:
    value = bucket.value
    return measured(meter, value.numerator) if value.denominator == 1 else f"{float(value):,.3f}"
