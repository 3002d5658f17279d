"""Prices of language models, from a table in LiteLLM's public JSON form (`model_prices_and_context_window.json`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
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
    def load(cls, path: Path, currency: str = "USD") -> ModelPrices:
        """Reads a table.

        Args:
            path: Of the JSON file.
            currency: The table's.

        Raises:
            InvalidInputError: It is no such table.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
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
        meters = []
        for meter, field in METERS.items():
            base = entry.get(f"{field}{suffix}", entry.get(field))
            if base is None:
                continue
            above = []
            for name, price in entry.items():
                match = re.fullmatch(rf"{field}_above_(\d+)k_tokens{suffix}", name)
                if match is not None and price is not None:
                    above.append((int(match[1]) * 1000, str(price)))
            meters.append((meter, str(base), above, meter in _CONTEXT))
        if not meters:
            raise InvalidInputError(f"model `{model}` has no price per token in the table")
        return _core.ActPrice(meters)

    def prices(self, model: str) -> list[Price]:
        """The base prices of a model for invoices, for acts whose records say `model`.

        Args:
            model: As the table names it.
        """
        entry = self._entry(model)
        return [
            Price(
                meter=meter,
                unit_price=Decimal(str(entry[field])),
                currency=self.currency,
                when={"model": model},
                description=f"{meter.replace('_', ' ')} of {model}",
            )
            for meter, field in METERS.items()
            if entry.get(field) is not None
        ]
