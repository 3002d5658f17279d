"""From acts in the ledger to invoices that whoever pays can check."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.billing import AGENT, END, HOUR, NOON, START, House

from creto import _core
from creto.config import Price
from creto.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from creto.metering import (
    EventEvidence,
    Invoices,
    LedgerEvidence,
    PriceBook,
    Usage,
    UsageEvent,
    read_usage,
    verify_invoice,
)
from creto.metering._invoice import drafts
from creto.metering._proof import prove_event, verify_event
from creto.metering._render import invoice_csv, invoice_html, invoice_text, usage_html


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()
    made.ledger.close_blocking()


PRICES = [
    Price(meter="tool_calls", unit_price="0.015", included=10),
    Price(meter="tokens", unit_price="2.5", per=1_000_000, when={"model": "small"}),
    Price(meter="tokens", unit_price="10", per=1_000_000),
]


def test_an_invoice_is_made_of_the_acts_in_the_ledger_and_verified_against_them(house: House) -> None:
    for number in range(25):
        model = "small" if number % 2 else "large"
        house.act(number, {"tool_calls": 1, "tokens": 100_000}, at=NOON + number, model=model)
    house.publish()
    made = house.invoices.finalize(house.draft(PRICES).id)
    lines = {(line["meter"], line["description"]): line["amount"] for line in made.document["lines"]}
    assert lines == {
        ("tool_calls", "tool_calls"): "0.22",  # 15 x 0.015 = 0.225: half to even
        ("tokens", "tokens (model small)"): "3.00",
        ("tokens", "tokens"): "13.00",
    }
    assert (made.number, made.document["total"]) == ("INV-2026-000001", "16.22")
    house.publish()
    findings = verify_invoice(made.document, house.folder, house.keys)
    assert [finding.detail for finding in findings if not finding.ok] == []
    assert [finding.what for finding in findings] == [
        *("ledger", "line 1", "line 2", "line 3"),
        *("unpriced", "total", "prepaid", "left out", "recorded"),
    ]
    # Another process, with other keys, is told that they did not sign.
    other = [_core.SigningKey.generate().verifying_key]
    assert not all(finding.ok for finding in verify_invoice(made.document, house.folder, other))


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        (lambda d: d["lines"][0].update(amount="9.99"), "the line says 9.99"),
        (lambda d: d["lines"][0].update(quantity="500"), "the events add up to 3"),
        (lambda d: d["lines"][0].update(events=2), "3 events in the ledger make the commitment"),
        (lambda d: d["lines"][0].update(commitment="00" * 32), "and the line says 3 and 0000"),
        (lambda d: d["lines"].append(d["lines"][0]), "is priced by both"),
        (lambda d: d["lines"].clear(), "what has no price is"),
        (lambda d: d["lines"][0]["price"].update(unit_price="7"), "cost 21.00"),
        (lambda d: d["evidence"]["0000"].append(999), "record 998 of shard `0000` is not covered"),
        (lambda d: d["evidence"]["0000"].__setitem__(0, 1), "do not follow one another from 0 on"),
        (lambda d: d["evidence"].update({"../x": [0, 1]}), "has no shard"),
        (lambda d: d["cuts"].__setitem__(0, d["cuts"][0] + 1), "are not its own"),
        (lambda d: d.update(total="1000.00"), "the invoice says 1000.00"),
        (lambda d: d.update(customer="other"), "0 events in the ledger"),
        (lambda d: d.update(due="0.00", time_zone="Mars"), "another digest"),
    ],
)
def test_a_tampered_invoice_is_found_out(house: House, tamper: Any, text: str) -> None:
    for number in range(3):
        house.act(number, {"tool_calls": 1})
    house.publish()
    made = house.invoices.finalize(house.draft([Price(meter="tool_calls", unit_price=1)]).id)
    house.publish()
    assert all(f.ok for f in verify_invoice(made.document, house.folder, house.keys))
    document = json.loads(json.dumps(made.document))
    tamper(document)
    failed = [f.detail for f in verify_invoice(document, house.folder, house.keys) if not f.ok]
    assert any(text in detail for detail in failed), failed


def test_one_event_is_proved_without_the_invoice_or_the_ledger(house: House) -> None:
    for number in range(7):
        house.act(number, {"tool_calls": number})
    house.publish()
    made = house.draft([Price(meter="tool_calls", unit_price=1)])
    proof = json.loads(json.dumps(prove_event(made.document, 1, 5, house.folder)))
    assert all(finding.ok for finding in verify_event(proof, house.keys))
    changed = json.loads(json.dumps(proof["steps"]))
    changed[0]["index"] = 2
    for change in (
        {"commitment": "00" * 32},
        {"event": proof["event"].replace('"4"', '"9"')},
        {"steps": changed},
        {"steps": proof["steps"][:2]},
        {"batch": {"index": 0, "size": 1, "path": []}},
    ):
        assert not all(finding.ok for finding in verify_event({**proof, **change}, house.keys))
    assert not all(f.ok for f in verify_event(proof, [_core.SigningKey.generate().verifying_key]))


def test_an_act_recorded_twice_is_charged_once(house: House) -> None:
    house.act(1, {"tool_calls": 2})
    house.act(1, {"tool_calls": 2})
    other = _core.Ledger(str(house.folder), house.clock, house.key)
    assert other.shard != house.ledger.shard
    mine, house.ledger = house.ledger, other
    house.act(1, {"tool_calls": 2})
    house.ledger = mine
    other.close_blocking()
    house.publish()
    usage = read_usage(house.folder)
    assert [event.quantity for event in usage.events] == [2]
    assert usage.duplicates == 1


def test_late_usage_becomes_an_adjustment_of_the_next_invoice_once(house: House) -> None:
    prices = [Price(meter="tool_calls", unit_price=1, included=2)]
    house.act(1, {"tool_calls": 3})
    house.publish()
    first = house.invoices.finalize(house.draft(prices).id)
    assert first.document["total"] == "1.00"
    house.act(2, {"tool_calls": 4}, at=NOON + 1)
    house.act(3, {"tool_calls": 5}, at=END + 1)
    house.publish()
    second = house.invoices.finalize(house.draft(prices, END, END + 24 * HOUR).id)
    assert [line["amount"] for line in second.document["lines"]] == ["3.00", "4.00"]
    assert second.document["lines"][1]["description"] == "tool_calls: late usage of INV-2026-000001"
    house.publish()
    assert [f.detail for f in verify_invoice(second.document, house.folder, house.keys) if not f.ok] == []


def test_late_usage_is_charged_once_however_many_invoices_follow_and_by_the_prices_of_its_time(house: House) -> None:
    prices = [Price(meter="tool_calls", unit_price=1)]
    house.act(1, {"tool_calls": 3})
    house.publish()
    first = house.invoices.finalize(house.draft(prices).id)
    days = [(END + n * 24 * HOUR, END + (n + 1) * 24 * HOUR) for n in range(3)]
    # The price has doubled since, and no longer says when it began: what was invoiced at 1 stays at 1.
    dearer = [Price(meter="tool_calls", unit_price=2), Price(meter="pages", unit_price=7)]
    totals = []
    for number, (start, end) in enumerate(days):
        house.act(10 + number, {"tool_calls": 4, "pages": 1}, at=NOON + number)
        house.publish()
        made = house.invoices.finalize(house.draft(dearer, start, end).id)
        totals.append(made.document["total"])
        house.publish()
        assert [f.detail for f in verify_invoice(made.document, house.folder, house.keys) if not f.ok] == []
        assert "which cost 4.00 more" in verify_invoice(made.document, house.folder, house.keys)[1].detail
    assert totals == ["11.00", "11.00", "11.00"]
    assert first.document["total"] == "3.00"
    with pytest.raises(InvalidInputError, match="is adjusted by INV-2026-000002, which stands: write a credit note"):
        house.invoices.void(first.number)
    # The last one can go: its late usage comes back in the one made in its place.
    house.invoices.void("INV-2026-000004")
    again = house.invoices.finalize(house.draft(dearer, *days[2]).id)
    assert again.document["total"] == "11.00"


def test_a_draft_that_others_have_overtaken_is_not_finalized(house: House) -> None:
    prices = [Price(meter="tool_calls", unit_price=1)]
    house.act(1, {"tool_calls": 3})
    house.publish()
    narrow, wide = house.draft(prices), house.draft(prices, START - HOUR)
    house.invoices.finalize(narrow.id)
    with pytest.raises(AlreadyExistsError, match="was invoiced for this time by INV-2026-000001"):
        house.invoices.finalize(wide.id)
    house.act(2, {"tool_calls": 4}, at=NOON + 1)
    house.publish()
    following = house.draft(prices, END, END + HOUR)
    later = house.draft(prices, END + HOUR, END + 2 * HOUR)
    assert house.invoices.finalize(following.id).document["total"] == "4.00"
    with pytest.raises(InvalidInputError, match="late usage of INV-2026-000001 was settled since this draft was made"):
        house.invoices.finalize(later.id)


def test_an_invoice_costs_at_least_what_was_committed_to(house: House) -> None:
    prices = [
        Price(meter="tool_calls", unit_price=1),
        Price(meter="commitment", model="commitment", unit_price=10, customer="acme"),
    ]
    prices[0] = prices[0].model_copy(update={"customer": "acme"})
    house.act(1, {"tool_calls": 3})
    house.publish()
    made = house.invoices.finalize(house.draft(prices).id)
    assert [line["amount"] for line in made.document["lines"]] == ["3.00", "7.00"]
    house.publish()
    assert [f.detail for f in verify_invoice(made.document, house.folder, house.keys) if not f.ok] == []
    # Late usage fills the commitment first: nothing more is due before it is used up.
    house.act(2, {"tool_calls": 5}, at=NOON + 1)
    house.publish()
    following = house.invoices.finalize(house.draft(prices[:1], END, END + HOUR).id)
    assert sorted(line["amount"] for line in following.document["lines"]) == ["-5.00", "5.00"]
    house.publish()
    assert [f.detail for f in verify_invoice(following.document, house.folder, house.keys) if not f.ok] == []


def test_processes_that_invoice_the_same_month_at_once_make_one_invoice_a_customer(house: House) -> None:
    for number, customer in enumerate(["acme", "globex", "initech"]):
        path = json.dumps([customer, "research", AGENT])
        house.act(number, {"tool_calls": number + 1}, path=path)
    house.publish()
    book = PriceBook([Price(meter="tool_calls", unit_price=1)], "USD")
    ended: list[str] = []

    def run() -> None:
        try:
            made = Invoices(house.store).run(book, START, END, "UTC", LedgerEvidence(house.folder))
            ended.append(" ".join(f"{one.document['customer']}={one.document['total']}" for one in made))
        except AlreadyExistsError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("acme=1.00 globex=2.00 initech=3.00") == 1
    assert sum("was invoiced for this time by INV-2026-000001; void it first" in one for one in ended) == 3
    assert [one.number for one in house.invoices.list()] == [f"INV-2026-00000{n}" for n in (1, 2, 3)]


HOSTILE = "=HYPERLINK(1)<script>alert(1)</script>\x1b[2J"


def test_what_agents_named_things_runs_neither_in_a_page_nor_in_a_spreadsheet_nor_in_a_terminal(house: House) -> None:
    house.act(1, {HOSTILE: 1, "+cmd": 2}, path=json.dumps([HOSTILE, "t", AGENT]))
    house.publish()
    book = PriceBook([Price(meter=HOSTILE, unit_price=1, description=HOSTILE)], "USD")
    evidence = LedgerEvidence(house.folder)
    (document,) = (one.document for one in house.invoices.run(book, START, END, "UTC", evidence))
    assert "<script" not in invoice_html(document)
    assert "\n=" not in invoice_csv(document)
    assert ",=" not in invoice_csv(document)
    assert "'=HYPERLINK" in invoice_csv(document)
    assert "\x1b" not in invoice_text(document)
    bucket = read_usage(house.folder).aggregate(HOSTILE, by=["customer"])[0]
    assert "<script" not in usage_html(HOSTILE, [HOSTILE], [(HOSTILE, HOSTILE, bucket)])


def test_numbers_have_no_gaps_and_a_period_is_invoiced_once(house: House) -> None:
    prices = [Price(meter="tool_calls", unit_price=1)]
    house.act(1, {"tool_calls": 3})
    house.publish()
    first = house.draft(prices)
    second = house.draft(prices)  # in place of the first draft
    with pytest.raises(NotFoundError):
        house.invoices.finalize(first.id)
    made = house.invoices.finalize(second.id)
    with pytest.raises(AlreadyExistsError, match="was invoiced for this time by INV-2026-000001; void it first"):
        house.draft(prices)
    with pytest.raises(InvalidInputError, match="INV-2026-000001 is finalized, and cannot become finalized"):
        house.invoices.finalize(made.id)
    house.invoices.void(made.number)
    again = house.invoices.finalize(house.draft(prices).id)
    assert again.number == "INV-2026-000002"
    house.invoices.pay(again.number)
    with pytest.raises(InvalidInputError, match="is paid, and cannot become void"):
        house.invoices.void(again.number)


def test_racing_processes_finalize_a_draft_once(house: House) -> None:
    house.act(1, {"tool_calls": 3})
    house.publish()
    draft = house.draft([Price(meter="tool_calls", unit_price=1)])
    done: list[str] = []

    def finalize() -> None:
        with contextlib.suppress(InvalidInputError):
            done.append(Invoices(house.store).finalize(draft.id).number)

    threads = [threading.Thread(target=finalize) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["INV-2026-000001"]


def test_the_search_for_cycles_goes_on_after_a_run_however_it_ended(house: House) -> None:
    house.act(1, {"tool_calls": 10})
    house.publish()
    house.draft([Price(meter="tool_calls", unit_price=1)])
    assert gc.isenabled()
    with pytest.raises(InvalidInputError, match="the period ends before it starts"):
        house.draft([Price(meter="tool_calls", unit_price=1)], END, START)
    assert gc.isenabled()


def test_prepaid_credits_go_by_priority_then_expiry_and_come_back_when_void(house: House) -> None:
    house.act(1, {"tool_calls": 10})
    house.publish()
    soon, later = END * 2, END * 3
    second = house.invoices.prepay("acme", "USD", Decimal("4.00"), expires=later)
    first = house.invoices.prepay("acme", "USD", Decimal("3.00"), expires=soon)
    last = house.invoices.prepay("acme", "USD", Decimal("9.00"), priority=1)
    house.invoices.prepay("acme", "USD", Decimal("99.00"), expires=1)
    house.invoices.prepay("acme", "EUR", Decimal("99.00"))
    prices = [Price(meter="tool_calls", unit_price=1)]
    made = house.invoices.finalize(house.draft(prices).id)
    expected = [(first, "3.00"), (second, "4.00"), (last, "3.00")]
    assert [(taken["credit"], taken["amount"]) for taken in made.document["credits"]] == expected
    assert made.document["due"] == "0.00"
    house.invoices.void(made.number)
    assert house.invoices.finalize(house.draft(prices).id).document["credits"] == made.document["credits"]


def test_credit_notes_never_exceed_the_invoice(house: House) -> None:
    house.act(1, {"tool_calls": 10})
    house.publish()
    made = house.invoices.finalize(house.draft([Price(meter="tool_calls", unit_price=1)]).id)
    note = house.invoices.credit(made.number, "an outage", Decimal("4.00"))
    assert (note.number, note.document["total"]) == ("CRN-2026-000001", "-4.00")
    with pytest.raises(InvalidInputError, match="write an amount from 0.01 to 6.00"):
        house.invoices.credit(made.number, "more", Decimal("6.01"))
    assert house.invoices.credit(made.number, "the rest").document["total"] == "-6.00"
    house.publish()
    assert all(f.ok for f in verify_invoice(note.document, house.folder, house.keys))


def test_a_price_that_changes_within_the_period_makes_a_line_for_each_part(house: House) -> None:
    house.act(1, {"tool_calls": 10}, at=NOON - 1)
    house.act(2, {"tool_calls": 10}, at=NOON)
    house.publish()
    prices = [
        Price(meter="tool_calls", unit_price=1, included=4),
        Price(meter="tool_calls", unit_price=2, start="2026-11-24T12:00:00Z"),
        Price(meter="seat", model="flat", unit_price=31, start="2026-11-24T18:00:00Z"),
    ]
    lines = house.draft(prices).document["lines"]
    assert [(line["amount"], line["share"]) for line in lines] == [("8.00", "0.5"), ("20.00", "0.5"), ("7.75", "0.25")]
    # A fee is told as what it is multiplied by, not as what was used of its meter.
    document = house.draft(prices).document
    assert re.search(r"seat +0\.25 +31 USD flat +7\.75", invoice_text(document))
    assert "<td class=number data-name=quantity>0.25</td>" in invoice_html(document)
    assert [row["quantity"] for row in csv.DictReader(invoice_csv(document).splitlines())] == ["10", "10", "0.25"]


def test_two_prices_that_fit_alike_are_refused_and_what_has_no_price_is_listed(house: House) -> None:
    house.act(1, {"tool_calls": 1, "pages": 7}, model="small")
    house.publish()
    alike = [
        Price(meter="tool_calls", unit_price=1, when={"model": "small"}),
        Price(meter="tool_calls", unit_price=2, when={"team": "research"}),
    ]
    with pytest.raises(InvalidInputError, match="is priced by both"):
        house.draft(alike)
    assert house.draft(alike[:1]).document["unpriced"] == [{"meter": "pages", "quantity": "7", "events": 1}]


def test_prices_in_two_currencies_for_one_customer_are_refused() -> None:
    book = PriceBook([Price(meter="a", currency="EUR"), Price(meter="b", currency="USD")], "USD")
    with pytest.raises(InvalidInputError, match="has prices in EUR, USD"):
        book.currency_of("acme")


def test_corrections_that_take_away_more_than_there_was_are_refused() -> None:
    event = UsageEvent("app", "1", "acme", "m", 3, NOON)
    book = PriceBook([Price(meter="m", unit_price=1)], "USD")
    correction = replace(event, id="2", quantity=-1)

    def total(*events: UsageEvent) -> Any:
        return drafts(book, START, END, "UTC", EventEvidence(events))["acme"]["total"]

    assert total(event, correction) == "2.00"
    with pytest.raises(InvalidInputError, match="corrections took away more than there was"):
        total(event, replace(correction, quantity=-9))


def test_aggregates_follow_the_calendar_of_a_time_zone() -> None:
    midnight = 1_774_738_800_000_000  # 2026-03-29T00:00 in Zurich, a day of 23 hours
    usage = Usage(UsageEvent("s", str(n), "acme", "m", 1, midnight + n * HOUR) for n in range(30))
    days = usage.aggregate("m", window="day", time_zone="Europe/Zurich")
    assert [int(day.value) for day in days] == [23, 7]
    assert days[0].end - days[0].start == 23 * HOUR


def test_what_is_weighted_by_time_is_until_its_price_ends_whatever_else_begins_meanwhile(house: House) -> None:
    """Another meter's price that begins at noon splits the sums in two, and must not end this one's time there."""
    house.act(1, {"gigabytes": 3}, at=NOON - 6 * HOUR)
    house.publish()
    prices = [Price(meter="gigabytes", unit_price=1, per=3600, aggregation="weighted")]
    other = Price(meter="pages", unit_price=1, start="2026-11-24T12:00:00Z")
    hours = 18  # from six in the morning until midnight
    for book in (prices, [*prices, other]):
        document = house.draft(book).document
        assert [line["amount"] for line in document["lines"]] == [f"{3 * hours}.00"]
        assert [f.detail for f in verify_invoice(document, house.folder, house.keys) if not f.ok] == []


def test_an_invoice_that_is_credited_is_not_void_and_a_credit_note_is_not_credited(house: House) -> None:
    """Else the customer would have the note's amount, and owe nothing that it could be taken off."""
    house.act(1, {"tool_calls": 10})
    house.publish()
    prices = [Price(meter="tool_calls", unit_price=1)]
    made = house.invoices.finalize(house.draft(prices).id)
    note = house.invoices.credit(made.number, "an outage", Decimal("4.00"))
    with pytest.raises(InvalidInputError, match="is credited by CRN-2026-000001: void that one first"):
        house.invoices.void(made.number)
    with pytest.raises(InvalidInputError, match="is itself a credit note: only an invoice can be credited"):
        house.invoices.credit(note.number, "again")
    # A note that is void frees its amount for another.
    house.invoices.void(note.number)
    assert house.invoices.credit(made.number, "all of it").document["total"] == "-10.00"
    with pytest.raises(InvalidInputError, match="nothing is left of INV-2026-000001 that was not credited"):
        house.invoices.credit(made.number, "more")
    house.invoices.void("CRN-2026-000002")
    assert house.invoices.void(made.number).state == "void"
