"""One POST, by the standard library: no redirect is followed, so that a receiver cannot send us elsewhere."""

from __future__ import annotations

import builtins
import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from creto.errors import ConnectionFailedError, CretoError, InvalidInputError, TimeoutError, UnauthorizedError

__all__ = ["post"]

_TIMEOUT = 10.0
_MOST = 4096


def post(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """Posts a body and returns the status line of a success.

    Args:
        url: `https://...`; `http://` too, for receivers on this machine or behind a tunnel.
        body: What is sent.
        headers: Beside those that HTTP needs.

    Raises:
        TimeoutError: No answer within 10 s, or the receiver asked to be left alone for a while.
        ConnectionFailedError: It could not be reached, or has a fault of its own.
        UnauthorizedError: It refuses us.
        InvalidInputError: It, or the URL, will never work.
    """
    # The path of an incoming webhook is its secret: errors name the host only.
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise InvalidInputError("the channel's URL must begin with `https://` or `http://` and name a host")
    where = f"`{parts.hostname}`"
    if not all("!" <= character <= "~" for character in url):
        raise InvalidInputError(f"the channel's URL at {where} has a blank or another character that no URL has")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"User-Agent": "creto", **headers})
        with connection.getresponse() as response:
            said = response.read(_MOST).decode(errors="replace").strip()
    except socket.gaierror as error:
        raise ConnectionFailedError(f"{where} has no address: {error.strerror}") from error
    except builtins.TimeoutError as error:
        raise TimeoutError(f"{where} did not answer within {_TIMEOUT:.0f} s") from error
    except ssl.SSLCertVerificationError as error:
        raise InvalidInputError(f"{where} cannot be trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionFailedError(f"{where} could not be reached: {error}") from error
    finally:
        connection.close()
    if 200 <= response.status < 300:
        return f"{response.status} {response.reason}"
    raise _refused(response, where, said[:200])


def _refused(response: http.client.HTTPResponse, where: str, said: str) -> CretoError:
    text = f"{where} answered {response.status} {response.reason}" + (f": {said}" if said else "")
    if response.status in (408, 425, 429):
        wait = response.headers.get("Retry-After", "")
        return TimeoutError(text, retry_after=float(wait) if wait.isdigit() else None)
    if response.status >= 500:
        return ConnectionFailedError(text)
    if response.status in (401, 403):
        return UnauthorizedError(text)
    return InvalidInputError(text)
