"""What a process knows of identities: read from the store once, and again when another process changed something."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select

from creto import _core
from creto.errors import UnauthorizedError
from creto.nhi._trust import read_domain
from creto.store.tables import agent_keys, agents, epochs

if TYPE_CHECKING:
    from creto.store import Store, Transaction

__all__ = ["Known"]


class Known:
    """The trust domains and identities that were read so far.

    Args:
        store: Where they are.
        own: This store's own trust domain.
        now: Seconds since the epoch.
        changed: Told the id of each agent that is read anew.
    """

    def __init__(
        self, store: Store, own: _core.TrustDomain, now: Callable[[], int], changed: Callable[[str], None]
    ) -> None:
        self.directory = _core.Directory()
        self.epoch = 0
        """Moves with every revocation and rotation."""
        self.lock = threading.RLock()
        self._store = store
        self._now = now
        self._changed = changed
        self._domains = {own.name: own}
        self._ids: set[str] = set()

    def domain(self, name: str) -> _core.TrustDomain:
        """A trust domain.

        Raises:
            NotFoundError: It was never imported.
        """
        with self.lock:
            found = self._domains.get(name)
            if found is not None:
                return found
        made = read_domain(self._store, name)
        with self.lock:
            return self._domains.setdefault(name, made)

    def find(self, id: str) -> _core.Identity | None:
        """The newest identity of an agent, read where it is not known yet; None where there is none.

        Raises:
            UnauthorizedError: It was revoked.
        """
        found = self.directory.find(id)
        if found is not None:
            return found
        with self.lock, self._store.read() as tx:
            self.admit(tx, id)
        return self.directory.find(id)

    def admit(self, tx: Transaction, id: str) -> list[Row[Any]]:
        """Reads an agent's keys into the directory, the newest first; none where it is revoked or unknown.

        Raises:
            UnauthorizedError: It was revoked.
        """
        state = tx.scalar(select(agents.c.state).where(agents.c.id == id))
        self.directory.forget(id)
        if state is None:
            return []
        if state != "active":
            raise UnauthorizedError(f"agent `{id}` was revoked")
        now = self._now()
        rows = [
            row
            for row in tx.all(
                select(agent_keys).where(agent_keys.c.agent == id).order_by(agent_keys.c.generation.desc())
            )
            if row.retires is None or row.retires > now
        ]
        domain = self.domain(id.removeprefix("spiffe://").split("/", 1)[0])
        for row in reversed(rows):  # the newest last: of two made in one second it is the one that counts
            self.directory.add(domain.admit(row.statement))
        self._ids.add(id)
        return rows

    def refresh(self) -> bool:
        """Takes over what other processes changed; True where anything had."""
        with self.lock:
            with self._store.read() as tx:
                epoch = int(tx.scalar(select(epochs.c.value).where(epochs.c.name == "revocation")) or 0)
                if epoch == self.epoch:
                    return False
                for id in list(self._ids):
                    self._changed(id)
                    try:
                        self.admit(tx, id)
                    except UnauthorizedError:
                        self._ids.discard(id)
            self.epoch = epoch
            return True
