"""How many, in words."""

from __future__ import annotations

__all__ = ["MONEY_SCALE", "counted", "measured"]

MONEY_SCALE = 10**9
"""Money is counted in billionths of its currency's unit: one token can cost less than a millionth of it."""


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


def measured(meter: str, units: int) -> str:
    """A quantity of a meter, for people: money as money.

    Args:
        meter: What was counted.
        units: How much, in the meter's smallest unit.

    Example:
        >>> measured("tool_calls", 1200), measured("cost:USD", 4_500_000_000)
        ('1,200', '4.50 USD')
    """
    money, _, currency = meter.partition(":")
    if money != "cost" or not currency:
        return f"{units:,}"
    whole, rest = divmod(abs(units), MONEY_SCALE)
    return f"{'-' if units < 0 else ''}{whole:,}.{f'{rest:09}'.rstrip('0'):0<2} {currency}"
