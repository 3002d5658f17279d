"""What one act spends, before it is done and after: the amount that budgets in money count.

An invoice rates what a period adds up to; one act does not know the others of its period. So it is rated alone, by the
same prices, in the way that comes to the most: acts that are counted so never add up to less than they are invoiced at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from creto._count import MONEY_SCALE, SPENT, currency_of
from creto.errors import InvalidInputError
from creto.metering._currency import added
from creto.metering._price import PriceBook, amount
from creto.metering._rate import Offer, cuts_of

if TYPE_CHECKING:
    from creto.config import Settings
    from creto.config._sections import Price

__all__ = ["Spending", "alone"]

_MOST = 2**63 - 1
_FOREVER = 2**62
_OF_THE_PERIOD = {"flat", "commitment"}
_UNTOLD = {"context", "context_left_out"}


def alone(price: Price) -> Price:
    """The price of an act that is rated alone: never less, over all acts of a period, than what they cost together.

    Every unit costs as much as on the dearest step, also those that are included; the act pays for every package that
    it begins, and for entering the steps. What a period costs without any act, fees and the minimum, is no act's.

    Args:
        price: As it stands in the configuration.

    Example:
        >>> from creto.config import Price
        >>> steps = [{"up_to": 10, "unit_price": 3}, {"unit_price": 2, "flat": 1}]
        >>> tier = alone(Price(meter="m", model="graduated", tiers=steps, included=5)).tiers[0]
        >>> str(tier.unit_price), str(tier.flat)
        ('3', '1')
    """
    from creto.config._sections import Tier

    tiers = []
    if price.tiers:
        flats = [tier.flat for tier in price.tiers]
        # Of graduated steps all are entered in the end; of those of a volume one holds.
        flat = added(flats) if price.model == "graduated" else max(flats)
        tiers = [Tier.model_construct(up_to=None, unit_price=max(tier.unit_price for tier in price.tiers), flat=flat)]
    return price.model_copy(update={"tiers": tiers, "included": Decimal(0), "minimum": Decimal(0)})


class Spending:
    """What acts spend, in the currencies that quotas count.

    Args:
        book: The prices.
        currencies: In which there are budgets.

    Raises:
        InvalidInputError: A price that no act can be rated by before it is recorded.

    Example:
        >>> from creto.config import Price
        >>> spending = Spending(PriceBook([Price(meter="tokens", unit_price="0.000002")], "USD"), {"USD"})
        >>> spending.of(["acme", "spiffe://a.test/agent/b"], {}, {"tokens": 500, "cost:USD": 7}, 0)
        {'tokens': 500, 'cost:USD': 7, 'spent:USD': 1000007}
    """

    def __init__(self, book: PriceBook, currencies: Collection[str]) -> None:
        self._book, self._currencies = book, currencies
        self._cuts = cuts_of(0, _FOREVER, book.prices)
        self._offers: dict[tuple[str, int], Offer] = {}
        self._alone: dict[int, Price] = {}
        # Every act is worked out when it goes in and again when it ends, and most acts are like one before.
        self._spent = lru_cache(4_096)(self._work_out)
        for price in book.prices:
            untold = _UNTOLD.intersection(price.when)
            if untold and self._counts(price):
                raise InvalidInputError(
                    f"the price of `{price.meter}` has a condition on `{min(untold)}`, which is known only once an act "
                    f"is recorded: a budget in {price.currency or book.currency} cannot count it"
                )

    @classmethod
    def under(cls, settings: Settings, rules: Iterable[Mapping[str, Any]]) -> Spending | None:
        """What is to be counted under the rules in force; None where none counts what acts spend.

        Args:
            settings: With the prices.
            rules: Of quotas, as enforcers read them.
        """
        meters = {str(rule["meter"]) for rule in rules}
        currencies = {meter.removeprefix(SPENT) for meter in meters if meter.startswith(SPENT)}
        return cls(PriceBook.from_settings(settings), currencies) if currencies else None

    def of(
        self, path: Sequence[str], dimensions: Mapping[str, str], usage: Mapping[str, int], at: int
    ) -> dict[str, int]:
        """Usage of an act, with what it spends, by currency (`spent:USD`), in billionths, rounded up once an act.

        What it says there itself is replaced. Usage that is none is given back as it is: the gate says what is wrong.

        Args:
            path: Names, organisation first.
            dimensions: Of the act, but for the customer and the team, which the path tells.
            usage: Quantities by meter.
            at: When, in microseconds since the epoch.

        Raises:
            InvalidInputError: A meter is priced by time: what it will cost is not known yet.
        """
        told = {meter: units for meter, units in usage.items() if not str(meter).startswith(SPENT)}
        if not all(isinstance(units, int) and 0 <= units <= _MOST for units in told.values()):
            return dict(usage)
        customer = path[0]
        team = next((name for name in path[1:] if not name.startswith("spiffe://")), "unassigned")
        # As the ledger's records tell them: the same conditions fit as when it is invoiced.
        known = (*dimensions.items(), ("team", team))
        place = bisect_right(self._cuts, at) - 1
        return {**told, **self._spent(customer, known, place, tuple(told.items()))}

    def _work_out(
        self, customer: str, known: Sequence[tuple[str, str]], place: int, told: Sequence[tuple[str, int]]
    ) -> dict[str, int]:
        dimensions = dict(known)
        spent: dict[str, Fraction] = {}
        for meter, units in told:
            currency, cost = self._cost(customer, dimensions, place, meter, units)
            if currency in self._currencies:
                spent[currency] = spent.get(currency, Fraction(0)) + cost
        found = {SPENT + currency: min(_MOST, -(-cost * MONEY_SCALE // 1)) for currency, cost in sorted(spent.items())}
        return {meter: units for meter, units in found.items() if units}

    def _cost(
        self, customer: str, dimensions: Mapping[str, str], place: int, meter: str, units: int
    ) -> tuple[str, Fraction]:
        start, end = self._cuts[place], self._cuts[place + 1]
        offer = self._offer(customer, place)
        fitting = [offer.periods[one].price for one in offer.fitting(meter, dimensions, customer, start, end)]
        if not fitting:
            # Nothing prices it; what an act says that it costs is money as it is.
            stated = currency_of(meter)
            return stated or "", Fraction(units, MONEY_SCALE if stated else 1)
        # Of two that fit alike no invoice can be made: whichever is kept, it is no dearer than this one.
        return max((self._rated(price, units) for price in fitting), key=lambda found: found[1])

    def _rated(self, price: Price, units: int) -> tuple[str, Fraction]:
        currency = price.currency or self._book.currency
        if not self._counts(price) or price.model in _OF_THE_PERIOD:
            return currency, Fraction(0)
        if price.aggregation == "weighted":
            raise InvalidInputError(
                f"usage of `{price.meter}` is priced by the time that it lasts, which no budget in {currency} can "
                "count before: send it as a usage event (`creto usage import`), or lift the budget"
            )
        known = self._alone.get(id(price))
        if known is None:
            known = self._alone[id(price)] = alone(price)
        # Of a number of events this is one; of a greatest, a mean or a last quantity none is more than all of them.
        return currency, amount(known, Fraction(1 if price.aggregation in {"count", "unique"} else units))

    def _counts(self, price: Price) -> bool:
        return (price.currency or self._book.currency) in self._currencies

    def _offer(self, customer: str, place: int) -> Offer:
        whose = customer if customer in self._book.named else ""  # a table of models is laid out once, not for each
        known = self._offers.get((whose, place))
        if known is None:
            if len(self._offers) >= 1_000:
                self._offers.clear()
            periods = self._book.of(customer, self._cuts[place], self._cuts[place + 1])
            known = self._offers[whose, place] = Offer(periods)
        return known
