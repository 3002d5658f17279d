"""Who may do what at the inbox: tokens, sessions, the limit on guesses, and the checks against other sites.

A page is for a session (a cookie, made from the token); the API is for a token in each request and reads no cookie.

Browsers send a cookie to every port of a host, so on plain http a neighbour on this machine could collect it. There,
each session lives under a path of its own, `/s/<128 random bits>`, and its cookie is for that path alone: no page of
another port knows what to ask for. Over https the cookie's prefix `__Host-` and the name do the same.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
from starlette.requests import Request
from starlette.responses import Response

from creto.errors import CretoError, InvalidInputError, UnauthorizedError
from creto.oversight import Approver, Approvers

__all__ = ["Access", "Session", "TooManyGuessesError"]

_SESSION_SECONDS = 12 * 3600
_MOST_SESSIONS = 1000
_PLACE = re.compile(r"(/s/[A-Za-z0-9_-]{22})(/.*)", re.DOTALL)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class TooManyGuessesError(UnauthorizedError):
    """Too many wrong tokens came from one address, or from all together."""


@dataclass(slots=True)
class Session:
    """A signed-in approver's browser."""

    approver: Approver
    token: str = field(repr=False)
    place: str = ""
    """The path that it lives under; empty over https."""
    csrf: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))
    until: float = field(default_factory=lambda: time.monotonic() + _SESSION_SECONDS)

    @property
    def sees_acts(self) -> bool:
        """True where every act may be shown: to who may answer for every policy."""
        return "*" in self.approver.policies


class _Bucket:
    """Lets `burst` guesses through at once, and one more each `every` seconds."""

    def __init__(self, burst: float, every: float) -> None:
        self.burst, self.every = burst, every
        self.left, self.at = burst, time.monotonic()

    def wait(self) -> float:
        """Seconds until the next guess may be made."""
        now = time.monotonic()
        self.left = min(self.burst, self.left + (now - self.at) / self.every)
        self.at = now
        return 0.0 if self.left >= 1.0 else (1.0 - self.left) * self.every

    def take(self) -> None:
        self.left -= 1.0


class Access:
    """The doors of one inbox.

    Args:
        approvers: Whose tokens open it.
        hosts: `host:port` names that it answers to, beside those of this machine itself.
        secure: It is reached over https only.
    """

    def __init__(self, approvers: Approvers, hosts: Iterable[str] = (), *, secure: bool = False) -> None:
        self._approvers = approvers
        self._hosts = {host.lower() for host in hosts}
        self.secure = secure
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._guesses: OrderedDict[str, _Bucket] = OrderedDict()
        self._everyone = _Bucket(100, 0.6)
        self._lock = threading.Lock()

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def by_token(self, request: Request, token: str) -> Approver:
        """The approver whose token this is.

        Raises:
            TooManyGuessesError: Too many wrong tokens came before; a right one counts as before.
            UnauthorizedError: It is nobody's.
        """
        approver = await anyio.to_thread.run_sync(self._approvers.by_token, token)
        if approver is not None:
            return approver
        raise self.wrong(request)

    def wrong(
        self, request: Request, instead: str = "`creto approver token NAME` gives a new one"
    ) -> UnauthorizedError:
        """What a wrong token gets; too many of them get a wait."""
        client = request.client.host if request.client else "?"
        with self._lock:
            bucket = self._guesses.pop(client, None) or _Bucket(10, 6.0)
            self._guesses[client] = bucket
            while len(self._guesses) > 10_000:
                self._guesses.popitem(last=False)
            wait = max(bucket.wait(), self._everyone.wait())
            if wait == 0.0:
                bucket.take()
                self._everyone.take()
        if wait > 0.0:
            return TooManyGuessesError("too many wrong tokens; wait a little", retry_after=wait)
        return UnauthorizedError(f"this token opens nothing; {instead}")

    async def bearer(self, request: Request) -> Approver:
        """The approver whose token is in the request's `Authorization` header.

        Raises:
            UnauthorizedError: There is none, or it is nobody's.
        """
        return await self.by_token(request, self.shown(request))

    @staticmethod
    def shown(request: Request, wanted: str = "inbox token") -> str:
        """The token in the request's `Authorization` header.

        Raises:
            UnauthorizedError: There is none.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError(f"say who you are: `Authorization: Bearer <{wanted}>`")
        return token.strip()

    # --- sessions -----------------------------------------------------------------------------------------------------

    def open(self, approver: Approver, token: str) -> tuple[str, str]:
        """Begins a session: the cookie's value, and the path that it lives under."""
        id, place = secrets.token_urlsafe(32), "" if self.secure else f"/s/{secrets.token_urlsafe(16)}"
        with self._lock:
            self._sessions[id] = Session(approver, token, place)
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return id, place

    def cookie(self, place: str) -> str:
        """The name of the cookie: nobody who does not know the path can set one that is taken for it."""
        # Browsers take a cookie of this prefix from the very host alone: no neighbour under the same domain sets one.
        return "__Host-creto_inbox" if self.secure else f"creto_inbox_{place.rpartition('/')[2]}"

    def remember(self, response: Response, id: str, place: str) -> None:
        """Sets the cookie of a session."""
        response.set_cookie(
            self.cookie(place),
            id,
            httponly=True,
            samesite="lax",  # strict would sign people out who follow a link from their mail
            secure=self.secure,
            max_age=_SESSION_SECONDS,
            path=place or "/",
        )

    def split(self, path: str) -> tuple[str, str]:
        """A path in two: that of a session, where it begins with one, and the page."""
        found = None if self.secure else _PLACE.match(path)
        return (found[1], found[2]) if found else ("", path)

    async def session(self, request: Request) -> Session | None:
        """The session of a request; it ends with the approver's right to answer, and with its token."""
        with self._lock:
            session = self._sessions.get(self._id(request))
        if session is None or time.monotonic() > session.until or session.place != place_of(request):
            return None
        approver = await anyio.to_thread.run_sync(self._approvers.by_token, session.token)
        if approver is None or approver.id != session.approver.id:
            self.close(request)
            return None
        session.approver = approver
        return session

    def close(self, request: Request) -> None:
        """Ends the session of a request."""
        with self._lock:
            self._sessions.pop(self._id(request), None)

    def _id(self, request: Request) -> str:
        return request.cookies.get(self.cookie(place_of(request)), "")

    # --- other sites --------------------------------------------------------------------------------------------------

    def require_host(self, request: Request) -> None:
        """Refuses a name that is not ours: a page elsewhere may have pointed its own name at this machine.

        Raises:
            InvalidInputError: The request was sent to another name.
        """
        host = request.headers.get("host", "").lower()
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if host not in self._hosts and name not in _LOOPBACK:
            raise InvalidInputError("this inbox does not answer to that name")

    def require_same_site(self, request: Request) -> None:
        """Refuses what a page of another site sends.

        Raises:
            UnauthorizedError: The browser says that it came from elsewhere.
        """
        fetch = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        try:
            ours = origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
        except ValueError:
            ours = False
        if fetch not in (None, "same-origin", "none") or not ours:
            raise UnauthorizedError("this was sent by another site, and counts for nothing")

    @staticmethod
    def require_csrf(session: Session, given: str) -> None:
        """Refuses a form that this inbox did not write for this session.

        Raises:
            UnauthorizedError: The token in the form is missing or wrong.
        """
        if not hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "surrogatepass")):
            raise UnauthorizedError("this form is not from your page of the inbox; open the request again")


def place_of(request: Request) -> str:
    """The path of the session that a request was sent under; empty where there is none."""
    return str(request.scope.get("root_path", ""))


def status_of(error: CretoError) -> int:
    """The HTTP status for an error."""
    if isinstance(error, TooManyGuessesError):
        return 429
    return {
        "NotFound": 404,
        "InvalidInput": 422,
        "Unauthorized": 403,
        "Timeout": 503,
        "LedgerFull": 503,
        "SignatureVerificationFailed": 409,
    }.get(error.kind, 500)
