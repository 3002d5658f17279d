"""The store: what must be unique, or change in place, is decided by one transaction; the ledger proves it afterwards.

Many processes may use one state folder at once. It never keeps history, and never decides what policy or quota decide.
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto.store._folder import open_folder as open_folder
    from creto.store._folder import state_folder as state_folder
    from creto.store._outbox import LedgerPort as LedgerPort
    from creto.store._store import Commit as Commit
    from creto.store._store import Store as Store
    from creto.store._transaction import Transaction as Transaction

_HOMES = {
    "Commit": "creto.store._store",
    "LedgerPort": "creto.store._outbox",
    "Store": "creto.store._store",
    "Transaction": "creto.store._transaction",
    "open_folder": "creto.store._folder",
    "state_folder": "creto.store._folder",
}

__all__ = ["Commit", "LedgerPort", "Store", "Transaction", "open_folder", "state_folder"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
