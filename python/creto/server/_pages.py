"""The pages: sign in, what waits, one request, and the two buttons. Only a POST with the session's own form decides."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import anyio
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from creto.errors import CretoError, InvalidInputError, UnauthorizedError
from creto.oversight import Desk
from creto.server import _view as view
from creto.server._access import Access, Session, place_of, status_of

__all__ = ["Pages"]

_FORM = 64 * 1024
_FIELDS = 20
_RECENT = 30


class Pages:
    """The inbox for people.

    Args:
        desk: Where the requests are.
        access: Who may come in.
        has_acts: Pages of acts are served beside these.
    """

    def __init__(self, desk: Desk, access: Access, has_acts: bool) -> None:
        self._desk = desk
        self._access = access
        self._has_acts = has_acts
        self._templates = Environment(
            loader=PackageLoader("creto.server"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[Route]:
        """The paths; those that decide take POST alone."""
        return [
            Route("/", self.waiting, methods=["GET"]),
            Route("/history", self.history, methods=["GET"]),
            Route("/login", self.login, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
            Route("/r/{id}", self.request, methods=["GET"]),
            Route("/r/{id}/{answer:answer}", self.decide, methods=["POST"]),
        ]

    # --- pages --------------------------------------------------------------------------------------------------------

    async def waiting(self, request: Request) -> Response:
        """What waits for an answer, and what was answered lately."""
        session = await self._access.session(request)
        if session is None:
            return self.to_login(request)
        pending = await anyio.to_thread.run_sync(self._desk.pending)
        cards = [view.card(one, session.approver) for one in pending]
        recent = [one for one in await anyio.to_thread.run_sync(self._desk.all, _RECENT) if not one.open]
        name = "_waiting.html" if request.query_params.get("part") == "waiting" else "waiting.html"
        return self.page(
            request, name, session, waiting=cards, recent=[view.card(one, session.approver) for one in recent[:8]]
        )

    async def history(self, request: Request) -> Response:
        """Everything that was asked, the newest first."""
        session = await self._access.session(request)
        if session is None:
            return self.to_login(request)
        found = await anyio.to_thread.run_sync(self._desk.all, 200)
        cards = [view.card(one, session.approver) for one in found]
        return self.page(request, "history.html", session, requests=cards)

    async def request(self, request: Request) -> Response:
        """One request, whole."""
        session = await self._access.session(request)
        if session is None:
            return self.to_login(request)
        return await self._request(request, session)

    async def _request(
        self, request: Request, session: Session, problem: str | None = None, status: int = 200
    ) -> Response:
        found = await anyio.to_thread.run_sync(self._desk.find, request.path_params["id"])
        shown = await anyio.to_thread.run_sync(view.page, self._desk, found, session.approver)
        return self.page(request, "request.html", session, status=status, shown=shown, problem=problem)

    async def login(self, request: Request) -> Response:
        """The page that asks for the token; a browser that has a session under a path of its own goes there."""
        onward = _inside(request.query_params.get("next", "/"))
        known = "ended" if "ended" in request.query_params else "look"
        return self.page(request, "login.html", None, next=onward, known=known, problem=None)

    # --- what changes something ---------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        """Begins a session with a token."""
        self._access.require_same_site(request)
        form = await _form(request)
        onward = _inside(form.get("next", "/"))
        token = form.get("token", "").strip()
        try:
            approver = await self._access.by_token(request, token)
        except UnauthorizedError as error:
            status = status_of(error)
            shown = {"next": onward, "known": "", "problem": str(error)}
            page = self.page(request, "login.html", None, status=401 if status == 403 else status, **shown)
            if error.retry_after is not None:
                page.headers["Retry-After"] = str(int(error.retry_after) + 1)
            return page
        id, place = self._access.open(approver, token)
        response = RedirectResponse(f"{place}{onward}", status_code=303)
        self._access.remember(response, id, place)
        return response

    async def sign_out(self, request: Request) -> Response:
        """Ends the session."""
        session, _ = await self._of_our_form(request)
        if session is not None:
            self._access.close(request)
        response = RedirectResponse("/login?ended", status_code=303)
        place = place_of(request)
        response.delete_cookie(self._access.cookie(place), path=place or "/", secure=self._access.secure)
        return response

    async def decide(self, request: Request) -> Response:
        """Takes the answer about the very act that was shown."""
        session, form = await self._of_our_form(request)
        if session is None:
            return self.to_login(request, f"/r/{request.path_params['id']}")
        id = request.path_params["id"]
        found = await anyio.to_thread.run_sync(self._desk.find, id)
        approved = request.path_params["answer"] == "approve"
        try:
            if form.get("seen", "") != view.seen(found):
                raise InvalidInputError("the form is for another act than this request; look at it again")
            answer = self._desk.approve if approved else self._desk.deny
            reason = form.get("reason", "").strip()[:2000]
            await anyio.to_thread.run_sync(partial(answer, found, session.approver, reason))
        except CretoError as error:
            return await self._request(request, session, str(error), status_of(error))
        return RedirectResponse(f"{place_of(request)}/r/{found.id}", status_code=303)

    async def _of_our_form(self, request: Request) -> tuple[Session | None, dict[str, str]]:
        self._access.require_same_site(request)
        session = await self._access.session(request)
        if session is None:
            return None, {}
        form = await _form(request)
        self._access.require_csrf(session, form.get("csrf", ""))
        return session, form

    # --- rendering ----------------------------------------------------------------------------------------------------

    def page(
        self, request: Request, name: str, session: Session | None, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page from its template."""
        text = self._templates.get_template(name).render(
            approver=session.approver.name if session else None,
            csrf=session.csrf if session else None,
            at=place_of(request),
            sees_acts=self._has_acts and session is not None and session.sees_acts,
            **values,
        )
        return HTMLResponse(text, status_code=status)

    def problem(self, request: Request, error: CretoError) -> HTMLResponse:
        """The page for an error."""
        return self.page(request, "problem.html", None, status=status_of(error), problem=str(error))

    @staticmethod
    def to_login(request: Request, onward: str | None = None) -> Response:
        """Sends a browser to sign in, and back to what it asked for."""
        from urllib.parse import quote

        place = place_of(request)
        asked = f"?{request.url.query}" if request.url.query else ""
        onward = quote(onward or request.url.path.removeprefix(place) + asked)
        return RedirectResponse(f"/login?next={onward}{'&ended' if place else ''}", status_code=303)


def _inside(path: str) -> str:
    """A path of ours, whatever was asked for: a sign-in must not send people elsewhere."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInputError("a form is sent as `application/x-www-form-urlencoded`")
    body = await read(request, _FORM)
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS))
    except ValueError as error:
        raise InvalidInputError(f"the form has more than {_FIELDS} fields") from error


async def read(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        InvalidInputError: It is larger than `most` bytes.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise InvalidInputError(f"the body is larger than {most} bytes")
    return body
