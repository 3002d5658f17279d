"""What oversight promises: one human answer, signed, for exactly one act, used once; and nothing is ever assumed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select

from creto import _core, _process
from creto._process import alive, here
from creto.errors import (
    CretoError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    OversightRequiredError,
    SignatureVerificationFailedError,
    UnauthorizedError,
)
from creto.oversight import Clearance, Request
from creto.oversight import _transitions as transitions
from creto.store import tables
from desks import AGENT, BOSS, PRELUDE, Office, act, wait_for_request
from servers import Start

pytestmark = pytest.mark.anyio
REQUESTS = tables.oversight_requests


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def office(state: Path) -> Iterator[Office]:
    opened = Office(state)
    yield opened
    opened.close()


async def asked_and(
    office: Office, answer: Any, *, policies: tuple[str, ...] = ("payments",), **options: Any
) -> Clearance:
    """Asks, and lets `answer(request)` run in a thread once the request is there."""
    cleared: list[Clearance] = []

    async def ask() -> None:
        cleared.append(await office.desk.ask(options.pop("act", act()), policies, **options))

    async def reply() -> None:
        (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
        await anyio.to_thread.run_sync(answer, request)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(reply)
    except ExceptionGroup as several:
        raise _only(several) from None
    return cleared[0]


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


def approve(office: Office, name: str = "ann", reason: str = "") -> Any:
    return lambda request: office.desk.approve(request, office.desk.approvers.named(name), reason)


# --- the answer -----------------------------------------------------------------------------------------------------


async def test_an_agreement_is_signed_by_the_approver_over_this_act_and_good_once(office: Office) -> None:
    clearance = await asked_and(office, approve(office, reason="known supplier"))
    (grant,) = clearance.grants
    assert (grant.approver, grant.policy_id, grant.reason) == (office.ann.id, "payments", "known supplier")
    assert grant.covers(act())
    assert not grant.covers(act(6))
    assert (await office.desk.execute(clearance)).state == "executing"
    with pytest.raises(OversightRequiredError, match="needs to be agreed to again: the request .* is executing"):
        await office.desk.execute(clearance)
    assert (await office.desk.settle(clearance, "executed")).state == "executed"


async def test_a_denial_names_who_and_why(office: Office) -> None:
    with pytest.raises(
        UnauthorizedError,
        match="`tool:call` on `send_money` was denied by `spiffe://creto.local/approver/ann`: not to this account",
    ):
        await asked_and(office, lambda r: office.desk.deny(r, office.ann, "not to this account"))


async def test_nobody_answering_is_a_no_and_is_not_retried(office: Office) -> None:
    with pytest.raises(OversightRequiredError, match="nobody answered in time") as caught:
        await office.desk.ask(act(), ["payments"], timeout=0.2)
    assert not caught.value.should_retry
    (request,) = office.desk.all()
    assert request.state == "expired"
    with pytest.raises(InvalidInputError, match="is expired and takes no answer any more"):
        office.desk.approve(request, office.ann)


async def test_the_grant_opens_the_outside_world_a_dsse_envelope_with_two_signatures(office: Office) -> None:
    from base64 import b64decode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    clearance = await asked_and(office, approve(office))
    with office.store.read() as tx:
        (row,) = transitions.grants_of(tx, clearance.request.id)
    envelope = json.loads(row.statement)
    payload = b64decode(envelope["payload"])
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0]["digest"]["sha256"] == act_digest(clearance.request).hex()
    # An outsider's check: DSSE's own encoding, the key from the published set, a library that is not ours.
    pae = b"DSSEv1 %d %s %d %s" % (
        len(envelope["payloadType"]),
        envelope["payloadType"].encode(),
        len(payload),
        payload,
    )
    der = b64decode(row.public_keys)
    start = der.index(bytes.fromhex("302a300506032b6570"))
    key = load_der_public_key(der[start : start + 44])
    assert isinstance(key, Ed25519PublicKey)
    key.verify(b64decode(envelope["signatures"][0]["sig"]), pae)
    assert [s["keyid"].partition(":")[0] for s in envelope["signatures"]] == ["Ed25519", "ML-DSA-65"]


def act_digest(request: Request) -> bytes:
    """The digest as an outsider computes it from the text: SHA-256 over sorted, compact JSON."""
    import hashlib

    core = json.loads(request.core)
    document = {**core, "policy": request.policies[0], "nonce": request.nonce.hex(), "expiry": request.expiry_us}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).digest()


async def test_every_policy_that_asks_needs_a_grant_of_one_who_may_give_it(office: Office) -> None:
    people = office.desk.approvers
    people.add("cfo", policies=["payments"])
    people.add("ciso", policies=["egress"])
    steps: list[str] = []

    def both(request: Request) -> None:
        with pytest.raises(UnauthorizedError, match="`dev` may not answer for the policy `egress`"):
            office.desk.approve(request, people.add("dev", policies=["deploys"])[0])
        steps.append(office.desk.approve(request, people.named("cfo")).state)
        with pytest.raises(InvalidInputError, match="has your agreement already; it waits for another approver"):
            office.desk.approve(request, people.named("cfo"))
        steps.append(office.desk.approve(request, people.named("ciso")).state)

    clearance = await asked_and(office, both, policies=("payments", "egress"))
    assert steps == ["pending", "approved"]
    assert [(grant.policy_id, grant.approver.rsplit("/")[-1]) for grant in clearance.grants] == [
        ("egress", "ciso"),
        ("payments", "cfo"),
    ]


async def test_one_denial_outweighs_the_agreements_before_it(office: Office) -> None:
    people = office.desk.approvers
    people.add("cfo", policies=["payments"])

    def split(request: Request) -> None:
        office.desk.approve(request, people.named("cfo"))
        office.desk.deny(request, office.ann, "no")

    with pytest.raises(UnauthorizedError, match="was denied by `spiffe://creto.local/approver/ann`: no"):
        await asked_and(office, split, policies=("payments", "egress"))


async def test_whoever_takes_part_in_the_act_cannot_approve_it(office: Office) -> None:
    chain = (office.ann.id, BOSS, AGENT)

    def attempt(request: Request) -> None:
        with pytest.raises(UnauthorizedError, match="`ann` takes part in this act"):
            office.desk.approve(request, office.ann)
        office.desk.cancel(request, who=AGENT)

    with pytest.raises(OversightRequiredError, match="the request was cancelled"):
        await asked_and(office, attempt, act=act(chain=chain))


async def test_cnsa2_acts_are_digested_with_sha_384_and_answered_with_ml_dsa_87(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRETO_COMMON__SUITE", "cnsa2")
    office = Office(state)
    clearance = await asked_and(office, approve(office, "ann"), act=act(suite="cnsa2"))
    assert len(clearance.grants[0].digest) == 48
    assert office.ann.verifying_key.suite == "cnsa2"
    office.close()


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_caller_that_gives_up_takes_the_request_back(office: Office) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(office.desk.ask, act(), ["payments"])
        await anyio.to_thread.run_sync(wait_for_request, office.desk)
        group.cancel_scope.cancel()
    (request,) = office.desk.all()
    assert (request.state, request.reason) == ("cancelled", "the caller gave up")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_caller_that_asyncio_cancels_while_its_request_is_written_takes_it_back(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a human would be asked about what nobody does any more."""
    begun, go = threading.Event(), threading.Event()
    opened = office.desk._open

    def held_up(*given: Any) -> Any:
        begun.set()
        go.wait(60)
        return opened(*given)

    monkeypatch.setattr(office.desk, "_open", held_up)
    asking = asyncio.create_task(office.desk.ask(act(), ["payments"]))
    await anyio.to_thread.run_sync(begun.wait)
    asking.cancel()
    await asyncio.sleep(0.05)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (request,) = office.desk.all()
    assert (request.state, request.reason) == ("cancelled", "the caller gave up")


async def test_a_held_connection_leaves_the_request_and_the_next_one_attaches_to_it(office: Office) -> None:
    with pytest.raises(OversightRequiredError, match="still waits for a human"):
        await office.desk.ask(act(), ["network"], hold=0.1, shared=True)
    (request,) = office.desk.pending()
    office.desk.approve(request, office.ann)
    clearance = await office.desk.ask(act(), ["network"], hold=5, shared=True)
    assert clearance.request.id == request.id
    with pytest.raises(OversightRequiredError, match="still waits"):
        await office.desk.ask(act(6), ["network"], hold=0.1, shared=True)
    assert len(office.desk.all()) == 2


async def test_of_two_that_share_a_request_one_executes(office: Office) -> None:
    cleared: list[Clearance] = []

    async def ask() -> None:
        cleared.append(await office.desk.ask(act(), ["network"], shared=True))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
        (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
        await anyio.sleep(0.2)
        await anyio.to_thread.run_sync(office.desk.approve, request, office.ann)
    won = 0
    for clearance in cleared:
        try:
            await office.desk.execute(clearance)
            won += 1
        except OversightRequiredError:
            pass
    assert (len(cleared), won) == (2, 1)


async def test_the_waiter_sleeps_and_is_woken_by_another_process(office: Office, python: Start) -> None:
    process = python(
        PRELUDE + "from desks import wait_for_request\n"
        "import time\n"
        "for _ in sys.stdin:\n"
        "    (request,) = wait_for_request(desk)\n"
        "    desk.approve(request, office.ann, 'from elsewhere')\n"
        "    print(time.monotonic(), flush=True)\n"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seconds = []
    for number in range(8):
        process.stdin.write("one\n")
        process.stdin.flush()
        clearance = await office.desk.ask(act(number), ["payments"])
        woken = time.monotonic()
        assert clearance.grants[0].reason == "from elsewhere"
        seconds.append(woken - float(await anyio.to_thread.run_sync(process.stdout.readline)))
    _, err = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0, err
    assert min(seconds) < 1.0  # a busy machine holds up any one of them


# --- attacks ----------------------------------------------------------------------------------------------------------


async def test_a_grant_moved_to_another_request_is_found_out(office: Office) -> None:
    first = await asked_and(office, approve(office))
    held: list[Request] = []

    def forge(request: Request) -> None:
        held.append(request)
        with office.store.begin() as tx:
            row = transitions.grants_of(tx, first.request.id)[0]
            tx.insert(
                tables.grants,
                id="forged",
                request=request.id,
                policy_id="payments",
                digest=request.digest("payments"),
                approver=office.ann.id,
                answer="approved",
                statement=row.statement,
                expiry=request.expiry_us,
                given=tx.now,
            )
            tx.swap(REQUESTS, REQUESTS.c.id == request.id, state="approved")
            tx.publish("oversight", request.id)

    with pytest.raises(IntegrityError, match="was given for another one"):
        await asked_and(office, forge)


async def test_an_answer_signed_with_a_foreign_key_counts_for_nothing(office: Office) -> None:
    foreign = _core.SigningKey.generate()

    def forge(request: Request) -> None:
        statement = _core.oversight_answer(
            foreign,
            request.act,
            request=request.id,
            policy="payments",
            nonce=request.nonce,
            expiry_us=request.expiry_us,
            approver=office.ann.id,
            approved=True,
            reason="",
            decided_us=0,
        )
        with office.store.begin() as tx:
            transitions.answer(
                tx, request, approver=office.ann.id, approved=True, reason="", statements={"payments": statement}
            )

    with pytest.raises(SignatureVerificationFailedError):
        await asked_and(office, forge)


async def test_a_stored_act_edited_after_the_answer_has_no_grant(office: Office) -> None:
    def edit(request: Request) -> None:
        office.desk.approve(request, office.ann)
        richer = act(5_000_000).core()
        with office.store.begin() as tx:
            tx.swap(REQUESTS, REQUESTS.c.id == request.id, core=richer)

    with pytest.raises(IntegrityError, match="was changed in the store while it waited"):
        # The waiter may have read the row before the edit; a second look reads what is there now.
        clearance = await asked_and(office, edit)
        await office.desk._cleared(office.desk.find(clearance.request.id), act(), ["payments"])


async def test_the_grant_of_an_approver_revoked_meanwhile_is_not_used(office: Office) -> None:
    office.desk.approvers.add("bob")
    clearance = await asked_and(office, approve(office, "bob"))
    office.desk.approvers.revoke("bob")
    with pytest.raises(OversightRequiredError, match="no usable grant for the policy `payments`"):
        await office.desk.execute(clearance)
    with pytest.raises(UnauthorizedError, match="`bob` may no longer answer|`bob` may not answer"):
        office.desk.approve(clearance.request, office.desk.approvers.named("bob"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_of_many_processes_that_execute_one_grant_one_succeeds(office: Office, python: Start) -> None:
    clearance = await asked_and(office, approve(office))
    code = (
        PRELUDE + "from creto.oversight import Clearance\n"
        f"clearance = Clearance(desk.find({clearance.request.id!r}), ())\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    anyio.run(desk.execute, clearance); print('won')\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    racers = [python(code) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert await anyio.to_thread.run_sync(racer.stdout.readline) == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    ends = [(await anyio.to_thread.run_sync(racer.communicate))[0].strip() for racer in racers]
    assert sorted(ends) == ["OversightRequiredError"] * 2 + ["won"]


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_whose_asker_was_killed_is_taken_over_by_the_next_one(office: Office, python: Start) -> None:
    process = python(PRELUDE + "anyio.run(desk.ask, act(), ['payments'])\n")
    (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
    process.kill()
    process.wait()
    assert office.desk.find(request.id).state == "pending"
    office.desk.approve(request, office.ann)
    clearance = await office.desk.ask(act(), ["payments"])
    assert clearance.request.id == request.id
    assert (await office.desk.execute(clearance)).state == "executing"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("found", "end", "why"),
    [
        ("nothing", "failed", "it did not start"),
        ("intent", "unknown", "between intent and outcome; look before you try again"),
        ("success", "executed", None),
        ("failure", "failed", None),
    ],
)
async def test_an_act_killed_while_executing_ends_as_the_ledger_knows_and_never_runs_again(
    office: Office, python: Start, found: Any, end: str, why: str | None
) -> None:
    process = python(
        PRELUDE + "async def main():\n"
        "    clearance = await desk.ask(act(), ['payments'])\n"
        "    await desk.execute(clearance)\n"
        "    print('executing', flush=True); await anyio.sleep(60)\n"
        "anyio.run(main)\n"
    )
    (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
    office.desk.approve(request, office.ann)
    assert process.stdout is not None
    assert await anyio.to_thread.run_sync(process.stdout.readline) == "executing\n"

    async def ledger(id: str) -> Any:
        assert id == request.id
        return found

    assert await office.desk.recover(ledger) == [], "a process that lives is left alone"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (settled,) = await office.desk.recover(ledger)
    assert settled.state == end
    if why:
        with office.store.read() as tx:
            records = [row.record for row in tx.all(select(tables.outbox)) if row.record["what"] == f"oversight:{end}"]
        assert why in records[-1]["detail"]["reason"]
    with pytest.raises(OversightRequiredError):
        await office.desk.execute(Clearance(settled, ()))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("delay_ms", [0, 10, 30, 70])
async def test_killed_at_any_moment_no_request_is_in_between(office: Office, python: Start, delay_ms: int) -> None:
    """A process asks, answers and executes over and over, and is killed: rows, grants and records agree."""
    process = python(
        PRELUDE + "async def main():\n"
        "    for n in range(1000):\n"
        "        async with anyio.create_task_group() as group:\n"
        "            async def one():\n"
        "                clearance = await desk.ask(act(n), ['a', 'b'])\n"
        "                await desk.execute(clearance); await desk.settle(clearance, 'executed')\n"
        "                if n == 0: print('go', flush=True)\n"
        "            group.start_soon(one)\n"
        "            async def yes():\n"
        "                while not (found := await anyio.to_thread.run_sync(desk.pending)): await anyio.sleep(0.001)\n"
        "                await anyio.to_thread.run_sync(desk.approve, found[0], office.ann)\n"
        "            group.start_soon(yes)\n"
        "anyio.run(main)\n"
    )
    assert process.stdout is not None
    assert await anyio.to_thread.run_sync(process.stdout.readline) == "go\n"
    await anyio.sleep(0.15 + delay_ms / 1000)
    process.kill()
    process.wait()
    with office.store.read() as tx:
        requests = transitions.listed(tx, None, 10_000)
        grants = tx.all(select(tables.grants))
        records = [row.record for row in tx.all(select(tables.outbox))]
    assert requests
    for request in requests:
        mine = [grant for grant in grants if grant.request == request.id]
        consumed = [grant for grant in mine if grant.consumed is not None]
        told = {record["what"] for record in records if record["act"] == request.id}
        match request.state:
            case "pending":
                assert not mine
            case "approved":
                assert (len(mine), len(consumed)) == (2, 0)
            case "executing" | "executed":
                assert (len(mine), len(consumed)) == (2, 2)
            case other:
                raise AssertionError(other)
        reached = ["pending", "approved", "executing", "executed"].index(request.state)
        names = ["oversight:requested", "oversight:approved", "oversight:executing", "oversight:executed"]
        assert told == set(names[: reached + 1]), "each step, and its record, are one transaction"


# --- finding, recording -----------------------------------------------------------------------------------------------


async def test_every_step_is_recorded_with_the_digest_and_nothing_of_the_context(office: Office) -> None:
    secret = act(to="a-very-private-account")
    clearance = await asked_and(office, approve(office, reason="fine"), act=secret)
    await office.desk.execute(clearance)
    await office.desk.settle(clearance, "failed", "the bank was closed")
    with office.store.read() as tx:
        records = [row.record for row in tx.all(select(tables.outbox).order_by(tables.outbox.c.seq))]
    ours = [record for record in records if record["act"] == clearance.request.id]
    assert [record["what"].partition(":")[2] for record in ours] == ["requested", "approved", "executing", "failed"]
    assert [record["who"] for record in ours] == [AGENT, office.ann.id, AGENT, AGENT]
    assert {record["digest"] for record in ours} == {clearance.grants[0].digest.hex()}
    assert "a-very-private-account" not in json.dumps(records)


async def test_a_request_is_found_by_the_first_digits_of_its_id(office: Office) -> None:
    with pytest.raises(OversightRequiredError):
        await office.desk.ask(act(), ["p"], hold=0.05)
    (request,) = office.desk.pending()
    assert office.desk.find(request.id[:6]).id == request.id
    with pytest.raises(NotFoundError, match="there is no oversight request `00000000`"):
        office.desk.find("00000000")
    with pytest.raises(InvalidInputError, match="give at least the first 4 digits"):
        office.desk.find(request.id[:3])
    with pytest.raises(InvalidInputError, match="`%%%%` cannot be a request"):
        office.desk.find("%%%%")


@pytest.mark.parametrize(
    ("value", "named"),
    [(object(), "`object`"), (float("inf"), "`inf`"), ({"__set": [1]}, "`__set`"), (type, "`type`")],
)
def test_an_argument_with_no_stated_encoding_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        _core.Act(AGENT, "tool:call", "x", context={"argument": value})


def test_values_that_are_equal_have_one_digest_and_unequal_ones_have_two() -> None:
    from decimal import Decimal

    def digest(value: Any) -> bytes:
        return _core.Act(AGENT, "tool:call", "x", context={"v": value}).core_digest()

    assert digest(Decimal("1.50")) == digest(Decimal("1.5"))
    assert digest(Decimal("100")) == digest(Decimal("1E+2"))
    assert digest({3, 1, 2}) == digest(frozenset([2, 3, 1]))
    assert digest((1, 2)) == digest([1, 2]) != digest([2, 1])
    assert len({digest(v) for v in (1, True, "1", Decimal(1), b"1", None, [1], {1}, {"1": 1}, 2**70, str(2**70))}) == 11


def test_a_nested_value_cannot_exhaust_the_stack() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="nests deeper than 64 levels"):
        _core.Act(AGENT, "tool:call", "x", context={"v": deep})


def test_a_process_knows_which_processes_live(python: Start) -> None:
    process = python("from creto._process import here; print(here(), flush=True); import sys; sys.stdin.readline()")
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert alive(name)
    assert alive(here())
    process.kill()
    process.wait()
    assert not alive(name)
    assert alive("another-machine/id/boot/7/1/2"), "nothing is taken from a process that cannot be seen"


def test_a_process_lives_whose_name_is_no_text(python: Start) -> None:
    """The system cuts names after 15 bytes, wherever in a letter that is."""
    process = python(
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xc3')\n"
        "from creto._process import here; print(here(), flush=True); sys.stdin.readline()"
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert name.count("/") == 5
    assert alive(name)


def test_a_machine_of_the_same_name_is_not_taken_for_an_earlier_boot_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = {"name": "node", "machine": "f" * 32, "boot": "now"}
    monkeypatch.setattr(_process, "_world", lambda: "{name}/{machine}/{boot}/7".format(**ours))
    assert not alive(f"node/{'f' * 32}/before/7/12/99")
    assert alive(f"node/{'e' * 32}/before/7/12/99"), "another machine called the same"
    ours["machine"] = "?"
    assert alive("node/?/before/7/12/99"), "a container that has no number of its own"


def test_errors_of_oversight_are_creto_errors() -> None:
    for error in (OversightRequiredError, UnauthorizedError, InvalidInputError):
        assert issubclass(error, CretoError)
    assert sys.modules["creto.oversight"].__all__
