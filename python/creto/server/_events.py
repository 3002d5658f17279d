"""Live updates: server-sent events that say which request changed, never how; pages then ask for what they show."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from creto.oversight import Desk
from creto.server._access import Access

__all__ = ["Events"]

_ALIVE = 15.0
_MOST = 100


class Events:
    """The stream of changes.

    Args:
        desk: What is followed.
        access: Who may follow.
    """

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk = desk
        self._access = access
        self._open = 0

    async def stream(self, request: Request) -> Response:
        """One browser's stream; it ends with the session."""
        if await self._access.session(request) is None:
            return PlainTextResponse("sign in first\n", 401)
        if self._open >= _MOST:
            return PlainTextResponse("too many pages are open\n", 503)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._changes(request), media_type="text/event-stream", headers=headers)

    async def _changes(self, request: Request) -> AsyncIterator[str]:
        self._open += 1
        try:
            async with self._desk.changes() as keys:
                yield "retry: 2000\n\n"
                while await self._access.session(request) is not None:
                    key = None
                    with anyio.move_on_after(_ALIVE):
                        key = await anext(keys)
                    yield ": still here\n\n" if key is None else f"event: change\ndata: {key}\n\n"
        finally:
            self._open -= 1
