"""What the gate promises to Python, over the real ledger, quota and clock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from creto import _core
from creto.errors import InvalidInputError, OversightRequiredError, QuotaExceededError, UnauthorizedError

SCHEMA = """
entity Agent; entity Tool;
action "tool:call" appliesTo { principal: Agent, resource: Tool, context: { amount?: Long } };
"""
POLICIES = """
@id("call") permit (principal, action, resource);
@oversight("large") forbid (principal, action, resource) when { context has amount && context.amount > 100 };
@id("never") forbid (principal, action, resource == Tool::"hammer");
@id("not-mallory") forbid (principal == Agent::"spiffe://t/agent/mallory", action, resource);
"""
ANN, BOB, MALLORY = (f"spiffe://t/agent/{name}" for name in ("ann", "bob", "mallory"))


class House:
    """A gate over real parts, and what they hold."""

    def __init__(self, folder: Path) -> None:
        from creto.audit import AuditClient, open_ledger
        from creto.metering import QuotaEnforcer

        self.clock = _core.HybridLogicalClock(str(folder / "clock"))
        sealer = _core.Sealer.open(folder / "keys")
        self.ledger = open_ledger(folder, self.clock, sealer, trust_domain="t")
        self.client = AuditClient(self.ledger, folder)
        self.quota = QuotaEnforcer(
            [{"scope": "organisation:org", "meter": "calls", "limit": 3, "window": "1d", "share": "process"}]
        )
        self.policy = _core.PolicyEngine()
        self.policy.install(POLICIES, SCHEMA)
        self.gate = _core.Gate(self.policy, self.quota, self.ledger, self.clock)
        self.ann = self.gate.principal(ANN, ["org", "team", ANN])

    def enter(self, resource: str = "saw", principal: _core.Principal | None = None, **more: Any) -> _core.Permit:
        return self.gate.enter(principal or self.ann, "tool:call", resource, usage={"calls": 1}, **more)

    def records(self) -> list[Any]:
        import anyio

        async def read() -> list[Any]:
            return await self.client.query()

        return [each for each in anyio.run(read) if each["kind"] != "event"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.ledger.close_blocking()


def test_an_act_goes_in_is_settled_once_and_is_on_record(house: House) -> None:
    permit = house.enter()
    assert permit.wants_intent
    assert permit.policy == "call"
    assert permit.intent() == permit.intent()
    intent = permit.intent()
    assert permit.settle(usage={"calls": 2}) > intent
    with pytest.raises(InvalidInputError, match="settled already"):
        permit.settle()
    with pytest.raises(InvalidInputError, match="settled already"):
        permit.intent()
    assert [record["kind"] for record in house.records()] == ["intent", "outcome"]


def test_what_is_dropped_is_given_back(house: House) -> None:
    for _ in range(10):
        permit = house.enter()
        del permit
        gc.collect()
    for _ in range(3):
        house.enter().settle()
    with pytest.raises(QuotaExceededError) as caught:
        house.enter()
    assert (caught.value.limit, caught.value.used) == (3, 3)


def test_a_failure_costs_nothing_and_is_on_record_with_its_reason(house: House) -> None:
    for _ in range(5):
        house.enter().settle("the tool broke")
    assert house.records()[-1]["outcome"]["failure"] == "the tool broke"


def test_a_refusal_is_an_exception_that_names_the_policy_and_its_record(house: House) -> None:
    with pytest.raises(UnauthorizedError, match="policy `never` forbids it") as caught:
        house.enter("hammer")
    assert isinstance(caught.value.ticket, int)
    record = house.records()[-1]
    assert (record["kind"], record["resource"]) == ("refusal", "hammer")
    assert "never" in record["why"]


def test_oversight_is_asked_for_with_every_policy(house: House) -> None:
    with pytest.raises(OversightRequiredError) as caught:
        house.enter(context={"amount": 500})
    assert (caught.value.policy_id, caught.value.policy_ids) == ("large", ["large"])


def test_only_a_grant_over_exactly_this_act_lets_it_in(house: House) -> None:
    key = _core.SigningKey.generate("standard")

    def granted(amount: int, policy: str = "large") -> _core.Grant:
        act = _core.Act(ANN, "tool:call", "saw", context={"amount": amount}, usage={"calls": 1})
        terms = {
            "request": "r1",
            "policy": policy,
            "nonce": b"n" * 16,
            "expiry_us": 2**52,
            "approver": "spiffe://t/approver/eve",
        }
        answer = _core.oversight_answer(key, act, **terms, approved=True, reason="fine", decided_us=1)
        return _core.Grant.verify(answer, act, terms["approver"], key.verifying_key, 1)

    for grants in ([], [granted(501)], [granted(500, "other")]):
        with pytest.raises(OversightRequiredError):
            house.enter(context={"amount": 500}, grant=grants)
    permit = house.enter(context={"amount": 500}, grant=[granted(500)])
    permit.settle()
    with pytest.raises(UnauthorizedError):
        house.gate.enter(house.ann, "tool:call", "hammer", {"amount": 500}, {"calls": 1}, [granted(500)])


def test_every_link_of_a_chain_has_to_be_allowed_and_each_hop_narrows(house: House) -> None:
    through = house.gate.principal(ANN, ["org"], [BOB, MALLORY])
    with pytest.raises(UnauthorizedError, match="for whom the agent acts, may not"):
        house.enter(principal=through)
    narrow = house.gate.principal(ANN, ["org"], [(BOB, 'permit (principal, action, resource == Tool::"saw");')])
    house.enter("saw", narrow).settle()
    with pytest.raises(UnauthorizedError, match=f"the delegation to `{BOB}` does not cover it"):
        house.enter("file", narrow)
    with pytest.raises(InvalidInputError, match="nested deeper than 64"):
        house.gate.principal(ANN, ["org"], [(BOB, "(" * 1000)])


def test_a_set_installed_later_binds_attenuations_made_earlier(house: House) -> None:
    narrow = house.gate.principal(
        ANN, ["org"], [(BOB, 'permit (principal is Agent, action, resource == Tool::"saw");')]
    )
    for _ in range(3):
        house.policy.install(POLICIES + "// again", SCHEMA)
        house.enter("saw", narrow).settle("no")
        with pytest.raises(UnauthorizedError):
            house.enter("file", narrow)


def test_many_threads_never_take_more_than_there_is(house: House) -> None:
    let_in: list[int] = []

    def work() -> None:
        for _ in range(50):
            try:
                house.enter().settle()
                let_in.append(1)
            except QuotaExceededError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 3


def test_a_quantity_that_is_none_is_an_error_and_nothing_is_held(house: House) -> None:
    for wrong in (-1, 1.5, "1", 2**63, 2**64):
        with pytest.raises(InvalidInputError, match="write a whole number from 0 to 2"):
            house.gate.enter(house.ann, "tool:call", "saw", usage={"calls": wrong})
    for _ in range(3):
        house.enter().settle()
