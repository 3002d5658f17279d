"""Prices of language models, from a table in LiteLLM's public JSON form (`model_prices_and_context_window.json`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
from creto._foreign import json_value
from creto.config import Price
from creto.errors import InvalidInputError, NotFoundError

__all__ = ["METERS", "ModelPrices"]

METERS = {
    "input_tokens": "input_cost_per_token",
    "cached_input_tokens": "cache_read_input_token_cost",
    "cache_write_tokens": "cache_creation_input_token_cost",
    "output_tokens": "output_cost_per_token",
    "reasoning_tokens": "output_cost_per_reasoning_token",
}
"""Our meters, and the fields that price them. Input tokens are those that no cache served."""
_TIERS = "flex|priority|batches"
_CONTEXT = {"input_tokens", "cached_input_tokens", "cache_write_tokens"}


class ModelPrices:
    """The prices of a table, exactly as it writes them.

    Args:
        table: Models by name, with LiteLLM's fields; numbers as `Decimal`.
        currency: The table's.

    Example:
        >>> table = {"small": {"input_cost_per_token": Decimal("2.5e-06"), "output_cost_per_token": Decimal("1e-05")}}
        >>> prices = ModelPrices(table)
        >>> prices.act("small").cost({"input_tokens": 1000, "output_tokens": 10})  # billionths of a dollar
        2600000
    """

    def __init__(self, table: Mapping[str, Mapping[str, Any]], currency: str = "USD") -> None:
        self._table = table
        self.currency = currency

    @classmethod
    def load(cls, path: Path, currency: str = "USD", *, content: bytes | None = None) -> ModelPrices:
        """Reads a table.

        Args:
            path: Of the JSON file.
            currency: The table's.
            content: In place of what is on disk.

        Raises:
            InvalidInputError: It is no such table.
        """
        try:
            table = json_value((path.read_bytes() if content is None else content).decode(), parse_float=Decimal)
        except ValueError as error:
            raise InvalidInputError(f"{path} is not JSON: {error}") from error
        if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
            raise InvalidInputError(f"{path} holds no table of models by name")
        table.pop("sample_spec", None)
        return cls(table, currency)

    @property
    def models(self) -> list[str]:
        """The models that have a price per token, sorted."""
        return sorted(name for name, entry in self._table.items() if "input_cost_per_token" in entry)

    def _entry(self, model: str) -> Mapping[str, Any]:
        try:
            return self._table[model]
        except KeyError:
            raise NotFoundError(f"the price table has no model `{model}`") from None

    def act(self, model: str, tier: str = "") -> _core.ActPrice:
        """The price of acts of one model, prepared: its `cost(usage)` is in billionths of the currency's unit.

        Args:
            model: As the table names it.
            tier: A service tier, such as `flex`, `priority` or `batches`; the base price holds where it has none.

        Raises:
            NotFoundError: The table does not have the model.
            InvalidInputError: It has no price per token.
        """
        entry = self._entry(model)
        suffix = f"_{tier}" if tier else ""
        above_of = re.escape(suffix)  # a tier is a name, and no pattern
        meters = []
        for meter, field in METERS.items():
            base = entry.get(f"{field}{suffix}", entry.get(field))
            if base is None:
                continue
            above = []
            for name, price in entry.items():
                match = re.fullmatch(rf"{field}_above_(\d+)k_tokens{above_of}", name)
                if match is not None and price is not None:
                    above.append((int(match[1]) * 1000, str(price)))
            meters.append((meter, str(base), above, meter in _CONTEXT))
        if not meters:
            raise InvalidInputError(f"model `{model}` has no price per token in the table")
        return _core.ActPrice(meters)

    def prices(self, model: str) -> list[Price]:
        """The prices of a model for invoices: of acts whose records say `model`; and, where they say `service_tier` or
        how long the context was (`context_tokens`), those that the table has for that.

        Args:
            model: As the table names it.

        Raises:
            NotFoundError: The table does not have the model.
            InvalidInputError: One of its prices is no decimal from 0 on.

        Example:
            >>> entry = {"input_cost_per_token": Decimal("2e-06"), "input_cost_per_token_flex": Decimal("1e-06")}
            >>> [(dict(price.when), str(price.unit_price)) for price in ModelPrices({"m": entry}).prices("m")]
            [({'model': 'm'}, '0.000002'), ({'model': 'm', 'service_tier': 'flex'}, '0.000001')]
        """
        entry = self._entry(model)
        found = []
        for meter, field in METERS.items():
            for name, price in entry.items():
                match = re.fullmatch(rf"{field}(?:_above_(\d+)k_tokens)?(?:_({_TIERS}))?", name)
                if match is None or price is None:
                    continue
                when = {"model": model}
                if match[1]:
                    when["context_tokens"] = f">{int(match[1]) * 1000}"
                if match[2]:
                    when["service_tier"] = match[2]
                words = [meter.replace("_", " "), "of", model, match[2] or ""]
                if match[1]:
                    words.append(f"beyond {match[1]}k")
                try:
                    found.append(
                        Price(
                            meter=meter,
                            unit_price=Decimal(str(price)),
                            currency=self.currency,
                            when=when,
                            description=" ".join(word for word in words if word),
                        )
                    )
                except (ValueError, ArithmeticError) as error:
                    raise InvalidInputError(
                        f"model `{model}`: `{name}` is {str(price)[:40]}: write a decimal from 0, such as `0.0000025`"
                    ) from error
        return sorted(found, key=lambda price: (list(METERS).index(price.meter), len(price.when)))
