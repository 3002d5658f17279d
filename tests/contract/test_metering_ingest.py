"""Usage events of others, in batches, and prices of language models from a public table."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import creto
from creto import _core
from creto.cli import main
from creto.config import Price, load
from creto.errors import AlreadyExistsError, IntegrityError, InvalidInputError, NotFoundError
from creto.metering import (
    Ingest,
    Invoices,
    LedgerEvidence,
    ModelPrices,
    PriceBook,
    UsageEvent,
    read_usage,
    verify_invoice,
)
from creto.metering._ingest import Taken
from creto.metering._proof import line_events, prove_event, verify_event
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

    def ingest(self, since: int = 0) -> Ingest:
        return Ingest(self.ledger, self.folder, self.clock, since)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()
    made.ledger.close_blocking()


def event(number: int, **changes: Any) -> UsageEvent:
    return replace(UsageEvent("app", str(number), "acme", "pages", 2, NOON + number, {"team": "research"}), **changes)


def test_an_event_offered_again_is_taken_once_also_after_a_restart(house: House) -> None:
    with house.ingest() as ingest:
        assert ingest.take_blocking([event(1), event(2), event(1)]).taken == 2
        assert ingest.take_blocking([event(2), event(3)]).duplicates == 1
    house.ledger.close_blocking()
    house.ledger = house.open()
    with house.ingest() as again:
        assert again.take_blocking([event(3), event(4)]).taken == 1
        # By source and id, whatever else it says: a retry that was changed on the way is a retry.
        assert again.take_blocking([event(4), event(4, meter="images"), event(1, quantity=9)]).taken == 0
        assert again.take_blocking([event(4, source="other")]).taken == 1
    usage = read_usage(house.folder)
    assert int(usage.aggregate("pages", only={"team": "research"})[0].value) == 10


def test_a_source_belongs_to_one_process_at_a_time_and_what_it_took_goes_with_it(house: House) -> None:
    first = house.ingest()
    assert first.take_blocking([event(1)]).taken == 1
    other = _core.Ledger(str(house.folder), house.clock, house.key)
    assert other.shard != house.ledger.shard
    second = Ingest(other, house.folder, house.clock)
    assert first.take_blocking([event(2)]).taken == 1
    with pytest.raises(AlreadyExistsError, match="the source `app` is taken in by another process"):
        second.take_blocking([event(3)])
    first.close()
    # It was opened before event 2 was recorded in the other shard, and yet knows of it.
    assert second.take_blocking([event(1), event(2), event(3)]) == Taken(1, 2)
    second.close()
    other.close_blocking()
    assert read_usage(house.folder).duplicates == 0


def test_many_tasks_offer_the_same_events_in_columns_and_each_is_taken_once(house: House) -> None:
    series = [("app", "acme", "pages", {"team": "research"}), ("app", "acme", "images", {})]
    ids = [f"e{n}" for n in range(1000)]
    which, at = np.arange(1000, dtype=np.uint32) % 2, np.full(1000, NOON, dtype=np.uint64)
    quantity = np.arange(1000, dtype=np.int64)
    taken: list[Taken] = []

    async def racing() -> None:
        async def offer(shift: int) -> None:
            order = list(range(shift, 1000)) + list(range(shift))
            taken.append(
                await ingest.take_columns(series, which[order], at[order], quantity[order], [ids[n] for n in order])
            )

        async with anyio.create_task_group() as group:
            for shift in range(0, 1000, 125):
                group.start_soon(offer, shift)

    with house.ingest() as ingest:
        for backend in ("asyncio", "trio"):
            anyio.run(racing, backend=backend)
    assert sum(one.taken for one in taken) == 1000
    usage = read_usage(house.folder)
    assert sum(bucket.value for meter in ("pages", "images") for bucket in usage.aggregate(meter)) == sum(range(1000))


def test_events_of_a_batch_are_invoiced_verified_and_proved(house: House) -> None:
    with house.ingest() as ingest:
        ingest.take_blocking([event(n) for n in range(100)])
    house.ledger.publish_blocking(30)
    book = PriceBook([Price(meter="pages", unit_price="0.5")], "USD")
    invoices = Invoices(house.store)
    made = invoices.draft(book, "acme", NOON, NOON + 1000, "UTC", LedgerEvidence(house.folder))
    assert made.document["total"] == "100.00"
    keys = [house.key.verifying_key]
    assert [f.detail for f in verify_invoice(made.document, house.folder, keys) if not f.ok] == []
    changed = json.loads(json.dumps(made.document))
    changed["lines"][0]["events"] = 99
    assert not all(f.ok for f in verify_invoice(changed, house.folder, keys))
    assert [one.id for one in line_events(made.document, 1, house.folder)] == [str(n) for n in range(100)]
    proof = prove_event(made.document, 1, 42, house.folder)
    assert '"id":"41"' in proof["event"]
    assert all(f.ok for f in verify_event(proof, keys)), verify_event(proof, keys)


FILL = """
import sys
from pathlib import Path
from creto import _core
from creto.metering import Ingest, UsageEvent
folder, key = Path(sys.argv[1]), _core.SigningKey.generate()
clock = _core.HybridLogicalClock(str(folder / "clock"))
ledger = _core.Ledger(str(folder / "ledger"), clock, key)
ingest = Ingest(ledger, folder / "ledger", clock)
for first in range(0, 20_000, 50):
    batch = [UsageEvent("app", str(n), "acme", "pages", n, 1_795_521_600_000_000 + n) for n in range(first, first + 50)]
    print(first + 50 if ingest.take_blocking(batch).taken else 0, flush=True)
"""


def test_a_process_killed_while_it_takes_usage_in_leaves_what_it_said_and_the_rest_can_be_offered_again(
    tmp_path: Path,
) -> None:
    """However often it dies, and whatever it had said of how far it was: every event is there once in the end."""
    chance = random.Random(8)
    said = 0
    for _ in range(4):
        command = [sys.executable, "-c", FILL, str(tmp_path)]
        filling = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert filling.stdout is not None
        until = said + 50 * chance.randrange(1, 20)
        for line in filling.stdout:
            said = max(said, int(line))
            if said >= until:
                break
        filling.kill()
        said = max([said, *(int(line) for line in filling.communicate(timeout=60)[0].split())])
        usage = read_usage(tmp_path / "ledger")
        (bucket,) = usage.aggregate("pages")
        assert bucket.events >= said, "what was said to be taken is on disk"
        assert int(bucket.value) == sum(range(bucket.events)), "no event is there in part, or twice"
    house = House(tmp_path)
    with house.ingest() as ingest:
        for first in range(0, 20_000, 10_000):
            ingest.take_blocking(
                [event(n, customer="acme", quantity=n, dimensions={}) for n in range(first, first + 10_000)]
            )
    house.ledger.publish_blocking(30)
    (bucket,) = read_usage(tmp_path / "ledger").aggregate("pages")
    assert (bucket.events, int(bucket.value)) == (20_000, sum(range(20_000)))
    totals = LedgerEvidence(tmp_path / "ledger").totals([NOON, NOON + 20_000])
    assert totals.line(totals.parts(), "sum", 0)[:3] == (sum(range(20_000)), 1, 20_000)
    house.store.close()
    house.ledger.close_blocking()


def test_acts_and_events_of_others_are_shown_together_each_once_before_and_after_they_are_put_in_order(
    house: House,
) -> None:
    """Batches lie beside the tiles, and segments beside the ledger: neither is missed, nor counted with the other."""
    with house.ingest() as ingest:
        ingest.take_blocking([event(n) for n in range(10)])
        usage = {"pages": 5}
        detail = {"path": '["acme", "research", "a"]'}
        act = {"who": "spiffe://acme.test/agent/a", "what": "tool:call", "resource": "search", "kind": "outcome"}
        for number in (1, 2):
            own = {"id": f"{number:032x}", "act": f"{number:032x}", "timestamp": (NOON + number) << 12}
            house.ledger.append_records([{**act, **own, "outcome": "success", "usage": usage, "detail": detail}])
        told: list[tuple[str, int, int]] = []
        shown = read_usage(house.folder)
        house.ledger.publish_blocking(30)
        evidence = LedgerEvidence(house.folder)  # puts them in order
        assert list(house.folder.parent.glob("segments/*/*.segment"))
        ingest.take_blocking([event(n) for n in range(5, 12)])
        later = read_usage(house.folder, progress=lambda *one: told.append(one))
    assert [(int(b.value), b.events) for b in shown.aggregate("pages")] == [(30, 12)]
    assert (shown.duplicates, later.duplicates) == (0, 0)
    assert [(b.group, int(b.value), b.events) for b in later.aggregate("pages", by=["source", "team"])] == [
        (("", "research"), 34, 14)
    ]
    totals = evidence.totals([NOON, NOON + 1000])
    assert totals.line(totals.parts(), "sum", 0)[:3] == (30, 1, 12)
    # And how far it was is told: of so many records as the shard has.
    (size,) = {total for _, _, total in told}
    assert size == 3
    assert told[-1] == (house.ledger.shard, 4, 3)


def test_a_changed_batch_is_found_out(house: House) -> None:
    with house.ingest() as ingest:
        ingest.take_blocking([event(n) for n in range(10)])
    house.ledger.publish_blocking(30)
    (batch,) = house.folder.glob("*/batches/*")
    whole = batch.read_bytes()
    batch.write_bytes(whole.replace((2).to_bytes(8, "little"), (9).to_bytes(8, "little"), 1))
    with pytest.raises(IntegrityError, match="batch of record 0 of .* was changed"):
        read_usage(house.folder)
    batch.write_bytes(whole[:-1])
    with pytest.raises(IntegrityError, match="the batch at 0:0:.* is not in"):
        LedgerEvidence(house.folder)


def test_a_changed_segment_is_told_by_a_recount_or_by_whoever_verifies(house: House) -> None:
    with house.ingest() as ingest:
        ingest.take_blocking([event(n) for n in range(10)])
    house.ledger.publish_blocking(30)
    cuts = [NOON, NOON + 1000]
    LedgerEvidence(house.folder)
    (segment,) = house.folder.parent.glob("segments/*/*.segment")
    whole = segment.read_bytes()
    place = whole.rindex((2).to_bytes(8, "little"))
    segment.write_bytes(whole[:place] + (7).to_bytes(8, "little") + whole[place + 8 :])
    with pytest.raises(IntegrityError, match="make 25, and the segment says 20"):
        LedgerEvidence(house.folder, recount=True).totals(cuts)
    # What it says of itself is under a digest: a changed one is not believed, but made again.
    segment.write_bytes(whole[:120] + bytes([whole[120] ^ 1]) + whole[121:])
    totals = LedgerEvidence(house.folder, recount=True).totals(cuts)
    assert totals.line(totals.parts(), "sum", 0)[:3] == (20, 1, 10)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"meter": ""}, "`meter` has 1 to 1024 characters"),
        ({"quantity": 1.5}, "is not a whole number"),
        ({"quantity": float("nan")}, "is not a whole number"),
        ({"quantity": 2**100}, "is too large"),
        ({"at": NOON - 1}, "its time is closed"),
        ({"customer": 7}, "`customer` has 1 to 1024 characters"),
        ({"dimensions": {"customer": "globex"}}, "it is who pays"),
        ({"dimensions": {"team": 7}}, "dimension `team` is not a name with a text"),
        ({"source": "ledger"}, "the source `ledger` is that of acts themselves"),
    ],
)
def test_one_bad_event_leaves_the_whole_batch_out(house: House, bad: dict[str, Any], text: str) -> None:
    with house.ingest(NOON) as ingest:
        with pytest.raises(InvalidInputError, match=text):
            ingest.take_blocking([event(1), event(2, **bad)])
        assert len(read_usage(house.folder)) == 0
        assert ingest.take_blocking([event(1)]).taken == 1


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (([0], [NOON], [1.5], ["a"]), "the column `quantity` holds something else than whole numbers"),
        (([0], [NOON], np.array([np.nan]), ["a"]), "the column `quantity` holds something else"),
        (([1], [NOON], [1], ["a"]), "usage event `a`: there is no series 1"),
        (([0], [NOON], [1, 2], ["a"]), "columns of different lengths"),
        (([0], [NOON], [1], [7]), "an id is a text"),
        (([0], [-1], [1], ["a"]), "the column `at` holds something else"),
    ],
)
def test_columns_that_are_none_are_refused(house: House, columns: Any, text: str) -> None:
    with house.ingest() as ingest, pytest.raises(InvalidInputError, match=text):
        ingest.take_columns_blocking([("app", "acme", "pages", {})], *columns)
    assert len(read_usage(house.folder)) == 0


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
    told = {(price.meter, *list(price.when.values())[1:]): str(price.unit_price) for price in prices.prices("large")}
    assert told == {
        ("input_tokens",): "0.00000125",
        ("input_tokens", ">200000"): "0.0000025",
        ("input_tokens", "flex"): "6.25E-7",
        ("cached_input_tokens",): "1.25E-7",
        ("output_tokens",): "0.00001",
        ("output_tokens", ">200000"): "0.000015",
    }
    with pytest.raises(NotFoundError, match="has no model `small`"):
        prices.act("small")
    with pytest.raises(InvalidInputError, match="`pictures` has no price per token"):
        prices.act("pictures")


def test_acts_are_invoiced_by_the_table_that_the_configuration_names(house: House, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(TABLE)
    (tmp_path / "creto.toml").write_text('[metering]\nmodel_prices = "prices.json"\n')
    book = PriceBook.from_settings(load([tmp_path / "creto.toml"], system=False))
    long = {"model": "large", "context_tokens": "250000"}
    with house.ingest() as ingest:
        ingest.take_blocking(
            [
                event(1, meter="input_tokens", quantity=1_000_000, dimensions={"model": "large"}),
                event(2, meter="input_tokens", quantity=1_000_000, dimensions=long),
                event(
                    3, meter="input_tokens", quantity=1_000_000, dimensions={"model": "large", "service_tier": "flex"}
                ),
                event(4, meter="output_tokens", quantity=1_000_000, dimensions=long),
                event(5, meter="output_tokens", quantity=1_000_000, dimensions={"model": "unheard-of"}),
            ]
        )
    house.ledger.publish_blocking(30)
    made = Invoices(house.store).draft(book, "acme", NOON, NOON + 1000, "UTC", LedgerEvidence(house.folder))
    lines = {line["description"]: line["amount"] for line in made.document["lines"]}
    assert lines == {
        "input tokens of large": "1.25",
        "input tokens of large beyond 200k": "2.50",
        "input tokens of large flex": "0.62",  # 0.625: half to even
        "output tokens of large beyond 200k": "15.00",
    }
    assert made.document["unpriced"] == [{"meter": "output_tokens", "quantity": "1000000", "events": 1}]
    assert [f.detail for f in verify_invoice(made.document, house.folder, [house.key.verifying_key]) if not f.ok] == []


def test_a_layer_takes_in_what_is_not_too_old_and_invoices_it_once_its_grace_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "house.toml"
    config.write_text(
        "[metering]\nlate_seconds = 3600\ngrace_seconds = 7200\naggregation_interval_seconds = 1\n"
        '[[prices]]\nmeter = "pages"\nunit_price = "0.5"\n'
    )
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    now = time.time_ns() // 1000
    with creto.open_blocking(config=[config]) as layer, layer.ingest() as ingest:
        taken = ingest.take_blocking([event(n, at=now + n) for n in range(10)])
        assert taken == Taken(10, 0)
        with pytest.raises(InvalidInputError, match="its time is closed"):
            ingest.take_blocking([event(99, at=now - 3_700_000_000)])
        # Put in order by itself, as often as the configuration says.
        deadline = time.monotonic() + 60
        while not list((tmp_path / "state" / "segments").glob("*/*.segment")):
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def run(*arguments: str, code: int = 0) -> str:
        assert (main(["--config", str(config), "invoice", "run", "--period", "1h", *arguments]) or 0) == code
        said = capsys.readouterr()
        return said.out + said.err

    assert "may come until" in run(code=2)
    assert "10.00" in run("--draft", "--recount")
    config.write_text(config.read_text().replace("7200", "0"))
    assert "INV-" in run()


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": 7},
        {"subject": None},
        {"subject": "\ud800"},
        {"source": ["s"]},
        {"time": "2026-01-01T00:00:00"},
        {"time": 5},
        {"data": [1]},
        {"data": {"meter": "m", "quantity": "\u0661"}},
        {"data": {"meter": "m", "quantity": " 1_0 "}},
        {"data": {"meter": "m", "quantity": True}},
        {"data": {"meter": "m", "quantity": "9" * 5000}},
        {"data": {"meter": "m", "quantity": "1", "dimensions": {"a": "\ud800"}}},
    ],
)
def test_an_event_that_can_be_read_in_two_ways_is_refused(change: dict[str, Any]) -> None:
    """Two events without an id would be one, and the second would not be charged."""
    event = {"id": "1", "source": "s", "subject": "acme", "time": "2026-01-01T00:00:00Z", "data": {}}
    event["data"] = {"meter": "m", "quantity": "1"}
    assert UsageEvent.from_cloudevent(event).quantity == 1
    with pytest.raises(InvalidInputError, match="usage event"):
        UsageEvent.from_cloudevent({**event, **change})
