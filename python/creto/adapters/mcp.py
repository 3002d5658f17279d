"""MCP over stdio, put behind the layer: every `tools/call` is an act, `tool:call` on `<server>/<tool>`.

So is every other request that makes a server do something, such as `resources/read`, on `<server>/<method>`; what only
says hello or lists what there is passes.

It speaks the Model Context Protocol's stdio transport (JSON-RPC 2.0, one message a line, revision 2025-06-18) on both
sides, so that neither client nor server needs to know of it. It changes no message that it lets pass, and never answers
for the server, except to say that a call was refused.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio

from creto.errors import ConnectionFailedError, CretoError, InvalidInputError

__all__ = ["MAX_MESSAGE", "Performs", "Receives", "Sends", "proxy"]

MAX_MESSAGE = 16 * 1024 * 1024
"""A line longer than this many bytes ends the session: nothing is buffered without end."""

_FREE = {"initialize", "ping", "logging/setLevel", "server/discover"}


class Receives(Protocol):
    """Where bytes come from; anyio's byte streams are such."""

    async def receive(self, max_bytes: int = ...) -> bytes:
        """At least one byte; `anyio.EndOfStream` at the end."""
        ...


class Sends(Protocol):
    """Where bytes go to; anyio's byte streams are such."""

    async def send(self, item: bytes) -> None:
        """Sends all of it."""

    async def aclose(self) -> None:
        """Says that nothing more comes."""


class Performs(Protocol):
    """What is needed of the layer."""

    async def perform(
        self,
        agent: Any,
        action: str,
        resource: str,
        operation: Callable[[], Awaitable[Any]],
        *,
        context: Mapping[str, Any],
        usage: Mapping[str, int],
    ) -> Any:
        """Performs one act under the layer."""


class _Lines:
    """Lines from a stream of bytes, with a bound on their length."""

    def __init__(self, stream: Receives, whose: str) -> None:
        self._stream = stream
        self._whose = whose
        self._held = bytearray()

    async def next(self) -> bytes | None:
        """The next line without its end, or None where the stream ended."""
        seen = 0
        while True:
            end = self._held.find(b"\n", seen)
            if end >= 0:
                line = bytes(self._held[:end])
                del self._held[: end + 1]
                return line.rstrip(b"\r")
            seen = len(self._held)
            if seen > MAX_MESSAGE:
                raise InvalidInputError(f"the {self._whose} sent a message of more than {MAX_MESSAGE} bytes")
            try:
                self._held += await self._stream.receive(65536)
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                return None


class _Session:
    """One client and one server."""

    def __init__(
        self,
        layer: Performs,
        agent: Any,
        server_name: str,
        client: tuple[Receives, Sends],
        server: tuple[Receives, Sends],
    ) -> None:
        self.layer = layer
        self.agent = agent
        self.server_name = server_name
        self.from_client = _Lines(client[0], "client")
        self.from_server = _Lines(server[0], "server")
        self.client = client[1]
        self.server = server[1]
        self.client_lock = anyio.Lock()
        self.server_lock = anyio.Lock()
        self.calls: dict[str, tuple[anyio.Event, list[bytes]]] = {}

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_answers, tasks.cancel_scope)
            while (line := await self.from_client.next()) is not None:
                for message in _messages(line):
                    if _is_act(message):
                        tasks.start_soon(self._act, message)
                    else:
                        await self._send(self.server, self.server_lock, json.dumps(message).encode())
            await self.server.aclose()

    async def _serve_answers(self, scope: anyio.CancelScope) -> None:
        while (line := await self.from_server.next()) is not None:
            answered = self._waiting_for(line)
            if answered is None:
                await self._send(self.client, self.client_lock, line)
            else:
                answered[1].append(line)
                answered[0].set()
        scope.cancel()

    def _waiting_for(self, line: bytes) -> tuple[anyio.Event, list[bytes]] | None:
        if not self.calls:
            return None
        try:
            message = json.loads(line)
        except ValueError:
            return None
        if not isinstance(message, dict) or "method" in message:
            return None
        return self.calls.pop(_key(message.get("id")), None)

    async def _act(self, message: dict[str, Any]) -> None:
        method, parameters = message["method"], message.get("params") or {}
        target = parameters.get("name") if method == "tools/call" else method
        arguments = (parameters.get("arguments") or {}) if method == "tools/call" else parameters
        key = _key(message["id"])
        if not isinstance(target, str) or not target or not isinstance(arguments, dict) or key in self.calls:
            problem = f"`{method}` wants a `name`, an object of `arguments` and an id that is not in use"
            await self._answer(message, error={"code": -32602, "message": problem})
            return

        async def operation() -> bytes:
            done, answer = anyio.Event(), list[bytes]()
            self.calls[key] = (done, answer)
            try:
                await self._send(self.server, self.server_lock, json.dumps(message).encode())
                await done.wait()
            finally:
                self.calls.pop(key, None)
            return answer[0]

        context = {"server": self.server_name, "tool": target, "arguments": json.dumps(arguments, sort_keys=True)}
        try:
            line = await self.layer.perform(
                self.agent,
                "tool:call",
                f"{self.server_name}/{target}",
                operation,
                context=context,
                usage={"tool_calls": 1},
            )
        except CretoError as refused:
            # The protocol's own way to tell a model that a tool did not do what was asked.
            text = f"refused by policy: {refused}" if refused.category != "permanent" else f"not done: {refused}"
            if method == "tools/call":
                await self._answer(message, result={"content": [{"type": "text", "text": text}], "isError": True})
            else:
                await self._answer(message, error={"code": -32000, "message": text})
            return
        await self._send(self.client, self.client_lock, line)

    async def _answer(self, message: dict[str, Any], **body: Any) -> None:
        answer = {"jsonrpc": "2.0", "id": message["id"], **body}
        await self._send(self.client, self.client_lock, json.dumps(answer).encode())

    async def _send(self, stream: Sends, lock: anyio.Lock, line: bytes) -> None:
        async with lock:
            try:
                await stream.send(line + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as gone:
                raise ConnectionFailedError("the other side of the MCP session is gone") from gone


def _messages(line: bytes) -> list[dict[str, Any]]:
    """The messages of a line; a batch (JSON-RPC) is taken apart, so that no call hides in one."""
    if not line.strip():
        return []
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the client sent a line that is not JSON: {error}") from error
    found = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(message, dict) for message in found):
        raise InvalidInputError("the client sent a message that is not a JSON object")
    return found


def _is_act(message: dict[str, Any]) -> bool:
    method = message.get("method")
    if method is None:
        return False  # an answer to what the server asked
    if not isinstance(method, str):
        raise InvalidInputError("the client sent a message whose `method` is not text")
    if method in _FREE or method.endswith("/list"):
        return False
    if message.get("id") is None:
        if method.startswith("notifications/"):
            return False
        # A request without an id could not be answered, so it could act unseen.
        raise InvalidInputError(f"the client sent `{method}` without an `id`")
    if not isinstance(message.get("params", {}), dict):
        raise InvalidInputError(f"the client sent `{method}` with `params` that are not an object")
    return True


def _key(identifier: Any) -> str:
    return json.dumps(identifier)


async def proxy(
    layer: Performs,
    agent: Any,
    server_name: str,
    client: tuple[Receives, Sends],
    server: tuple[Receives, Sends],
) -> None:
    """Carries an MCP session between a client and a server, each tool call an act of `agent`.

    Args:
        layer: Performs the acts.
        agent: Who calls.
        server_name: The server's name in resources: `<server_name>/<tool>`.
        client: The streams from and to the client.
        server: The streams from and to the server.

    Raises:
        InvalidInputError: A side sent what is not MCP; the session ends.
        ConnectionFailedError: A side went away in the middle of a message.
    """
    await _Session(layer, agent, server_name, client, server).run()
