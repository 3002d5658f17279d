"""What the resource of an act tells of its circumstances, which policies decide on whatever a caller's context says."""

from __future__ import annotations

import posixpath
from typing import Any

from creto._host import bare, host_of, require_plain_path, usual
from creto.errors import InvalidInputError

__all__ = ["circumstances", "facts_of"]


def facts_of(action: str, resource: str) -> dict[str, Any]:
    """The host of a URL, host and port of a connection, the path of a file; nothing of other actions.

    Args:
        action: `namespace:verb`; `Action::"namespace:verb"` too.
        resource: On what, likewise.

    Raises:
        InvalidInputError: Two readers could be led to two places by it.

    Example:
        >>> facts_of("net:connect", "Example.org:443"), facts_of("fs:read", "src/main.py")
        ({'host': 'example.org', 'port': 443}, {'path': 'src/main.py'})
    """
    action = bare(action)
    if action.startswith("http:"):
        host = host_of(resource)
        if host:
            require_plain_path(resource)
        return {"host": host}  # a request to what is no URL has none
    if action.startswith("fs:"):
        return {"path": _path(bare(resource))}
    return _destination(bare(resource)) if action == "net:connect" else {}


def circumstances(action: str, resource: str, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The context that policies decide on: what the resource tells is in it, and nothing that says otherwise."""
    if not (isinstance(action, str) and isinstance(resource, str)):
        name, wrong = ("resource", resource) if isinstance(action, str) else ("action", action)
        raise InvalidInputError(f"{name} `{wrong!r}`: write text, as `http:get` on `https://example.org`")
    facts = facts_of(action, resource)
    for name, fact in facts.items():
        if given and name in given and not _is(given[name], fact):
            leads = f"leads to `{fact}`; leave `{name}` out" if fact else "is no URL: write `https://example.org/path`"
            raise InvalidInputError(f"the context says the {name} is `{given[name]}`, and `{resource}` {leads}")
    return {**(given or {}), **facts} if facts else given


def _is(given: Any, fact: str | int) -> bool:
    try:
        return type(given) is type(fact) and (given == fact or (isinstance(given, str) and usual(given) == fact))
    except ValueError:
        return False


def _path(path: str) -> str:
    # `src/../../etc/passwd` begins with `src/`, and lies elsewhere.
    if "\0" in path or path.startswith("//") or posixpath.normpath(path) != path or path.split("/")[0] == "..":
        raise InvalidInputError(
            f"`{path}` is not the shortest way to write this path; leave out `.`, `..` and doubled `/`"
        )
    return path


def _destination(resource: str) -> dict[str, Any]:
    host, colon, port = resource.rpartition(":")
    if not colon:
        host = resource
    elif not (port.isascii() and port.isdigit() and len(port) <= len("65535")):
        # `https`, ` 443` and `000443` are ports to those who look them up, and none to others.
        raise InvalidInputError(f"the port of `{resource}` is not certain; write `example.org:443`")
    try:
        return {"host": usual(host.strip("[]")), **({"port": int(port)} if colon else {})}
    except ValueError as error:
        raise InvalidInputError(f"the host of `{resource}` is not certain: {error}; write `example.org:443`") from error
