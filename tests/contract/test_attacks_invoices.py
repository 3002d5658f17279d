"""An issuer who lies, and whoever changes an invoice on its way: `creto invoice verify` finds each of them out.

The issuer here holds the ledger's keys, and has the ledger record the forged document as its own: what stands against
it are the events alone.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.billing import END, HOUR, NOON, START, House

from creto import _core
from creto.cli import main
from creto.config import Price
from creto.metering import Ingest, LedgerEvidence, PriceBook, UsageEvent, verify_invoice
from creto.metering._proof import line_events, prove_event, verify_event
from creto.metering._render import invoice_csv
from creto.store.tables import credits

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


def test_a_shard_that_an_issuer_drops_is_pointed_out_by_the_public_tiles(house: House) -> None:
    """A correction stands in the second shard: whoever leaves that out charges what was taken back."""
    other = _core.Ledger(str(house.folder), house.clock, house.key)
    try:
        with Ingest(other, house.folder, house.clock) as ingest:
            ingest.take_blocking(
                [
                    UsageEvent("desk", "1", "acme", "tool_calls", -4, NOON),
                    UsageEvent("desk", "2", "globex", "tool_calls", 1, NOON),
                ]
            )
        other.publish_blocking(30)
        with Ingest(house.ledger, house.folder, house.clock) as ingest:  # so that the first shard goes on after it
            ingest.take_blocking([UsageEvent("gateway", "last", "acme", "tool_calls", 1, NOON)])
        house.publish()
        book = PriceBook(PRICES, "USD")
        whole = LedgerEvidence(house.folder)
        assert len({shard for shard, _, _ in whole.stretches}) == 2
        first = next(shard for shard, _, _ in whole.stretches)
        partly = LedgerEvidence(house.folder)
        partly.stretches = [one for one in whole.stretches if one[0] == first]
        short = house.invoices.run(book, START, END, "UTC", partly, customers=["acme"])[0]
        house.publish()
        assert line_for(short.document, "tool_calls")["quantity"] == "23"
        (found,) = failures(house, short.document)
        assert "left out: it leaves out 1 event in records 0 to 0 of shard" in found
        assert "and were there before others that it counts" in found
        # With all that there was, nothing is left out; what another shard took meanwhile is named, and is no fault.
        house.invoices.void(short.number)
        honest = house.invoices.draft(book, "acme", START, END, "UTC", whole)
        with Ingest(other, house.folder, house.clock) as ingest:
            ingest.take_blocking([UsageEvent("desk", "3", "acme", "tool_calls", 1, NOON)])
        other.publish_blocking(30)
        made = house.invoices.finalize(honest.id).document
        house.publish()
        assert line_for(made, "tool_calls")["quantity"] == "19"
        assert failures(house, made) == []
        (detail,) = (one.detail for one in verify_invoice(made, house.folder, house.keys) if one.what == "left out")
        assert detail.startswith("1 event in records 1 to 1 of shard")
        assert detail.endswith("came after the last that it counts: the next invoice charges them as late usage")
    finally:
        other.close_blocking()


def test_a_shard_of_which_no_checkpoint_says_anything_yet_is_no_fault_of_an_invoice(house: House) -> None:
    document = invoiced(house)["acme"]
    other = _core.Ledger(str(house.folder), house.clock, house.key)
    try:
        assert len(_core.ledger_shards(str(house.folder))) == 2
        assert failures(house, document) == []
    finally:
        other.close_blocking()


def prepaid(house: House, customer: str = "acme", total: str = "5.00", **more: Any) -> str:
    made = house.invoices.prepay(customer, "USD", Decimal(total), **more)
    house.publish()
    return made


def faults(house: House) -> dict[str, list[str]]:
    return {one.credit: one.faults for one in house.invoices.credits(house.folder)}


def test_what_is_left_of_a_prepaid_credit_follows_from_the_ledger_alone(house: House) -> None:
    credit, lost = prepaid(house), prepaid(house, expires=1)
    document = invoiced(house)["acme"]
    assert (document["credits"], document["due"]) == ([{"credit": credit, "amount": "5.00"}], "195.00")
    found = {
        one.credit: (one.granted, one.taken, one.expired, one.left) for one in house.invoices.credits(house.folder)
    }
    five, none = Decimal("5.00"), Decimal("0.00")
    assert found == {credit: (five, five, 0, none), lost: (five, 0, five, none)}
    house.invoices.void(document["number"])
    house.publish()
    assert {one.credit: one.left for one in house.invoices.credits(house.folder)} == {credit: five, lost: none}
    assert faults(house) == {credit: [], lost: []}
    # The invoice that is void stays what it was.
    assert failures(house, document) == []


def test_a_balance_that_is_raised_in_the_store_is_found_out_by_its_grant(house: House) -> None:
    credit = prepaid(house)
    with house.store.begin() as tx:
        tx.execute(update(credits).where(credits.c.id == credit).values(left="50.00"))
    assert faults(house) == {credit: ["the store says that 50.00 is left, and the ledger 5.00"]}
    made = house.invoices.run(PriceBook(PRICES, "USD"), START, END, "UTC", LedgerEvidence(house.folder))
    house.publish()
    document = next(one.document for one in made if one.document["customer"] == "acme")
    assert document["due"] == "150.00"
    assert failures(house, document) == [
        f"prepaid: the prepaid credit `{credit}`: 5.00 was granted, and 50.00 taken off it"
    ]


def take_off_what_nobody_paid(document: Document, _: str) -> None:
    document["credits"].append({"credit": "00" * 8, "amount": "50.00"})
    document["due"] = "145.00"


def take_off_more_than_was_drawn(document: Document, credit: str) -> None:
    document["credits"] = [{"credit": credit, "amount": "7.00"}]
    document["due"] = "193.00"


def keep_what_was_paid(document: Document, _: str) -> None:
    document.update(credits=[], due=document["total"])


CREDITS: list[tuple[Callable[[Document, str], None], str]] = [
    (
        take_off_what_nobody_paid,
        "the ledger has 0 taken off the prepaid credit `0000000000000000`, and the invoice says 50",
    ),
    (
        take_off_more_than_was_drawn,
        "the ledger has 5.00 taken off the prepaid credit `CREDIT`, and the invoice says 7.00",
    ),
    (keep_what_was_paid, "the ledger has 5.00 taken off the prepaid credit `CREDIT`, and the invoice says 0"),
]


@pytest.mark.parametrize(("forge", "text"), CREDITS, ids=[forge.__name__ for forge, _ in CREDITS])
def test_credits_of_an_invoice_are_those_that_the_ledger_has_drawn_for_it(
    house: House, forge: Callable[[Document, str], None], text: str
) -> None:
    credit = prepaid(house)
    document = invoiced(house)["acme"]
    forge(document, credit)
    found = failures(house, house.claim(document))
    assert any(one.startswith(f"prepaid: {text.replace('CREDIT', credit)}") for one in found), found


def test_a_draw_that_the_ledger_was_made_to_hold_does_not_make_a_credit_good(house: House) -> None:
    """The issuer holds the ledger's keys: the credit is another customer's, granted twice, run out, or no money."""
    own, others, gone = prepaid(house), prepaid(house, "globex"), prepaid(house, expires=2**51)
    document = invoiced(house)["acme"]
    told = {"customer": "acme", "currency": "USD", "amount": "5.00"}

    def forged(number: str, credit: str, *records: tuple[str, dict[str, str]]) -> list[str]:
        entries = [
            {"who": "x", "what": f"prepaid:{what}", "resource": credit, "kind": "event", "detail": {**told, **detail}}
            for what, detail in (*records, ("draw", {"invoice": number}))
        ]
        house.ledger.append_records(entries)
        claimed = {**document, "number": number, "credits": [{"credit": credit, "amount": "5.00"}], "due": "195.00"}
        return [one for one in failures(house, house.claim(claimed)) if one.startswith("prepaid")]

    assert forged("INV-2026-000801", others) == [
        f"prepaid: the prepaid credit `{others}` is of globex in USD, not of its customer"
    ]
    assert forged("INV-2026-000802", own) == [
        f"prepaid: the prepaid credit `{own}`: 5.00 was granted, and 10.00 taken off it"
    ]
    assert forged("INV-2026-000803", own, ("grant", {})) == [
        f"prepaid: the prepaid credit `{own}`: it was granted twice"
    ]
    assert forged("INV-2026-000804", "ff" * 8) == [f"prepaid: the prepaid credit `{'ff' * 8}` was never granted"]
    assert forged("INV-2026-000805", gone, ("expire", {})) == [
        f"prepaid: the prepaid credit `{gone}`: 5.00 was granted, and 15.00 taken off it"
    ]
    assert forged("INV-2026-000806", "ee" * 8, ("grant", {"expires": "1"})) == [
        f"prepaid: the prepaid credit `{'ee' * 8}`: INV-2026-000806 took 5.00 off it after it had expired"
    ]
    assert forged("INV-2026-000807", "dd" * 8, ("grant", {"amount": "1e999999"})) == [
        f"prepaid: what the ledger says of the prepaid credit `{'dd' * 8}`: 1E+999999 is no amount of USD"
    ]


def test_late_usage_that_had_no_price_when_its_period_closed_is_charged_once_however_often_more_comes(
    house: House,
) -> None:
    """What was there without a price stays uncharged, also when a second late event comes after a first."""
    house.act(50, {"pages": 6}, at=NOON + 50)
    house.publish()
    invoiced(house)
    prices = [*PRICES[:4], Price(meter="pages", unit_price=7)]
    for number, start in enumerate([END, END + 24 * HOUR]):
        house.act(51 + number, {"pages": 4 + number}, at=NOON + 51 + number)
        house.publish()
        made = house.invoices.finalize(house.draft(prices, start, start + 24 * HOUR).id).document
        house.publish()
        (late,) = (line for line in made["lines"] if line["meter"] == "pages")
        assert (late["quantity"], late["before"]["amount"]) == [("4", "42.00"), ("5", "70.00")][number]
        assert late["amount"] == ["28.00", "35.00"][number]
        assert failures(house, made) == []


@pytest.fixture
def topping_up(house: House) -> Document:
    """An adjusted top-up: late usage of a meter that the invoice had a line for, and of one that had no price then."""
    house.act(50, {"pages": 6}, at=NOON + 50)
    house.publish()
    first = invoiced(house)["acme"]
    assert line_for(first, "commitment")["amount"] == "86.00"
    house.act(100, {"tool_calls": 3, "pages": 4}, at=NOON + 60)
    house.publish()
    prices = [*PRICES[:4], Price(meter="pages", unit_price=7)]
    made = house.invoices.finalize(house.draft(prices, END, END + 24 * HOUR).id).document
    house.publish()
    assert failures(house, made) == []
    return dict(json.loads(json.dumps(made)))


def test_a_commitment_of_a_closed_period_counts_what_was_charged_for_it_and_nothing_else(topping_up: Document) -> None:
    (line,) = (line for line in topping_up["lines"] if line["meter"] == "commitment")
    # 114.00 before, 3.00 and 28.00 now; 42.00 of the pages had no price then, and are not charged.
    assert (line["before"]["whole"], line["before"]["amount"], line["amount"]) == ("145", "86.00", "-31.00")
    assert [one.get("uncharged") for one in line["before"]["counted"]] == [None, None, None, None, "42.00"]


def keep_the_top_up(line: Document) -> None:
    line["before"]["whole"] = "114"
    line["amount"] = "0.00"


def top_up_from_nothing(line: Document) -> None:
    line["before"]["amount"] = "0.00"
    line["amount"] = "55.00"


def leave_a_meter_out_of_what_is_counted(line: Document) -> None:
    line["before"]["counted"].pop(0)


def count_all_as_uncharged(line: Document) -> None:
    line["before"]["counted"][0]["uncharged"] = "17.00"
    line["before"]["whole"] = "128"
    line["amount"] = "-14.00"


def count_a_meter_twice(line: Document) -> None:
    line["before"]["counted"].append(line["before"]["counted"][0])


def say_that_events_are_committed_to(line: Document) -> None:
    line["events"] = 3


TOP_UPS: list[tuple[Callable[[Document], None], str]] = [
    (keep_the_top_up, "what is counted makes 145, and the line says 114"),
    (
        top_up_from_nothing,
        "what was there before was topped up by 86.00, and the line says that INV-2026-000001 charged 0",
    ),
    (leave_a_meter_out_of_what_is_counted, "what is counted makes 122, and the line says 145"),
    (count_all_as_uncharged, "20.00 of `tool_calls` was there when INV-2026-000001 was made, and the line says 17.00"),
    (count_a_meter_twice, "counts `tool_calls` twice"),
    (say_that_events_are_committed_to, "a line that tops up has no events of its own"),
]


@pytest.mark.parametrize(("forge", "text"), TOP_UPS, ids=[forge.__name__ for forge, _ in TOP_UPS])
def test_the_top_up_of_a_closed_period_is_held_against_its_events(
    house: House, topping_up: Document, forge: Callable[[Document], None], text: str
) -> None:
    topping_up["number"] = "INV-2026-000800"
    forge(next(line for line in topping_up["lines"] if line["meter"] == "commitment"))
    total_again(topping_up)
    found = failures(house, house.claim(topping_up))
    assert any(text in one for one in found), found


@pytest.mark.parametrize("before", ["", "acme;"])
@pytest.mark.parametrize("formula", ["=1+1", "\n=1+1", " =1+1", "\uff1d1+1", "-1+1"])
def test_no_spreadsheet_takes_a_customers_name_for_a_formula(before: str, formula: str) -> None:
    text = before + formula
    line: dict[str, Any] = dict.fromkeys(("line", "meter", "start", "end", "quantity", "events", "commitment"), "x")
    line["price"] = {"model": "per_unit"}
    document = {"number": "INV-1", "customer": text, "currency": "EUR"}
    (row,) = csv.DictReader(
        io.StringIO(invoice_csv({**document, "lines": [{**line, "description": text, "amount": "-2.50"}]}))
    )
    assert row["customer"] == row["description"]
    assert row["customer"].replace("'", "") == text
    assert row["customer"].removeprefix(before).startswith("'")
    assert row["amount"] == "-2.50"
