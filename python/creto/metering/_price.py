"""What usage costs: prices by meter, customer, dimensions and date, in exact fractions, rounded once a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import TYPE_CHECKING, Any

from creto._host import bare
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
    total = exact.cost(quantity, share)
    return max(total, exact.minimum * share) if exact.minimum else total


class _Exact:
    """A price in whole numbers: quantities are counted in `1/units`, amounts in `1/coins`; made once."""

    __slots__ = ("coins", "each", "flat", "included", "left", "minimum", "per", "price", "tiers", "unit", "units")

    def __init__(self, price: Price) -> None:
        self.price = price
        self.unit, per, included = Fraction(price.unit_price), Fraction(price.per), Fraction(price.included)
        self.minimum, self.left = Fraction(price.minimum), 1 - Fraction(price.discount) / 100
        tiers = [
            (None if tier.up_to is None else Fraction(tier.up_to), Fraction(tier.unit_price), Fraction(tier.flat))
            for tier in price.tiers
        ]
        bounds = [up_to for up_to, _, _ in tiers if up_to is not None]
        rates = [rate for _, unit, flat in tiers for rate in (unit, flat)]
        self.units = lcm(*(number.denominator for number in (per, included, *bounds)))
        self.coins = lcm(*(number.denominator for number in (self.unit, self.unit / per, *rates)))
        self.per, self.included = int(per * self.units), int(included * self.units)
        self.flat, self.each = int(self.unit * self.coins), int(self.unit / per * self.coins)
        self.tiers = [
            (None if up_to is None else int(up_to * self.units), int(unit * self.coins), int(flat * self.coins))
            for up_to, unit, flat in tiers
        ]

    def cost(self, quantity: Fraction, share: Fraction) -> Fraction:
        """What a quantity costs, before the minimum: in whole numbers, since a fraction is reduced at every step."""
        # Of both the quantity's own parts and those of the price: a quantity is so many of `1/parts`.
        more = quantity.denominator * share.denominator
        parts = self.units * more
        charged = quantity.numerator * self.units * share.denominator
        charged = max(0, charged - self.included * share.numerator * quantity.denominator)
        below = self.coins * parts
        match self.price.model:
            case "per_unit":
                total = charged * self.each
            case "flat":
                total = self.flat * share.numerator * quantity.denominator * self.units
            case "package":
                total = -(-charged // (self.per * more)) * self.flat * parts
            case "percentage":
                total, below = charged * self.flat, below * 100
            case "dynamic":
                total = charged * self.coins
            case "graduated":
                total = self._graduated(charged, more)
            case "volume":
                total = self._volume(charged, more)
        return Fraction(total * self.left.numerator, below * self.left.denominator)

    def _graduated(self, charged: int, more: int) -> int:
        total = start = 0
        for up_to, unit, flat in self.tiers:
            if charged <= start:
                break
            end = charged if up_to is None else min(charged, up_to * more)
            total += (end - start) * unit + flat * self.units * more
            start = end
        return total

    def _volume(self, charged: int, more: int) -> int:
        if charged == 0:
            return 0
        for up_to, unit, flat in self.tiers:
            if up_to is None or charged <= up_to * more:
                return flat * self.units * more + charged * unit
        return 0


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
        self.named = {price.customer for price in self.prices if price.customer is not None}
        """Who has prices of their own."""
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
            own = {(price.meter, price.when.get(name)) for price in prices for name in ("model", "resource")}
            for model in table.models:
                prices += [price for price in table.prices(model) if (price.meter, model) not in own]
        return cls(prices, settings.metering.currency)

    def currency_of(self, customer: str) -> str:
        """The one currency that a customer is invoiced in.

        Raises:
            InvalidInputError: The customer's prices are in more than one.
        """
        found = set(self._common)
        if customer in self.named:
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
        known = self._shared.get((start, end)) if customer not in self.named else None
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
        if customer not in self.named:
            self._shared = {(start, end): found}
        return found


def _start(price: Price) -> int:
    return 0 if price.start is None else round(price.start.timestamp() * 1_000_000)


@lru_cache(1024)
def _id(name: str) -> str:
    try:
        return bare(name)
    except InvalidInputError:
        return name  # with escapes in it: it is on record so, and no id that a price can name


def known(dimensions: Mapping[str, str]) -> Mapping[str, str]:
    """Dimensions as prices know them: action and resource by their ids, and the model that a call of one is on.

    Args:
        dimensions: Of an event.

    Example:
        >>> known({"action": "model:call", "resource": 'Model::"small"'})
        {'model': 'small', 'action': 'model:call', 'resource': 'small'}
    """
    action, resource = dimensions.get("action", ""), dimensions.get("resource", "")
    if action != "model:call" and action[-1:] != '"' and resource[-1:] != '"':
        return dimensions  # what nearly every event is
    ids = {"action": _id(action), "resource": _id(resource)}
    model = {"model": ids["resource"]} if ids["action"] == "model:call" else {}
    return {**model, **dimensions, **ids}


def matches(price: Price, dimensions: Mapping[str, str]) -> bool:
    """True where an event with these dimensions is priced by this price.

    A condition `>200000` holds for greater numbers; any other for that text.

    Args:
        price: The price.
        dimensions: Of the event, as `known` gives them.

    Example:
        >>> from creto.config import Price
        >>> long = Price(meter="input_tokens", when={"context_tokens": ">200000"})
        >>> [matches(long, {"context_tokens": text}) for text in ("200000", "200001", "many")]
        [False, True, False]
    """
    for name, written in price.when.items():
        value = dimensions.get(name)
        if value is None:
            return False
        wanted = _id(written) if name in {"action", "resource"} else written
        if wanted.startswith(">") and wanted[1:].isdecimal():
            if not (value.isdecimal() and int(value) > int(wanted[1:])):
                return False
        elif value != wanted:
            return False
    return True
