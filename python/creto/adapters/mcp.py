"""MCP over stdio, put behind the layer: every `tools/call` is an act, `tool:call` on `<server>/<tool>`.

So is every other request that makes a server do something, such as `resources/read`, on `<server>/<method>`; and what
a server asks the client for, such as `sampling/createMessage`, there with `asked_by` in its context. What only says
hello or lists what there is passes.

It speaks the Model Context Protocol's stdio transport (JSON-RPC 2.0, one message a line, revision 2025-06-18) on both
sides, so that neither client nor server needs to know of it. A message that it lets pass says what it said before,
written anew; it never answers for the server, except to say that a call was refused. Answers that nobody waits for are
dropped.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import anyio
import anyio.abc

from creto._plain import is_text
from creto.adapters._mcp_wire import (
    MAX_MESSAGE,
    Lines,
    Receives,
    Sends,
    further,
    is_id,
    key,
    of_client,
    of_server,
    written,
)
from creto.errors import ConnectionFailedError, CretoError, InvalidInputError

__all__ = ["MAX_MESSAGE", "MOST_CALLS", "Performs", "Receives", "Sends", "proxy"]

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
_FREE_OF_SERVER = {"ping", "roots/list"}
_NOTIFICATIONS = {
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
}
"""What the protocol has a client tell its server."""


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


class _Call:
    """One act, from the moment it was read."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.sent = False
        self.answer: bytes | None = None


class _Side:
    """One of the two, and what it waits for an answer to."""

    def __init__(self, streams: tuple[Receives, Sends], whose: str) -> None:
        self.lines = Lines(streams[0], whose)
        self.out = streams[1]
        self._lock = anyio.Lock()
        self.calls: dict[str, _Call] = {}
        """Its acts under way, by the key of their id."""
        self.free: set[str] = set()
        """Its requests that are no acts."""

    async def send(self, line: bytes) -> None:
        async with self._lock:
            try:
                await self.out.send(line + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as gone:
                raise ConnectionFailedError("the other side of the MCP session is gone") from gone

    async def answer(self, message: dict[str, Any], **body: Any) -> None:
        await self.send(written({"jsonrpc": "2.0", "id": message["id"], **body}))

    def is_busy(self, message: dict[str, Any]) -> bool:
        """Whether as much is under way as may be, or something under this very id."""
        known = key(message["id"])
        return len(self.calls) + len(self.free) >= MOST_CALLS or known in self.calls or known in self.free

    def takes(self, message: dict[str, Any]) -> bool:
        """Whether an answer is to be handed on to it: one to an act is kept for that, one to nothing is nobody's."""
        known = key(message.get("id"))
        if known in self.free:
            self.free.discard(known)
            return True
        call = self.calls.get(known)
        if call is not None and call.sent and call.answer is None:
            call.answer = written(message)
            call.done.set()
        return False

    def takes_back(self, message: dict[str, Any]) -> bool:
        """Ends the act that a cancellation names, also while a human thinks; whether the other side had heard of it."""
        parameters = message.get("params")
        call = self.calls.get(key(parameters.get("requestId"))) if isinstance(parameters, dict) else None
        if call is None:
            return True
        call.scope.cancel()
        return call.sent


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
        self.client = _Side(client, "client")
        self.server = _Side(server, "server")
        self.telling = 0

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve_server, tasks)
            while (line := await self.client.lines.next()) is not None:
                for message in of_client(line):
                    if not _is_act(message):
                        await self._pass_on(message, self.client, self.server)
                    elif message.get("id") is None:
                        if self.telling < MOST_CALLS:
                            self.telling += 1
                            tasks.start_soon(self._tell, message)
                    elif (problem := self._problem(message)) is not None:
                        await self.client.answer(message, error={"code": -32602, "message": problem})
                    else:
                        call = self.client.calls[key(message["id"])] = _Call()
                        tasks.start_soon(self._call, message, call)
            await self.server.out.aclose()

    async def _serve_server(self, tasks: anyio.abc.TaskGroup) -> None:
        while (line := await self.server.lines.next()) is not None:
            for message in of_server(line):
                if "method" not in message or message.get("id") is None:
                    await self._pass_on(message, self.server, self.client)
                elif self.server.is_busy(message):
                    await self.server.answer(message, error={"code": -32602, "message": "too much is asked at once"})
                elif message["method"] in _FREE_OF_SERVER:
                    await self._pass_on(message, self.server, self.client)
                else:
                    call = self.server.calls[key(message["id"])] = _Call()
                    tasks.start_soon(self._question, message, call)
        tasks.cancel_scope.cancel()

    async def _pass_on(self, message: dict[str, Any], sender: _Side, other: _Side) -> None:
        """Hands on what is no act."""
        if "method" not in message:
            if not other.takes(message):
                return
        elif message["method"] == "notifications/cancelled":
            if not sender.takes_back(message):
                return
        elif message.get("id") is not None:
            sender.free.add(key(message["id"]))
        await other.send(written(message))

    def _problem(self, message: dict[str, Any]) -> str | None:
        """Why a call cannot be made, whatever policy says."""
        if len(self.client.calls) >= MOST_CALLS:
            return f"{MOST_CALLS} calls are under way, and no more are taken at once"
        method, parameters = message["method"], message.get("params") or {}
        named = method != "tools/call" or (
            isinstance(parameters.get("name"), str)
            and parameters["name"]
            and is_text(parameters["name"])
            and isinstance(parameters.get("arguments") or {}, dict)
        )
        known = key(message["id"])
        if not named or known in self.client.calls or known in self.client.free:
            return f"`{method}` wants a `name`, an object of `arguments` and an id that is not in use"
        return None

    async def _call(self, message: dict[str, Any], call: _Call) -> None:
        """An act of the client's."""
        method, parameters = message["method"], message.get("params") or {}
        target = parameters["name"] if method == "tools/call" else method
        arguments = (parameters.get("arguments") or {}) if method == "tools/call" else parameters
        try:
            line = await self._perform(message, call, self.client, self.server, target, arguments)
        except CretoError as refused:
            # The protocol's own way to tell a model that a tool did not do what was asked.
            decided = refused.category in ("authorization", "oversight")
            text = f"{'refused by policy' if decided else 'not done'}: {refused}"
            if method == "tools/call":
                content = [{"type": "text", "text": text}]
                await self.client.answer(message, result={"content": content, "isError": True})
            else:
                await self.client.answer(message, error={"code": -32000, "message": text})
            return
        if line is not None:
            await self.client.send(line)

    async def _tell(self, message: dict[str, Any]) -> None:
        """A notification of the client's that the protocol does not know: a server may act on it, and answers none."""

        async def operation() -> None:
            await self.server.send(written(message))

        try:
            with suppress(CretoError):  # a refusal is on record, and there is nobody to tell it to
                await self._act(message, message["method"], message.get("params") or {}, operation)
        finally:
            self.telling -= 1

    async def _question(self, message: dict[str, Any], call: _Call) -> None:
        """An act that the server asks the client for: what the client answers leaves it."""
        method, arguments = message["method"], message.get("params") or {}
        try:
            line = await self._perform(message, call, self.server, self.client, method, arguments, asked_by="server")
        except CretoError:
            # Why is none of the server's business.
            await self.server.answer(message, error={"code": -32000, "message": "refused"})
            return
        if line is not None:
            await self.server.send(line)

    async def _perform(
        self,
        message: dict[str, Any],
        call: _Call,
        asker: _Side,
        other: _Side,
        target: str,
        arguments: Any,
        **circumstances: str,
    ) -> bytes | None:
        """The answer to an act; None where whoever asked has taken it back, and wants none."""

        async def operation() -> bytes:
            call.sent = True
            await other.send(written(message))
            await call.done.wait()
            assert call.answer is not None
            return call.answer

        line: bytes | None = None
        try:
            with call.scope:
                line = await self._act(message, target, arguments, operation, **circumstances)
        finally:
            asker.calls.pop(key(message["id"]), None)
        return line

    async def _act(
        self,
        message: dict[str, Any],
        target: str,
        arguments: Any,
        operation: Callable[[], Awaitable[Any]],
        **circumstances: str,
    ) -> Any:
        told = json.dumps(arguments, sort_keys=True)
        context = {"server": self.server_name, "tool": target, "arguments": told, **circumstances}
        if beside := further(message):
            context["further"] = json.dumps(beside, sort_keys=True)
        resource = f"{self.server_name}/{target}"
        usage = {"tool_calls": 1}
        return await self.layer.perform(self.agent, "tool:call", resource, operation, context=context, usage=usage)


def _is_act(message: dict[str, Any]) -> bool:
    if "method" not in message:
        return False  # an answer to what the server asked
    method = message["method"]
    if not isinstance(method, str) or not is_text(method):
        raise InvalidInputError("the client sent a message whose `method` is not text")
    identifier = message.get("id")
    if identifier is not None and not is_id(identifier):
        raise InvalidInputError(f"the client sent `{method}` with an `id` that is neither text nor a whole number")
    if method in _FREE or (identifier is None and method in _NOTIFICATIONS):
        return False
    if identifier is None and not method.startswith("notifications/"):
        # A request without an id could not be answered, so it could act unseen.
        raise InvalidInputError(f"the client sent `{method}` without an `id`")
    if not isinstance(message.get("params", {}), dict):
        raise InvalidInputError(f"the client sent `{method}` with `params` that are not an object")
    return True


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
