"""`guard`: a function whose every call is an act, its bound arguments the context."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.layer import Durability, EnablementLayer
    from creto.nhi import Agent

__all__ = ["acting", "guard"]

P = ParamSpec("P")
R = TypeVar("R")

acting: ContextVar[Agent | None] = ContextVar("creto-acting", default=None)
"""The agent that guarded functions act as, where none is named."""


def guard(
    layer: EnablementLayer,
    action: str,
    resource: str | Callable[..., str] | None,
    context: Mapping[str, Any] | None,
    usage: Mapping[str, int] | None,
    agent: Agent | None,
    durability: Durability | None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """The decorator; see `EnablementLayer.guard`."""

    if not isinstance(action, str):
        raise InvalidInputError(
            '`guard` needs to know the action: write `@layer.guard("tool:call")` above the function'
        )

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__qualname__", repr(function))
            raise InvalidInputError(
                f"`{name}` is not an async function: `guard` wraps what is awaited; use `perform_blocking` for it"
            )
        signature = inspect.signature(function)

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            named = _named(signature, bound.arguments)
            target = resource(**named) if callable(resource) else resource or function.__name__
            result: R = await layer.perform(
                agent or acting.get() or layer.agent(),
                action,
                target,
                lambda: function(*args, **kwargs),
                context={**named, **context} if context else named,
                usage=usage,
                durability=durability,
            )
            return result

        return guarded

    return decorate


def _named(signature: inspect.Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The bound arguments by name, without `self`, without what was left at None, `**kwargs` spread out."""
    named: dict[str, Any] = {}
    for name, value in arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            twice = next((one for one in value if one in named), None)
            if twice is not None:
                # By place for the function, by name for whoever decides: they would see another value than it uses.
                raise InvalidInputError(f"`{twice}` is given twice, once by its place and once by name; give it once")
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            if value:
                named[name] = list(value)
        elif value is not None and not (name in {"self", "cls"} and not named):
            named[name] = value
    return named
