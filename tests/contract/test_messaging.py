"""What messages promise: sealed on their way, delivered once, and never lost, whoever is killed and whenever."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select, update

from creto import _core
from creto.cli import main
from creto.errors import (
    ConnectionFailedError,
    DeliveryDeniedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    SignatureVerificationFailedError,
    TimeoutError,
    UnauthorizedError,
)
from creto.messaging import Mailbox, Message, _receipt, _rows
from creto.nhi import Agent, Identities
from creto.reach import Reach
from creto.store import Store, Transaction, tables

WRITER = "spiffe://creto.local/agent/writer"
READER = "spiffe://creto.local/agent/reader"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


class Post:
    """A store with a mailbox and two agents."""

    def __init__(self, store: Store, suite: str = "standard", **options: Any) -> None:
        self.store = store
        sealer = None if store.folder else _core.Sealer.ephemeral()
        self.identities = Identities(store, suite=suite, sealer=sealer)
        self.mailbox = Mailbox(store, self.identities, **options)
        self.writer = self.identities.agent("writer")
        self.reader = self.identities.agent("reader")


@pytest.fixture
def post(state: Path) -> Iterator[Post]:
    with Store(state) as store:
        yield Post(store)


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, state: Path) -> Iterator[Post]:
    """The same over either store."""
    place: str | Path = request.getfixturevalue("postgres") if request.param == "postgres" else state
    with Store(place) as store:
        yield Post(store)


async def all_ready(mailbox: Mailbox, agent: Agent) -> list[Message]:
    found = []
    async with mailbox.inbox(agent) as inbox:
        while (message := await inbox.ready()) is not None:
            found.append(message)
            await message.ack()
    return found


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Any:
    return lambda function: anyio.run(function, backend=request.param)


# --- a message -------------------------------------------------------------------------------------------------------


def test_a_message_comes_out_as_it_went_in(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        sent = await anywhere.mailbox.send(
            anywhere.writer, ["reader", READER.replace("reader", "writer")], "the report is done", priority="urgent"
        )
        [message] = await all_ready(anywhere.mailbox, anywhere.reader)
        assert (message.id, message.sender, message.text) == (sent.id, WRITER, "the report is done")
        assert (message.content_type, message.priority) == ("text/plain; charset=utf-8", "urgent")
        assert message.to == (READER, WRITER)
        assert not message.redelivered
        assert "the report is done" not in repr(message)
        [own] = await all_ready(anywhere.mailbox, anywhere.writer)
        assert own.id == sent.id
        receipts = await sent.receipts(timeout=60)
        assert [(r.recipient, r.outcome) for r in receipts] == [(READER, "acked"), (WRITER, "acked")]

    run(main)


def test_a_message_is_not_refused_for_a_store_that_is_away_while_it_is_opened_or_authorized(
    anywhere: Post, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = anywhere.mailbox
    opened, faults = mailbox._receiving.opened, ["opened", "authorized", "opened"]

    def opened_or_not(*given: Any) -> Any:
        if faults[0:1] == ["opened"]:
            faults.pop(0)
            raise ConnectionFailedError("the database ended the connection")
        return opened(*given)

    async def authorized_or_not(_reader: Agent, _sender: str, _context: Any) -> None:
        if faults:
            faults.pop(0)
            raise UnauthorizedError("denied: revocations cannot be read", retry_after=0.5)

    monkeypatch.setattr(mailbox._receiving, "opened", opened_or_not)
    mailbox._authorize_receive = authorized_or_not

    async def main() -> None:
        await mailbox.send(anywhere.writer, "reader", "not lost")
        async with mailbox.inbox(anywhere.reader) as inbox:
            with anyio.fail_after(60):
                message = await anext(inbox)
            await message.ack()
        assert (message.text, message.redelivered, faults) == ("not lost", False, [])

    run(main)


def test_the_stronger_suite_holds_from_the_keys_to_the_receipt_and_takes_nothing_weaker(
    state: Path, tmp_path: Path, run: Any
) -> None:
    async def main() -> None:
        with Store(state) as store, Store(tmp_path / "other") as other:
            strong, weak = Post(store, suite="cnsa2"), Post(other)
            sent = await strong.mailbox.send(strong.writer, "reader", b"durable", attach={"data.bin": b"x" * 70_000})
            with store.read() as tx:
                envelope = tx.scalar(select(tables.mailbox.c.envelope))
            assert _core.envelope_header(envelope, "cnsa2")["suite"] == "cnsa2"
            async with strong.mailbox.inbox(strong.reader) as inbox:
                message = await inbox.__anext__()
                assert await message.attachments["data.bin"].read() == b"x" * 70_000
                await message.ack()
                [receipt] = await sent.receipts(timeout=60)
                assert (receipt.suite, receipt.outcome) == ("cnsa2", "acked")
                await strong.mailbox.send(strong.writer, "reader", b"in memory", durable=False)
                assert (await inbox.__anext__()).body == b"in memory"
            # The same names with keys of the other suite: its envelopes, filed here by hand, are not even looked into.
            await weak.mailbox.send(weak.writer, "reader", b"weaker")
            with other.read() as tx:
                row = tx.first(select(tables.mailbox))
            with store.begin() as tx:
                assert row is not None
                tx.insert_all_once(tables.mailbox, [{**row._mapping, "seq": 100}])
            assert await all_ready(strong.mailbox, strong.reader) == []
            with store.read() as tx:
                refused = tx.first(select(tables.mailbox).where(tables.mailbox.c.seq == 100))
            assert refused is not None
            assert refused.state == "refused"
            assert "suite" in refused.reason
            # Nor does anybody write to a weaker key, or take it in.
            with pytest.raises(InvalidInputError, match="uses suite `standard`, and only `cnsa2` is accepted here"):
                strong.identities.import_blocking(weak.identities.export())

    run(main)


def test_what_follows_from_a_message_is_recorded_after_it_though_its_writers_clock_is_ahead(
    post: Post, state: Path, run: Any
) -> None:
    clock = _core.HybridLogicalClock(str(state / "clock"))
    ahead = Mailbox(post.store, post.identities, clock=lambda: time.time() + 30)
    here = Mailbox(post.store, post.identities, observe=clock.observe)

    async def main() -> int:
        await ahead.send(post.writer, "reader", b"done")
        message = await anext(here.inbox(post.reader))
        await message.ack()
        return message.date

    written = run(main)
    assert written > time.time() + 5
    assert clock.now() >> 12 >= written * 1_000_000


def test_nothing_of_the_content_is_in_the_store(post: Post, state: Path, run: Any) -> None:
    canary = "canary-" + os.urandom(12).hex()

    async def main() -> None:
        await post.mailbox.send(post.writer, "reader", canary)
        await all_ready(post.mailbox, post.reader)

    run(main)
    for file in state.rglob("*"):
        if file.is_file():
            assert canary.encode() not in file.read_bytes(), file


def test_a_message_above_the_limit_is_refused_with_the_setting_that_says_so(state: Path, run: Any) -> None:
    with Store(state) as store:
        post = Post(store, max_message_size=1000)

        async def main() -> None:
            await post.mailbox.send(post.writer, "reader", bytes(1000))
            with pytest.raises(InvalidInputError, match=r"has 1001 bytes, and 1000 are the limit .`messaging.max_mess"):
                await post.mailbox.send(post.writer, "reader", bytes(1001))

        run(main)


def test_a_recipient_that_is_not_known_is_named(post: Post, run: Any) -> None:
    async def main() -> None:
        with pytest.raises(NotFoundError, match="no agent `spiffe://creto.local/agent/nobody` is known here"):
            await post.mailbox.send(post.writer, "nobody", b"x")

    run(main)


def test_a_reply_comes_to_whoever_asked_and_not_to_its_inbox(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        async def answer() -> None:
            async with anywhere.mailbox.inbox(anywhere.reader) as inbox:
                question = await inbox.__anext__()
                await question.reply(question.body + b"!")
                await question.ack()

        async with anywhere.mailbox.inbox(anywhere.writer) as ordinary, anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            reply = await anywhere.mailbox.request(anywhere.writer, "reader", b"ready?", timeout=60)
            assert reply.body == b"ready?!"
            assert await ordinary.ready() is None
            await reply.ack()

    run(main)


def test_a_reply_that_is_there_at_once_is_not_taken_by_an_inbox_of_the_one_who_asked(post: Post, run: Any) -> None:
    put = post.mailbox._sending.put
    taken: list[str] = []

    async def answered_at_once(draft: Any) -> Any:
        sent = await put(draft)
        if draft.sender.id == WRITER:
            [question] = await all_ready(post.mailbox, post.reader)
            await question.reply(b"yes")
            # As quick as it can be: another inbox looks before whoever asked goes on.
            async with post.mailbox.inbox(post.writer) as inbox:
                message = await inbox.ready()
                taken.extend([message.id] if message is not None else [])
        return sent

    async def main() -> None:
        post.mailbox._sending.put = answered_at_once  # type: ignore[method-assign]
        reply = await post.mailbox.request(post.writer, "reader", b"is it so?", timeout=60)
        assert (reply.body, taken) == (b"yes", [])

    run(main)


def test_a_request_without_an_answer_ends_with_the_id_and_the_true_state(post: Post, run: Any) -> None:
    async def main() -> None:
        with pytest.raises(
            TimeoutError, match=r"no reply to message `[0-9a-f]{32}` within 0.3 s; it is waiting at `.*reader"
        ):
            await post.mailbox.request(post.writer, "reader", b"ready?", timeout=0.3)

    run(main)


def test_a_receipt_that_does_not_come_ends_with_the_id_and_the_true_state(post: Post, run: Any) -> None:
    async def main() -> None:
        with pytest.raises(
            TimeoutError, match=r"message `[0-9a-f]{32}` was not acknowledged within 0.3 s; it is waiting at"
        ):
            await post.mailbox.send(post.writer, "reader", b"x", receipt=True, timeout=0.3)

    run(main)


# --- once ------------------------------------------------------------------------------------------------------------


def test_what_was_not_acknowledged_comes_again_and_says_so(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        await anywhere.mailbox.send(anywhere.writer, "reader", b"x")
        async with anywhere.mailbox.inbox(anywhere.reader, hold=4) as inbox:
            first = await inbox.__anext__()
            assert await inbox.ready() is None
            second = await inbox.__anext__()  # the hold ran out
            assert (first.redelivered, second.redelivered, second.id) == (False, True, first.id)
            with pytest.raises(TimeoutError, match="was ended already, or held for too long and handed out again"):
                await first.ack()
            await second.ack()
            assert await inbox.ready() is None

    run(main)


def test_a_replayed_envelope_is_kept_out_by_the_row_that_it_left(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        sent = await anywhere.mailbox.send(anywhere.writer, "reader", b"pay 10")
        with anywhere.store.read() as tx:
            row = tx.first(select(tables.mailbox))
        assert row is not None
        # By itself an envelope opens as often as anybody tries: nothing in it is used up.
        for _ in range(2):
            read = anywhere.mailbox._receiving.opened(anywhere.reader, row.envelope, int(time.time()), 24 * 3600)
            assert read[1] == b"pay 10"
        await all_ready(anywhere.mailbox, anywhere.reader)
        columns = {c.name: getattr(row, c.name) for c in tables.mailbox.c if c.name != "seq"}
        with anywhere.store.begin() as tx:
            assert not tx.insert_once(tables.mailbox, **columns)
        # Filed under another id, as somebody who can write the store might: the seal says otherwise.
        with anywhere.store.begin() as tx:
            tx.insert(tables.mailbox, **{**columns, "message_id": "00" * 16})
        assert await all_ready(anywhere.mailbox, anywhere.reader) == []
        assert await anywhere.mailbox.state(WRITER, "00" * 16) == {READER: "refused"}
        assert await anywhere.mailbox.state(WRITER, sent.id) == {READER: "acked"}

    run(main)


def test_a_tampered_envelope_is_refused_recorded_and_does_not_stop_the_others(post: Post, run: Any) -> None:
    async def main() -> None:
        bad = await post.mailbox.send(post.writer, "reader", b"first")
        good = await post.mailbox.send(post.writer, "reader", b"second")
        with post.store.begin() as tx:
            row = tx.first(select(tables.mailbox).where(tables.mailbox.c.message_id == bad.id))
            assert row is not None
            envelope = bytearray(row.envelope)
            envelope[-1] ^= 1
            tx.execute(update(tables.mailbox).where(tables.mailbox.c.seq == row.seq).values(envelope=bytes(envelope)))
        assert [m.id for m in await all_ready(post.mailbox, post.reader)] == [good.id]
        with pytest.raises(DeliveryDeniedError, match=f"message `{bad.id}` was refused at .*signature is not valid"):
            await bad.receipts(timeout=60)
        with post.store.read() as tx:
            records = [r.record for r in tx.all(select(tables.outbox)) if r.record["what"] == "message:receive"]
        assert "signature is not valid" in records[0]["outcome"]["failure"]

    run(main)


def test_the_handlers_effect_and_the_acknowledgement_count_together(anywhere: Post, run: Any) -> None:
    def effect(tx: Transaction) -> str:
        tx.insert(tables.meta, name="done", value="once")
        return "stored"

    def failing(tx: Transaction) -> None:
        effect(tx)
        raise RuntimeError("after all")

    async def main() -> None:
        await anywhere.mailbox.send(anywhere.writer, "reader", b"x")
        async with anywhere.mailbox.inbox(anywhere.reader) as inbox:
            message = await inbox.__anext__()
            with pytest.raises(RuntimeError, match="after all"):
                await message.ack(failing)
            with anywhere.store.read() as tx:
                assert tx.scalar(select(tables.meta.c.value).where(tables.meta.c.name == "done")) is None
            assert await message.ack(effect) == "stored"
            with anywhere.store.read() as tx:
                assert tx.scalar(select(tables.meta.c.value).where(tables.meta.c.name == "done")) == "once"

    run(main)


def test_two_readers_of_one_mailbox_share_it_and_none_gets_what_the_other_has(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        sent = await anywhere.mailbox.send_many(anywhere.writer, [("reader", f"{n}") for n in range(20)])
        got: list[str] = []

        async def read() -> None:
            async with anywhere.mailbox.inbox(anywhere.reader) as inbox:
                while (message := await inbox.ready()) is not None:
                    got.append(message.id)
                    await message.ack()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
        assert sorted(got) == sorted(each.id for each in sent)

    run(main)


def test_a_handler_in_a_thread_commits_with_the_acknowledgement_or_not_at_all(anywhere: Post, run: Any) -> None:
    async def main() -> None:
        await anywhere.mailbox.send(anywhere.writer, "reader", b"x")
        async with anywhere.mailbox.inbox(anywhere.reader, hold=3) as inbox:
            late = await inbox.__anext__()
            again = await inbox.__anext__()

            def handle(message: Message) -> None:
                with message.transaction() as tx:
                    tx.insert(tables.meta, name=f"done {message.redelivered}", value="once")

            with pytest.raises(TimeoutError, match="nothing was committed here"):
                await anyio.to_thread.run_sync(handle, late)
            await anyio.to_thread.run_sync(handle, again)
        with anywhere.store.read() as tx:
            done = tx.all(select(tables.meta.c.name).where(tables.meta.c.name.like("done%")))
        assert [name for (name,) in done] == ["done True"]

    run(main)


# --- policy ----------------------------------------------------------------------------------------------------------


def test_a_denied_message_is_not_sent_and_names_the_policy(state: Path, run: Any) -> None:
    async def deny(agent: Agent, other: str, context: Any) -> None:
        assert context["bytes"] == 1
        raise UnauthorizedError(f"policy `no-mail` forbids it ({agent.name} to {other})")

    with Store(state) as store:
        post = Post(store, authorize_send=deny)

        async def main() -> None:
            with pytest.raises(DeliveryDeniedError, match="may not send to .*reader`: policy `no-mail` forbids it"):
                await post.mailbox.send(post.writer, "reader", b"x")
            assert await all_ready(post.mailbox, post.reader) == []

        run(main)


def test_a_recipient_whose_policy_refuses_never_sees_it_and_the_sender_is_told(state: Path, run: Any) -> None:
    async def deny(agent: Agent, other: str, context: Any) -> None:
        raise UnauthorizedError("policy `strangers` forbids it")

    with Store(state) as store:
        post = Post(store, authorize_receive=deny)

        async def main() -> None:
            sent = await post.mailbox.send(post.writer, "reader", b"x")
            assert await all_ready(post.mailbox, post.reader) == []
            with pytest.raises(DeliveryDeniedError, match="was denied at .*reader`: policy `strangers` forbids it"):
                await sent.receipts(timeout=60)

        run(main)


# --- attachments -----------------------------------------------------------------------------------------------------


def test_an_attachment_comes_out_as_it_went_in_and_lies_sealed_in_the_store(post: Post, state: Path, run: Any) -> None:
    canary = b"canary-" + os.urandom(12).hex().encode()
    content = canary * 20_000

    async def main() -> None:
        await post.mailbox.send(post.writer, "reader", "see inside", attach={"data.bin": content, "empty": b""})
        [message] = await all_ready(post.mailbox, post.reader)
        assert (message.text, message.content_type) == ("see inside", "text/plain; charset=utf-8")
        assert {name: a.length for name, a in message.attachments.items()} == {"data.bin": len(content), "empty": 0}
        assert await message.attachments["data.bin"].read() == content
        assert await message.attachments["empty"].read() == b""
        with post.store.begin() as tx:
            digest = message.attachments["data.bin"].digest
            tx.execute(update(tables.attachments).where(tables.attachments.c.digest == digest).values(blob=b"another"))
        with pytest.raises(IntegrityError, match="the attachment `data.bin` is not what its message says"):
            await message.attachments["data.bin"].read()

    run(main)
    for file in state.rglob("*"):
        if file.is_file():
            assert canary not in file.read_bytes(), file


@pytest.mark.parametrize("name", ["", "../x", "a\nb", "x" * 201])
def test_a_name_that_could_do_harm_is_not_attached(post: Post, run: Any, name: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidInputError, match="cannot name an attachment"):
            await post.mailbox.send(post.writer, "reader", "x", attach={name: b"x"})

    run(main)


# --- order -----------------------------------------------------------------------------------------------------------


def test_a_flood_by_one_sender_does_not_starve_the_others_and_urgent_comes_first(anywhere: Post, run: Any) -> None:
    other = anywhere.identities.agent("other")

    async def main() -> None:
        for number in range(12):
            await anywhere.mailbox.send(anywhere.writer, "reader", f"flood {number}")
        await anywhere.mailbox.send(other, "reader", "quiet")
        await anywhere.mailbox.send(other, "reader", "quick", priority="urgent")
        order = [message.text for message in await all_ready(anywhere.mailbox, anywhere.reader)]
        assert order[0] == "quick"
        assert order.index("quiet") <= 2
        assert [text for text in order if text.startswith("flood")] == [f"flood {n}" for n in range(12)]

    run(main)


def test_a_batch_is_sent_whole_or_not_at_all(post: Post, run: Any) -> None:
    async def main() -> None:
        sent = await post.mailbox.send_many(post.writer, [("reader", f"part {n}") for n in range(5)])
        assert [m.text for m in await all_ready(post.mailbox, post.reader)] == [f"part {n}" for n in range(5)]
        assert {len(await each.receipts(timeout=60)) for each in sent} == {1}
        with pytest.raises(NotFoundError, match="nobody"):
            await post.mailbox.send_many(post.writer, [("reader", "a"), ("nobody", "b")])
        assert await all_ready(post.mailbox, post.reader) == []
        assert await post.mailbox.send_many(post.writer, []) == []

    run(main)


def test_a_flood_ends_at_a_full_mailbox_and_takes_nothing_from_the_others(
    post: Post, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rows, "MOST_WAITING", 3)
    other = post.identities.agent("other")

    async def main() -> None:
        for _ in range(3):
            await post.mailbox.send(post.writer, "reader", b"x")
        with pytest.raises(DeliveryDeniedError, match="holds 3 messages of .*writer` that nobody has read yet"):
            await post.mailbox.send(post.writer, "reader", b"x")
        await post.mailbox.send(other, "reader", b"x")
        assert len(await all_ready(post.mailbox, post.reader)) == 4
        await post.mailbox.send(post.writer, "reader", b"x")

    run(main)


# --- within one process ----------------------------------------------------------------------------------------------


def test_a_message_handed_over_in_memory_is_sealed_all_the_same_and_recorded(state: Path, run: Any) -> None:
    records: list[dict[str, Any]] = []
    with Store(state) as store:
        post = Post(store, record=records.append)

        async def main() -> None:
            with pytest.raises(NotFoundError, match="no inbox of .*reader` is open in this process"):
                await post.mailbox.send(post.writer, "reader", b"x", durable=False)
            async with post.mailbox.inbox(post.reader) as inbox:
                await post.mailbox.send(post.writer, "reader", b"x", durable=False)
                message = await inbox.__anext__()
                assert (message.body, message.sender) == (b"x", WRITER)
                await message.ack()
                # The same envelope again is a replay.
                inbox._put_direct((message._envelope, b""))
                assert await inbox.ready() is None

        run(main)
    assert [record["what"] for record in records] == ["message:send", "message:receive", "message:receive"]
    assert records[-1]["outcome"] == {"failure": "the message cannot be opened by this recipient"}


def test_an_inbox_that_is_left_without_being_closed_takes_no_message_and_no_descriptor(post: Post, run: Any) -> None:
    async def main() -> None:
        async def one(durable: bool) -> bytes:
            await post.mailbox.send(post.writer, "reader", b"x", durable=durable)
            async for message in post.mailbox.inbox(post.reader):
                await message.ack()
                break
            return message.body

        assert await one(durable=True) == b"x"
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            assert await one(durable=True) == b"x"
        assert len(list(Path("/proc/self/fd").iterdir())) == open_files
        with pytest.raises(NotFoundError, match="no inbox of .*reader` is open in this process"):
            await one(durable=False)

    run(main)


def test_a_message_handed_over_waits_for_its_reader_until_that_is_gone_or_the_message_has_expired(
    state: Path, run: Any
) -> None:
    now = [time.time()]
    records: list[dict[str, Any]] = []
    with Store(state) as store:
        post = Post(store, clock=lambda: now[0], record=records.append)

        async def refused(error: type[Exception], why: str) -> None:
            with anyio.fail_after(30), pytest.raises(error, match=why):
                await post.mailbox.send(post.writer, "reader", b"one more", durable=False)

        async def main() -> None:
            inbox = post.mailbox.inbox(post.reader)
            while not inbox._is_full:
                await post.mailbox.send(post.writer, "reader", b"x", durable=False)
            held = len(records)

            async def minutes() -> None:
                while True:
                    await anyio.sleep(0.05)
                    now[0] += 301

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(minutes)
                await refused(TimeoutError, "took no message until this one expired")
                tasks.cancel_scope.cancel()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(refused, NotFoundError, "no inbox of .*reader` is open")
                await anyio.sleep(0.05)
                inbox.close()
            assert len(records) == held  # what was not handed over is not recorded as sent

        run(main)


# --- whom asyncio itself cancels, which knows no shields -------------------------------------------------------------


@pytest.mark.parametrize("steps", range(12))
def test_a_sender_cancelled_at_any_moment_holds_up_no_other(post: Post, steps: int) -> None:
    async def main() -> None:
        senders = [asyncio.create_task(post.mailbox.send(post.writer, "reader", b"x")) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        senders[steps % 3].cancel()
        ended = await asyncio.wait_for(asyncio.gather(*senders, return_exceptions=True), 60)
        assert [type(one).__name__ for one in ended].count("Sent") >= 2
        await asyncio.wait_for(post.mailbox.send(post.writer, "reader", b"y"), 60)

    asyncio.run(main())


def test_a_message_that_was_taken_for_a_reader_who_gave_up_comes_at_once_to_the_next(post: Post) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with post.store.begin():
            held.set()
            go.wait(120)

    async def main() -> None:
        await post.mailbox.send(post.writer, "reader", b"x")
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        async with post.mailbox.inbox(post.reader) as inbox:
            taking = asyncio.create_task(anext(inbox))
            await asyncio.sleep(0.3)  # by now it waits for the store, on a thread
            taking.cancel()
            await asyncio.sleep(0.05)
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await taking
            message = await asyncio.wait_for(anext(inbox), 60)
        holder.join()
        assert (message.body, message.redelivered) == (b"x", False)

    asyncio.run(main())


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_message_under_way_when_keys_rotate_still_opens(post: Post, run: Any) -> None:
    async def main() -> None:
        await post.mailbox.send(post.writer, "reader", b"to the old key, from the old key")
        post.identities.rotate_blocking("reader")
        post.identities.rotate_blocking("writer")
        [message] = await all_ready(post.mailbox, post.reader)
        assert message.body == b"to the old key, from the old key"
        await post.mailbox.send(post.writer, "reader", b"new")
        [message] = await all_ready(post.mailbox, post.reader)
        assert message.body == b"new"

    run(main)


def test_keys_that_another_process_has_just_made_are_looked_for_before_a_message_is_refused(
    post: Post, state: Path, run: Any
) -> None:
    """Between a rotation elsewhere and the word of it here, a message from the new keys, and one for them."""
    with Store(state) as elsewhere:
        there = Post(elsewhere)

        async def main() -> None:
            there.identities.rotate_blocking("writer")
            there.identities.rotate_blocking("reader")
            await there.mailbox.send(there.writer, "reader", b"from new keys, for new keys")
            [message] = await all_ready(post.mailbox, post.reader)
            assert message.body == b"from new keys, for new keys"

        run(main)


def test_a_receipt_that_was_signed_before_its_signer_was_rotated_still_counts(post: Post, run: Any) -> None:
    async def main() -> None:
        sent = await post.mailbox.send(post.writer, "reader", b"x")
        await all_ready(post.mailbox, post.reader)
        post.identities.rotate_blocking("reader")
        assert [r.outcome for r in await sent.receipts(timeout=60)] == ["acked"]

    run(main)


def test_a_receipt_of_another_message_or_shape_is_none(post: Post, run: Any) -> None:
    """A recipient is known and may be hostile all the same; and the store's rows may have been edited."""

    async def main() -> None:
        first = await post.mailbox.send(post.writer, "reader", b"one")
        second = await post.mailbox.send(post.writer, "reader", b"two")
        await all_ready(post.mailbox, post.reader)
        with post.store.begin() as tx:
            receipt = tx.scalar(select(tables.mailbox.c.receipt).where(tables.mailbox.c.message_id == first.id))
            tx.execute(update(tables.mailbox).where(tables.mailbox.c.message_id == second.id).values(receipt=receipt))
        with pytest.raises(SignatureVerificationFailedError, match="is not one of .*reader` for this message"):
            await second.receipts(timeout=60)
        for payload in (b"{}", b"[]", b"1", b'{"subject": [], "predicate": {}}'):
            signed = _core.dsse_sign(post.reader.signing_key, _core.IN_TOTO, payload)
            with pytest.raises(SignatureVerificationFailedError, match="is not one for any message"):
                _receipt.verify(post.identities, signed, READER)
        # A hop of a delegation is an in-toto Statement by the same keys, and no receipt.
        [hop] = post.identities.delegate_blocking("reader", "writer")
        with pytest.raises(SignatureVerificationFailedError, match="is not one for any message"):
            _receipt.verify(post.identities, hop, READER)

    run(main)


def test_rows_that_were_edited_show_nothing_and_deliver_nothing_wrong(post: Post, run: Any) -> None:
    """Whoever can write the store moves a message to another's mailbox, or gives it another sender or life."""
    other = post.identities.agent("other")
    edits: list[dict[str, Any]] = [
        {"recipient": other.id},
        {"sender": other.id},
        {"expires": int(time.time()) + 10**6},
        {"priority": 1, "turn": 0},
    ]

    async def main() -> None:
        for edit in edits:
            sent = await post.mailbox.send(post.writer, "reader", b"x", expires_in=60)
            with post.store.begin() as tx:
                tx.execute(update(tables.mailbox).where(tables.mailbox.c.message_id == sent.id).values(**edit))
            got = [*await all_ready(post.mailbox, post.reader), *await all_ready(post.mailbox, other)]
            # What the seal holds cannot be edited: order and keeping can, and change nothing of what the reader sees.
            expected = 1 if "expires" in edit or "turn" in edit else 0
            assert [m.sender for m in got] == [WRITER] * expected, edit

    run(main)


def test_a_revoked_agent_neither_sends_nor_is_believed(post: Post, run: Any) -> None:
    async def main() -> None:
        sent = await post.mailbox.send(post.writer, "reader", b"before")
        await post.identities.revoke("writer")
        with pytest.raises(UnauthorizedError, match="was revoked"):
            await post.mailbox.send(post.writer, "reader", b"after")
        assert await all_ready(post.mailbox, post.reader) == []
        assert await post.mailbox.state(WRITER, sent.id) == {READER: "refused"}

    run(main)


# --- two processes ---------------------------------------------------------------------------------------------------

PEER = """
import os, sys, anyio
from creto.messaging import Mailbox
from creto.nhi import Identities
from creto.reach import Reach
from creto.store import Store, tables

async def main(state, step):
    with Store(state) as store, Reach(store) as reach:
        identities = Identities(store, reach=reach)
        mailbox = Mailbox(store, identities, reach)
        reader = identities.agent("reader")
        print("up", flush=True)
        async with mailbox.inbox(reader) as inbox:
            async for message in inbox:
                if step == "taken":
                    os.kill(os.getpid(), 9)
                def effect(tx):
                    tx.insert(tables.meta, name=message.id, value=message.text)
                    if step == "committing":
                        os.kill(os.getpid(), 9)
                await message.ack(effect)
                if step == "acked":
                    os.kill(os.getpid(), 9)
                await message.reply("echo " + message.text + (" again" if message.redelivered else ""))

anyio.run(main, sys.argv[1], sys.argv[2])
"""


@contextmanager
def peer(state: Path, step: str = "never") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", PEER, str(state), step], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_write_to_each_other_and_the_wait_is_short(state: Path) -> None:
    with Store(state) as store, Reach(store) as reach:
        identities = Identities(store, reach=reach)
        mailbox = Mailbox(store, identities, reach)
        writer = identities.agent("writer")
        identities.agent("reader")

        async def main() -> list[float]:
            times = []
            for number in range(5):
                start = time.perf_counter()
                reply = await mailbox.request(writer, "reader", f"hello {number}", timeout=60)
                times.append(time.perf_counter() - start)
                assert reply.text == f"echo hello {number}"
                await reply.ack()
            return times

        with peer(state):
            times = anyio.run(main)
        # Woken by reach: with the look twice a second alone, question and reply would take their time each.
        assert min(times) < 0.5


@pytest.mark.parametrize(
    ("step", "effects", "echo"),
    [
        pytest.param("taken", 1, "echo hello again", id="before the handler"),
        pytest.param("committing", 1, "echo hello again", id="within the handler's transaction"),
        pytest.param("acked", 1, None, id="after the acknowledgement"),
    ],
)
def test_a_reader_killed_at_any_step_loses_nothing_and_does_nothing_twice(
    state: Path, step: str, effects: int, echo: str | None
) -> None:
    with Store(state) as store, Reach(store) as reach:
        identities = Identities(store, reach=reach)
        mailbox = Mailbox(store, identities, reach)
        writer, reader = identities.agent("writer"), identities.agent("reader")

        async def send() -> str:
            return (await mailbox.send(writer, "reader", "hello")).id

        async def reply() -> str | None:
            async with mailbox.inbox(writer) as inbox:
                with anyio.move_on_after(60 if echo else 1.5):
                    message = await inbox.__anext__()
                    await message.ack()
                    return message.text
            return None

        with peer(state, step) as first:
            message_id = anyio.run(send)
            assert first.wait(timeout=60) == -signal.SIGKILL
        with peer(state):
            assert anyio.run(reply) == echo
        with store.read() as tx:
            done = tx.all(select(tables.meta).where(tables.meta.c.name == message_id))
        assert len(done) == effects
        assert anyio.run(mailbox.state, WRITER, message_id) == {READER: "acked"}
        assert reader.id == READER


def test_a_writer_killed_as_it_sends_leaves_a_whole_message_or_none(state: Path) -> None:
    code = """
import os, sys, threading, time, anyio
from creto.messaging import Mailbox
from creto.nhi import Identities
from creto.store import Store
async def main(state, after):
    with Store(state) as store:
        identities = Identities(store)
        mailbox = Mailbox(store, identities)
        writer = identities.agent("writer")
        print("up", flush=True)
        threading.Thread(target=lambda: (time.sleep(after), os.kill(os.getpid(), 9))).start()
        while True:
            sent = await mailbox.send(writer, "reader", "hello")
            print(sent.id, flush=True)
anyio.run(main, sys.argv[1], float(sys.argv[2]))
"""
    with Store(state) as store:
        post = Post(store)
        said: list[str] = []
        for after in (0.05, 0.1, 0.2):
            process = subprocess.run(
                [sys.executable, "-c", code, str(state), str(after)], capture_output=True, text=True, check=False
            )
            assert process.returncode == -signal.SIGKILL
            said += process.stdout.split()[1:]
        got = anyio.run(all_ready, post.mailbox, post.reader)
        assert {message.text for message in got} <= {"hello"}
        # Every one that was answered for is there; one more may be, whose answer was cut off.
        assert set(said) <= {message.id for message in got}
        assert len(got) <= len(said) + 3


# --- commands --------------------------------------------------------------------------------------------------------


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def creto(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: exit code, output, errors. Seven interpreters take longer than what they do."""
    monkeypatch.setenv("CRETO_STATE", str(state))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_commands_send_and_read(creto: Command, tmp_path: Path) -> None:
    for name in ("reader", "writer"):
        assert creto("agent", "create", name)[0] == 0
    code, sent, errors = creto("message", "send", "writer", "reader", "--text", "hi\x1b[2J", "--json")
    assert code == 0, errors
    assert "\x1b" not in creto("message", "inbox", "reader", "--peek")[1]
    read = json.loads(creto("message", "inbox", "reader", "--json")[1])
    assert (read["text"], read["id"], read["redelivered"]) == ("hi\x1b[2J", json.loads(sent)["id"], True)
    assert creto("message", "inbox", "reader")[1] == ""
    (tmp_path / "data.bin").write_bytes(b"\0" * 70_000)
    file = str(tmp_path / "data.bin")
    sent = creto("message", "send", "writer", "reader", "--text", "see", "--attach", file, "--json")[1]
    shown = creto("message", "inbox", "reader", "--save", str(tmp_path / "in"))[1]
    assert "attached: data.bin, 70000 bytes" in shown
    assert (tmp_path / "in" / json.loads(sent)["id"] / "data.bin").read_bytes() == b"\0" * 70_000
    code, _, errors = creto("message", "send", "writer", "nobody", "--text", "x")
    assert code == 1
    assert "no agent `spiffe://creto.local/agent/nobody` is known here" in errors


def test_an_attachment_whose_name_leads_elsewhere_is_not_saved_and_its_message_stays(
    post: Post, tmp_path: Path, creto: Command
) -> None:
    """Nor does it keep anybody from the messages that came after it."""
    for name in ("..", "\u00e9" * 200, "plan.txt"):
        anyio.run(partial(post.mailbox.send, post.writer, "reader", b"x", attach={name: b"x"}))
    code, _, errors = creto("message", "inbox", "reader", "--save", str(tmp_path / "in"))
    assert code == 2
    assert "the attachment `..` of message" in errors
    assert [path.name for path in (tmp_path / "in").rglob("*") if path.is_file()] == ["plan.txt"]
    stayed = anyio.run(all_ready, Mailbox(post.store, post.identities), post.reader)
    assert [message.redelivered for message in stayed] == [True, True]


def test_what_became_of_a_message_is_shown_with_the_reason_where_it_was_turned_away(
    creto: Command, state: Path
) -> None:
    for name in ("reader", "writer", "other"):
        assert creto("agent", "create", name)[0] == 0
    sent = json.loads(creto("message", "send", "writer", "reader", "other", "--text", "hi", "--json")[1])["id"]
    assert creto("message", "inbox", "reader")[0] == 0
    with Store(state) as store, store.begin() as tx:
        tx.execute(update(tables.mailbox).where(tables.mailbox.c.recipient.like("%/other")).values(envelope=b"changed"))
    creto("message", "inbox", "other")
    shown = {row["recipient"]: row for row in json.loads(creto("message", "show", sent, "--json")[1])}
    other = shown[WRITER.replace("writer", "other")]
    assert (shown[READER]["state"], shown[READER]["sender"], other["state"]) == ("acked", WRITER, "refused")
    assert "not strict DER" in other["reason"]
    code, _, errors = creto("message", "show", "00" * 16)
    assert code == 1
    assert f"no message `{'00' * 16}` was sent from here" in errors
    assert "neither a message's id, 32 hexadecimal digits, nor a file" in creto("message", "show", "nothing")[2]


def test_an_envelope_header_is_shown_unopened(post: Post, tmp_path: Path, creto: Command) -> None:
    envelope = _core.envelope_seal(
        post.writer.id,
        post.writer.signing_key,
        [post.reader.identity],
        b"secret",
        message_id="ab" * 16,
        date=int(time.time()),
        expires=int(time.time()) + 60,
        content_type="text/plain",
    )
    file = tmp_path / "envelope.der"
    file.write_bytes(envelope)
    shown = creto("message", "show", str(file), "--json")[1]
    assert json.loads(shown)["sender"] == WRITER
    assert "secret" not in shown
