"""The inbox for programs: JSON, the approver's token in each request, errors as problem details (RFC 9457)."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from creto._foreign import json_value
from creto.errors import CretoError, InvalidInputError
from creto.oversight import Desk
from creto.server._access import Access, status_of
from creto.server._pages import read

__all__ = ["Api"]

_BODY = 64 * 1024


class Api:
    """The JSON interface.

    Args:
        desk: Where the requests are.
        access: Whose tokens count.
    """

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk = desk
        self._access = access

    def routes(self) -> list[Route]:
        """The paths; those that decide take POST alone."""
        return [
            Route("/api/requests", self.listed, methods=["GET"]),
            Route("/api/requests/{id}", self.request, methods=["GET"]),
            Route("/api/requests/{id}/{answer:answer}", self.decide, methods=["POST"]),
        ]

    async def listed(self, request: Request) -> Response:
        """What waits; with `?state=any` everything, the newest first."""
        await self._access.bearer(request)
        every = request.query_params.get("state", "pending") == "any"
        found = await anyio.to_thread.run_sync(self._desk.all if every else self._desk.pending)
        return JSONResponse({"requests": [one.as_dict() for one in found]})

    async def request(self, request: Request) -> Response:
        """One request, with its precedents and how its announcements went."""
        await self._access.bearer(request)
        found = await anyio.to_thread.run_sync(self._desk.find, request.path_params["id"])
        precedents = await anyio.to_thread.run_sync(self._desk.precedents_of, found)
        announcements = await anyio.to_thread.run_sync(self._desk.announcements, found)
        return JSONResponse({**found.as_dict(), "precedents": precedents, "announcements": announcements})

    async def decide(self, request: Request) -> Response:
        """Takes an answer: `{"digests": {...} as shown, "reason": "..."}`; a denial needs no digests."""
        approver = await self._access.bearer(request)
        body = await _json(request)
        found = await anyio.to_thread.run_sync(self._desk.find, request.path_params["id"])
        approved = request.path_params["answer"] == "approve"
        digests = {policy: found.digest(policy).hex() for policy in found.policies}
        if (approved or "digests" in body) and body.get("digests") != digests:
            raise InvalidInputError("name the act that you mean: `digests` must be as `GET` shows them")
        reason = body.get("reason", "")
        if not isinstance(reason, str):
            raise InvalidInputError("`reason` must be text")
        answer = self._desk.approve if approved else self._desk.deny
        after = await anyio.to_thread.run_sync(partial(answer, found, approver, reason.strip()[:2000]))
        return JSONResponse(after.as_dict())

    @staticmethod
    def problem(error: CretoError) -> JSONResponse:
        """Problem details for an error."""
        status = status_of(error)
        headers = {}
        if status == 403 and "Bearer" in str(error):
            status, headers = 401, {"WWW-Authenticate": "Bearer"}
        if error.retry_after is not None:
            headers["Retry-After"] = str(int(error.retry_after) + 1)
        body = {"type": f"urn:creto:error:{error.kind}", "title": error.kind, "status": status, "detail": str(error)}
        return JSONResponse(body, status, headers, media_type="application/problem+json")


async def _json(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read(request, _BODY)
    if not body:
        return {}
    if kind != "application/json":
        raise InvalidInputError("the body is sent as `application/json`")
    try:
        parsed = json_value(body)
    except ValueError as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError("the body is an object: `digests` and `reason`")
    return parsed
