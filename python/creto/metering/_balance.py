"""What was paid in advance, as the ledger has it: each grant, what invoices drew from it, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import IntegrityError
from creto.metering._currency import added, payable

__all__ = ["Balance", "balances", "prepaid_records"]

_NOTHING = Decimal(0)
_MOST = 1 << 40


@dataclass(slots=True)
class Balance:
    """One amount paid in advance, and what became of it.

    Args:
        credit: Its id.
        customer: Whose.
        currency: By ISO 4217.
        granted: How much.
        expires: Microseconds since the epoch; never, where it is None.
        draws: By invoice, what it took off.
        returns: By invoice, what came back when it became void.
        expired: What was left when it expired.
        faults: What of it cannot be; nothing, where it holds.
    """

    credit: str
    customer: str = ""
    currency: str = ""
    granted: Decimal = _NOTHING
    expires: int | None = None
    draws: dict[str, Decimal] = field(default_factory=dict)
    returns: dict[str, Decimal] = field(default_factory=dict)
    expired: Decimal = _NOTHING
    faults: list[str] = field(default_factory=list)

    @property
    def taken(self) -> Decimal:
        """What invoices took off and did not give back."""
        return added([*self.draws.values(), *(-amount for amount in self.returns.values())])

    @property
    def left(self) -> Decimal:
        """What can still be taken off, or could until it expired."""
        return added([self.granted, -self.taken, -self.expired])

    def _take(self, record: Mapping[str, Any]) -> None:
        told, what = record.get("detail") or {}, str(record["what"]).partition(":")[2]
        amount, invoice = Decimal(told["amount"]), str(told.get("invoice", ""))
        if not payable(amount, told["currency"]):
            raise ValueError(f"{amount} is no amount of {told['currency']}")
        if what == "grant":
            if self.granted:
                self.faults.append("it was granted twice")
            self.customer, self.currency, self.granted = told["customer"], told["currency"], amount
            self.expires = int(told["expires"]) if "expires" in told else None
            return
        if (told["customer"], told["currency"]) != (self.customer, self.currency):
            owner = f"{self.customer} in {self.currency}" if self.granted else "nobody"
            self.faults.append(f"it was granted to {owner}, and is of {told['customer']} in {told['currency']}")
        if what == "expire":
            self.expired += amount
            return
        if what not in {"draw", "return"}:
            raise ValueError(f"`{what}` is nothing that becomes of one")
        side = self.draws if what == "draw" else self.returns
        side[invoice] = side.get(invoice, _NOTHING) + amount
        if what == "draw" and self.expires is not None and int(record["timestamp"]) >> 12 >= self.expires:
            self.faults.append(f"{invoice} took {amount} off it after it had expired")

    def _close(self) -> None:
        for invoice, amount in self.returns.items():
            if amount > self.draws.get(invoice, _NOTHING):
                self.faults.append(f"{invoice} gave {amount} back, and had taken {self.draws.get(invoice, _NOTHING)}")
        if self.left < 0:
            self.faults.append(f"{self.granted} was granted, and {self.taken + self.expired} taken off it")


def prepaid_records(ledger: Path, names: Iterable[str], *, tail: bool = False) -> list[dict[str, Any]]:
    """The records of what was paid in advance, grants first, and then in the order of time.

    Args:
        ledger: The ledger's folder.
        names: Of its shards.
        tail: True to read what no checkpoint covers yet.
    """
    shards = [_core.LedgerShard(str(ledger / name)) for name in names]
    found = [record for shard in shards for record in shard.query(action="prepaid:*", limit=_MOST)]
    # An outbox may be written by several shards: what is drawn on was granted before, wherever that stands.
    found.sort(key=lambda record: (not str(record["what"]).endswith(":grant"), int(record["timestamp"])))
    return [record for record in found if tail or record["covered"]]


def balances(records: Iterable[Mapping[str, Any]]) -> dict[str, Balance]:
    """What became of each amount, by its id.

    Args:
        records: As `prepaid_records` gives them.

    Raises:
        IntegrityError: One of them has no valid reading.

    Example:
        >>> told = {"customer": "acme", "currency": "USD", "amount": "5.00"}
        >>> one = {"resource": "c", "timestamp": 0, "what": "prepaid:grant", "detail": told}
        >>> two = {**one, "what": "prepaid:draw", "detail": {**told, "amount": "2.00", "invoice": "INV-2026-000001"}}
        >>> balances([one, two])["c"].left
        Decimal('3.00')
    """
    made: dict[str, Balance] = {}
    for record in records:
        credit = str(record["resource"])
        try:
            made.setdefault(credit, Balance(credit))._take(record)
        except (KeyError, ValueError, ArithmeticError) as error:
            raise IntegrityError(f"what the ledger says of the prepaid credit `{credit}`: {error}") from error
    for balance in made.values():
        balance._close()
    return made
