"""Usage events of others, in batches, and prices of language models from a public table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from creto import _core
from creto.config import Price
from creto.errors import InvalidInputError, NotFoundError
from creto.metering import Ingest, Invoices, ModelPrices, PriceBook, UsageEvent, read_usage, verify_invoice
from creto.metering._verify import prove_event, verify_event
from creto.store import Store

NOON = 1_795_521_600_000_000


class House:
    """A ledger and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        self.key = _core.SigningKey.generate()
        self.clock = _core.HybridLogicalClock(str(folder / "clock"))
        self.ledger = self.open()
        self.store = Store(folder, clock=self.clock.now)

    def open(self) -> _core.Ledger:
        return _core.Ledger(str(self.folder), self.clock, self.key)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()
    made.ledger.close_blocking()


def event(number: int, **changes: Any) -> UsageEvent:
    return replace(UsageEvent("app", str(number), "acme", "pages", 2, NOON + number, {"team": "research"}), **changes)


def test_an_event_offered_again_is_taken_once_also_after_a_restart(house: House) -> None:
    ingest = Ingest(house.ledger, house.folder)
    assert ingest.take([event(1), event(2), event(1)]).taken == 2
    assert ingest.take([event(2), event(3)]).duplicates == 1
    house.ledger.close_blocking()
    house.ledger = house.open()
    again = Ingest(house.ledger, house.folder)
    assert (again.take([event(3), event(4)]).taken, again.take([event(4)]).taken) == (1, 0)
    # Another meter or source with the same id is another event.
    assert again.take([event(4, meter="images"), event(4, source="other")]).taken == 2
    usage = read_usage(house.folder)
    assert int(usage.aggregate("pages", only={"team": "research"})[0].value) == 10


def test_events_of_a_batch_are_invoiced_verified_and_proved(house: House) -> None:
    Ingest(house.ledger, house.folder).take([event(n) for n in range(100)])
    house.ledger.publish_blocking(30)
    book = PriceBook([Price(meter="pages", unit_price="0.5")], "USD")
    invoices = Invoices(house.store)
    made = invoices.draft(book, "acme", NOON, NOON + 1000, "UTC", read_usage(house.folder).events)
    assert made.document["total"] == "100.00"
    keys = [house.key.verifying_key]
    assert [f.detail for f in verify_invoice(made.document, house.folder, keys) if not f.ok] == []
    changed = json.loads(json.dumps(made.document))
    changed["lines"][0]["evidence"][3][2] = 4
    assert not all(f.ok for f in verify_invoice(changed, house.folder, keys))
    proof = prove_event(made.document, 1, 42, house.folder)
    assert all(f.ok for f in verify_event(proof, keys)), verify_event(proof, keys)


def test_a_changed_batch_is_found_out(house: House) -> None:
    Ingest(house.ledger, house.folder).take([event(n) for n in range(10)])
    house.ledger.publish_blocking(30)
    batches = [path for path in house.folder.parent.rglob("*") if path.is_file() and b'"pages"' in path.read_bytes()]
    assert batches
    for path in batches:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b'"quantity":"2"', b'"quantity":"9"'))
    with pytest.raises(Exception, match="batch"):
        read_usage(house.folder)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"meter": ""}, "`meter` has 1 to 1024 characters"),
        ({"quantity": 1.5}, "is not a whole number"),
        ({"quantity": float("nan")}, "is not a whole number"),
        ({"quantity": 2**100}, "is too large"),
        ({"at": NOON - 1}, "its time is closed"),
        ({"customer": 7}, "`customer` has 1 to 1024 characters"),
    ],
)
def test_one_bad_event_leaves_the_whole_batch_out(house: House, bad: dict[str, Any], text: str) -> None:
    ingest = Ingest(house.ledger, house.folder, since=NOON)
    with pytest.raises(InvalidInputError, match=text):
        ingest.take([event(1), event(2, **bad)])
    assert len(read_usage(house.folder)) == 0
    assert ingest.take([event(1)]).taken == 1


def test_a_cloudevent_without_a_field_is_refused_by_name() -> None:
    good = event(1).to_cloudevent()
    assert UsageEvent.from_cloudevent(good) == event(1)
    for name in ("id", "source", "subject", "time"):
        with pytest.raises(InvalidInputError, match=f"without `{name}`"):
            UsageEvent.from_cloudevent({key: value for key, value in good.items() if key != name})
    with pytest.raises(InvalidInputError, match="needs a zone"):
        UsageEvent.from_cloudevent({**good, "time": "2026-01-01T00:00:00"})


TABLE = """{
 "sample_spec": {"input_cost_per_token": 0.0},
 "large": {"input_cost_per_token": 1.25e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
           "output_cost_per_token": 1e-05, "output_cost_per_token_above_200k_tokens": 1.5e-05,
           "cache_read_input_token_cost": 1.25e-07, "input_cost_per_token_flex": 6.25e-07, "max_tokens": 65536},
 "pictures": {"output_cost_per_image": 0.04}
}"""


def test_a_table_of_model_prices_is_read_exactly(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(TABLE)
    prices = ModelPrices.load(file)
    assert prices.models == ["large"]
    cost = prices.act("large").cost
    per = {
        "input_tokens": Fraction("1.25e-06"),
        "output_tokens": Fraction("1e-05"),
        "cached_input_tokens": Fraction("1.25e-07"),
    }
    usage = {"input_tokens": 1201, "cached_input_tokens": 333, "output_tokens": 77}
    assert cost(usage) == -(-sum(per[meter] * units for meter, units in usage.items()) * 10**9 // 1)
    assert cost({"input_tokens": 200_001, "output_tokens": 1}) == 200_001 * 2500 + 15_000
    assert prices.act("large", "flex").cost({"input_tokens": 1000}) == 625_000
    assert [str(price.unit_price) for price in prices.prices("large")] == ["0.00000125", "1.25E-7", "0.00001"]
    with pytest.raises(NotFoundError, match="has no model `small`"):
        prices.act("small")
    with pytest.raises(InvalidInputError, match="`pictures` has no price per token"):
        prices.act("pictures")
