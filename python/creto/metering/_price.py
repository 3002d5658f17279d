"""What usage costs: prices by meter, customer, dimensions and date, in exact fractions, rounded once a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.config import Settings
    from creto.config._sections import Price

__all__ = ["PriceBook", "PricePeriod", "amount"]


def amount(price: Price, quantity: Fraction, *, share: Fraction = Fraction(1)) -> Fraction:
    """What a quantity of one billing period costs, exactly.

    Args:
        price: The price.
        quantity: In units of the meter; what is included is taken off here. For a commitment, what all lines cost.
        share: Which part of the period the price was in force; fees, included units and minimum are cut to it.

    Raises:
        InvalidInputError: The quantity is negative: corrections took away more than there was.

    Example:
        >>> from creto.config import Price
        >>> amount(Price(meter="m", unit_price="0.5", included=10), Fraction(14))
        Fraction(2, 1)
    """
    exact = _exact(price)
    if price.model == "commitment":
        return max(_NOTHING, exact.unit * share - quantity)
    if quantity < 0:
        raise InvalidInputError(
            f"usage of `{price.meter}` adds up to {quantity}: corrections took away more than there was"
        )
    charged = max(_NOTHING, quantity - exact.included * share) if exact.included else quantity
    match price.model:
        case "per_unit":
            total = charged * exact.each
        case "flat":
            total = exact.unit * share
        case "package":
            total = -(-charged // exact.per) * exact.unit
        case "percentage":
            total = charged * exact.unit / 100
        case "dynamic":
            total = charged
        case "graduated":
            total = _graduated(exact, charged)
        case "volume":
            total = _volume(exact, charged)
    if exact.left != 1:
        total *= exact.left
    return max(total, exact.minimum * share) if exact.minimum else total


class _Exact:
    """A price's numbers as fractions, made once."""

    __slots__ = ("each", "included", "left", "minimum", "per", "price", "tiers", "unit")

    def __init__(self, price: Price) -> None:
        self.price = price
        self.unit, self.per = Fraction(price.unit_price), Fraction(price.per)
        self.each = self.unit / self.per
        self.included, self.minimum = Fraction(price.included), Fraction(price.minimum)
        self.left = 1 - Fraction(price.discount) / 100
        self.tiers = [
            (None if tier.up_to is None else Fraction(tier.up_to), Fraction(tier.unit_price), Fraction(tier.flat))
            for tier in price.tiers
        ]


_NOTHING = Fraction(0)
_made: dict[int, _Exact] = {}


def _exact(price: Price) -> _Exact:
    found = _made.get(id(price))
    # The price is kept with it, so that its identity is not another's meanwhile.
    if found is None or found.price is not price:
        if len(_made) > 10_000:
            _made.clear()
        found = _made[id(price)] = _Exact(price)
    return found


def _graduated(exact: _Exact, quantity: Fraction) -> Fraction:
    total = start = _NOTHING
    for up_to, unit, flat in exact.tiers:
        if quantity <= start:
            break
        end = quantity if up_to is None else min(quantity, up_to)
        total += (end - start) * unit + flat
        start = end
    return total


def _volume(exact: _Exact, quantity: Fraction) -> Fraction:
    if quantity == 0:
        return _NOTHING
    for up_to, unit, flat in exact.tiers:
        if up_to is None or quantity <= up_to:
            return flat + quantity * unit
    return _NOTHING


@dataclass(frozen=True, slots=True)
class PricePeriod:
    """A price, and the part of a billing period in which it is in force.

    Args:
        price: The price.
        start: Microseconds since the epoch.
        end: Microseconds since the epoch; before it.
    """

    price: Price
    start: int
    end: int


class PriceBook:
    """Prices, each from its date on, when it replaces the earlier one of the same meter, customer and dimensions.

    Args:
        prices: As settings hold them.
        currency: Of prices that name none.

    Raises:
        InvalidInputError: Two prices of one meter, customer, dimensions and start.

    Example:
        >>> from creto.config import Price
        >>> book = PriceBook([Price(meter="m", unit_price=2), Price(meter="m", unit_price=1, customer="acme")], "USD")
        >>> [str(found.price.unit_price) for found in book.of("acme", 0, 10)]
        ['1']
    """

    def __init__(self, prices: Iterable[Price], currency: str) -> None:
        self.prices = list(prices)
        self.currency = currency
        # Most customers have no prices of their own: what holds for all of them is worked out once.
        self._named = {price.customer for price in self.prices if price.customer is not None}
        self._shared: dict[tuple[int, int], list[PricePeriod]] = {}
        self._common = {price.currency or currency for price in self.prices if price.customer is None}
        seen = set()
        for price in self.prices:
            key = (price.meter, price.customer, tuple(sorted(price.when.items())), _start(price))
            if key in seen:
                raise InvalidInputError(
                    f"`{price.meter}` has two prices that start at {price.start or 'the beginning'}"
                )
            seen.add(key)

    @classmethod
    def from_settings(cls, settings: Settings) -> PriceBook:
        """The price book that the settings hold, with the prices of language models that they name a table of.

        Raises:
            NotFoundError: There is no such table.
            IntegrityError: A trusted `creto.toml` names it, and it has changed since.
            InvalidInputError: It is none, or two prices are for the same.
        """
        prices = list(settings.prices)
        if settings.metering.model_prices is not None:
            from creto.metering._llm import ModelPrices

            path = settings.metering.model_prices
            table = ModelPrices.load(path, content=settings.read("metering.model_prices", path))
            own = {(price.meter, price.when.get("model")) for price in prices}
            for model in table.models:
                prices += [price for price in table.prices(model) if (price.meter, model) not in own]
        return cls(prices, settings.metering.currency)

    def currency_of(self, customer: str) -> str:
        """The one currency that a customer is invoiced in.

        Raises:
            InvalidInputError: The customer's prices are in more than one.
        """
        found = set(self._common)
        if customer in self._named:
            found = {p.currency or self.currency for p in self.prices if p.customer == customer}
        if len(found) > 1:
            raise InvalidInputError(
                f"customer `{customer}` has prices in {', '.join(sorted(found))}: it is invoiced in one currency"
            )
        return found.pop() if found else self.currency

    def of(self, customer: str, start: int, end: int) -> list[PricePeriod]:
        """What is in force for a customer in a period, each price with its part of it.

        Args:
            customer: The organisation of a path.
            start: Microseconds since the epoch.
            end: Microseconds since the epoch; before it.
        """
        known = self._shared.get((start, end)) if customer not in self._named else None
        if known is not None:
            return known
        series: dict[tuple[Any, ...], list[Price]] = {}
        for price in self.prices:
            if price.customer in {None, customer}:
                series.setdefault((price.meter, tuple(sorted(price.when.items()))), []).append(price)
        found = []
        for prices in series.values():
            own = [price for price in prices if price.customer == customer]
            ranked = sorted(own or prices, key=_start)
            for place, price in enumerate(ranked):
                until = _start(ranked[place + 1]) if place + 1 < len(ranked) else end
                first, last = max(start, _start(price)), min(end, until)
                if first < last:
                    found.append(PricePeriod(price, first, last))
        if customer not in self._named:
            self._shared = {(start, end): found}
        return found


def _start(price: Price) -> int:
    return 0 if price.start is None else int(price.start.timestamp() * 1_000_000)


def matches(price: Price, dimensions: Mapping[str, str]) -> bool:
    """True where an event with these dimensions is priced by this price.

    A condition `>200000` holds for greater numbers; any other for that text.

    Args:
        price: The price.
        dimensions: Of the event.

    Example:
        >>> from creto.config import Price
        >>> long = Price(meter="input_tokens", when={"context_tokens": ">200000"})
        >>> [matches(long, {"context_tokens": text}) for text in ("200000", "200001", "many")]
        [False, True, False]
    """
    for name, wanted in price.when.items():
        value = dimensions.get(name)
        if value is None:
            return False
        if wanted.startswith(">") and wanted[1:].isdecimal():
            if not (value.isdecimal() and int(value) > int(wanted[1:])):
                return False
        elif value != wanted:
            return False
    return True
