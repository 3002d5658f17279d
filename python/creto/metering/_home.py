"""Which ledger the invoices of a store are made from: one, also where several machines share the store.

An invoice names records by shard and number, and later ones adjust it by these: read in another machine's ledger they
would charge other usage, and say that some was never there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from creto.errors import InvalidInputError
from creto.store.tables import meta

if TYPE_CHECKING:
    from creto.store import Transaction

__all__ = ["keep", "origin", "require"]

_NAME = "ledger of invoices"


def origin(ledger: Path) -> str:
    """What sets a ledger apart from all others: how its first shard is called; empty where it has none yet.

    Args:
        ledger: The ledger's folder.
    """
    first = ledger / "0000" / "origin"
    return first.read_text() if first.exists() else ""


def require(tx: Transaction, origin: str) -> None:
    """Does nothing where invoices are made from this ledger, or from none so far.

    Raises:
        InvalidInputError: They are made from another.
    """
    found = tx.scalar(select(meta.c.value).where(meta.c.name == _NAME))
    if found is not None and origin and found != origin:
        raise InvalidInputError(
            f"the invoices of this store are made from another machine's ledger (`{found}`; here it is `{origin}`): "
            "run this there; what the ledger of this machine holds is not among them"
        )


def keep(tx: Transaction, origin: str) -> None:
    """Notes the ledger that the first invoice is made from."""
    if origin:
        tx.insert_once(meta, name=_NAME, value=origin)
