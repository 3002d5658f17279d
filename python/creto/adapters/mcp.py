"""MCP over stdio, put behind the layer: every `tools/call` is an act, `tool:call` on `<server>/<tool>`.

So is every other request that makes a server do something, such as `resources/read`, on `<server>/<method>`; what only
says hello or lists what there is passes.

It speaks the Model Context Protocol's stdio transport (JSON-RPC 2.0, one message a line, revision 2025-06-18) on both
sides, so that neither client nor server needs to know of it. A message that it lets pass says what it said before,
written anew; it never answers for the server, except to say that a call was refused. Answers that nobody waits for are
dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio

from creto._plain import is_text
from creto.errors import ConnectionFailedError, CretoError, InvalidInputError

__all__ = ["MAX_MESSAGE", "MOST_CALLS", "Performs", "Receives", "Sends", "proxy"]

MAX_MESSAGE = 16 * 1024 * 1024
"""A line longer than this many bytes ends the session: nothing is buffered without end."""

MOST_CALLS = 256
"""More calls than this at once are answered with an error: each may be a question to a human."""

_FREE = {
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "server/discover",
    "tools/list",
}


_MESSAGE = {"jsonrpc", "id", "method", "params", "result", "error"}
_CALL = {"name", "arguments"}


class Receives(Protocol):
    """Where bytes come from; anyio's byte streams are such.

    Example:
        >>> class Nothing:
        ...     async def receive(self, max_bytes=65536): raise anyio.EndOfStream
        >>> source: Receives = Nothing()
    """

    async def receive(self, max_bytes: int = ...) -> bytes:
        """At least one byte; `anyio.EndOfStream` at the end."""
        ...


class Sends(Protocol):
    """Where bytes go to; anyio's byte streams are such.

    Example:
        >>> class Printed:
        ...     async def send(self, item): print(item)
        ...     async def aclose(self): ...
        >>> anyio.run(Printed().send, b"a line")
        b'a line'
    """

    async def send(self, item: bytes) -> None:
        """Sends all of it."""

    async def aclose(self) -> None:
        """Says that nothing more comes."""


class Performs(Protocol):
    """What is needed of the layer.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     performs: Performs = layer
    """

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


class _Call:
    """One act of the client's, from the moment it was read."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.sent = False
        self.answer: bytes | None = None


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
        self.calls: dict[str, _Call] = {}
        """Acts under way, by the key of their id."""
        self.free: set[str] = set()
        """Requests that are no acts and wait for the server's answer."""

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_answers, tasks.cancel_scope)
            while (line := await self.from_client.next()) is not None:
                for message in _messages(line):
                    if not _is_act(message):
                        await self._pass_on(message)
                    elif (problem := self._problem(message)) is not None:
                        await self._answer(message, error={"code": -32602, "message": problem})
                    else:
                        call = self.calls[_key(message["id"])] = _Call()
                        tasks.start_soon(self._act, message, call)
            await self.server.aclose()

    async def _pass_on(self, message: dict[str, Any]) -> None:
        """Hands on what is no act; a call that its client cancelled ends here, also while a human thinks."""
        if message.get("method") == "notifications/cancelled":
            parameters = message.get("params")
            call = self.calls.get(_key(parameters.get("requestId"))) if isinstance(parameters, dict) else None
            if call is not None:
                call.scope.cancel()
                if not call.sent:
                    return  # the server never heard of it
        elif "method" in message and message.get("id") is not None:
            self.free.add(_key(message["id"]))
        await self._send(self.server, self.server_lock, _line(message))

    async def _serve_answers(self, scope: anyio.CancelScope) -> None:
        while (line := await self.from_server.next()) is not None:
            try:
                parsed = json.loads(line)
            except (ValueError, RecursionError):
                continue  # no message: neither for the client nor for us
            for message in parsed if isinstance(parsed, list) else [parsed]:
                if isinstance(message, dict):
                    await self._from_server(message)
        scope.cancel()

    async def _from_server(self, message: dict[str, Any]) -> None:
        if "method" in message:
            await self._send(self.client, self.client_lock, _line(message))
            return
        key = _key(message.get("id"))
        if key in self.free:
            self.free.discard(key)
            await self._send(self.client, self.client_lock, _line(message))
            return
        # An answer to nothing, or to a call that was not sent yet, is nobody's.
        call = self.calls.get(key)
        if call is not None and call.sent and call.answer is None:
            call.answer = _line(message)
            call.done.set()

    def _problem(self, message: dict[str, Any]) -> str | None:
        """Why a call cannot be made, whatever policy says."""
        if len(self.calls) >= MOST_CALLS:
            return f"{MOST_CALLS} calls are under way, and no more are taken at once"
        method, parameters = message["method"], message.get("params") or {}
        named = method != "tools/call" or (
            isinstance(parameters.get("name"), str)
            and parameters["name"]
            and is_text(parameters["name"])
            and isinstance(parameters.get("arguments") or {}, dict)
        )
        if not named or _key(message["id"]) in self.calls or _key(message["id"]) in self.free:
            return f"`{method}` wants a `name`, an object of `arguments` and an id that is not in use"
        return None

    async def _act(self, message: dict[str, Any], call: _Call) -> None:
        method, parameters = message["method"], message.get("params") or {}
        target = parameters["name"] if method == "tools/call" else method
        arguments = (parameters.get("arguments") or {}) if method == "tools/call" else parameters

        async def operation() -> bytes:
            call.sent = True
            await self._send(self.server, self.server_lock, _line(message))
            await call.done.wait()
            assert call.answer is not None
            return call.answer

        context = {"server": self.server_name, "tool": target, "arguments": json.dumps(arguments, sort_keys=True)}
        if further := _further(message):
            context["further"] = json.dumps(further, sort_keys=True)
        try:
            with call.scope:
                line = await self.layer.perform(
                    self.agent,
                    "tool:call",
                    f"{self.server_name}/{target}",
                    operation,
                    context=context,
                    usage={"tool_calls": 1},
                )
            if call.scope.cancelled_caught:
                return  # whoever cancels wants no answer
        except CretoError as refused:
            # The protocol's own way to tell a model that a tool did not do what was asked.
            decided = refused.category in ("authorization", "oversight")
            text = f"{'refused by policy' if decided else 'not done'}: {refused}"
            if method == "tools/call":
                await self._answer(message, result={"content": [{"type": "text", "text": text}], "isError": True})
            else:
                await self._answer(message, error={"code": -32000, "message": text})
            return
        finally:
            self.calls.pop(_key(message["id"]), None)
        await self._send(self.client, self.client_lock, line)

    async def _answer(self, message: dict[str, Any], **body: Any) -> None:
        await self._send(self.client, self.client_lock, _line({"jsonrpc": "2.0", "id": message["id"], **body}))

    async def _send(self, stream: Sends, lock: anyio.Lock, line: bytes) -> None:
        async with lock:
            try:
                await stream.send(line + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as gone:
                raise ConnectionFailedError("the other side of the MCP session is gone") from gone


def _further(message: dict[str, Any]) -> dict[str, Any]:
    """What else a call brings that its server could act on; the token that its progress is told by says nothing."""
    beside = {name: value for name, value in message.items() if name not in _MESSAGE}
    if message["method"] == "tools/call":
        beside |= {name: value for name, value in (message.get("params") or {}).items() if name not in _CALL}
    if isinstance(beside.get("_meta"), dict) and set(beside["_meta"]) <= {"progressToken"}:
        del beside["_meta"]
    return beside


def _line(message: dict[str, Any]) -> bytes:
    """A message as it was understood: what two readers might read in two ways is written in one."""
    return json.dumps(message).encode()


def _messages(line: bytes) -> list[dict[str, Any]]:
    """The messages of a line; a batch (JSON-RPC) is taken apart, so that no call hides in one."""
    if not line.strip():
        return []
    try:
        parsed = json.loads(line, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the client sent a line that is not JSON: {error}") from error
    found = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(message, dict) for message in found):
        raise InvalidInputError("the client sent a message that is not a JSON object")
    for message in found:
        _require_one_reading(message, _MESSAGE)
        if message.get("method") == "tools/call" and isinstance(message.get("params"), dict):
            _require_one_reading(message["params"], _CALL)
    return found


def _require_one_reading(given: dict[str, Any], names: set[str]) -> None:
    """Refuses `Method` in place of `method`, or beside it: to Go's readers, as to some others, they are one."""
    alike = next((name for name in given if name not in names and name.casefold() in names), None)
    if alike is not None:
        raise InvalidInputError(
            f"the client sent `{alike}`, which some servers take for `{alike.casefold()}`; write it in small letters"
        )


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _no_number(text)
    return number


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number that every reader of JSON knows")


def _is_act(message: dict[str, Any]) -> bool:
    if "method" not in message:
        return False  # an answer to what the server asked
    method = message["method"]
    if not isinstance(method, str) or not is_text(method):
        raise InvalidInputError("the client sent a message whose `method` is not text")
    identifier = message.get("id")
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int | float)):
        raise InvalidInputError(f"the client sent `{method}` with an `id` that is neither text nor a number")
    if method in _FREE:
        return False
    if identifier is None:
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

    Example:
        >>> import anyio, json, sys, tempfile, creto
        >>> answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})
        >>> tool = f"import sys; input(); print('{answer}', flush=True); sys.stdin.read()"
        >>> class Client:
        ...     answered = anyio.Event()
        ...     call = {"name": "search", "arguments": {}}
        ...     lines = [{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}]
        ...     async def receive(self, max_bytes=65536):
        ...         if self.lines:
        ...             return json.dumps(self.lines.pop()).encode() + bytes([10])
        ...         await self.answered.wait()
        ...         raise anyio.EndOfStream
        ...     async def send(self, item):
        ...         print(json.loads(item)["result"])
        ...         self.answered.set()
        ...     async def aclose(self): ...
        >>> async def main():
        ...     client = Client()
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         async with await anyio.open_process([sys.executable, "-c", tool]) as run:
        ...             await proxy(layer, layer.agent("researcher"), "web", (client, client), (run.stdout, run.stdin))
        ...         return [record.resource for record in await layer.parts.audit.query(action="tool:call")]
        >>> anyio.run(main)
        {'content': []}
        ['web/search', 'web/search']
    """
    await _Session(layer, agent, server_name, client, server).run()
