"""How many, in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in the singular where it is one.

    Args:
        number: How many.
        noun: In the singular; its plural ends in `s`.

    Example:
        >>> counted(1, "event"), counted(0, "event"), counted(12, "record")
        ('1 event', '0 events', '12 records')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
