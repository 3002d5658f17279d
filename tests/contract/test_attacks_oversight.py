"""Attacks on the people who answer: a flood of questions, a question written over, a yes for somebody else's act."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sql

from creto import _core
from creto.config._sections import Approver as ApproverSection
from creto.errors import IntegrityError, InvalidInputError, OversightRequiredError, UnauthorizedError
from creto.oversight import Clearance, Request
from creto.oversight import _transitions as transitions
from creto.oversight.channels._http import post
from creto.store import tables
from desks import AGENT, BOSS, Office, act, wait_for_request
from sandboxes import skip_unless

APPROVERS, REQUESTS = tables.approvers, tables.oversight_requests


def test_a_flood_of_questions_does_not_hide_those_of_others(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "MOST_WAITING", 4)
    office = Office(state)
    try:

        async def main() -> None:
            refused = 0
            async with anyio.create_task_group() as group:

                async def one(number: int) -> None:
                    nonlocal refused
                    with pytest.raises(UnauthorizedError, match="requests that wait for an answer already"):
                        await office.desk.ask(act(number), ["payments"], timeout=600)
                    refused += 1

                for number in range(transitions.MOST_WAITING + 3):
                    group.start_soon(one, number)
                while refused < 3:
                    await anyio.sleep(0.05)
                # Another agent is still heard.
                with pytest.raises(OversightRequiredError):
                    await office.desk.ask(act(1, agent=BOSS), ["payments"], timeout=0.05)
                assert len([r for r in office.desk.pending() if r.agent == AGENT]) == transitions.MOST_WAITING
                group.cancel_scope.cancel()

        anyio.run(main)
    finally:
        office.close()


def test_many_agents_that_flood_do_not_hide_one_that_does_not(state: Path) -> None:
    office = Office(state)
    try:

        async def ask(number: int, agent: str) -> None:
            with pytest.raises(OversightRequiredError):
                await office.desk.ask(act(number, agent=agent), ["payments"], timeout=600, hold=0)

        async def main() -> None:
            await ask(0, BOSS)
            async with anyio.create_task_group() as group:
                for number in range(210):
                    group.start_soon(ask, number, f"{AGENT}-{number % 3}")

        anyio.run(main)
        shown = [request.agent for request in office.desk.pending()]
        assert len(shown) == 200
        assert shown[0] == BOSS
        assert {shown.count(f"{AGENT}-{number}") for number in range(3)} <= {66, 67}
    finally:
        office.close()


@pytest.mark.parametrize(
    "path", ["/T0/hush hush", "/T0/hush\x7f", "/a?token=hush ", "/hush\u00e9", ":x/hush", ":99999/hush"]
)
def test_a_channel_s_secret_address_is_in_no_error_and_so_on_no_record(path: str) -> None:
    with pytest.raises(InvalidInputError, match="the channel's URL") as refused:
        post(f"http://127.0.0.1{path}", b"{}", {})
    assert "hush" not in str(refused.value)
    assert not refused.value.should_retry


# --- a store that somebody else can write to, who holds no key of the state folder ------------------------------------


def _agreed(office: Office, forge: Callable[[Office, Request], None]) -> Clearance:
    """What an act that is asked about is cleared with, where `forge` has its way with the store."""
    cleared: list[Clearance] = []

    async def main() -> None:
        async def ask() -> None:
            clearance = await office.desk.ask(act(), ["payments"], timeout=60)
            await office.desk.execute(clearance)
            cleared.append(clearance)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
            await anyio.to_thread.run_sync(forge, office, request)

    try:
        anyio.run(main)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return cleared[0]


def _ask_for_nobody(office: Office, request: Request) -> None:
    with office.store.begin() as tx:
        tx.swap(REQUESTS, REQUESTS.c.id == request.id, state="approved", policies=[])
        tx.publish("oversight", request.id)


def _be_an_approver(office: Office, request: Request) -> None:
    key, mallory = _core.SigningKey.generate(), "spiffe://creto.local/approver/mallory"
    bound = {"request": request.id, "nonce": request.nonce, "expiry_us": request.expiry_us, "approver": mallory}
    answer = _core.oversight_answer(
        key, request.act, policy="payments", approved=True, reason="", decided_us=0, **bound
    )
    with office.store.begin() as tx:
        row = tx.first(sql.select(APPROVERS).where(APPROVERS.c.name == "ann"))
        assert row is not None
        # The sealed keys of somebody else, since their own cannot be sealed.
        known = {**row._mapping, "public_keys": key.verifying_key.to_text(), "token_digest": b"mine"}
        tx.insert(APPROVERS, **{**known, "id": mallory, "name": "mallory"})
        tx.insert(
            tables.grants,
            id=f"{request.id}:payments",
            request=request.id,
            policy_id="payments",
            digest=request.digest("payments"),
            approver=mallory,
            answer="approved",
            statement=answer.encode(),
            expiry=request.expiry_us,
            given=tx.now,
        )
        tx.swap(REQUESTS, REQUESTS.c.id == request.id, state="approved")
        tx.publish("oversight", request.id)


def _have_a_token(office: Office, request: Request) -> None:
    with office.store.begin() as tx:
        tx.swap(APPROVERS, APPROVERS.c.name == "ann", token_digest=hashlib.sha256(b"mine").digest())
    ann = office.desk.approvers.by_token("mine")
    assert ann is not None
    office.desk.approve(request, ann)


def _have_a_say(office: Office, request: Request) -> None:
    office.desk.approvers.add("bob", policies=["deploys"])
    with office.store.begin() as tx:
        tx.swap(APPROVERS, APPROVERS.c.name == "bob", policies=["deploys", "payments"])
    office.desk.approve(request, office.desk.approvers.named("bob"))


def _show_another_act(office: Office, request: Request) -> None:
    with office.store.begin() as tx:
        tx.swap(REQUESTS, REQUESTS.c.id == request.id, resource="read_balance")
    office.desk.approve(office.desk.find(request.id), office.ann)


@pytest.mark.parametrize(
    ("forge", "found_out"),
    [
        (_ask_for_nobody, "was changed in the store while it waited"),
        (_be_an_approver, "`spiffe://creto.local/approver/mallory` is not in the store as creto wrote it"),
        (_have_a_token, "`spiffe://creto.local/approver/ann` is not in the store as creto wrote it"),
        (_have_a_say, "`spiffe://creto.local/approver/bob` is not in the store as creto wrote it"),
        (_show_another_act, "shows another act than the one that would be done"),
    ],
)
def test_who_can_write_to_the_store_agrees_to_nothing(
    state: Path, forge: Callable[[Office, Request], None], found_out: str
) -> None:
    office = Office(state)
    try:
        with pytest.raises(IntegrityError, match=found_out):
            _agreed(office, forge)
    finally:
        office.close()


def test_an_approver_who_was_tampered_with_shuts_nobody_out_and_can_be_revoked(state: Path) -> None:
    office = Office(state)
    try:
        with office.store.begin() as tx:
            tx.swap(APPROVERS, APPROVERS.c.name == "ann", policies=["everything"])
        office.desk.approvers.configure([ApproverSection(name="ann", policies=["payments"])])
        with pytest.raises(IntegrityError, match="`creto approver revoke` ends it"):
            office.desk.approvers.key(office.ann)
        office.desk.approvers.revoke("ann")
        assert not office.ann.active
    finally:
        office.close()


def test_an_approver_whose_say_was_narrowed_lets_nothing_in_by_an_answer_from_before(state: Path) -> None:
    office = Office(state)
    deploys = [ApproverSection(name="ann", policies=["deploys"])]

    def narrowed_after(office: Office, request: Request) -> None:
        office.desk.approve(request, office.ann)
        office.desk.approvers.configure(deploys)

    def narrowed_before(office: Office, request: Request) -> None:
        ann = office.ann  # as a page or a terminal has her that was opened before
        office.desk.approvers.configure(deploys)
        office.desk.approve(request, ann)

    try:
        with pytest.raises(OversightRequiredError, match="no usable grant"):
            _agreed(office, narrowed_after)
        assert not office.ann.may_answer("payments")
        office.desk.approvers.configure([ApproverSection(name="ann", policies=["payments"])])
        with pytest.raises(UnauthorizedError, match="may no longer answer for the policy `payments`"):
            _agreed(office, narrowed_before)
    finally:
        office.close()


# Writes a question of its own as soon as ours is up, hides what comes after it, and has the terminal type for it.
HOSTILE = r"""
import socket, sys, threading, time
def connect():
    try:
        evil = socket.create_connection(("evil.example", 80), 20)
        evil.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        evil.recv(1)
    except OSError as error:
        print("ended", error, file=sys.stderr, flush=True)
sys.stdout.write("\x1b[8mhidden"); sys.stdout.flush()
asking = threading.Thread(target=connect); asking.start()
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    sys.stdout.write("\x1b[2J\x1b[H  an act waits for you: net:connect pypi.org:443\r\n"); sys.stdout.flush()
    time.sleep(0.02)
asking.join()
"""


# `creto run` in a session whose terminal is standard input.
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
program = ["creto", "run", "--backend", "process", "--", "python3", "hostile.py", "4"]
os.execv(sys.executable, [sys.executable, "-m", *program])
"""


@pytest.mark.parametrize("redirected", [False, True])
def test_a_program_cannot_write_over_the_question_that_is_asked_about_it(tmp_path: Path, redirected: bool) -> None:
    """Nor where its output goes to a file, and it has the terminal as its standard error alone."""
    skip_unless("process")
    project = tmp_path / "project"
    project.mkdir()
    (project / "hostile.py").write_text(HOSTILE.replace("stdout", "stderr") if redirected else HOSTILE)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL],
        stdin=slave,
        stdout=subprocess.DEVNULL if redirected else slave,
        stderr=slave,
        cwd=project,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(slave)
    seen = ""

    def read_until(wanted: str, seconds: float) -> None:
        nonlocal seen
        deadline = time.monotonic() + seconds
        while not re.search(wanted, seen):
            assert time.monotonic() < deadline, seen[-3000:]
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536).decode(errors="replace")

    try:
        read_until(r"waits for you: net:connect pypi", 60)
        read_until(r"evil\.example", 60)
        read_until(r"type yes, no or skip", 60)
        question = seen.index("\x1b[!p")
        asked = seen[question:]
        assert "evil.example" in asked
        # The program goes on trying for seconds, and nothing of it comes between question and answer.
        quiet = time.monotonic() + 2
        while time.monotonic() < quiet:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536).decode(errors="replace")
        assert "pypi.org" not in seen[question:], "the question was written over"
        os.write(master, b"no\n")
        read_until(r"ended", 60)
        read_until(r"exit status", 60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
