"""What cannot be, at every door of metering: a refusal that says what, where and what to do, and nothing half-done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creto import open_blocking
from creto.cli import main
from creto.config import Price
from creto.config._sections import Quota
from creto.errors import CretoError, InvalidInputError
from creto.metering import EventEvidence, Invoices, ModelPrices, PriceBook, QuotaEnforcer, Usage, UsageEvent
from creto.metering._period import parse_length, parse_period
from creto.store import Store, tables

CONFIG = """
[[quotas]]
scope = "agent"
meter = "tool_calls"
limit = 5
window = "day"

[[prices]]
meter = "tool_calls"
unit_price = "0.10"
[[prices]]
meter = "pages"
unit_price = "0.5"
"""
HUGE = str(2**70)
TABLES = (
    tables.quota_rules,
    tables.quota_boosts,
    tables.leases,
    tables.invoices,
    tables.credits,
    tables.numbers,
)


class State:
    """A state folder with acts, an invoice, a credit and a boost in it, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder / "state", folder / "house.toml"
        self.config.write_text(CONFIG)

    def run(self, *arguments: str) -> tuple[int, str]:
        import contextlib
        import io

        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(["--config", str(self.config), "--state", str(self.folder), *arguments])
        return status or 0, said.getvalue()

    def all(self) -> Any:
        """Every row that metering keeps, and all that was used."""
        with Store(self.folder) as store, store.read() as tx:
            rows = [[tuple(row) for row in tx.all(table.select())] for table in TABLES]
        year = datetime.now(UTC).year  # a length that ends now begins a second later each time
        period = f"{year - 1}-01-01..{year + 1}-01-01"
        return rows, self.run("usage", "--period", period, "--by", "agent", "--json")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    made = State(tmp_path_factory.mktemp("house"))
    with open_blocking(made.folder, config=[made.config]) as layer:
        agent = layer.agent("reader")
        for _ in range(2):
            layer.perform_blocking(agent, "tool:call", "add", lambda: 1, usage={"tool_calls": 1})
    for command in (
        ["quota", "boost", "team:research", "tool_calls", "1"],
        ["quota", "set", "team", "tool_calls", "100", "--window", "day"],
        ["quota", "boost", "team:research", "tool_calls", "1"],
        ["invoice", "prepay", "creto.local", "0.05"],
        ["invoice", "run", "--period", "1h"],
    ):
        made.run(*command)
    assert made.run("invoice", "credit", number(), "--amount", "0.01", "--reason", "an outage")[0] == 0
    return made


def number() -> str:
    return f"INV-{datetime.now(UTC).year}-000001"


BAD_COMMANDS = [
    # An unknown meter.
    ("quota show --meter nothing", "there is no quota of `nothing`; there are: tool_calls for each agent (by day)"),
    ("quota boost team:x nothing 1", "no quota of `nothing` lies on it"),
    ("quota set --lift agent nothing 5", "there is no quota of nothing for each agent; there are:"),
    ("usage --meter nothing --period 48h", "there is no meter `nothing`: nothing used, limits or prices it"),
    ("usage --meter nothing --period 48h", "used in 48h: tool_calls"),
    # A closed period.
    ("invoice run --period 1h --customer creto.local", "`creto.local` was invoiced for this time by INV-"),
    ("invoice run --period this-month", "has not ended; use --draft"),
    ("invoice void NUMBER", "is credited by CRN-"),
    ("invoice finalize NUMBER", "is finalized, and cannot become finalized"),
    ("invoice credit NUMBER --amount 0.20 --reason more", "write an amount from 0.01 to 0.19"),
    ("invoice credit CREDIT --reason more", "is itself a credit note"),
    ("invoice credit NUMBER --reason \t", "needs a reason"),
    # A wrong currency.
    ("quota set organisation cost:EUX 5 --window month", "currency `EUX`: write one of ISO 4217"),
    ("quota set organisation m 5 --kind money --currency EUX", "--currency `EUX`: no such currency"),
    ("quota set organisation tool_calls 5 --currency EUR", "`tool_calls` is not counted in EUR"),
    ("quota set organisation cost:USD 5 --kind money --currency EUR", "`cost:USD` is not counted in EUR"),
    ("invoice prepay acme 5 --currency EUX", "currency `EUX`: write one of ISO 4217"),
    ("invoice prepay acme 5 --currency EUR", "acme is invoiced in USD: an amount in EUR would never be taken off"),
    ("invoice prepay acme 5.5 --currency JPY", "5.5 JPY: write a positive amount"),
    # Negative.
    ("quota set agent tool_calls --window day -- -3", "LIMIT `-3`: input should be greater than or equal to 0"),
    ("quota set agent m 5 --burst -1", "--burst `-1`: input should be greater than or equal to 1"),
    ("quota boost team:research tool_calls -- -5", "boost of -5: write a positive number"),
    ("quota boost team:research tool_calls 5 --for -1h", "length `-1h`: write a number and a unit"),
    ("quota explain creto.local/t/a tool_calls=-1", "usage `tool_calls=-1`: write METER=UNITS"),
    ("invoice prepay acme -- -5", "-5 USD: write a positive amount"),
    ("invoice credit NUMBER --amount -1 --reason r", "credit of -1: write an amount from 0.01 to 0.19"),
    ("invoice prove NUMBER 1 -- -1", "none is number -1"),
    # No number at all.
    ("quota set agent tool_calls nan --window day", "LIMIT `NaN`: input should be a finite number"),
    ("quota set agent tool_calls inf --window day", "LIMIT `Infinity`: input should be a finite number"),
    ("quota set agent tool_calls much", "limit `much`: write a number"),
    ("quota set agent tool_calls 0.5", "only money can have a fraction"),
    ("quota explain creto.local/t/a tool_calls=nan", "write METER=UNITS"),
    ("invoice prepay acme nan", "amount `nan`: write a number"),
    ("invoice credit NUMBER --amount nan --reason r", "amount `nan`: write a number"),
    # Huge.
    ("quota set organisation cost:USD 1e999999", "limit 1E+999999 of `cost:USD`: it must be below 9223372036854775808"),
    ("quota set organisation m 1e999999", "limit 1E+999999 of `m`: it must be below 9223372036854775808"),
    (f"quota set agent m 5 --kind gcra --window 1m --burst {HUGE}", "write a whole number below 2^63"),
    (f"quota boost team:research tool_calls {HUGE}", f"boost of `tool_calls`: {HUGE}: write a whole number"),
    (f"quota boost team:research tool_calls {2**63}", "write a whole number from 0 to 2^63-1"),
    ("quota boost team:research tool_calls 1 --for 999999999d", "length `999999999d`: it is longer than 36525 days"),
    (f"quota explain creto.local/t/a tool_calls={'9' * 5000}", "write METER=UNITS, such as tool_calls=1, below 2^63"),
    (f"quota explain creto.local/t/a tool_calls={2**63}", "write a whole number from 0 to 2^63-1"),
    ("invoice prepay acme 1e999999", "1E+999999 USD: write a positive amount below 10^18"),
    ("invoice prepay acme 5 --for 999999999d", "length `999999999d`: it is longer than 36525 days"),
    (f"invoice prepay acme 5 --priority {HUGE}", f"priority {HUGE}: write a whole number from -2^31 to 2^31-1"),
    ("invoice credit NUMBER --amount 1e30 --reason r", "credit of 1E+30: write an amount from 0.01 to 0.19"),
    # Names and times that are none.
    ("invoice prepay  5", "customer `''`: write a name of 1 to 1024 characters"),
    ("invoice run --period 1h --customer ", "customer `''`: write a name of 1 to 1024 characters"),
    ("invoice run --period 1h --customer nobody", "`nobody` used nothing in this period"),
    ("invoice run --period 0001-01", "period `0001-01`: write `2026-11`"),
    ("invoice run --period 30000d --draft", "period `30000d`: write `2026-11`"),
    ("usage --period 2026-13", "period `2026-13`: write `2026-11`"),
    ("usage --period 2026-11-02..2026-11-01", "write `2026-11`"),
    ("usage --per banana", "calendar window `banana`: write `minute`"),
    ("usage --by ", "--by: write the name of a dimension"),
    ("usage --only =x", "--only =x: write NAME=VALUE"),
    ("usage --of team", "--of team: only `--aggregation unique` is of a dimension"),
    ("invoice show NOBODY", "there is no invoice `NOBODY`; `creto invoice list` shows"),
    ("invoice void NOBODY", "there is no invoice `NOBODY`"),
    ("invoice pay NOBODY", "there is no invoice `NOBODY`"),
]


@pytest.mark.parametrize(("command", "text"), BAD_COMMANDS, ids=[command[:60] for command, _ in BAD_COMMANDS])
def test_a_bad_command_is_refused_with_what_to_write_and_changes_nothing(state: State, command: str, text: str) -> None:
    before = state.all()
    names = {"NUMBER": number(), "CREDIT": number().replace("INV", "CRN")}
    status, said = state.run(*(names.get(word, word) for word in command.split(" ")))
    said = " ".join(said.split())
    assert text in said
    assert "this is a fault in creto" not in said
    assert status in {1, 2}
    assert state.all() == before


def cloud_event(**more: Any) -> dict[str, Any]:
    own = {"specversion": "1.0", "id": "9", "source": "gateway", "type": "creto.usage.pages", "subject": "acme"}
    data = {"meter": "pages", "quantity": "3", "dimensions": {"team": "a"}, **more.pop("data", {})}
    return {**own, "time": datetime.now(UTC).isoformat(), "data": data, **more}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data": {"quantity": "NaN"}}, "the quantity `NaN` is no whole number"),
        ({"data": {"quantity": float("nan")}}, "the quantity `nan` is no whole number"),
        ({"data": {"quantity": 1.5}}, "the quantity `1.5` is no whole number"),
        ({"data": {"quantity": "9" * 30}}, "is too large"),
        ({"data": {"quantity": "9" * 5000}}, "is no whole number"),
        ({"data": {"meter": ""}}, "`meter` has 1 to 1024 characters"),
        ({"data": {"meter": 7}}, "`7` is not text"),
        ({"data": {"dimensions": {"customer": "globex"}}}, "it is who pays"),
        ({"data": {"dimensions": "team"}}, "usage event `9`"),
        ({"subject": "x" * 1025}, "`customer` has 1 to 1024 characters"),
        ({"source": "ledger"}, "the source `ledger` is that of acts themselves"),
        ({"time": "0001-01-01T00:00:00Z"}, "its time is closed, or is none"),
        ({"time": "2020-01-01T00:00:00Z"}, "it is older than `metering.late_seconds` allows"),
        ({"time": "9999-12-31T23:59:59Z"}, "its time is closed, or is none"),
        ({"time": "soon"}, "usage event `9`"),
        ({"specversion": "0.3"}, "`specversion` is not 1.0"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "list"])
def test_a_bad_event_leaves_its_whole_import_out_whatever_the_files_form(
    state: State, tmp_path: Path, change: dict[str, Any], text: str, form: str
) -> None:
    before = state.all()
    events = [cloud_event(id="1"), cloud_event(**change), cloud_event(id="2")]
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(cloud_event(id="0")))
    bad.write_text("\n".join(map(json.dumps, events)) if form == "lines" else json.dumps(events))
    status, said = state.run("usage", "import", str(good), str(bad))
    assert status == 2
    assert text in said
    assert str(bad) in said
    assert state.all() == before


def test_a_bad_invoice_or_proof_is_refused_and_never_verified(state: State, tmp_path: Path) -> None:
    file = tmp_path / "invoice.json"
    for content, status, text in [
        (b"", 2, "is not JSON"),
        (b"\xff\xfe", 2, "is not JSON"),
        (b"[1]", 2, "holds no invoice"),
        (b"NaN", 2, "holds no invoice"),
        (b"[" * 100_000, 2, "is not JSON"),
        (b"{}", 6, "`None` is not `creto-invoice/1`"),
        (b'{"format": "creto-invoice/1"}', 6, "it is not shaped like an invoice"),
        (b'{"format": "creto-invoice/1", "total": "1e999999999"}', 6, "`total` is no number that an invoice holds"),
        (b'{"format": "creto-usage-proof/2"}', 6, "FAIL"),
    ]:
        file.write_bytes(content)
        code, said = state.run("invoice", "verify", str(file))
        assert (code, text in said) == (status, True), (content[:40], said)
        assert "ok  " not in said


# --- the same in Python -----------------------------------------------------------------------------------------------

RULE = {"scope": "team", "meter": "m", "limit": 10, "window": "day"}
PATH = ("acme", "research", "reader")
WRONG: list[Any] = [-1, 1.5, float("nan"), 2**63, 2**70, "many", None]
NUMBER = "write a whole number from 0 to 2\\^63-1"


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize(
    "door",
    [
        *("consume_nowait", "reserve_nowait", "check_quota_nowait", "explain"),
        *("prepared", "prepared, second", "commit", "replay", "boost", "until"),
    ],
)
def test_a_quantity_that_is_none_is_refused_at_every_door_and_no_count_moves(door: str, wrong: Any) -> None:
    quota = QuotaEnforcer([RULE, {"scope": "organisation", "meter": "n", "limit": 10}])
    quota.consume_nowait(PATH, {"m": 2, "n": 2})
    held = quota.reserve_nowait(PATH, {"m": 1})
    before = quota.counters()
    usage = {"n": 1, "m": wrong}
    later = time.time_ns() // 1000 + 60_000_000
    calls: dict[str, Callable[[], Any]] = {
        "prepared": lambda: quota.prepare(PATH, ["m"]).reserve(wrong),
        "prepared, second": lambda: quota.prepare(PATH, ["n", "m"]).reserve(1, wrong),
        "commit": lambda: held.commit(usage),
        "replay": lambda: quota.replay([(PATH, usage, 1, bytes(16))]),
        "boost": lambda: quota.boost("team:research", "m", wrong, later),
        "until": lambda: quota.boost("team:research", "m", 1, wrong),
    }
    with pytest.raises(InvalidInputError, match=NUMBER):
        calls.get(door, lambda: getattr(quota, door)(PATH, usage))()
    assert quota.counters() == before
    assert quota.open_reservations() == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"limit": -1}, "limit -1: write a whole number below 2\\^63; for no limit leave the rule out"),
        ({"limit": float("nan")}, "quota rule 2: Out of range float"),
        ({"limit": 1.5}, "limit 1.5: write a whole number"),
        ({"limit": "5"}, 'limit "5": write a whole number'),
        ({"limit": 2**63}, "limit 9223372036854775808: write a whole number"),
        ({"burst": -1}, "burst -1: write a whole number"),
        ({"soft": [101]}, "`soft` must hold ascending percentages of at most 100"),
        ({"soft": [-1]}, "`soft` must hold ascending percentages"),
        ({"meter": ""}, "meter ``: write a name of 1 to 128 bytes"),
        ({"meter": 7}, "quota rule 2: invalid input: invalid type: integer `7`, expected a string"),
        ({"scope": "nobody"}, "write `organisation`, `team` or `agent`"),
        ({"window": "soon"}, "window `soon`: write a length"),
        ({"time_zone": "Mars"}, "time zone `Mars`"),
        ({"meter": b"m"}, "quota rule 2: Object of type bytes"),
        ({"colour": 1}, "unknown field `colour`"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_number_and_the_old_ones_stay(change: dict[str, Any], text: str) -> None:
    good = {**RULE, "scope": "organisation"}
    with pytest.raises(InvalidInputError, match=text) as refused:
        QuotaEnforcer([good, {**RULE, **change}])
    assert "quota rule 2: " in str(refused.value)
    assert not re.search("u64|u8|f64|line 1 column", str(refused.value))


@pytest.mark.parametrize("wrong", [np.array([-1]), np.array([1.9]), np.array([np.nan]), [0.5], [-1], ["a"], [2**70]])
def test_arrays_of_anything_but_whole_numbers_are_refused_and_nothing_is_taken(wrong: Any) -> None:
    """Converted in silence, 1.9 would be one unit, and -1 one beyond every limit."""
    quota = QuotaEnforcer([RULE])
    chains = quota.chains("m", [PATH, ("acme", "other", "b")])
    one = np.zeros(1, dtype=np.uint32)
    for call in (lambda: chains.take(wrong), lambda: chains.take(one, wrong), lambda: chains.take(one, wrong[0])):
        with pytest.raises(InvalidInputError, match="holds something else than whole numbers from 0 to"):
            call()
    assert all(counter["used"] == 0 for counter in quota.counters())
    assert chains.take([0, 1], [10, 11]).tolist() == [True, False]


@pytest.fixture
def invoices(tmp_path: Path) -> Iterator[Invoices]:
    with Store(tmp_path / "store") as store:
        yield Invoices(store)


BOOK = PriceBook([Price(meter="m", unit_price=1)], "USD")
USED = EventEvidence([UsageEvent("app", "1", "acme", "m", 10, 5)])
BAD_INVOICES: list[tuple[Callable[[Invoices], Any], str]] = [
    (lambda i: i.draft(BOOK, "acme", 10, 5, "UTC", USED), "the period ends before it starts"),
    (lambda i: i.draft(BOOK, "acme", -5, 5, "UTC", USED), "start -5: write whole microseconds since the epoch"),
    (lambda i: i.draft(BOOK, "acme", 0, 2**62, "UTC", USED), "end 4611686018427387904: write whole microseconds"),
    (lambda i: i.draft(BOOK, "acme", 0, float("nan"), "UTC", USED), "end nan: write whole microseconds"),  # type: ignore[arg-type]
    (lambda i: i.draft(BOOK, "acme", 0, 10, "Mars", USED), "time zone `Mars`"),
    (lambda i: i.draft(BOOK, "", 0, 10, "UTC", USED), "customer `''`: write a name"),
    (lambda i: i.draft(PriceBook(BOOK.prices, "EUX"), "acme", 0, 10, "UTC", USED), "currency `EUX`"),
    (lambda i: i.prepay("acme", "USD", 5.0), "an amount of money is a Decimal"),  # type: ignore[arg-type]
    (lambda i: i.prepay("acme", "USD", Decimal("NaN")), "write a positive amount below 10\\^18"),
    (lambda i: i.prepay("acme", "USD", Decimal(1), expires=-1), "expires -1: write whole microseconds"),
    (lambda i: i.prepay("acme", "USD", Decimal(1), expires=2**70), "write whole microseconds"),
    (lambda i: i.prepay("acme", "USD", Decimal(1), priority=2**31), "priority 2147483648: write a whole number"),
    (lambda i: i.prepay("\ud800", "USD", Decimal(1)), "write a name of 1 to 1024 characters"),
    (lambda i: i.pay("nobody"), "there is no invoice `nobody`"),
]


@pytest.mark.parametrize(("call", "text"), BAD_INVOICES, ids=[text for _, text in BAD_INVOICES])
def test_an_invoice_that_cannot_be_made_leaves_the_store_as_it_was(
    invoices: Invoices, call: Callable[[Invoices], Any], text: str
) -> None:
    first = invoices.draft(BOOK, "acme", 0, 10, "UTC", USED)
    with pytest.raises(CretoError, match=text):
        call(invoices)
    assert [one.id for one in invoices.list()] == [first.id]
    assert invoices.finalize(first.id).document["credits"] == []
    assert invoices.find(first.id).number == f"INV-{1970}-000001"


def test_usage_that_cannot_be_added_up_is_refused_and_not_taken() -> None:
    usage = Usage([UsageEvent("app", "0", "acme", "m", 5, 5)])
    for wrong, text in [
        ({"quantity": 2**127}, "is too large"),
        ({"quantity": float("nan")}, "is not a whole number"),
        ({"quantity": True}, "is not a whole number"),
        ({"at": -1}, "its time is closed, or is none"),
        ({"at": 2**64}, "its time is closed, or is none"),
        ({"meter": "\ud800"}, "`meter` has 1 to 1024 characters"),
        ({"dimensions": {"team": 7}}, "dimension `team` is not a name with a text"),
    ]:
        fields: dict[str, Any] = {"source": "app", "id": "1", "customer": "acme", "meter": "m", "quantity": 1, "at": 5}
        event = UsageEvent(**{**fields, **wrong})
        with pytest.raises(InvalidInputError, match=text):
            usage.add(event)
        with pytest.raises(InvalidInputError, match=text):
            EventEvidence([event])
    assert [int(bucket.value) for bucket in usage.aggregate("m")] == [5]
    for times in ({"start": -1}, {"end": 2**70}, {"start": 0.5}):
        with pytest.raises(InvalidInputError, match="write whole microseconds since the epoch"):
            usage.aggregate("m", **times)  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [Decimal(-1), Decimal("NaN"), Decimal("1e400"), "x"])
def test_a_table_with_a_price_that_is_none_is_refused_by_model_and_field(price: Any) -> None:
    table = ModelPrices({"small": {"input_cost_per_token": price}})
    with pytest.raises(InvalidInputError, match="model `small`: `input_cost_per_token` is .*: write a decimal from 0"):
        table.prices("small")


def test_a_length_or_a_period_is_never_of_a_time_that_cannot_be_reckoned_with() -> None:
    now = 1_795_521_600_000_000
    assert parse_length("36525d") == 36_525 * 86_400_000_000
    for text in ("36526d", "999999999h"):
        with pytest.raises(InvalidInputError, match="it is longer than 36525 days"):
            parse_length(text)
    for text in ("25000d", "1969-12", "1969-12-31", "0001-01-01..1970-01-01", "9999-12"):
        with pytest.raises(InvalidInputError, match=f"period `{re.escape(text)}`: write"):
            parse_period(text, "UTC", now)
    assert timedelta(microseconds=parse_length("1d")) == timedelta(days=1)


def test_a_quota_in_a_file_in_a_currency_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="currency `EUX`"):
        Quota(scope="organisation", meter="cost:EUX", limit=5, window="month")
    with pytest.raises(ValueError, match="`pages` is not counted in EUR"):
        Quota(scope="organisation", meter="pages", limit=5, currency="EUR")
    assert Quota(scope="organisation", meter="cost:EUR", limit=5, currency="EUR").currency == "EUR"
