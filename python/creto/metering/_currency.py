"""Currencies: how many decimal places their smallest coin has (ISO 4217, list one)."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from creto.errors import InvalidInputError

__all__ = ["added", "money", "places", "round_half_even"]

_NONE = [
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"),
    *("PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
]
_THREE = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
_FOUR = ["CLF", "UYW"]
_EXACT = Context(prec=1_000, traps=[Inexact])
_PLACES = {**dict.fromkeys(_NONE, 0), **dict.fromkeys(_THREE, 3), **dict.fromkeys(_FOUR, 4)}


def places(currency: str) -> int:
    """How many decimal places amounts of a currency have.

    Args:
        currency: Three capital letters, by ISO 4217.

    Raises:
        InvalidInputError: It is not three capital letters.

    Example:
        >>> places("USD"), places("JPY"), places("KWD")
        (2, 0, 3)
    """
    if len(currency) != 3 or not (currency.isascii() and currency.isalpha() and currency.isupper()):
        raise InvalidInputError(f"currency `{currency}`: write three capital letters, such as `USD`")
    return _PLACES.get(currency, 2)


def round_half_even(amount: Fraction, digits: int) -> Decimal:
    """The nearest decimal of so many places; of two equally near the one that ends in an even digit.

    Args:
        amount: Exact.
        digits: Places after the point.

    Example:
        >>> round_half_even(Fraction(1, 8), 2), round_half_even(Fraction(3, 8), 2)
        (Decimal('0.12'), Decimal('0.38'))
    """
    whole, rest = divmod(amount.numerator * 10**digits, amount.denominator)
    twice = 2 * rest
    if twice > amount.denominator or (twice == amount.denominator and whole % 2):
        whole += 1
    # In a context of its own: the usual one would round to 28 digits.
    return _EXACT.scaleb(Decimal(whole), -digits)


def added(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of amounts, exactly."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def money(amount: Fraction, currency: str) -> Decimal:
    """An exact amount as it is invoiced."""
    return round_half_even(amount, places(currency))
