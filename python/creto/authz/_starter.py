"""The starter sets: useful unchanged, and a place to begin."""

from __future__ import annotations

from importlib import resources

__all__ = ["starter", "starter_file", "starter_schema", "starters"]


def starter_file(name: str) -> str:
    """The text of a file of the starter sets, by its name."""
    return resources.files("creto.authz").joinpath("starter", name).read_text(encoding="utf-8")


def starter(name: str = "default") -> str:
    """The text of a starter policy set.

    Args:
        name: `default`, or another of `starters()`.

    Returns:
        Cedar policies.

    Raises:
        FileNotFoundError: There is no set of that name.

    Example:
        >>> from creto.authz import starter
        >>> "secrets-never" in starter()
        True
    """
    return starter_file(f"{name}.cedar")


def starter_schema() -> str:
    """The schema of the starter sets: the vocabulary of acts.

    Example:
        >>> from creto.authz import starter_schema
        >>> 'action "tool:call"' in starter_schema()
        True
    """
    return starter_file("schema.cedarschema")


def starters() -> list[str]:
    """The names of the starter sets.

    Example:
        >>> from creto.authz import starters
        >>> starters()
        ['coding', 'default', 'finance', 'research']
    """
    files = resources.files("creto.authz").joinpath("starter").iterdir()
    return sorted(file.name.removesuffix(".cedar") for file in files if file.name.endswith(".cedar"))
