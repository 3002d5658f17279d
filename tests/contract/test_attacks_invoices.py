"""An issuer who lies, and whoever changes an invoice on its way: `creto invoice verify` finds each of them out.

The issuer here holds the ledger's keys, and has the ledger record the forged document as its own: what stands against
it are the events alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.billing import END, HOUR, NOON, START, House

from creto import _core
from creto.cli import main
from creto.config import Price
from creto.metering import Ingest, LedgerEvidence, PriceBook, UsageEvent, verify_invoice
from creto.metering._proof import line_events, prove_event, verify_event

Document = dict[str, Any]
PRICES = [
    Price(meter="tool_calls", unit_price=1, included=2),
    Price(meter="tokens", unit_price=2, when={"model": "small"}),
    Price(meter="tokens", unit_price=5),
    Price(meter="seat", model="flat", unit_price=31),
    Price(meter="commitment", model="commitment", unit_price=200),
]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Two customers with acts and events of others, each with an invoice that holds."""
    made = House(tmp_path)
    for number in range(12):
        customer = ["acme", "globex"][number % 2]
        path = json.dumps([customer, "research", "spiffe://acme.test/agent/reader"])
        used = {"tool_calls": 2, "tokens": 3}
        made.act(number, used, at=NOON + number, path=path, model=["small", "large"][number // 2 % 2])
    with Ingest(made.ledger, made.folder, made.clock) as ingest:
        ingest.take_blocking(
            [UsageEvent("gateway", str(n), ["acme", "globex"][n % 2], "tool_calls", 1, NOON + n) for n in range(20)]
        )
    made.publish()
    yield made
    made.store.close()
    made.ledger.close_blocking()


def invoiced(house: House) -> dict[str, Document]:
    book = PriceBook(PRICES, "USD")
    made = house.invoices.run(book, START, END, "UTC", LedgerEvidence(house.folder))
    house.publish()
    documents: dict[str, Document] = {one.document["customer"]: one.document for one in made}
    for document in documents.values():
        assert failures(house, document) == []
    return json.loads(json.dumps(documents))


def failures(house: House, document: Document, keys: list[_core.VerifyingKey] | None = None) -> list[str]:
    found = verify_invoice(document, house.folder, house.keys if keys is None else keys)
    return [f"{one.what}: {one.detail}" for one in found if not one.ok]


def line_for(document: Document, meter: str, **when: str) -> Document:
    return next(line for line in document["lines"] if line["meter"] == meter and line["price"].get("when", {}) == when)


def total_again(document: Document) -> None:
    cents = sum(round(float(line["amount"]) * 100) for line in document["lines"])
    document["total"] = document["due"] = f"{cents / 100:.2f}"


def charge_more(document: Document, _: Document) -> None:
    line_for(document, "tool_calls").update(quantity="23", amount="21.00")
    total_again(document)


def add_an_event(document: Document, _: Document) -> None:
    line = line_for(document, "tool_calls")
    line["events"] += 1


def leave_events_out(document: Document, _: Document) -> None:
    """A whole line less: what it was for has no price any more, and is not listed."""
    document["lines"].remove(line_for(document, "tokens", model="small"))
    for number, line in enumerate(document["lines"], 1):
        line["line"] = number


def count_events_twice(document: Document, _: Document) -> None:
    document["lines"].insert(1, dict(document["lines"][0]))
    for number, line in enumerate(document["lines"], 1):
        line["line"] = number
    total_again(document)


def move_events_to_a_dearer_line(document: Document, _: Document) -> None:
    small, large = line_for(document, "tokens", model="small"), line_for(document, "tokens")
    small["price"]["when"], large["price"]["when"] = {"model": "large"}, {}
    small.update(commitment=large["commitment"])


def take_the_commitment_of_another_invoice(document: Document, other: Document) -> None:
    line_for(document, "tool_calls")["commitment"] = line_for(other, "tool_calls")["commitment"]


def take_the_line_of_another_customer(document: Document, other: Document) -> None:
    document["lines"][0] = other["lines"][0]
    document["lines"][0]["quantity"] = "22"


def send_it_to_another_customer(document: Document, other: Document) -> None:
    document["customer"] = other["customer"]
    document["lines"][0]["commitment"] = document["lines"][0]["commitment"]


def lengthen_the_time_of_a_fee(document: Document, _: Document) -> None:
    line_for(document, "seat").update(share="3", amount="93.00")
    total_again(document)


def move_a_line_out_of_the_period(document: Document, _: Document) -> None:
    line_for(document, "seat").update(start="2025-01-01T00:00:00Z")


def raise_the_commitment(document: Document, _: Document) -> None:
    line = line_for(document, "commitment")
    line.update(quantity="0", amount="200.00")
    total_again(document)


def credit_less_than_nothing(document: Document, _: Document) -> None:
    document["credits"] = [{"credit": "00" * 8, "amount": "-50.00"}]
    document["due"] = f"{float(document['total']) + 50:.2f}"


def adjust_the_same_time_again(document: Document, _: Document) -> None:
    """The period's own events once more, as if they were late ones of an invoice that never was."""
    line = json.loads(json.dumps(line_for(document, "tool_calls")))
    line.update(line=len(document["lines"]) + 1, before={"invoice": "INV-2026-000900", "whole": line["quantity"]})
    line["before"].update(amount="0.00", after={}, cuts=document["cuts"])
    document["lines"].append(line)
    total_again(document)


def count_a_line_as_paid_twice(document: Document, _: Document) -> None:
    document["lines"][0]["line"] = 7


FORGERIES: list[tuple[Callable[[Document, Document], None], str]] = [
    (charge_more, "line 1: the events add up to 22, and the line says 23"),
    (add_an_event, "line 1: 16 events in the ledger make the commitment"),
    (leave_events_out, "line 2: 6 events in the ledger make the commitment"),
    (count_events_twice, "is priced by both tool_calls and tool_calls"),
    (move_events_to_a_dearer_line, "events in the ledger make the commitment"),
    (take_the_commitment_of_another_invoice, "line 1: 16 events in the ledger make the commitment"),
    (take_the_line_of_another_customer, "line 1: 16 events in the ledger make the commitment"),
    (send_it_to_another_customer, "line 1: 16 events in the ledger make the commitment"),
    (lengthen_the_time_of_a_fee, "its time is 1 of the period, and the line says 3"),
    (move_a_line_out_of_the_period, "2025-01-01T00:00:00Z to 2026-11-25T00:00:00Z does not lie within its period"),
    (raise_the_commitment, "line 5: the other lines make 114, and the line says 0"),
    (credit_less_than_nothing, "total: a credit takes off nothing, or adds to what is due"),
    (adjust_the_same_time_again, "which it adjusts, had not ended before this invoice's"),
    (count_a_line_as_paid_twice, "total: its lines are not numbered from 1 on"),
]


@pytest.mark.parametrize(("forge", "text"), FORGERIES, ids=[forge.__name__ for forge, _ in FORGERIES])
def test_an_issuer_who_has_the_ledger_record_a_forged_invoice_is_found_out_by_its_events(
    house: House, forge: Callable[[Document, Document], None], text: str
) -> None:
    documents = invoiced(house)
    forged = documents["acme"]
    forged["number"] = "INV-2026-000800"
    forge(forged, documents["globex"])
    found = failures(house, house.claim(forged))
    assert any(text in one for one in found), found
    # The ledger did record it: it is the lines that give it away, not the digest.
    assert not any("digest" in one or "no checkpoint" in one for one in found)


@pytest.fixture
def adjusting(house: House) -> Document:
    """The invoice after, with late usage of the first; on both floors of the price for tokens."""
    first = invoiced(house)["acme"]
    for number, model in enumerate(["small", "large", "large"]):
        house.act(100 + number, {"tokens": 4}, at=NOON + 50 + number, model=model)
    house.act(110, {"tool_calls": 5}, at=END + 5)
    house.publish()
    made = house.invoices.finalize(house.draft(PRICES[:4], END, END + 24 * HOUR).id)
    house.publish()
    assert failures(house, made.document) == []
    late = [line for line in made.document["lines"] if "before" in line]
    assert {line["before"]["invoice"] for line in late} == {first["number"]}
    return dict(json.loads(json.dumps(made.document)))


def say_that_less_was_paid(line: Document) -> None:
    line["amount"] = f"{float(line['amount']) + float(line['before']['amount']):.2f}"
    line["before"]["amount"] = "0.00"


def say_that_more_was_used_in_all(line: Document) -> None:
    line["before"]["whole"] = str(int(line["before"]["whole"]) + 10)
    line["amount"] = f"{float(line['amount']) + 20:.2f}"


def count_what_was_charged_as_late(line: Document) -> None:
    line["before"]["after"] = dict.fromkeys(line["before"]["after"], 0)


LATE: list[tuple[Callable[[Document], None], str]] = [
    (say_that_less_was_paid, "what was there before cost 18.00, and the line says that INV-2026-000001 charged 0.00"),
    (say_that_more_was_used_in_all, "all events of that time add up to 13, and the line says 23"),
    (count_what_was_charged_as_late, "events in the ledger make the commitment"),
]


@pytest.mark.parametrize(("forge", "text"), LATE, ids=[forge.__name__ for forge, _ in LATE])
def test_late_usage_is_held_against_what_the_ledger_held_before(
    house: House, adjusting: Document, forge: Callable[[Document], None], text: str
) -> None:
    adjusting["number"] = "INV-2026-000800"
    forge(next(line for line in adjusting["lines"] if line["description"].startswith("tokens (model small)")))
    total_again(adjusting)
    found = failures(house, house.claim(adjusting))
    assert any(text in one for one in found), found


def test_late_usage_of_one_price_is_told_from_that_of_another_that_had_none(house: House) -> None:
    first = invoiced(house)["acme"]
    house.act(100, {"tokens": 4}, at=NOON + 50, model="large")
    house.publish()
    made = house.invoices.finalize(house.draft(PRICES[:4], END, END + 24 * HOUR).id).document
    house.publish()
    (late,) = (line for line in made["lines"] if "before" in line and line["meter"] == "tokens")
    assert (late["quantity"], late["before"]["whole"], late["amount"]) == ("4", "13", "20.00")
    assert [one["price"]["when"] for one in late["before"]["beside"]] == [{"model": "small"}]
    assert failures(house, made) == []
    events = line_events(made, late["line"], house.folder)
    assert [(event.quantity, event.dimensions["model"]) for event in events] == [(4, "large")]
    assert all(one.ok for one in verify_event(prove_event(made, late["line"], 1, house.folder), house.keys))
    assert late["before"]["invoice"] == first["number"]


def test_usage_that_had_no_price_stays_uncharged_when_late_usage_is_priced(house: House) -> None:
    """It was listed as without a price when its period was invoiced: a late event does not bring the bill for it."""
    house.act(50, {"pages": 6}, at=NOON + 50)
    house.publish()
    first = invoiced(house)["acme"]
    assert first["unpriced"] == [{"meter": "pages", "quantity": "6", "events": 1}]
    house.act(51, {"pages": 4}, at=NOON + 51)
    house.publish()
    prices = [*PRICES[:4], Price(meter="pages", unit_price=7)]
    made = house.invoices.finalize(house.draft(prices, END, END + 24 * HOUR).id).document
    house.publish()
    (late,) = (line for line in made["lines"] if line["meter"] == "pages")
    assert (late["quantity"], late["before"]["amount"], late["amount"]) == ("4", "42.00", "28.00")
    assert failures(house, made) == []


def test_a_credit_note_for_another_customer_or_of_too_much_is_found_out(house: House) -> None:
    documents = invoiced(house)
    note = house.invoices.credit(documents["acme"]["number"], "an outage").document
    house.publish()
    assert failures(house, note) == []
    for number, (change, text) in enumerate(
        [
            ({"customer": "globex"}, "credit: INV-2026-000001 is an invoice of another customer: of `acme`"),
            ({"currency": "EUR"}, "credit: INV-2026-000001 is an invoice of another currency: of `USD`"),
            ({"credits_invoice": documents["globex"]["number"]}, "is an invoice of another customer: of `globex`"),
            ({"total": "-999.00", "due": "-999.00"}, "credit: -999.00 is no credit on INV-2026-000001 of 200.00"),
            ({"total": "5.00", "due": "5.00"}, "credit: 5.00 is no credit on INV-2026-000001"),
            ({"due": "-1.00"}, "is no credit on INV-2026-000001"),
            ({"credits_invoice": "INV-2026-000777"}, "no checkpoint covers a record of INV-2026-000777 yet"),
            ({"kind": "gift"}, "`gift` is neither an invoice nor a credit note"),
        ]
    ):
        forged = {**note, **change, "number": f"CRN-2026-0008{number:02}"}
        found = failures(house, house.claim(forged))
        assert any(text in one for one in found), found
    # And one that was changed on its way, without the issuer's help.
    assert failures(house, {**note, "reason": "a gift"}) == [
        f"recorded: the ledger recorded {note['number']} with another digest"
    ]


def test_a_ledger_written_anew_under_another_key_convinces_only_who_takes_that_key(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = invoiced(house)
    fake = tmp_path / "fake"
    fake.mkdir(mode=0o700)
    other = House(fake)
    try:
        for number in range(30):
            other.act(number, {"tool_calls": 9}, at=NOON + number)
        other.publish()
        forged = other.invoices.finalize(other.draft([Price(meter="tool_calls", unit_price=1)]).id).document
        other.publish()
        assert failures(other, forged) == []
        found = failures(other, forged, house.keys)
        assert found, "the true keys did not sign this ledger"
        assert found[0].startswith("ledger: ")
        # One of the two keys is enough for neither: the true ledger does not hold the forged invoice.
        both = [*house.keys, *other.keys]
        assert failures(house, forged, both) != []
        # The key swapped in the folder itself, and the command told where the true one is.
        key, file = tmp_path / "ledger.pub", tmp_path / "invoice.json"
        key.write_text(house.key.verifying_key.to_text())
        file.write_text(json.dumps(forged))
        command = ["invoice", "verify", str(file), "--ledger", str(other.folder), "--key", str(key)]
        assert main(["--state", str(tmp_path / "customer"), *command]) == 6
        assert "FAIL ledger" in capsys.readouterr().out
    finally:
        other.store.close()
        other.ledger.close_blocking()
    assert failures(house, documents["acme"]) == []


def test_an_event_taken_out_of_the_public_ledger_is_missed(house: House, tmp_path: Path) -> None:
    document = invoiced(house)["acme"]
    public = tmp_path / "public"
    shutil.copytree(house.folder, public)
    (batch,) = public.glob("*/batches/*")
    whole = batch.read_bytes()
    batch.write_bytes(whole[: len(whole) // 2])
    assert any(one.startswith("line 1: ") for one in failures_in(public, house, document))
    batch.unlink()
    assert any(one.startswith("line 1: ") for one in failures_in(public, house, document))
    batch.write_bytes(whole)
    assert failures_in(public, house, document) == []


def failures_in(folder: Path, house: House, document: Document) -> list[str]:
    return [f"{one.what}: {one.detail}" for one in verify_invoice(document, folder, house.keys) if not one.ok]
