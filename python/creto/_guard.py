"""`guard`: a function whose every call is an act, its bound arguments the context."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.layer import Durability, EnablementLayer
    from creto.nhi import Agent

__all__ = ["acting", "guard"]

F = TypeVar("F", bound=Callable[..., Any])

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
) -> Callable[[F], F]:
    """The decorator; see `EnablementLayer.guard`."""

    if not isinstance(action, str):
        raise InvalidInputError(
            '`guard` needs to know the action: write `@layer.guard("tool:call")` above the function'
        )

    def decorate(function: F) -> F:
        if isinstance(function, staticmethod | classmethod):
            raise InvalidInputError(
                f"`{function.__qualname__}`: write `@{type(function).__name__}` above `@layer.guard(...)`, not below it"
            )
        called = getattr(function, "__qualname__", repr(function))  # a partial has none
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInputError(
                f"`{called}` yields: a call of it does nothing yet, so the act would be over before it began; guard "
                "what it does each time"
            )
        if resource is None and not hasattr(function, "__name__"):
            raise InvalidInputError(f"`{called}` has no name to go by: say on what it acts, by `resource=`")
        signature = inspect.signature(function)

        def act(perform: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            named = _named(signature, bound.arguments)
            target = resource(**named) if callable(resource) else resource or function.__name__
            return perform(
                agent or acting.get() or layer.agent(),
                action,
                target,
                lambda: function(*args, **kwargs),
                context={**named, **context} if context else named,
                usage=usage,
                durability=durability,
            )

        @functools.wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            return await act(layer.perform, args, kwargs)

        @functools.wraps(function)
        def guarded_blocking(*args: Any, **kwargs: Any) -> Any:
            return act(layer.perform_blocking, args, kwargs)

        if inspect.iscoroutinefunction(function):
            return cast(F, guarded)
        if layer._portal is None:
            raise InvalidInputError(
                f"`{called}` is not an async function, and a layer of `creto.open()` guards what is awaited: make it "
                "one, or open the layer by `creto.open_blocking()`"
            )
        return cast(F, guarded_blocking)

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
