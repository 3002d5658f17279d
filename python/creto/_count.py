"""How many, how much and how long ago, in words."""

from __future__ import annotations

__all__ = ["MONEY_SCALE", "SPENT", "ago", "counted", "currency_of", "measured"]

MONEY_SCALE = 10**9
"""Money is counted in billionths of its currency's unit: one token can cost less than a millionth of it."""
SPENT = "spent:"
"""How the meters begin that say what acts cost in all, by prices and by their own word; `cost:` is their own word."""


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


def currency_of(meter: str) -> str | None:
    """The currency that a meter counts; None where it counts no money.

    Args:
        meter: What is counted.

    Example:
        >>> currency_of("cost:USD"), currency_of("spent:EUR"), currency_of("tool_calls")
        ('USD', 'EUR', None)
    """
    money, sign, currency = meter.partition(":")
    return currency if sign and money in {"cost", "spent"} else None


def measured(meter: str, units: int) -> str:
    """A quantity of a meter, for people: money as money.

    Args:
        meter: What was counted.
        units: How much, in the meter's smallest unit.

    Example:
        >>> measured("tool_calls", 1200), measured("cost:USD", 4_500_000_000)
        ('1,200', '4.50 USD')
    """
    currency = currency_of(meter)
    if not currency:
        return f"{units:,}"
    whole, rest = divmod(abs(units), MONEY_SCALE)
    return f"{'-' if units < 0 else ''}{whole:,}.{f'{rest:09}'.rstrip('0'):0<2} {currency}"


def ago(micros: int, now_us: int) -> str:
    """A moment against now, for people.

    Example:
        >>> ago(0, 90_000_000), ago(90_000_000, 0)
        ('1 min ago', 'in 1 min')
    """
    seconds = abs(now_us - micros) // 1_000_000
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            text = f"{seconds // size} {name}"
            break
    else:
        text = f"{seconds} s"
    return f"{text} ago" if micros <= now_us else f"in {text}"
