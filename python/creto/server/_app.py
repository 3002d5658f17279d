"""The inbox as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from creto.audit import AuditRecord
from creto.errors import CretoError, NotFoundError
from creto.oversight import Desk
from creto.server._access import Access, place_of
from creto.server._acts import Acts
from creto.server._api import Api
from creto.server._events import Events
from creto.server._metrics import Metrics
from creto.server._pages import Pages

__all__ = ["inbox_app"]

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would make browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_MOST_REQUESTS = 200
"""Under way at once; open pages, which are told of changes, count too."""


class _Answer(Convertor[str]):
    regex = "approve|deny"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("answer", _Answer())


def inbox_app(
    desk: Desk,
    *,
    hosts: Iterable[str] = (),
    secure: bool = False,
    metrics: Metrics | None = None,
    folder: Path | None = None,
    price: Callable[[Sequence[AuditRecord]], str] = lambda _: "",
) -> ASGIApp:
    """The inbox over a desk: pages for people, `/api` for programs.

    Args:
        desk: Where the requests are.
        hosts: `host:port` names that it answers to, beside this machine's own.
        secure: It is reached over https only: cookies say so.
        metrics: The figures at `/metrics`; there is no such page where there are none.
        folder: The state folder, whose acts are shown to approvers of every policy; none are shown without it.
        price: What an act costs, in words, from its records.

    Example:
        >>> import anyio, httpx, tempfile
        >>> from creto.config import load
        >>> from creto.oversight import open_desk
        >>> from creto.reach import Reach
        >>> from creto.store import Store
        >>> async def main():
        ...     with Store(tempfile.mkdtemp()) as store, Reach(store) as reach:
        ...         desk = open_desk(store, load(state=store.folder, environment={}, system=False), reach)
        ...         app = inbox_app(desk)
        ...         inside = httpx.ASGITransport(app)
        ...         async with httpx.AsyncClient(transport=inside, base_url="http://localhost") as browser:
        ...             return (await browser.get("/healthz")).text, (await browser.get("/")).headers["location"]
        >>> anyio.run(main)
        ('ok\\n', '/login?next=/')
    """
    access = Access(desk.approvers, hosts, secure=secure)
    pages, api, events = Pages(desk, access, folder is not None), Api(desk, access), Events(desk, access)
    seen = [] if folder is None else Acts(folder, pages, access, price).routes()

    async def failed(request: Request, error: Exception) -> Response:
        if not isinstance(error, CretoError):
            raise error
        program = request.url.path.removeprefix(place_of(request)).startswith(("/api/", "/metrics"))
        return api.problem(error) if program else pages.problem(request, error)

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code != 404:
            return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
        return await failed(request, NotFoundError("there is no such page"))

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        try:
            await desk.store.fetch(lambda tx: tx.now)
        except Exception:  # noqa: BLE001 - whatever it is, nobody could be answered
            return PlainTextResponse("the store cannot be read\n", 503)
        return PlainTextResponse("ready\n")

    async def figures(request: Request) -> Response:
        if metrics is None:
            raise NotFoundError("there is no such page")
        if not metrics.opened_by(access.shown(request, "oversight.metrics_token")):
            raise access.wrong(request, "the figures have one of their own, `oversight.metrics_token`")
        page, media = await anyio.to_thread.run_sync(metrics.page, request.headers.get("accept", ""))
        return Response(page, media_type=media)

    app = Starlette(
        routes=[
            *pages.routes(),
            *api.routes(),
            *seen,
            Route("/events", events.stream, methods=["GET"]),
            Route("/healthz", healthy, methods=["GET"]),
            Route("/readyz", ready, methods=["GET"]),
            Route("/metrics", figures, methods=["GET"]),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        exception_handlers={CretoError: failed, HTTPException: refused},
    )
    return _Doorman(app, access, failed)


class _Doorman:
    """Checks the name that a request was sent to, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, access: Access, failed: object) -> None:
        self._app = app
        self._access = access
        self._failed = failed
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        place, page = self._access.split(scope["path"])
        scope = {**scope, "root_path": place}
        cached = page.startswith("/static/")

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers["Cache-Control"] = "no-cache" if cached else "no-store"
            await send(message)

        request = Request(scope)
        try:
            self._access.require_host(request)
        except CretoError as error:
            await PlainTextResponse(f"{error}\n", 421)(scope, receive, headed)
            return
        if self._under_way >= _MOST_REQUESTS:
            await PlainTextResponse("too many requests are under way\n", 503)(scope, receive, headed)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, headed)
        finally:
            self._under_way -= 1
