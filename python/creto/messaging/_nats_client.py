"""The connection to a NATS server, and what its client library does not see to: that the server may be hostile.

The library reads what a server says without checking it, so that any exception may come out, keeps what is announced
until it is there, however long that is, and speaks to whatever server it is told of. Here the connection is made anew
instead, what one message may hold is bounded, and only those servers are spoken to that were named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import nats.errors
from nats.aio.client import Client
from nats.protocol.parser import Parser

from creto.errors import ConnectionFailedError

__all__ = ["CONNECT_SECONDS", "PING_SECONDS", "connected", "shown"]

CONNECT_SECONDS: float = 5
PING_SECONDS: float = 10
"""Between pings; with the third that has no answer the connection is made anew."""
_CLOSE_SECONDS = 2
_LINE = 1 << 16  # bytes of the longest line


@asynccontextmanager
async def connected(url: str, largest: int) -> AsyncIterator[Any]:
    """A client; once there was a connection it is tried again for ever, a first one that never comes is an error.

    Args:
        url: `nats://host:port`, or several, separated by commas.
        largest: Bytes of the largest message that anybody has a reason to send.

    Raises:
        ConnectionFailedError: No server could be reached.
    """
    client = _Client(largest)
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "max_reconnect_attempts": -1,
        "ping_interval": PING_SECONDS,
        "max_outstanding_pings": 2,
        "error_cb": _quiet,
    }
    try:
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                await client.connect(url.split(","), **options)
        except Exception as error:
            raise ConnectionFailedError(
                f"no NATS server could be reached at `{shown(url)}` within {CONNECT_SECONDS:g} s"
            ) from error
        yield client
    finally:
        # A server that reads nothing is not waited for.
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True), suppress(Exception):
            await client.close()


class _Client(Client):
    def __init__(self, largest: int) -> None:
        super().__init__()
        self._ps = _Parser(self, largest)

    async def _process_info(self, info: Any, initial_connection: bool = False) -> None:
        most = info.get("max_payload", 1)
        if type(most) is not int or most < 1:
            raise nats.errors.ProtocolError
        # Not those that a server names: it may name anything.
        named = {key: value for key, value in info.items() if key != "connect_urls"}
        await super()._process_info(named, initial_connection)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:
            # It ended by an error of its own; nobody reads any more.
            await self._process_op_err(nats.errors.ProtocolError())

    async def _attempt_reconnect(self) -> None:
        while True:
            try:
                await super()._attempt_reconnect()
            except Exception:  # noqa: BLE001 - whatever the server said, it is tried again
                self._status = Client.RECONNECTING
                await anyio.sleep(self.options["reconnect_time_wait"])
            else:
                return


class _Parser(Parser):
    def __init__(self, client: Client, largest: int) -> None:
        super().__init__(client)
        self._largest = largest

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        # Between calls there is at most the beginning of one message, or of one line.
        awaited = self.needed if self.state != 1 else 0
        if awaited > self._largest or len(self.buf) > max(awaited, _LINE) + _LINE:
            raise nats.errors.ProtocolError


async def _quiet(_error: Exception) -> None:
    """The client logs each lost connection with its stack; what matters of it is in the states of the messages."""


def shown(url: str) -> str:
    """The URL without its password."""
    return ",".join(part.rsplit("@", 1)[-1] for part in url.split(","))
