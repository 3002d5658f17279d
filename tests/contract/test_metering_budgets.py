"""Budgets in money: what acts cost by the prices is counted before they are done, whichever way they go in."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import creto
from billing import House
from creto.cli import main
from creto.config import Price
from creto.errors import InvalidInputError, QuotaExceededError
from creto.metering import LedgerEvidence, PriceBook, read_usage, verify_invoice
from creto.metering._invoice import drafts

POLICY = """
permit (principal, action, resource);
@id("pay") @oversight("payments") forbid (principal, action == Action::"tool:call", resource == Tool::"pay");
"""
BUDGET = '[[quotas]]\nscope = "agent"\nkind = "money"\nlimit = "0.01"\nwindow = "year"\n'
TOKENS = '[[prices]]\nmeter = "tokens"\nunit_price = "0.000002"\n'
Opened = Callable[..., AbstractContextManager[creto.EnablementLayer]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "rules.cedar").write_text(POLICY)
    return tmp_path / "house.toml"


@pytest.fixture
def opened(file: Path) -> Iterator[Opened]:
    def make(text: str) -> AbstractContextManager[creto.EnablementLayer]:
        file.write_text('[authz]\npolicies = ["rules.cedar"]\n[[approvers]]\nname = "desk"\n' + text)
        return creto.open_blocking(config=[file])

    return make


def call(layer: creto.EnablementLayer, usage: Any, operation: Any = lambda: None, resource: str = "search") -> None:
    layer.perform_blocking(layer.agent("reader"), "tool:call", resource, operation, usage=usage)


def spent(layer: creto.EnablementLayer, name: str = "reader") -> int:
    """What the budget of an agent counts, in billionths."""
    used = {counter["name"]: counter["used"] for counter in layer.parts.quota.counters()}
    return int(used.get(layer.agent(name).id, 0))


def test_a_budget_counts_what_prices_make_of_usage_and_refuses_what_goes_beyond(
    opened: Opened, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(BUDGET + TOKENS) as layer:
        call(layer, {"tokens": 4_000})
        call(layer, {"tokens": 500, "unpriced": 7})
        assert spent(layer) == 9_000_000
        told = r"0\.001002 USD more of `spent:USD` \(year\).*, of 0\.01 USD 0\.009 are used"
        with pytest.raises(QuotaExceededError, match=told):
            call(layer, {"tokens": 501})
        call(layer, {"tokens": 500})
    assert main(["--config", str(file), "quota", "show"]) in {None, 0}
    assert "0.01 USD  0.01 USD" in capsys.readouterr().out
    assert main(["--config", str(file), "quota", "explain", "reader", "tokens=1"]) == 4
    assert "FULL agent spiffe://creto.local/agent/reader: spent:USD (year)" in capsys.readouterr().out


def test_what_was_really_used_is_charged_also_of_an_act_that_named_nothing_or_failed(opened: Opened) -> None:
    with opened(BUDGET + TOKENS) as layer:
        call(layer, {"tokens": 1_000}, lambda act: act.charge(tokens=100))
        assert spent(layer) == 200_000
        call(layer, {"tokens": 10}, lambda act: act.charge(tokens=1_000))
        assert spent(layer) == 2_200_000
        call(layer, None, lambda act: act.charge(tokens=50))
        assert spent(layer) == 2_300_000

        def fail(act: creto.Act) -> None:
            act.charge(tokens=200)  # as many as were reserved: they were used all the same
            raise OSError("cut off")

        with pytest.raises(OSError, match="cut off"):
            call(layer, {"tokens": 200}, fail)
        assert spent(layer) == 2_700_000
        with pytest.raises(ZeroDivisionError):
            call(layer, {"tokens": 200}, lambda: 1 / 0)
        assert spent(layer) == 2_700_000


def test_no_other_name_for_usage_evades_a_budget(opened: Opened) -> None:
    with opened(BUDGET + TOKENS) as layer:
        call(layer, {"tokens": 1_000, "spent:USD": 0, "spent:EUR": 5})
        assert spent(layer) == 2_000_000
        call(layer, {"tokens": 1_000}, lambda act: act.charge(**{"spent:USD": 0}))
        assert spent(layer) == 4_000_000
        call(layer, {"cost:USD": 1_000_000, "cost:EUR": 1_000_000_000})
        assert spent(layer) == 5_000_000
        with pytest.raises(InvalidInputError, match="is no agent"):
            layer.perform_blocking("reader", "tool:call", "search", lambda: 1, usage={"tokens": 1})  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="tokens"):
            call(layer, {"tokens": -1})
    with pytest.raises(ValueError, match="follows from the prices of other meters: it has none itself"):
        Price(meter="spent:USD")


def test_a_price_of_what_an_act_says_it_costs_stands_in_its_place(opened: Opened) -> None:
    resold = '[[prices]]\nmeter = "cost:USD"\nunit_price = "1.10"\nper = 1000000000\n'
    with opened(BUDGET + TOKENS + resold) as layer:
        call(layer, {"cost:USD": 1_000_000, "tokens": 1})
        assert spent(layer) == 1_102_000


def test_guards_messages_and_what_a_sandbox_does_are_counted_alike(opened: Opened) -> None:
    priced = "".join(
        f'[[prices]]\nmeter = "{meter}"\nunit_price = "0.001"\n' for meter in ("messages", "calls", "requests")
    )
    with opened(BUDGET + priced) as layer:
        reader, writer = layer.agent("reader"), layer.agent("writer")

        @layer.guard("tool:call", usage={"calls": 2}, agent=reader)
        def search(words: str) -> str:
            return words

        assert search("x") == "x"
        assert spent(layer) == 2_000_000
        layer.send_blocking(reader, "writer", b"done")
        assert spent(layer) == 3_000_000

        async def inside() -> None:
            from creto._confined import LayerHooks

            hooks = LayerHooks(layer, reader, Path.cwd(), None)
            await hooks.perform("http:get", "http://example.org/", {"host": "example.org"}, {"requests": 1})
            await hooks._account("http:get", "http://example.org/", {"requests": 1}, ["agreed"])

        layer.call_blocking(inside)
        assert spent(layer) == 5_000_000
        assert spent(layer, "writer") == 0
        assert writer.id != reader.id


def test_an_approver_sees_the_amount_and_agrees_to_it(opened: Opened) -> None:
    with opened(BUDGET + TOKENS) as layer:
        seen: list[dict[str, Any]] = []

        async def pay() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer)
                await layer.perform(
                    layer.agent("reader"), "tool:call", "pay", lambda: None, usage={"tokens": 1_000}, timeout=60
                )

        async def answer() -> None:
            desk = layer.parts.desk
            while not (waiting := await anyio.to_thread.run_sync(desk.pending)):
                await anyio.sleep(0.02)
            seen.append(waiting[0].usage)
            approver = await anyio.to_thread.run_sync(desk.approvers.named, "desk")
            await anyio.to_thread.run_sync(desk.approve, waiting[0], approver, "fine")

        layer.call_blocking(pay)
        assert seen == [{"spent:USD": 2_000_000, "tokens": 1_000}]
        assert spent(layer) == 2_000_000


def test_a_budget_and_more_of_it_are_set_from_elsewhere_while_a_process_runs(
    opened: Opened, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        main(["--config", str(file), "quota", *arguments])
        shown = capsys.readouterr()
        return shown.out + shown.err

    with opened(TOKENS) as layer:

        def bind() -> None:
            end = time.monotonic() + 60
            while spent(layer) == 0 and time.monotonic() < end:
                call(layer, {"tokens": 1_000})
                time.sleep(0.05)

        call(layer, {"tokens": 1_000})
        assert "set: 0.01 of spent:USD for each agent (by year)" in said(
            "set", "agent", "spent:USD", "0.01", "-w", "year"
        )
        bind()
        call(layer, {"tokens": 4_000})
        with pytest.raises(QuotaExceededError):
            call(layer, {"tokens": 1})
        assert "boost of 1e-10: write a positive number" in said("boost", "agent:reader", "spent:USD", "1e-10")
        assert "may use 0.002 more of spent:USD until" in said("boost", "agent:reader", "spent:USD", "0.002")
        end = time.monotonic() + 60
        while spent(layer) < 12_000_000 and time.monotonic() < end:
            with contextlib.suppress(QuotaExceededError):
                call(layer, {"tokens": 1_000})
            time.sleep(0.05)
        assert spent(layer) == 12_000_000


def test_a_changed_price_counts_from_then_on_and_a_bad_one_changes_nothing(opened: Opened, file: Path) -> None:
    with opened(BUDGET + TOKENS) as layer:
        before = file.read_text()
        call(layer, {"tokens": 100})

        def dearer() -> None:
            file.write_text(before.replace("0.000002", "0.00001"))
            assert layer.parts.live.reload("test").refused is None

        # Reserved at the price before, charged at the one that holds when it ends.
        call(layer, {"tokens": 100}, dearer)
        assert spent(layer) == 200_000 + 1_000_000
        file.write_text(before + 'when = { context = "{}" }\n')
        refused = layer.parts.live.reload("test").refused
        assert refused is not None
        assert "`tokens` has a condition on `context`" in refused
        call(layer, {"tokens": 100})
        assert spent(layer) == 200_000 + 2_000_000
        # Without a budget nothing is worked out, and what is recorded is what the act says.
        file.write_text(before.replace(BUDGET, ""))
        assert layer.parts.live.reload("test").refused is None
        assert layer.parts.quota.spending is None
        call(layer, {"tokens": 100})
        layer.parts.ledger.publish_blocking(30)
        events = read_usage(layer.parts.folder / "ledger").aggregate("spent:USD")
        assert [(bucket.value, bucket.events) for bucket in events] == [(Fraction(2_200_000), 3)]


def test_a_price_from_a_date_on_holds_from_that_date_on() -> None:
    from creto.metering._spending import Spending

    dated = Price(meter="tokens", unit_price="0.000003", start="2026-01-01T00:00:00Z")
    spending = Spending(PriceBook([Price(meter="tokens", unit_price="0.000002"), dated], "USD"), {"USD"})
    new_year = 1_767_225_600_000_000
    for at, each in ((new_year - 1, 2_000), (new_year, 3_000)):
        assert spending.of(["acme", "x"], {}, {"tokens": 1}, at)["spent:USD"] == each


def test_what_is_priced_by_time_is_refused_before_it_is_done_and_where_it_is_charged(opened: Opened) -> None:
    by_time = '[[prices]]\nmeter = "storage"\nunit_price = "0.01"\naggregation = "weighted"\n'
    with opened(BUDGET + TOKENS + by_time) as layer:
        with pytest.raises(InvalidInputError, match="usage of `storage` is priced by the time that it lasts, .* USD"):
            call(layer, {"storage": 5})
        with pytest.raises(InvalidInputError, match="lift the budget"):
            call(layer, {"tokens": 5}, lambda act: act.charge(storage=5))
        assert spent(layer) == 0


def test_the_same_conditions_fit_an_act_before_it_is_done_and_when_it_is_invoiced(opened: Opened) -> None:
    prices = "".join(
        f'[[prices]]\nmeter = "tokens"\nunit_price = "0.00000{each}"\nwhen = {{ {when} }}\n'
        for each, when in enumerate(
            (
                'resource = "maps"',
                'agent = "spiffe://creto.local/agent/writer", resource = "maps"',
                'action = "model:call"',
                'team = "unassigned", customer = "creto.local", resource = "code"',
                'model = "large"',
                'sandbox = "box-1", resource = "search"',
            ),
            1,
        )
    )
    with opened(BUDGET + TOKENS + prices) as layer:
        reader, writer = layer.agent("reader"), layer.agent("writer")
        for agent in (reader, writer, reader.inside("box-1")):
            for resource in ("maps", 'Tool::"maps"', "code", "search"):
                layer.perform_blocking(agent, "tool:call", resource, lambda: None, usage={"tokens": 7, "other": 1})
        counted = spent(layer, "reader") + spent(layer, "writer")
        layer.parts.ledger.publish_blocking(30)
        book = PriceBook.from_settings(layer.parts.settings)
        folder = layer.parts.folder / "ledger"
        document = drafts(book, 0, 2**51, "UTC", LedgerEvidence(folder), customers=["creto.local"])["creto.local"]
    lines = document["lines"]
    exact = sum(Fraction(line["quantity"]) * Fraction(line["price"]["unit_price"]) for line in lines)
    assert len(lines) >= 4
    assert counted == exact * 10**9
    assert [found["meter"] for found in document["unpriced"]] == ["other"]


def test_a_call_of_a_model_is_priced_by_the_table_of_models_however_it_is_spelt(opened: Opened, file: Path) -> None:
    table = {"large": {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.00001}, "own": {}}
    table["own"] = dict(table["large"])
    file.with_name("models.json").write_text(json.dumps(table))
    own = '[[prices]]\nmeter = "input_tokens"\nunit_price = "0.000003"\nwhen = { resource = "own" }\n'
    used = {"input_tokens": 100, "output_tokens": 10}
    with opened(BUDGET + own + '[metering]\nmodel_prices = "models.json"\n') as layer:
        reader = layer.agent("reader")
        for action, model in (
            ("model:call", "large"),
            ("model:call", 'Model::"large"'),
            ('Action::"model:call"', "large"),
            ("model:call", "own"),
            ("model:call", "unheard-of"),
            ("tool:call", "large"),
        ):
            layer.perform_blocking(reader, action, model, lambda: None, usage=used)
        assert spent(layer) == 3 * 200_000 + 300_000 + 100_000
        with pytest.raises(InvalidInputError, match="write the id as it is, without escapes"):
            layer.perform_blocking(reader, "model:call", 'Model::"l\\u{61}rge"', lambda: None, usage=used)
        layer.parts.ledger.publish_blocking(30)
        book = PriceBook.from_settings(layer.parts.settings)
        evidence = LedgerEvidence(layer.parts.folder / "ledger")
        document = drafts(book, 0, 2**51, "UTC", evidence, customers=["creto.local"])["creto.local"]
    assert {line["description"]: line["quantity"] for line in document["lines"]} == {
        "input tokens of large": "300",
        "output tokens of large": "30",
        "input_tokens (resource own)": "100",
        "output tokens of own": "10",
    }


def test_usage_says_what_it_costs_as_an_invoice_of_the_same_time_would(
    opened: Opened, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = '[[prices]]\nmeter = "calls"\nunit_price = "1.50"\nincluded = 2\n'
    with opened(BUDGET.replace("0.01", "100") + TOKENS + free) as layer:
        for name, calls in (("reader", 1), ("writer", 3)):
            usage = {"tokens": 100, "calls": calls, "other": 1}
            layer.perform_blocking(layer.agent(name), "tool:call", "search", lambda: None, usage=usage)

    def said(*arguments: str, code: int = 0) -> str:
        assert main(["--config", str(file), "usage", *arguments]) in ({None, 0} if code == 0 else {code})
        shown = capsys.readouterr()
        return shown.out + shown.err

    rows = {(row["meter"], row["agent"][-6:]): row for row in json.loads(said("--by", "agent", "--json"))}
    # Two of four calls are included: of the three that are charged for, the writer's are three of four.
    assert rows["calls", "reader"]["amount"] == {"USD": "0.750000000"}
    assert rows["calls", "writer"]["amount"] == {"USD": "2.250000000"}
    assert rows["tokens", "reader"]["amount"] == {"USD": "0.000200000"}
    assert rows["other", "reader"]["amount"] == rows["spent:USD", "reader"]["amount"] == {}
    assert rows["spent:USD", "writer"]["quantity"] == 4_500_200_000
    table = said("--only", "agent=spiffe://creto.local/agent/writer")
    assert [line.split()[4:7] for line in table.splitlines() if line.startswith("calls")] == [["1", "2.25", "USD"]]
    assert "4.5002 USD" in table
    (estimate,) = json.loads(said("--meter", "tokens", "--forecast", "--period", two_years(), "--json"))
    assert estimate["estimated_quantity"] > 200
    priced = Fraction(estimate["estimated_amount"]["USD"]) / Fraction("0.000002")
    assert abs(priced / estimate["estimated_quantity"] - 1) < 0.06  # it is of two digits at least, and of coins
    assert len(estimate["estimated_amount"]["USD"].split(".")[1].lstrip("0")) <= 2
    page = file.with_name("usage.html")
    said("--by", "agent", "--forecast", "--period", two_years(), "--html", str(page))
    cells = re.findall(r"<td class=number data-name='([^']+)'>([^<]*)</td>", page.read_text())
    assert {("quantity", "3"), ("amount", "2.25 USD"), ("amount", "0.0002 USD"), ("quantity", "4.5002 USD")} <= {*cells}
    assert sum(name == "estimated amount" and text.endswith(" USD") for name, text in cells) == 4
    assert "estimated: as much for each hour until" in said("--forecast")
    assert "--forecast: it is of `sum` or `count`, of a period that is not over yet" in said(
        "--forecast", "-p", "24h", code=2
    )
    file.write_text(file.read_text().replace("[[approvers]]", '[metering]\nmodel_prices = "gone.json"\n[[approvers]]'))
    broken = said("--meter", "tokens")
    assert "no amounts: " in broken
    assert "gone.json" in broken


def two_years() -> str:
    """This year and the next, so that on every day of it there is much time left to estimate."""
    year = datetime.now(UTC).year
    return f"{year}-01-01..{year + 1}-12-31"


def test_what_a_budget_counted_is_no_usage_of_its_own_on_an_invoice_that_an_outsider_checks(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.act(1, {"tokens": 1_000, "spent:USD": 2_000_000_000, "pages": 1})
    house.publish()
    draft = house.draft([Price(meter="tokens", unit_price="0.002")])
    made = house.invoices.finalize(draft.id)
    house.publish()
    assert made.document["total"] == "2.00"
    assert [found["meter"] for found in made.document["unpriced"]] == ["pages"]
    assert all(finding.ok for finding in verify_invoice(made.document, house.folder, house.keys))
    house.store.close()
    house.ledger.close_blocking()
