"""A ledger of acts and the invoices made from it, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from creto import _core
from creto.config import Price
from creto.metering import Invoices, LedgerEvidence, PriceBook
from creto.metering._invoice import digest
from creto.store import Store

AGENT = "spiffe://acme.test/agent/reader"
NOON = 1_795_521_600_000_000
HOUR = 3_600_000_000
START, END = NOON - 12 * HOUR, NOON + 12 * HOUR


class House:
    """A state folder with its ledger and store, as a layer has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self.folder.mkdir()
        self.key = _core.SigningKey.generate()
        self.clock = _core.HybridLogicalClock(str(folder / "clock"))
        self.ledger = _core.Ledger(str(self.folder), self.clock, self.key)
        self.store = Store(folder, clock=self.clock.now)
        self.store.attach(self.ledger)
        self.invoices = Invoices(self.store)

    @property
    def keys(self) -> list[_core.VerifyingKey]:
        return [self.key.verifying_key]

    def act(self, number: int, usage: dict[str, int], *, team: str = "research", at: int = NOON, **detail: str) -> None:
        path = detail.pop("path", json.dumps(["acme", team, AGENT]))
        self.ledger.append_records(
            [
                {
                    "who": AGENT,
                    "what": "tool:call",
                    "resource": "search",
                    "outcome": "success",
                    "kind": "outcome",
                    "id": f"{number:032x}",
                    "act": f"{number:032x}",
                    "timestamp": at << 12,
                    "usage": usage,
                    "detail": {"path": path, **detail},
                }
            ]
        )

    def publish(self) -> None:
        self.store.settle(self.ledger)
        self.ledger.publish_blocking(30)

    def draft(self, prices: list[Price], start: int = START, end: int = END) -> Any:
        book = PriceBook(prices, "USD")
        return self.invoices.draft(book, "acme", start, end, "UTC", LedgerEvidence(self.folder))

    def claim(self, document: dict[str, Any]) -> dict[str, Any]:
        """What an issuer who lies can do: the ledger records the document as it is, signed with the true keys."""
        what = "invoice:credit" if document["kind"] == "credit_note" else "invoice:finalize"
        told = {name: str(document[name]) for name in ("customer", "total", "currency")}
        self.ledger.append_records(
            [
                {
                    "who": AGENT,
                    "what": what,
                    "resource": document["number"],
                    "kind": "event",
                    "digest": digest(document),
                    "detail": told,
                }
            ]
        )
        self.publish()
        return document
