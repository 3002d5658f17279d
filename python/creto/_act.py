"""An act under way, as its operation sees it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto._course import Course

__all__ = ["Act", "failure", "nothing", "takes_act"]


class Act:
    """An act under way, handed to an operation that wants to say what it really used.

    Args:
        course: What the layer holds of it.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     def ask(act):
        ...         act.charge(tokens=321)
        ...         return len(act.id), act.used
        ...     layer.perform_blocking(layer.agent("writer"), "model:call", "small", ask, usage={"tokens": 500})
        (32, {'tokens': 321})
    """

    __slots__ = ("_course",)

    def __init__(self, course: Course) -> None:
        self._course = course

    @property
    def id(self) -> str:
        """32 hexadecimal digits that the act's records share."""
        return self._course.permit.act.hex()

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who agreed to it, where a human was asked."""
        clearance = self._course.clearance
        return clearance.approvers if clearance is not None else ()

    @property
    def used(self) -> Mapping[str, int] | None:
        """What it used, by meter: what was reserved, until `charge` says otherwise."""
        return self._course.used

    def charge(self, **usage: int) -> None:
        """Says what was really used, in place of what was reserved.

        Args:
            usage: Quantities by meter, in the meter's smallest unit; meters that are not named keep what was reserved.

        Raises:
            InvalidInputError: One of them is no quantity, or has a price by time that a budget cannot count; what was
                reserved stays.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     ask = lambda act: act.charge(tokens=321) or act.used["tokens"]
            ...     layer.perform_blocking(layer.agent("writer"), "model:call", "small", ask, usage={"tokens": 500})
            321
        """
        for meter, quantity in usage.items():
            # Here, where the operation still goes on: at its end it would be done, and could not be charged.
            if not isinstance(quantity, int) or not 0 <= quantity < 2**63:
                raise InvalidInputError(f"usage of `{meter}`: {quantity!r}: write a whole number from 0 to 2^63-1")
        self._course.used = self._course.spending({**(self._course.used or {}), **usage})


def nothing() -> None:
    """The act is the message itself; the mailbox carries it out once this has been let in."""


def takes_act(operation: Callable[..., Any]) -> bool:
    code = getattr(operation, "__code__", None)
    if code is not None:
        # The common case, ten times faster than a signature: a plain function says how many arguments it takes.
        if not code.co_argcount:
            return False
        bound = 1 if inspect.ismethod(operation) else 0
        defaults = len(operation.__defaults__ or ())
        return bool(code.co_argcount - bound - defaults > 0)
    try:
        parameters = inspect.signature(operation).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def failure(error: BaseException) -> str:
    if isinstance(error, anyio.get_cancelled_exc_class()):
        return "cancelled"
    text = str(error)
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__
