"""What is told at the end of the example, from the ledger, the store and the servers' own notes."""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import creto
from creto.audit import tampered_copy, trusted_keys
from creto.metering import Invoices, LedgerEvidence, PriceBook, verify_invoice
from creto.metering._proof import prove_event, verify_event
from creto.report import Report, acts, differences, page
from servers import Site

HERE = Path(__file__).resolve().parent


async def tell(out: Path, started: float, transcript: Sequence[str], sites: Mapping[str, Site]) -> int:
    """Finishes the story and writes `report.html`; 0 where everything proved out."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.rule("what happened")
    state, work = out / "state", out / "work"
    async with creto.open(state, config=[HERE / "creto.toml"]) as layer:
        auditor = layer.agent("auditor")
        layer.agent("reviewer")
        sent = await layer.send(auditor, "reviewer", (work / "report.md").read_bytes(), content_type="text/markdown")
        console.print(f"auditor: sent report.md to reviewer, sealed: {sent.size} bytes")
    reviewed = await asyncio.create_subprocess_exec(sys.executable, str(HERE / "reviewer.py"), str(state), str(work))
    right = await reviewed.wait() == 0

    async with creto.open(state, config=[HERE / "creto.toml"]) as layer:
        overhead = await _overhead(layer)
        records = await layer.parts.audit.query(since=int(started * 1e6) << 12, limit=100_000)
        done = [act for act in acts(records) if act.who.endswith(("/auditor", "/reviewer"))]
        invoice = _invoice(layer, started)
        await layer.parts.audit.checkpoint()
        verified = await layer.parts.audit.verify()
        keys = trusted_keys(state)
        findings = verify_invoice(invoice.document, state / "ledger", keys)
        proof = prove_event(invoice.document, 1, 1, state / "ledger")
        findings += verify_event(proof, keys)
    quota = await _quota(state)
    tampered = await tampered_copy(state / "ledger", out / "tampered", trusted_keys(state))

    counts = Report("", done).counts()
    _table(console, "acts", ("ended", "number"), list(counts.items()))
    egress = [(act.resource, act.status, act.why) for act in done if act.what == "net:connect"]
    summary = sorted({(r, s, w, egress.count((r, s, w))) for r, s, w in egress})
    _table(console, "connections tried", ("destination", "ended", "why", "times"), summary)
    files = [(act.resource, act.status, act.why) for act in done if act.what == "fs:write"]
    _table(console, "files changed", ("path", "ended", "why"), files)
    _table(
        console,
        "answered by the release desk, over the inbox's HTTP API",
        ("answer",),
        [(line,) for line in transcript],
    )
    _table(console, "what the servers saw", ("server", "requests"), [(n, len(s.requests)) for n, s in sites.items()])
    _table(
        console,
        "quota",
        ("of", "meter", "window", "used", "limit"),
        [(q["name"], q["meter"], q["window"], q["used"], q["limit"]) for q in quota],
    )
    lines = [(x["meter"], x["quantity"], x["amount"], x["commitment"][:16]) for x in invoice.document["lines"]]
    total = f"{invoice.document['total']} {invoice.document['currency']}"
    _table(console, f"invoice {invoice.number}: {total}", ("meter", "quantity", "amount", "commitment"), lines)
    checks = [(finding.what, "yes" if finding.ok else "NO", finding.detail) for finding in findings]
    _table(
        console,
        "the invoice, and one of its events, proved from the ledger's public files",
        ("check", "holds", "how"),
        checks,
    )
    roots = [(v.origin, v.size, v.root) for v in verified]
    _table(console, "ledger, verified", ("shard", "records", "root"), roots)
    _table(console, "layer's own time for one act, measured now", ("durability", "p50 us", "p99 us", "acts"), overhead)
    console.print(f"a copy of the ledger with one byte changed: {tampered or 'NOT FOUND OUT'}")

    report = Report(
        "An audit under creto",
        done,
        {
            "agent": auditor.id,
            "invoice": f"{invoice.number}, {total}",
            **{f"ledger root of {origin}": f"{root} over {size} records" for origin, size, root in roots},
            "tampered copy": tampered or "not found out",
            **{f"overhead, {name}": f"p50 {p50} us, p99 {p99} us over {n} acts" for name, p50, p99, n in overhead},
            "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        },
        [
            ("Connections tried", ("destination", "ended", "why", "times"), summary),
            ("Files changed", ("path", "ended", "why"), files),
            ("Human answers", ("answer",), [(line,) for line in transcript]),
            (f"Invoice {invoice.number}", ("meter", "quantity", "amount", "commitment"), lines),
            ("Proofs", ("check", "holds", "how"), checks),
            # Where the reader's own configuration names a set to ask beside the one in force.
            *(table for table in [differences(records)] if table),
        ],
    )
    (out / "report.html").write_text(page(report))
    console.print(f"the same as a page with a timeline: {out / 'report.html'}")
    good = right and tampered and all(finding.ok for finding in findings)
    return 0 if good else 1


async def _quota(state: Path) -> list[dict[str, Any]]:
    """What `creto quota show` says."""
    command = ["-m", "creto", "--state", str(state), "--config", str(HERE / "creto.toml"), "quota", "show", "--json"]
    asked = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asked.communicate()
    return json.loads(said)


async def _overhead(layer: creto.EnablementLayer) -> list[tuple[str, float, float, int]]:
    """The layer's own time, measured on an operation that does nothing."""
    agent, rows = layer.agent("stopwatch"), []
    with_context = {"path": "measured"}
    for durability, number in (("strict", 300), ("relaxed", 3000)):
        times = []
        for _ in range(number):
            begun = time.perf_counter_ns()
            await layer.perform(agent, "fs:read", "measured", lambda: None, context=with_context, durability=durability)
            times.append((time.perf_counter_ns() - begun) / 1000)
        times.sort()
        rows.append((durability, round(times[number // 2], 1), round(times[number * 99 // 100], 1), number))
    return rows


def _invoice(layer: creto.EnablementLayer, started: float) -> Any:
    """A finalized invoice over everything since the start."""
    parts = layer.parts
    customer = parts.settings.common.trust_domain
    begin, end = int(started * 1e6) - 1_000_000, int(time.time() * 1e6) + 1_000_000
    # Only what a signed checkpoint covers is invoiced.
    parts.ledger.publish_blocking(30)
    book = PriceBook.from_settings(parts.settings)
    return Invoices(parts.store).run(
        book, begin, end, "UTC", LedgerEvidence(parts.folder / "ledger"), customers=[customer]
    )[0]


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table)


if __name__ == "__main__":
    sys.exit(asyncio.run(tell(Path(sys.argv[1]), float(sys.argv[2]), [], {})))
