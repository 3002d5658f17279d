"""What others answer over HTTP: where it goes on, how much it is, and how long it takes, is not theirs to choose."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from creto.errors import ConnectionFailedError, InvalidInputError

__all__ = ["ask", "shown"]

_LONGEST = 300.0  # seconds for the whole of one answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Who is asked does not choose what else is asked from here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follows none."""
        return


_opener = urllib.request.build_opener(_NoRedirect)


def shown(url: str) -> str:
    """An address for people: without a password, and without options, which a token may stand among.

    Example:
        >>> shown("https://me:hush@example.org/checkpoints?token=hush")
        'https://example.org/checkpoints'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def ask(request: urllib.request.Request, *, most: int, seconds: float = 30.0) -> tuple[int, bytes]:
    """The status and the whole of an answer; a redirect is one like any other.

    Args:
        request: What is asked; its scheme was checked.
        most: Bytes that it may have.
        seconds: Until something comes; all of it has five minutes.

    Raises:
        InvalidInputError: It has more bytes.
        ConnectionFailedError: Nothing answers, it breaks off, or takes too long.
    """
    try:
        with _opener.open(request, timeout=seconds) as answer:
            return answer.status, _whole(answer, shown(request.full_url), most)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _whole(error, shown(request.full_url), most)
    except OSError as error:
        why = getattr(error, "reason", error)
        raise ConnectionFailedError(f"{shown(request.full_url)} does not answer: {why}") from error


def _whole(answer: Any, url: str, most: int) -> bytes:
    parts, length, end = [], 0, time.monotonic() + _LONGEST
    while part := answer.read1(1 << 16):
        parts.append(part)
        length += len(part)
        if length > most:
            raise InvalidInputError(f"{url} answers more than {most} bytes")
        if time.monotonic() > end:
            raise ConnectionFailedError(f"{url} has not answered in full within {_LONGEST:.0f} s")
    if answer.length:
        raise ConnectionFailedError(f"{url} breaks off {answer.length} bytes before its end")
    return b"".join(parts)
