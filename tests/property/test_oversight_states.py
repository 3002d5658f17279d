"""Whatever happens to requests, in whatever order: the store, the native machine and a model written apart agree."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import select

from creto import _core
from creto.errors import CretoError, InvalidInputError
from creto.oversight import Request
from creto.oversight import _transitions as transitions
from creto.oversight._request import GRACE_US
from creto.store import tables
from desks import AGENT, Office, act

# Written from the specification, not from the machine: what may follow what.
MODEL: dict[str, dict[str, str]] = {
    "requested": {"announce": "pending", "expire": "expired", "cancel": "cancelled"},
    "pending": {"approve": "approved", "deny": "denied", "expire": "expired", "cancel": "cancelled"},
    "approved": {"execute": "executing", "expire": "expired", "cancel": "cancelled"},
    "executing": {"succeed": "executed", "fail": "failed", "lose": "unknown"},
    "denied": {},
    "expired": {},
    "cancelled": {},
    "executed": {},
    "failed": {},
    "unknown": {},
}
EVENTS = ("announce", "approve", "deny", "expire", "cancel", "execute", "succeed", "fail", "lose")


def test_the_native_machine_is_the_model() -> None:
    assert set(_core.OVERSIGHT_STATES) == set(MODEL)
    assert set(_core.OVERSIGHT_EVENTS) == set(EVENTS)
    for state, event in itertools.product(MODEL, EVENTS):
        if event in MODEL[state]:
            assert _core.oversight_after(state, event) == MODEL[state][event]
        else:
            with pytest.raises(InvalidInputError, match=f"a request that is {state} cannot"):
                _core.oversight_after(state, event)
        assert _core.oversight_is_final(state) == (not MODEL[state])


class Requests(RuleBasedStateMachine):
    """Requests in a real store, each beside the state that the model says it is in."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.office = Office(Path(self.folder.name) / "state")
        self.people = {"ann": self.office.ann}
        for name, policies in (("cfo", ["money"]), ("ciso", ["egress"])):
            self.people[name] = self.office.desk.approvers.add(name, policies=policies)[0]
        self.expected: dict[str, str] = {}
        self.agreed: dict[str, set[str]] = {}
        self.policies: dict[str, set[str]] = {}
        self.numbers = itertools.count(1)

    def teardown(self) -> None:
        self.office.close()
        self.folder.cleanup()

    def _does(self, request: str, event: str, call: Any) -> None:
        """Does it, and expects success exactly where the model allows it."""
        after = MODEL[self.expected[request]].get(event)
        try:
            call()
        except CretoError:
            assert after is None, f"{event} was refused in {self.expected[request]}"
        else:
            assert after is not None, f"{event} was taken in {self.expected[request]}"
            self.expected[request] = after

    @rule(target=requests, policies=st.sampled_from([("money",), ("egress",), ("egress", "money")]))
    def ask(self, policies: tuple[str, ...]) -> str:
        number = next(self.numbers)
        with self.office.store.begin() as tx:
            made = transitions.write(
                tx,
                id=f"{number:032x}",
                act=act(number),
                policies=policies,
                nonce=number.to_bytes(16, "big"),
                expiry_us=(tx.now >> 12) + 3_600_000_000 + GRACE_US,
                policy_version=None,
                preview=None,
                cost=None,
                sandbox=None,
                wanted=lambda _: {},
            )
        self.expected[made.id] = "pending"
        self.agreed[made.id] = set()
        self.policies[made.id] = set(policies)
        return made.id

    @rule(request=requests, who=st.sampled_from(["ann", "cfo", "ciso"]))
    def approve(self, request: str, who: str) -> None:
        found = self.office.desk.find(request)
        mine = {"ann": {"money", "egress"}, "cfo": {"money"}, "ciso": {"egress"}}[who] & self.policies[request]
        new = mine - self.agreed[request]
        try:
            after = self.office.desk.approve(found, self.people[who])
        except CretoError:
            assert self.expected[request] != "pending" or not new
            return
        assert self.expected[request] == "pending"
        assert new
        self.agreed[request] |= mine
        if self.agreed[request] == self.policies[request]:
            self.expected[request] = "approved"
        assert after.state == self.expected[request]

    @rule(request=requests, who=st.sampled_from(["ann", "cfo", "ciso"]))
    def deny(self, request: str, who: str) -> None:
        found = self.office.desk.find(request)
        mine = {"ann": {"money", "egress"}, "cfo": {"money"}, "ciso": {"egress"}}[who] & self.policies[request]
        if mine:
            self._does(request, "deny", lambda: self.office.desk.deny(found, self.people[who]))
        else:
            with pytest.raises(CretoError):
                self.office.desk.deny(found, self.people[who])

    @rule(request=requests)
    def cancel(self, request: str) -> None:
        found = self.office.desk.find(request)
        self._does(request, "cancel", lambda: self.office.desk.cancel(found, who=AGENT))

    @rule(request=requests)
    def execute(self, request: str) -> None:
        def call() -> None:
            with self.office.store.begin() as tx:
                transitions.execute(tx, request, None)

        self._does(request, "execute", call)

    @rule(request=requests, end=st.sampled_from([("succeed", "executed"), ("fail", "failed"), ("lose", "unknown")]))
    def end(self, request: str, end: tuple[str, transitions.Outcome]) -> None:
        event, outcome = end

        def call() -> None:
            with self.office.store.begin() as tx:
                transitions.settle(tx, self.office.desk.find(request), outcome)

        self._does(request, event, call)

    @rule(request=consumes(requests))
    def let_it_expire(self, request: str) -> None:
        with self.office.store.begin() as tx:
            tx.swap(tables.oversight_requests, tables.oversight_requests.c.id == request, expiry=1)
            ended = transitions.expire_due(tx)
        open_ = self.expected[request] in ("pending", "approved")
        assert (request in ended) == open_
        if open_:
            self.expected[request] = "expired"

    @invariant()
    def the_store_is_where_the_model_is(self) -> None:
        with self.office.store.read() as tx:
            found = {row.id: Request.of(row) for row in tx.all(select(tables.oversight_requests))}
            grants = tx.all(select(tables.grants))
            told = [row.record["what"] for row in tx.all(select(tables.outbox))]
        assert {id: request.state for id, request in found.items()} == self.expected
        for id, state in self.expected.items():
            mine = [grant for grant in grants if grant.request == id]
            used = {grant.policy_id for grant in mine if grant.consumed is not None}
            if state in ("executing", "executed", "failed", "unknown"):
                assert used == self.policies[id], "an act starts only with every grant, and uses each"
            else:
                assert not used, "a grant is used only by starting the act"
        starts = sum(state in ("executing", "executed", "failed", "unknown") for state in self.expected.values())
        assert told.count("oversight:executing") == starts


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=12, stateful_step_count=25)
