"""What goes over the wire of MCP, read in one way and written anew: two readers of it cannot be led apart."""

from __future__ import annotations

import json
import math
from typing import Any, Protocol

import anyio

from creto._foreign import json_value
from creto.errors import InvalidInputError

__all__ = ["MAX_MESSAGE", "Lines", "Receives", "Sends", "further", "is_id", "key", "of_client", "of_server", "written"]

MAX_MESSAGE = 16 * 1024 * 1024
"""A line longer than this many bytes ends the session: nothing is buffered without end."""

_DEEPEST = 500
"""What is read a little below Python's own bound could not be written again."""
_MESSAGE = {"jsonrpc", "id", "method", "params", "result", "error"}
_ANSWER = {"result", "error"}
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


class Lines:
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


def further(message: dict[str, Any]) -> dict[str, Any]:
    """What else a call brings that its server could act on; the token that its progress is told by says nothing."""
    beside = {name: value for name, value in message.items() if name not in _MESSAGE}
    if message["method"] == "tools/call":
        beside |= {name: value for name, value in (message.get("params") or {}).items() if name not in _CALL}
    meta = beside.get("_meta")
    if (
        isinstance(meta, dict)
        and set(meta) <= {"progressToken"}
        and isinstance(meta.get("progressToken", ""), str | int)
    ):
        del beside["_meta"]
    return beside


def written(message: dict[str, Any]) -> bytes:
    """A message as it was understood: what two readers might read in two ways is written in one."""
    return json.dumps(message).encode()


def of_client(line: bytes) -> list[dict[str, Any]]:
    """The client's messages of a line; a batch (JSON-RPC) is taken apart, so that no call hides in one."""
    if not line.strip():
        return []
    try:
        parsed = _parsed(line, parse_constant=_no_number, parse_float=_finite)
    except ValueError as error:
        raise InvalidInputError(f"the client sent a line that is not JSON: {error}") from error
    found = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(message, dict) for message in found):
        raise InvalidInputError("the client sent a message that is not a JSON object")
    for message in found:
        _require_one_reading(message, _MESSAGE)
        if "method" in message and not _ANSWER.isdisjoint(message):
            raise InvalidInputError(
                "the client sent a message that is a request to some servers and an answer to others"
            )
        if message.get("method") == "tools/call" and isinstance(message.get("params"), dict):
            _require_one_reading(message["params"], _CALL)
    return found


def of_server(line: bytes) -> list[dict[str, Any]]:
    """The server's messages of a line. What is none, or could be taken for a question and an answer, is left out."""
    try:
        parsed = _parsed(line)
    except ValueError:
        return []
    found = parsed if isinstance(parsed, list) else [parsed]
    return [message for message in found if isinstance(message, dict) and _has_one_reading(message)]


def _parsed(line: bytes, **how: Any) -> Any:
    parsed = json_value(line, **how)
    if line.count(b"[") + line.count(b"{") > _DEEPEST:
        level = [parsed]
        for _ in range(_DEEPEST):
            level = [
                inner
                for one in level
                if isinstance(one, dict | list)
                for inner in (one.values() if isinstance(one, dict) else one)
            ]
        if level:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
    return parsed


def _has_one_reading(message: dict[str, Any]) -> bool:
    if _alike(message, _MESSAGE) is not None:
        return False
    if "method" not in message:
        return True
    method, identifier = message["method"], message.get("id")
    if not isinstance(method, str) or not _ANSWER.isdisjoint(message):
        return False
    return is_id(identifier) or (identifier is None and method.startswith("notifications/"))


def _alike(given: dict[str, Any], names: set[str]) -> str | None:
    """`Method` in place of `method`, or beside it: to Go's readers, as to some others, they are one."""
    return next((name for name in given if name not in names and name.casefold() in names), None)


def _require_one_reading(given: dict[str, Any], names: set[str]) -> None:
    alike = _alike(given, names)
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


def is_id(identifier: Any) -> bool:
    """Whether every reader tells it from others: to some 1 and 1.0 are one, and so are neighbours beyond 2^53."""
    return isinstance(identifier, str) or (type(identifier) is int and abs(identifier) < 2**53)


def key(identifier: Any) -> str:
    """What an id is known by: 1 and "1" are two."""
    return json.dumps(identifier)
