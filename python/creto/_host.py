"""The host that a URL leads to, as policies know it: one name for what readers of URLs write in many ways."""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from functools import lru_cache
from urllib.parse import urlsplit

from creto.errors import InvalidInputError

__all__ = ["bare", "host_of", "require_plain_path", "usual"]

# As the decision engine reads names: a type and one quoted text, to the end.
_TYPED = re.compile(r'[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*::"((?:[^"\\]|\\.)*)"', re.ASCII | re.DOTALL)
_WEB = re.compile(r"https?:", re.IGNORECASE)
# What some readers skip, take for `/` or decode, and others do not: they would be led to different hosts.
_SKIPPED = re.compile(r"^[\s\x00-\x20]|[\t\r\n]")
_MOST = 255
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")  # RFC 3986, section 2.3
_TWO_READINGS = re.compile(r"[\x00-\x20\x7f\\%<>^`{|}]")


def host_of(url: str) -> str:
    """The host of a URL in small letters, as IDNA writes it, without a dot at its end; an address in its usual form.

    Empty where it is no URL of http or https, and names none.

    Args:
        url: As an act's resource gives it; `Url::"https://..."` too.

    Raises:
        InvalidInputError: Two readers of URLs may be led to two hosts by it.

    Example:
        >>> host_of("https://Example.ORG./a"), host_of("http://0x7f.1:8080/"), host_of("http://[::ffff:127.0.0.1]/")
        ('example.org', '127.0.0.1', '127.0.0.1')
    """
    url = bare(url)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        web = _WEB.match(url) is not None
        if _SKIPPED.search(url) or (web and not host) or (host and _TWO_READINGS.search(parts.netloc)):
            raise ValueError("not every reader of URLs finds the same one")
        return usual(host) if host else ""
    except ValueError as error:
        raise InvalidInputError(
            f"the host of `{url}` is not certain: {error}; write a URL as `https://example.org/path`"
        ) from error


def require_plain_path(url: str) -> None:
    """Refuses a URL whose path its readers write anew before they look at it (RFC 3986, sections 5.2.4 and 6.2.2.2).

    A policy that names `/admin` would know nothing of `/a/../admin`, `/%61dmin` or `/a\\..\\admin`.

    Args:
        url: As an act's resource gives it; `Url::"https://..."` too.

    Raises:
        InvalidInputError: There is a shorter way to write it.

    Example:
        >>> require_plain_path("https://example.org/a%2Fb/..c?up=../%61")
        >>> require_plain_path("https://example.org/a/%2e%2e/b")
        Traceback (most recent call last):
        ...
        creto.errors.InvalidInputError: the path of `https://example.org/a/%2e%2e/b` can be written shorter: ...
    """
    path = urlsplit(bare(url)).path
    # Some servers leave out what stands behind `;` in a step before they look where it leads.
    leads = any(step.partition(";")[0] in {".", ".."} for step in path.split("/"))
    if leads or "\\" in path or any(_UNRESERVED.fullmatch(chr(int(code, 16))) for code in _ESCAPE.findall(path)):
        raise InvalidInputError(
            f"the path of `{bare(url)}` can be written shorter: leave out `.` and `..`, write `/` for a backslash, "
            "and letters and digits as they are"
        )


def bare(name: str) -> str:
    """The id of an action or a resource, which may be written with its type.

    Args:
        name: `http:get`, or `Action::"http:get"`.

    Raises:
        InvalidInputError: It is written with its type, and letters of the id as escapes.

    Example:
        >>> bare("http:get"), bare('Action::"http:get"')
        ('http:get', 'http:get')
    """
    typed = _TYPED.fullmatch(name) if name.endswith('"') else None
    if typed is None:
        return name
    if "\\" in typed[1]:
        raise InvalidInputError(f"`{name}`: write the id as it is, without escapes")
    return typed[1]


@lru_cache(maxsize=1024)
def usual(host: str) -> str:
    """A host's name or address in the one form in which policies know it.

    Args:
        host: As a URL names it, without brackets.

    Raises:
        ValueError: It is none.

    Example:
        >>> usual("Example.org."), usual("2130706433")
        ('example.org', '127.0.0.1')
    """
    if len(host) > _MOST:
        raise ValueError(f"a name has at most {_MOST} characters")
    if ":" in host:
        address = ipaddress.IPv6Address(host)
        return str(address.ipv4_mapped or address)
    host = _ascii(host).rstrip(".")
    if not host:
        raise ValueError("it is empty")
    try:
        # `0x7f.1`, `2130706433` and `0177.0.0.1` are 127.0.0.1 to whatever asks the system for a name.
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _ascii(host: str) -> str:
    """A name in the letters that are looked up."""
    if host.isascii():
        return host.encode("idna").decode().lower()
    name = unicodedata.normalize("NFC", host.lower())
    looked_up = name.encode("idna").decode()
    # What one edition of IDNA keeps and another replaces or leaves out (`ß` and `ss`) is two names to two readers.
    if looked_up.encode().decode("idna") != name or unicodedata.normalize("NFKC", name.casefold()) != name:
        raise ValueError("not every reader takes its letters for the same; write it as it is looked up (`xn--...`)")
    return looked_up
