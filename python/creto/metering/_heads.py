"""Who an invoice is from and for, as the configuration has it: names and addresses, no reckoning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from creto.config import Settings

__all__ = ["HEADS", "Heads"]

HEADS = ("issuer", "bill_to")
"""What a document can have of it, each with those of name, address, tax_id and reference that are known."""


@dataclass(frozen=True)
class Heads:
    """The head of each customer's invoices.

    Args:
        issuer: Who makes them.
        customers: By the name that usage is counted under.

    Example:
        >>> Heads({"name": "Model House"}, {"acme": {"reference": "PO 4711"}}).of("acme")
        {'issuer': {'name': 'Model House'}, 'bill_to': {'reference': 'PO 4711'}}
    """

    issuer: Mapping[str, Any] = field(default_factory=dict)
    customers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings) -> Heads:
        """Those of `[issuer]` and `[[customers]]`."""
        said = settings.issuer.model_dump(exclude_defaults=True)
        return cls(said, {one.id: one.model_dump(exclude_defaults=True, exclude={"id"}) for one in settings.customers})

    def of(self, customer: str) -> dict[str, Any]:
        """What a document to this customer says; nothing of what is not known."""
        known = zip(HEADS, (self.issuer, self.customers.get(customer, {})), strict=True)
        return {name: dict(said) for name, said in known if said}
