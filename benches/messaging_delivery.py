"""Delivery: within a process, between machines over JetStream, and past a flood by another sender."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from creto import _core
from creto.messaging import Mailbox, _receipt
from creto.messaging._nats import fetch_batch
from creto.nhi import Agent, Identities
from creto.reach import Reach
from creto.store import Store

__all__ = ["run"]

Row = Callable[..., None]
IN_FLIGHT, MESSAGES, FLOOD = 64, 512, 1000
# On a disk: the build folder's, since a temporary folder may be memory.
SCRATCH = Path(__file__).resolve().parents[1] / "target"


def run(row: Row) -> None:
    """Measures, and prints its rows by `row`."""
    anyio.run(in_process, row)
    anyio.run(flooded, row)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, nats_server(Path(folder)) as url:
        anyio.run(jetstream, row, Path(folder), url)


async def in_process(row: Row) -> None:
    """One message from send to the reader's hands within a process, with a record of each side."""

    async def allow(_agent: Any, _other: str, _context: Any) -> None:
        return None

    with tempfile.TemporaryDirectory() as folder, Store(folder + "/state") as store:
        identities = Identities(store)
        records: list[dict[str, Any]] = []
        mailbox = Mailbox(store, identities, authorize_send=allow, authorize_receive=allow, record=records.append)
        writer, reader = identities.agent("writer"), identities.agent("reader")
        body, times = bytes(1024), []
        async with mailbox.inbox(reader) as inbox:
            for _ in range(2000):
                records.clear()
                start = time.perf_counter()
                await mailbox.send(writer, "reader", body, durable=False)
                message = await inbox.__anext__()
                times.append((time.perf_counter() - start) * 1e6)
                assert message.body == body
                assert len(records) == 2
    times = times[100:]
    middle = statistics.median(times)
    spread = (statistics.quantiles(times, n=20)[-1] - min(times)) / middle
    note = "1 KiB: sealed, handed over in memory, verified, opened; policy hooks answer at once, records go to a list"
    row("deliver/in-process", (middle, spread), None, note, len(times))


async def flooded(row: Row) -> None:
    """How many messages of a flood are handed out before the one of a quiet sender that came last."""
    with tempfile.TemporaryDirectory() as folder, Store(folder + "/state") as store:
        identities = Identities(store)
        mailbox = Mailbox(store, identities)
        loud, quiet, reader = (identities.agent(name) for name in ("loud", "quiet", "reader"))
        for _ in range(FLOOD // 100):
            await mailbox.send_many(loud, [("reader", b"flood")] * 100)
        sent = await mailbox.send(quiet, "reader", b"quiet")
        before = 0
        async with mailbox.inbox(reader) as inbox:
            while (await inbox.__anext__()).id != sent.id:
                before += 1
    note = (
        f"{FLOOD} messages of one valid sender wait when another's comes; in order of arrival it would come after all"
    )
    row("inbox/flooded", (float(before), 0.0), float(FLOOD), note, 1, unit="messages", peer_name="fifo", version="1")


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    """A real server on loopback, its streams on the same disk as our stores."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    command = [program, "-js", "-sd", str(folder / "nats"), "-a", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
                    break
                time.sleep(0.05)
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(15)


async def jetstream(row: Row, folder: Path, url: str) -> None:
    """Messages a second, each until its signed receipt is back, with so many in flight."""
    import nats

    with Store(folder / "here") as near, Store(folder / "there") as far, contextlib.ExitStack() as stack:
        here, there = Identities(near, trust_domain="here.bench"), Identities(far, trust_domain="there.bench")
        writer, reader = here.agent("writer"), there.agent("reader")
        for one, other in ((here, there), (there, here)):
            one.import_blocking(other.export(), fingerprint=other.domain().verifying_key.fingerprint)
        # As the layer opens them: what becomes of a message is told by reach.
        post = Mailbox(near, here, stack.enter_context(Reach(near)), remote=True)
        receiving = Mailbox(far, there, stack.enter_context(Reach(far)), remote=True)
        async with post.carry(url), receiving.carry(url):

            async def send() -> None:
                sent = await post.send(writer, reader.id, bytes(1024))
                await sent.receipts(timeout=60)

            await in_flight(send, IN_FLIGHT)
            ours = MESSAGES / await in_flight(send, MESSAGES)
        client = await nats.connect(url)
        async with bare(client, folder, here, there, writer, reader) as send_bare:
            await in_flight(send_bare, IN_FLIGHT)
            peer = MESSAGES / await in_flight(send_bare, MESSAGES)
        await client.close()
    note = (
        f"1 KiB, {IN_FLIGHT} in flight, until the signed receipt is back, both machines in this process; the peer: "
        "nats-py, the same envelope sealed and opened, the same receipt, one fdatasync on each side"
    )
    version = str(__import__("importlib.metadata").metadata.version("nats-py"))
    row("deliver/jetstream", (ours, 0.0), peer, note, MESSAGES, unit="messages/s", peer_name="nats-py", version=version)


async def in_flight(send: Callable[[], Any], messages: int) -> float:
    """Seconds that so many messages take, 64 of them under way at any time."""
    left = iter(range(messages))

    async def one_after_another() -> None:
        for _ in left:
            await send()

    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(one_after_another)
    return time.perf_counter() - start


@contextlib.asynccontextmanager
async def bare(
    client: Any, folder: Path, here: Identities, there: Identities, writer: Agent, reader: Agent
) -> AsyncIterator[Callable[[], Any]]:
    """The same over nats-py alone: what a careful engineer would write by hand, without a mailbox."""
    stream = client.jetstream()
    await stream.add_stream(name="BARE", subjects=["bare.>"])
    mail = await stream.pull_subscribe("bare.mail", durable="mail", stream="BARE")
    answers = await stream.pull_subscribe("bare.receipt", durable="receipt", stream="BARE")
    waiting: dict[str, anyio.Event] = {}
    logs = [os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600) for name in ("outbox", "inbox")]
    known = here.find_all(reader.id)[0].verifying_key

    def keep(log: int, data: bytes) -> None:
        os.pwrite(log, data, 0)  # over what was there: a file that need not grow is the peer's best case
        os.fdatasync(log)

    async def send() -> None:
        message_id, now = os.urandom(16).hex(), int(time.time())
        envelope = _core.envelope_seal(
            writer.id,
            writer.signing_key,
            [here.find(reader.id)],
            bytes(1024),
            message_id=message_id,
            date=now,
            expires=now + 60,
            content_type="application/octet-stream",
        )
        event = waiting[message_id] = anyio.Event()
        await anyio.to_thread.run_sync(keep, logs[0], envelope)
        await stream.publish("bare.mail", envelope)
        await event.wait()
        del waiting[message_id]

    async def batches(subscription: Any) -> AsyncIterator[Any]:
        while True:
            with contextlib.suppress(TimeoutError):
                for message in await fetch_batch(subscription, IN_FLIGHT):
                    yield message

    async def receive() -> None:
        async for message in batches(mail):
            verified = _core.envelope_verify(
                message.data,
                me=reader.id,
                directory=there.directory,
                suite="standard",
                max_bytes=1 << 20,
                max_life=300,
                now=int(time.time()),
            )
            verified.open(list(reader.kem_keys))
            await anyio.to_thread.run_sync(keep, logs[1], message.data)
            header = verified.header()
            receipt = _receipt.sign(reader, writer.id, header["message_id"], message.data, "received", int(time.time()))
            await stream.publish("bare.receipt", receipt.encode())
            await message.ack()

    async def answered() -> None:
        async for message in batches(answers):
            statement = message.data.decode()
            _core.dsse_verify(known, _core.IN_TOTO, statement)
            event = waiting.get(_receipt.claimed(statement).message_id)
            if event is not None:
                event.set()
            await message.ack()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(answered)
        yield send
        tasks.cancel_scope.cancel()
    for log in logs:
        os.close(log)
