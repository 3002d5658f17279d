"""A NATS server that is hostile: whatever it says, no carrier ends, hangs or swells, and no message is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from creto.errors import ConnectionFailedError
from creto.messaging import _mailbox, _nats_client
from machines import Machine, acquainted

INFO = {"server_id": "x", "version": "2.11.0", "proto": 1, "headers": True, "max_payload": 1_048_576, "jetstream": True}
MOST = 32 << 20  # bytes that a server gets rid of before it is left: the bound, with what the kernel holds

Script = Callable[["Meddler", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Meddler:
    """A server in front of a real one: hostile to its first connections, a plain pipe for those after them."""

    def __init__(self, behind: str, script: Script, hostile: int = 1) -> None:
        self.behind = int(behind.rsplit(":", 1)[1])
        self.script = script
        self.hostile = hostile
        self.sent = 0
        self.port = 0
        self.over = asyncio.Event()
        self.open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self.open[writer] = task
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            if self.hostile > 0:
                self.hostile -= 1
                await self.script(self, reader, writer)
            else:
                await self.pipe(reader, writer)
        writer.transport.abort()

    async def end(self) -> None:
        self.over.set()
        for writer in self.open:
            writer.transport.abort()
        await asyncio.gather(*self.open.values())

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", self.behind)
        self.open[far] = self.open[writer]

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.transport.abort()

        await asyncio.gather(copy(reader, far), copy(near, writer))

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **info: object) -> None:
        """As any server, up to the first PONG."""
        writer.write(b"INFO " + json.dumps({**INFO, **info}).encode() + b"\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await writer.drain()

    async def flood(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Sends for as long as anybody listens."""
        writer.transport.set_write_buffer_limits(0)
        while self.sent <= MOST:
            writer.write(data)
            await writer.drain()
            self.sent += len(data)


@asynccontextmanager
async def meddling(behind: str, script: Script, hostile: int = 1) -> AsyncIterator[Meddler]:
    meddler = Meddler(behind, script, hostile)
    server = await asyncio.start_server(meddler.serve, "127.0.0.1", 0)
    meddler.port = server.sockets[0].getsockname()[1]
    try:
        yield meddler
    finally:
        server.close()
        await meddler.end()


def says(*frames: bytes, then: bytes = b"") -> Script:
    """Greets, says the frames, and goes on with the last thing for ever."""

    async def script(meddler: Meddler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await meddler.greet(reader, writer)
        writer.write(b"".join(frames))
        if then:
            await meddler.flood(writer, then)
        await reader.read()  # until it is left

    return script


def answers(payload: bytes, header: bytes = b"") -> Script:
    """Gives every request one answer, to whatever inbox it names, for a second."""

    async def script(meddler: Meddler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await meddler.greet(reader, writer)
        inboxes: dict[bytes, bytes] = {}
        until = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < until and (line := await reader.readline()):
            if found := re.match(rb"SUB (\S+?)\.?\*? +(\d+)", line):
                inboxes[found[1]] = found[2]
            elif line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            elif found := re.match(rb"H?PUB \S+ (\S+) [\d ]*?(\d+)\r\n", line):
                await reader.readexactly(int(found[2]) + 2)
                for inbox, sid in inboxes.items():
                    if found[1].startswith(inbox):
                        sizes = b"%d %d" % (len(header), len(header + payload)) if header else b"%d" % len(payload)
                        verb = b"HMSG" if header else b"MSG"
                        writer.write(b"%s %s %s %s\r\n%s\r\n" % (verb, found[1], sid, sizes, header + payload))
            await writer.drain()

    return script


async def _silent(_meddler: Meddler, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _deaf(meddler: Meddler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await meddler.greet(reader, writer)
    await meddler.over.wait()


def greets(**info: object) -> Script:
    async def script(meddler: Meddler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await meddler.greet(reader, writer, **info)
        await reader.read()

    return script


def opens(line: bytes) -> Script:
    async def script(_meddler: Meddler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        await reader.read()

    return script


SCRIPTS: dict[str, Script] = {
    "nothing at all": _silent,
    "nothing read": _deaf,
    "a greeting that is no JSON": opens(b"INFO {\r\n"),
    "a greeting that is a list": opens(b"INFO []\r\n"),
    "a greeting without an end": opens(b"INFO " + b" " * 200_000),
    "a greeting of other bytes": opens(bytes(range(256)) + b"\r\n"),
    "a limit that is a word": greets(max_payload="many"),
    "a limit below nothing": greets(max_payload=-1),
    "a thousand other servers": greets(connect_urls=[f"127.0.0.1:{port}" for port in range(1000)]),
    "noise": says(bytes(range(256)) * 64),
    "a line without an end": says(then=b"M" * 65536),
    "a message without an end": says(b"MSG x 1 999999999999\r\n", then=bytes(65536)),
    "a header without an end": says(b"HMSG x 1 999999999999 999999999999\r\n", then=bytes(65536)),
    "a header longer than its message": says(b"HMSG x 1 1000 10\r\n" + bytes(10) + b"\r\n"),
    "numbers below nothing": says(b"MSG x -1 -5\r\n"),
    "an error without words": says(b"-ERR \r\n"),
    "a second greeting that is none": says(b"INFO {]\r\n"),
    "a flood of messages nobody asked for": says(then=b"MSG x 1 5\r\nhello\r\n" * 4096),
    "an empty answer": answers(b""),
    "an answer that is no JSON": answers(b"\xff{"),
    "an answer that is a list": answers(b"[]"),
    "an answer without anything in it": answers(b"{}"),
    "an error that is a number": answers(b'{"error": 1}'),
    "an error with a word for its code": answers(b'{"error": {"code": "x", "err_code": "y"}}'),
    "an answer that is nested": answers(b"[" * 100_000),
    "numbers of another kind": answers(
        b'{"stream": 1, "seq": -5, "config": [], "state": {"subjects": 3}, "created": 7}'
    ),
    "a status that is a word": answers(b"", b"NATS/1.0 many\r\n\r\n"),
    "a header that is none": answers(b"", b"\x00\xff\r\n\r\n"),
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    with acquainted(tmp_path_factory.mktemp("hostile")) as both:
        yield both


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_message_comes_through_after_everything_that_a_server_can_say(
    machines: tuple[Machine, Machine], nats_url: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    here, there = machines
    monkeypatch.setattr(_mailbox, "_RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(_nats_client, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(_nats_client, "PING_SECONDS", 0.2)

    async def main() -> None:
        sent = await here.mailbox.send(here.agent, there.agent.id, what)
        async with meddling(nats_url, SCRIPTS[what]) as meddler, anyio.create_task_group() as tasks:
            tasks.start_soon(here.mailbox.keep_carrying, f"nats://127.0.0.1:{meddler.port}")
            async with there.mailbox.carry(nats_url), there.mailbox.inbox(there.agent) as inbox:
                with anyio.fail_after(60):
                    message = await inbox.__anext__()
                    await message.ack()
                    await sent.receipts(timeout=60)
            assert (message.text, meddler.hostile) == (what, 0)
            assert meddler.sent <= MOST
            with anyio.fail_after(60):
                tasks.cancel_scope.cancel()

    anyio.run(main)


@pytest.mark.parametrize(
    "what", ["nothing at all", "a greeting without an end", "a limit that is a word", "an answer that is a list"]
)
def test_a_server_that_is_none_is_one_error(
    machines: tuple[Machine, Machine], nats_url: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    here, _ = machines
    monkeypatch.setattr(_nats_client, "CONNECT_SECONDS", 2.0)

    async def main() -> None:
        async with meddling(nats_url, SCRIPTS[what], hostile=1000) as meddler:
            with anyio.fail_after(60), pytest.raises(ConnectionFailedError, match=f"NATS server .*{meddler.port}`"):
                async with here.mailbox.carry(f"nats://127.0.0.1:{meddler.port}"):
                    raise AssertionError("it is no server")

    anyio.run(main)
