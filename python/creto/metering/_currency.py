"""Amounts of money: exact, and rounded to the smallest coin of their currency."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from creto.config._currencies import PLACES
from creto.errors import InvalidInputError

__all__ = ["added", "coin", "money", "payable", "places", "round_half_even"]

_EXACT = Context(prec=1_000, traps=[Inexact])


def places(currency: str) -> int:
    """How many decimal places amounts of a currency have.

    Args:
        currency: Three capital letters, by ISO 4217.

    Raises:
        InvalidInputError: It is no currency of that list.

    Example:
        >>> places("USD"), places("JPY"), places("KWD")
        (2, 0, 3)
    """
    found = PLACES.get(currency)
    if found is None:
        raise InvalidInputError(f"currency `{currency}`: write one of ISO 4217 in three capital letters, such as `USD`")
    return found


def coin(currency: str) -> Decimal:
    """The smallest amount of a currency that can be paid.

    Raises:
        InvalidInputError: It is no currency of that list.

    Example:
        >>> coin("USD"), coin("JPY")
        (Decimal('0.01'), Decimal('1'))
    """
    return Decimal(1).scaleb(-places(currency))


def payable(amount: Decimal, currency: str) -> bool:
    """True for what can be paid: a positive amount below 10^18 of whole smallest coins.

    Args:
        amount: In the currency's unit.
        currency: Three capital letters, by ISO 4217.

    Raises:
        InvalidInputError: It is no currency of that list, or the amount no `Decimal`.

    Example:
        >>> [payable(Decimal(text), "EUR") for text in ("2.50", "2.505", "-1", "1e999999", "nan")]
        [True, False, False, False, False]
    """
    smallest = coin(currency)
    if not isinstance(amount, Decimal):
        raise InvalidInputError(f"{amount} {currency}: an amount of money is a Decimal, such as `Decimal('2.50')`")
    return amount.is_finite() and amount > 0 and amount.adjusted() < 18 and not amount % smallest


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
