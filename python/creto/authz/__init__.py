"""Policy: Cedar policies decide what an agent may do, and what a human is asked about."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from creto._core import Decision as Decision
    from creto._core import PolicyEngine as PolicyEngine

__all__ = ["Decision", "PolicyEngine", "starter", "starter_schema"]


def __getattr__(name: str) -> object:
    if name in ("Decision", "PolicyEngine"):
        from creto import _core

        return getattr(_core, name)
    raise AttributeError(f"module `creto.authz` has no attribute `{name}`")


def starter(name: str = "default") -> str:
    """The text of a starter policy set.

    Args:
        name: `default`, or one of those that `creto policy new` lists.

    Returns:
        Cedar policies.

    Raises:
        FileNotFoundError: There is no set of that name.

    Example:
        >>> from creto.authz import starter
        >>> "secrets-never" in starter()
        True
    """
    return resources.files("creto.authz").joinpath("starter", f"{name}.cedar").read_text(encoding="utf-8")


def starter_schema() -> str:
    """The schema of the starter sets: the vocabulary of acts.

    Example:
        >>> from creto.authz import starter_schema
        >>> 'action "tool:call"' in starter_schema()
        True
    """
    return resources.files("creto.authz").joinpath("starter", "schema.cedarschema").read_text(encoding="utf-8")
