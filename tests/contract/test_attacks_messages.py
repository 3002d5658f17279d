"""What hostile senders, recipients and carriers of messages achieve: an error of their own, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import delete, select, update

from creto import _core
from creto.errors import DeliveryDeniedError, UnauthorizedError
from creto.messaging import Sent, _attachment, _outgoing, _parcel, _pieces, _receipt, _rows
from creto.messaging._arriving import Answer, Arriving, Incomplete
from creto.store import tables
from machines import Machine, acquainted


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with acquainted(tmp_path) as both:
        yield both


def _manifest(**changes: Any) -> str:
    listed = {"name": "a", "length": 1, "sha512": "00" * 64, "key": base64.b64encode(bytes(32)).decode(), **changes}
    return json.dumps({"body": "", "content_type": "text/plain", "attachments": [listed]})


MANIFESTS = {
    "an infinite length": _manifest().replace('"length": 1', '"length": 1e400'),
    "a negative length": _manifest(length=-1),
    "a length of no number": _manifest(length="many"),
    "half a character": _manifest(name="\ud800"),
    "a path": _manifest(name="../../etc/passwd"),
    "a line": _manifest(name="a\nb"),
    "a short digest": _manifest(sha512="00"),
    "a short key": _manifest(key="AA=="),
    "deep nesting": "[" * 100_000,
    "another shape": '{"attachments": {"name": 1}}',
    "no JSON": "\x00",
}


def _statement(machine: Machine, payload: str) -> bytes:
    return _core.dsse_sign(machine.agent.signing_key, _core.IN_TOTO, payload.encode()).encode()


def _receipt_with(there: Machine, here: Machine, change: Callable[[dict[str, Any]], Any]) -> bytes:
    made = json.loads(_receipt.sign(there.agent, here.agent.id, "ab" * 16, b"x", "received", 0))
    payload = json.loads(base64.b64decode(made["payload"]))
    changed = change(payload)
    return _statement(there, changed if isinstance(changed, str) else json.dumps(payload))


def _receipts(there: Machine, here: Machine) -> dict[str, bytes]:
    def with_(place: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        def change(payload: dict[str, Any]) -> None:
            inner = payload["subject"][0] if place == "name" else payload["predicate"]
            inner[place] = value

        return change

    return {
        "an infinite time": _receipt_with(there, here, lambda p: json.dumps(p).replace('"at": 0', '"at": 1e400')),
        "no time at all": _receipt_with(there, here, lambda p: json.dumps(p).replace('"at": 0', '"at": NaN')),
        "half a character for an id": _receipt_with(there, here, with_("name", "\ud800")),
        "a nothing for an id": _receipt_with(there, here, with_("name", "\x00")),
        "a list for an id": _receipt_with(there, here, with_("name", [1])),
        "half a character for a sender": _receipt_with(there, here, with_("sender", "\ud800")),
        "an outcome of its own": _receipt_with(there, here, with_("outcome", "paid")),
        "deep nesting": _statement(there, "[" * 100_000),
        "no payload": b'{"payload": 1}',
        "no base64": b'{"payload": "\xc3\xa4"}',
        "nesting outside": b"[" * 100_000,
    }


def test_a_carrier_survives_whatever_a_publisher_writes_on_its_subjects(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines
    envelope = there.seal(here, b"x", "text/plain")
    mail = [
        b"",
        b"\x00" * 6,
        b"\xff" * 4096,
        *_parcel.pack([("spiffe://here.test/agent/\x00", envelope)], 1 << 20),
        *_parcel.pack([("x" * 60_000, envelope), ("", b"")], 1 << 20),
        *_parcel.pack([(here.agent.id, envelope[:cut]) for cut in (0, 1, 5, 100, 1000, len(envelope) - 1)], 1 << 20),
        *_parcel.pack([(here.agent.id, bytes(400_000)), (here.agent.id, b"\x30\x84\xff\xff\xff\xff")], 1 << 20),
        *(
            part
            for text in MANIFESTS.values()
            for part in _parcel.pack([(here.agent.id, there.seal(here, text.encode(), _attachment.MANIFEST))], 1 << 20)
        ),
    ]

    async def main() -> None:
        import nats

        sent = await here.mailbox.send(here.agent, there.agent.id, b"out")
        client = await nats.connect(nats_url)
        stream = client.jetstream()
        async with here.mailbox.carry(nats_url):
            for data in mail:
                await stream.publish(f"creto.mail.{here.token}", data)
            for data in _receipts(there, here).values():
                [parcel] = _parcel.pack([(there.agent.id, data)], 1 << 20)
                await stream.publish(f"creto.receipt.{here.token}", parcel)
            # After all of it, as before: what is real comes and goes.
            async with there.mailbox.carry(nats_url):
                assert (await there.first()).id == sent.id
                await sent.receipts(timeout=60)
                back = await there.mailbox.send(there.agent, here.agent.id, b"back")
                while (message := await here.first()).id != back.id:
                    assert message.body == b""
        assert {row.state for row in here.rows(tables.mailbox)} == {"acked"}
        await client.close()

    anyio.run(main)


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_that_is_none_is_refused_and_does_not_stop_the_inbox(
    machines: tuple[Machine, Machine], what: str
) -> None:
    here, there = machines
    envelope = there.seal(here, MANIFESTS[what].encode(), _attachment.MANIFEST)

    async def main() -> None:
        neighbour = here.identities.agent("neighbour")
        with here.store.begin() as tx:
            from creto.messaging import _rows

            letter = _rows.Letter(
                recipient=here.agent.id,
                sender=there.agent.id,
                message_id=hashlib.sha256(MANIFESTS[what].encode()).hexdigest()[:32],
                envelope=envelope,
                priority="urgent",
                in_reply_to=None,
                expires=int(time.time()) + 600,
            )
            _rows.put(tx, [letter])
        sent = await here.mailbox.send(neighbour, here.agent.id, b"after it")
        assert (await here.first()).id == sent.id
        [refused] = [row for row in here.rows(tables.mailbox) if row.state == "refused"]
        assert refused.reason == "the message says that it has attachments, and its list of them cannot be read"

    anyio.run(main)


def test_an_attachment_that_is_not_what_its_message_says_is_a_refusal_that_both_are_told(
    machines: tuple[Machine, Machine], nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    pack = _attachment.pack

    def lying(body: bytes, media: str, attach: Any) -> tuple[bytes, list[_attachment.Blob]]:
        # Signed and sealed as any other; only the digest in it is of another blob, under which the sender puts its own.
        manifest, [blob] = pack(body, media, attach)
        digest = hashlib.sha512(b"another").digest()
        return manifest.replace(blob.digest.hex().encode(), digest.hex().encode()), [
            _attachment.Blob(digest, blob.sealed)
        ]

    def unseen(tx: Any, digest: bytes) -> bytes:
        return bytes(tx.scalar(select(tables.attachments.c.blob).where(tables.attachments.c.digest == digest)))

    monkeypatch.setattr(_attachment, "pack", lying)

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, "see inside", attach={"data.bin": bytes(100_000)})
        # And does not look at what it sends.
        monkeypatch.setattr(_pieces, "sealed", unseen)
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            with pytest.raises(
                DeliveryDeniedError,
                match=rf"message `{sent.id}` was refused at `{there.agent.id}`: the attachment `data.bin` is not what",
            ):
                await sent.receipts(timeout=60)
        assert await sent.state() == {there.agent.id: "refused"}
        [row] = there.rows(tables.mailbox)
        assert (row.state, row.reason) == ("refused", "the attachment `data.bin` is not what its message says")
        assert there.rows(tables.attachment_pieces) == there.rows(tables.attachments) == []
        [record] = [row.record for row in there.rows(tables.outbox) if row.record["what"] == "message:receive"]
        assert record["outcome"] == {"failure": "the attachment `data.bin` is not what its message says"}

    anyio.run(main)


def _listed(change: Callable[[dict[str, Any]], Any]) -> Callable[..., tuple[bytes, list[_attachment.Blob]]]:
    """A sender whose manifest says something else of an attachment than what it sends."""
    pack = _attachment.pack

    def lying(body: bytes, media: str, attach: Any) -> tuple[bytes, list[_attachment.Blob]]:
        manifest, blobs = pack(body, media, attach)
        read = json.loads(manifest)
        change(read["attachments"][0])
        return json.dumps(read).encode(), blobs

    return lying


LIES = {
    "another key": {"key": base64.b64encode(bytes(32)).decode()},
    "a byte more": {"length": 100_001},
    "a piece more": {"length": 200_000},
    "a piece less": {"length": 50_000},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_key_or_a_length_that_is_not_the_attachments_own_is_a_refusal_that_both_are_told(
    machines: tuple[Machine, Machine], nats_url: str, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    here, there = machines
    monkeypatch.setattr(_attachment, "pack", _listed(lambda listed: listed.update(LIES[lie])))
    reason = (
        "the attachment `data.bin` is there as its sender put it, and does not open as its message says: "
        "the key or the length in it is wrong"
    )

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, "see inside", attach={"data.bin": bytes(100_000)})
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            with pytest.raises(DeliveryDeniedError, match=f"was refused at `{there.agent.id}`: {reason}"):
                await sent.receipts(timeout=60)
        [row] = there.rows(tables.mailbox)
        assert (row.state, row.reason) == ("refused", reason)
        assert there.rows(tables.attachment_pieces) == there.rows(tables.attachments) == []

    anyio.run(main)


def test_a_message_that_is_played_again_is_answered_with_the_receipt_that_it_had_and_none_is_signed_for_it(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    letters = [(here.agent.id, there.seal(here, text, "text/plain")) for text in (b"one", b"two")]
    signed = []
    sign = _receipt.sign
    monkeypatch.setattr(_receipt, "sign", lambda *told: signed.append(told[2]) or sign(*told))

    def answers() -> list[tuple[str, str]]:
        taken = Arriving(here.mailbox).take_in([letters[0]] * 40 + [letters[1]] * 2)
        assert all(isinstance(one, Answer) for one in taken)
        return sorted({(one.sender, one.statement) for one in taken if isinstance(one, Answer)})

    first = answers()
    assert len(signed) == len(first) == 2
    assert answers() == first
    assert len(signed) == 2
    # Once it was acknowledged, that is the answer: signed by its reader, once too.
    read = anyio.run(here.first)
    last = answers()
    assert len(signed) == 3
    assert [_receipt.claimed(text).outcome for _, text in last if _receipt.claimed(text).message_id == read.id] == [
        "acked"
    ]


def test_a_flood_of_new_messages_into_a_full_mailbox_is_answered_by_no_signature(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    monkeypatch.setattr(_rows, "MOST_WAITING", 2)
    signed: list[Any] = []
    sign = _receipt.sign
    monkeypatch.setattr(_receipt, "sign", lambda *told: signed.append(told) or sign(*told))
    for number in range(6):
        [taken] = Arriving(here.mailbox).take_in([(here.agent.id, there.seal(here, b"%d" % number, "text/plain"))])
        assert isinstance(taken, Answer if number < 2 else DeliveryDeniedError)
    assert len(signed) == 2


def test_what_is_refused_after_it_was_received_is_told_to_its_sender_on_another_machine(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines

    async def deny(_agent: Any, sender: str, _context: Any) -> None:
        raise UnauthorizedError(f"the policy `no-strangers` forbids to receive from `{sender}`")

    there.mailbox._authorize_receive = deny

    async def ended(sent: Sent) -> None:
        with anyio.fail_after(60):
            while (await sent.state())[there.agent.id] in ("waiting", "received"):
                await anyio.sleep(0.05)

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, "let me in")
        other = await here.mailbox.send(here.agent, there.agent.id, "and me")
        async with here.mailbox.carry(nats_url):
            async with there.mailbox.carry(nats_url):
                await other.receipts(timeout=60)
                await sent.receipts(timeout=60)
                assert await sent.state() == {there.agent.id: "received"}
                async with there.mailbox.inbox(there.agent) as inbox:
                    assert await inbox.ready() is None
                await ended(sent)
            with pytest.raises(
                DeliveryDeniedError, match=rf"`{sent.id}` was refused at `{there.agent.id}`: the policy `no-strangers`"
            ):
                await sent.receipts(timeout=60)
            # As if that word had been lost on its way: it is told again by the next who carries.
            await ended(other)
            with here.store.begin() as tx:
                kept = {"state": "received", "reason": None, "receipt": received[other.id]}
                tx.execute(update(tables.outgoing).where(tables.outgoing.c.message_id == other.id).values(**kept))
            async with there.mailbox.carry(nats_url):
                await ended(other)
        assert [row.state for row in there.rows(tables.mailbox)] == ["denied", "denied"]
        with here.store.begin() as tx:
            _outgoing.answered(tx, refused)  # several at once, as whoever was away for a while finds them

    received: dict[str, str] = {}
    refused: list[Any] = []
    answered = here.mailbox._fates.answered

    def answer(receipt: Any) -> None:
        received.setdefault(receipt.message_id, receipt.statement)
        if receipt.outcome == "refused":
            refused.append(receipt)
        answered(receipt)

    here.mailbox._fates.answered = answer  # type: ignore[method-assign]
    anyio.run(main)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blob": b"other"}, "an attachment of the message was changed in its sender's store"),
        (None, "an attachment of the message is no longer in its sender's store"),
    ],
)
def test_an_attachment_that_was_changed_or_lost_in_its_senders_store_ends_its_message_with_that_reason(
    machines: tuple[Machine, Machine], nats_url: str, change: dict[str, Any] | None, reason: str
) -> None:
    here, there = machines

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, "see inside", attach={"data.bin": b"data"})
        with here.store.begin() as tx:
            tx.execute(delete(tables.attachments) if change is None else update(tables.attachments).values(**change))
        async with here.mailbox.carry(nats_url):
            with pytest.raises(DeliveryDeniedError, match=f"`{sent.id}` was refused at `{there.agent.id}`: {reason}"):
                await sent.receipts(timeout=60)

    anyio.run(main)


def test_more_attachments_than_a_statement_of_the_database_can_name_are_a_message_like_any_other(
    machines: tuple[Machine, Machine],
) -> None:
    here, there = machines
    listed = [json.loads(_manifest(name=str(n), sha512=f"{n:0128x}"))["attachments"][0] for n in range(4000)]
    envelopes = []
    for number in range(9):
        manifest = {"body": "", "content_type": f"text/{number}", "attachments": listed}
        envelopes.append(there.seal(here, json.dumps(manifest).encode(), _attachment.MANIFEST))
    taken = Arriving(here.mailbox).take_in([(here.agent.id, envelope) for envelope in envelopes])
    assert all(isinstance(one, Incomplete) for one in taken)


def test_what_was_sent_and_what_came_in_is_forgotten_once_it_has_expired(
    tmp_path: Path, machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines

    async def main() -> None:
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            sent = await here.mailbox.send(here.agent, there.agent.id, b"once", expires_in=60)
            await sent.receipts(timeout=60)
            late = time.time() + 60 + 121
            for machine in machines:
                machine.mailbox._clock, machine.mailbox._swept = (lambda: late), 0
            # The one side has only ever sent, the other only received.
            again = await here.mailbox.send(here.agent, there.agent.id, b"later")
            await again.receipts(timeout=60)
        assert [row.message_id for row in here.rows(tables.outgoing)] == [again.id]
        assert [row.message_id for row in there.rows(tables.mailbox)] == [again.id]

    anyio.run(main)


def test_somebody_elses_reply_is_not_the_answer_to_a_request(machines: tuple[Machine, Machine]) -> None:
    here, _ = machines
    identities, mailbox = here.identities, here.mailbox
    asker, expert, liar = (identities.agent(name) for name in ("asker", "expert", "liar"))

    async def answer() -> None:
        async with mailbox.inbox(expert) as inbox:
            question = await inbox.__anext__()
            # The id of a message is no secret: whoever carries it reads it.
            await mailbox.send(liar, "asker", b"pay the liar", in_reply_to=question.id, priority="urgent")
            await anyio.sleep(0.5)
            await question.reply(b"pay nobody")
            await question.ack()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            reply = await mailbox.request(asker, "expert", b"whom shall I pay?", timeout=60)
            assert (reply.sender, reply.body) == (expert.id, b"pay nobody")
        # It is a message like any other, and not kept from its reader by what it says of itself.
        async with mailbox.inbox(asker) as inbox:
            with anyio.fail_after(60):
                assert (await inbox.__anext__()).sender == liar.id

    anyio.run(main)


def test_a_flood_that_calls_itself_urgent_starves_nobody(machines: tuple[Machine, Machine]) -> None:
    here, _ = machines
    loud, quiet = (here.identities.agent(name) for name in ("loud", "quiet"))

    async def main() -> None:
        await here.mailbox.send_many(loud, [("here", f"flood {n}") for n in range(60)], priority="urgent")
        await here.mailbox.send(quiet, "here", "in order")
        await here.mailbox.send(quiet, "here", "no hurry", priority="non-urgent")
        order = []
        async with here.mailbox.inbox(here.agent) as inbox:
            while (message := await inbox.ready()) is not None:
                order.append(message.text)
                await message.ack()
        assert order.index("in order") <= 17
        assert order.index("no hurry") <= 34
        assert [text for text in order if text.startswith("flood")] == [f"flood {n}" for n in range(60)]

    anyio.run(main)
