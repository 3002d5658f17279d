"""What messages between machines promise: a NATS server may lose, repeat and forge, and none of it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import update

from creto import _core
from creto.errors import ConnectionFailedError, InvalidInputError, TimeoutError
from creto.store import tables
from machines import Machine, acquainted
from servers import postgresql


@pytest.fixture
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with acquainted(tmp_path, getattr(request, "param", "standard")) as both:
        yield both


@pytest.mark.parametrize("machines", ["standard", "cnsa2"], indirect=True)
def test_a_message_and_its_reply_cross_between_machines_with_a_signed_receipt(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines

    async def main() -> None:
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            sent = await here.mailbox.send(here.agent, there.agent.id, b"over there")
            message = await there.first()
            assert (message.body, message.sender) == (b"over there", here.agent.id)
            [receipt] = await sent.receipts(timeout=60)
            assert (receipt.outcome, receipt.recipient) == ("received", there.agent.id)
            assert receipt.suite == there.identities.suite
            await message.reply(b"and back")
            reply = await here.first()
            assert (reply.body, reply.in_reply_to) == (b"and back", sent.id)

    anyio.run(main)


async def tried(machine: Machine) -> None:
    """Waits until the machine has handed its one message to the server."""
    with anyio.fail_after(60):
        while [row.attempts for row in machine.rows(tables.outgoing)] == [0]:
            await anyio.sleep(0.02)


def test_a_message_waits_in_the_store_while_nobody_can_carry_it(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, b"later")
        with pytest.raises(
            TimeoutError, match=rf"message `{sent.id}` was not acknowledged .* waiting at `{there.agent.id}`"
        ):
            await sent.receipts(timeout=0.2)
        async with here.mailbox.carry(nats_url):
            await tried(here)
        # The other machine was not there; the server's word that it has the message ended nothing.
        assert await sent.state() == {there.agent.id: "waiting"}
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            assert (await there.first()).id == sent.id
            await sent.receipts(timeout=60)

    anyio.run(main)


def test_what_the_server_lost_is_sent_again_and_what_it_repeats_comes_once(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines

    async def main() -> None:
        import nats

        sent = await here.mailbox.send(here.agent, there.agent.id, b"once")
        client = await nats.connect(nats_url)
        async with here.mailbox.carry(nats_url):
            await tried(here)
            with anyio.fail_after(60):
                while not (await client.jetstream().stream_info("CRETO")).state.messages:
                    await anyio.sleep(0.02)
        # Acknowledged by the server, and lost.
        await client.jetstream().purge_stream("CRETO")
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            assert (await there.first()).id == sent.id
            await sent.receipts(timeout=60)
            # Sent again, as if the receipt had been lost: the row keeps it out, and another receipt answers.
            with here.store.begin() as tx:
                tx.execute(update(tables.outgoing).values(state="waiting", envelope=there_envelope(), next_attempt=0))
            with anyio.fail_after(60):
                while here.rows(tables.outgoing)[0].state != "received":
                    await anyio.sleep(0.05)
            async with there.mailbox.inbox(there.agent) as inbox:
                assert await inbox.ready() is None
        await client.close()

    kept: list[bytes] = []

    def there_envelope() -> bytes:
        return kept[0]

    # The envelope is emptied once its receipt is here, so the test keeps its own copy of the first.
    original = here.mailbox._sending.file

    def file(sealed: Any) -> Any:
        kept.extend(envelope for _, envelope in sealed)
        return original(sealed)

    here.mailbox._sending.file = file  # type: ignore[method-assign]
    anyio.run(main)


def test_a_forged_receipt_ends_nothing_and_a_forged_message_goes_nowhere(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines
    from creto.messaging import _nats, _parcel, _receipt

    async def main() -> None:
        import nats

        sent = await here.mailbox.send(here.agent, there.agent.id, b"x")
        client = await nats.connect(nats_url)
        stream = client.jetstream()
        async with here.mailbox.carry(nats_url):
            # By a known agent that is not the recipient, in the recipient's name; and by the recipient for other bytes.
            stranger = here.identities.agent("stranger")
            forged = _receipt.sign(stranger, here.agent.id, sent.id, b"x", "received", 0)
            other = _receipt.sign(there.agent, here.agent.id, sent.id, b"other bytes", "received", 0)
            unread = _core.dsse_sign(there.agent.signing_key, _core.IN_TOTO, b'{"subject": 1}')
            for statement in (forged, other, unread, "not json", b"\xff\xfe not text"):
                data = statement if isinstance(statement, bytes) else statement.encode()
                [parcel] = _parcel.pack([(there.agent.id, data)], 1 << 20)
                await stream.publish(f"creto.receipt.{_nats._token('here.test')}", parcel)
            # A name on the wire makes no agent, and a stranger's message for it goes nowhere.
            invented = "spiffe://here.test/agent/invented"
            mail = f"creto.mail.{_nats._token('here.test')}"
            [parcel] = _parcel.pack([(name, b"\x30\x03abc") for name in (here.agent.id, invented)], 1 << 20)
            for data in (parcel, parcel[:-1], b"no parcel"):
                await stream.publish(mail, data)
            await anyio.sleep(1.5)
        assert invented not in {summary.id for summary in here.identities.agents()}
        assert await sent.state() == {there.agent.id: "waiting"}
        assert here.rows(tables.mailbox) == []
        await stream.purge_stream("CRETO")
        await client.close()

    anyio.run(main)


def test_attachments_cross_between_machines_and_leave_nothing_on_the_server(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines
    files = {"data.bin": bytes(range(256)) * 1024, "a chunk": bytes(65536), "empty": b""}

    async def main() -> None:
        import nats

        near = here.identities.agent("near")
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            sent = await here.mailbox.send(here.agent, [there.agent.id, near.id], "see inside", attach=files)
            for machine, agent in ((there, there.agent), (here, near)):
                async with machine.mailbox.inbox(agent) as inbox:
                    with anyio.fail_after(60):
                        message = await inbox.__anext__()
                    assert message.body == b"see inside"
                    assert {name: await file.read() for name, file in message.attachments.items()} == files
                    await message.ack()
            await sent.receipts(timeout=60)
            client = await nats.connect(nats_url)
            with anyio.fail_after(60):
                while (await client.jetstream().stream_info("CRETO-BLOBS")).state.messages:
                    await anyio.sleep(0.05)
            await client.close()
        assert there.rows(tables.attachment_pieces) == []

    anyio.run(main)


def test_a_message_is_not_handed_out_before_all_of_its_attachments_are_what_it_says(
    machines: tuple[Machine, Machine], nats_url: str
) -> None:
    here, there = machines
    content = os.urandom(5 * 65536)

    async def main() -> None:
        import nats

        client = await nats.connect(nats_url)
        stream = client.jetstream()
        sent = await here.mailbox.send(here.agent, there.agent.id, "see inside", attach={"data.bin": content})
        async with here.mailbox.carry(nats_url):
            with anyio.fail_after(60):
                while not await _subjects(stream):
                    await anyio.sleep(0.05)
        first, second, *_, last = sorted(await _subjects(stream))
        # One piece changed, one in another's place, one gone.
        piece = (await stream.get_last_msg("CRETO-BLOBS", first, direct=True)).data
        await stream.publish(first, piece[:-1] + bytes([piece[-1] ^ 1]))
        await stream.publish(second, piece)
        await stream.purge_stream("CRETO-BLOBS", subject=last)
        async with there.mailbox.carry(nats_url):
            with anyio.fail_after(60):
                while len(await _subjects(stream)) == 5:  # what was found to be wrong is taken away
                    await anyio.sleep(0.05)
            await anyio.sleep(0.5)
            assert there.rows(tables.mailbox) == there.rows(tables.attachments) == []
            assert await sent.state() == {there.agent.id: "waiting"}
            # The sender comes back, and puts there what is missing: no more than that.
            async with here.mailbox.carry(nats_url), there.mailbox.inbox(there.agent) as inbox:
                with anyio.fail_after(60):
                    message = await inbox.__anext__()
                assert await message.attachments["data.bin"].read() == content
                await message.ack()
                await sent.receipts(timeout=60)
        await client.close()

    anyio.run(main)


async def _subjects(stream: Any) -> list[str]:
    from nats.js.errors import NotFoundError

    with suppress(NotFoundError):
        return list((await stream.stream_info("CRETO-BLOBS", subjects_filter="creto.blob.>")).state.subjects or ())
    return []


def test_without_a_server_or_on_another_loop_the_error_says_what_to_do(machines: tuple[Machine, Machine]) -> None:
    here, _ = machines

    async def main() -> None:
        async with here.mailbox.carry("nats://user:secret@127.0.0.1:1"):
            raise AssertionError("there is no server")

    with pytest.raises(ConnectionFailedError, match=r"no NATS server could be reached at `127.0.0.1:1`") as caught:
        anyio.run(main)
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="need asyncio"):
        anyio.run(main, backend="trio")


def test_the_layer_carries_where_the_setting_says_so(
    machines: tuple[Machine, Machine], nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import creto

    _, there = machines
    monkeypatch.setenv("CRETO_MESSAGING__NATS_URL", nats_url)
    monkeypatch.setenv("CRETO_COMMON__TRUST_DOMAIN", "layer.test")

    async def main() -> None:
        async with creto.open(tmp_path / "layer") as layer, there.mailbox.carry(nats_url):
            agent = layer.agent("teller")
            domain = layer.parts.identities.domain()
            there.identities.import_blocking(
                layer.parts.identities.export(), fingerprint=domain.verifying_key.fingerprint
            )
            await layer.parts.identities.import_(
                there.identities.export(), fingerprint=there.identities.domain().verifying_key.fingerprint
            )
            sent = await layer.send(agent, there.agent.id, b"through the layer")
            assert (await there.first()).id == sent.id
            await sent.receipts(timeout=60)

    anyio.run(main)


def test_a_server_that_lost_its_streams_gets_them_again(machines: tuple[Machine, Machine], nats_url: str) -> None:
    here, there = machines

    async def main() -> None:
        import nats

        client = await nats.connect(nats_url)
        async with here.mailbox.carry(nats_url), there.mailbox.carry(nats_url):
            # As a server does that was restarted on an empty disk.
            for stream in ("CRETO", "CRETO-BLOBS"):
                await client.jetstream().delete_stream(stream)
            sent = await here.mailbox.send(here.agent, there.agent.id, b"once more", attach={"a": b"file"})
            message = await there.first(60)
            assert (message.id, await message.attachments["a"].read()) == (sent.id, b"file")
            await sent.receipts(timeout=60)
        await client.close()

    anyio.run(main)


def test_a_store_that_is_away_for_a_while_ends_no_layer_that_carries(
    nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import creto

    monkeypatch.setenv("CRETO_MESSAGING__NATS_URL", nats_url)
    with postgresql() as server:
        monkeypatch.setenv("CRETO_COMMON__STORE_URL", server.url())

        async def main() -> None:
            with ExitStack() as again, ExitStack() as first:
                first.enter_context(server.running())
                async with creto.open(tmp_path / "layer") as layer:
                    agent = layer.agent("teller")
                    await anyio.sleep(1)  # by now it carries
                    await anyio.to_thread.run_sync(first.close)
                    await anyio.sleep(2)  # and by now each who looks at the store has looked
                    again.enter_context(server.running())
                    with anyio.fail_after(60):
                        await layer.send(agent, "teller", b"to myself")
                        async with layer.inbox(agent) as inbox:
                            message = await anext(inbox)
                        assert message.body == b"to myself"
                        await message.ack()

        anyio.run(main)
