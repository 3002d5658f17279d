"""The agents of a store: made on first use, found, rotated, revoked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread
from sqlalchemy import select

from creto import _core
from creto.errors import ConnectionFailedError, InvalidInputError, NotFoundError, UnauthorizedError
from creto.nhi import _changes
from creto.nhi._agent import Agent, Summary
from creto.nhi._keys import fresh_keys, unsealed
from creto.nhi._known import Known
from creto.nhi._names import agent_id
from creto.nhi._trust import open_authority
from creto.store.tables import agent_keys, agents

if TYPE_CHECKING:
    from creto.reach import Reach
    from creto.store import Store, Transaction

__all__ = ["Agents", "listed"]

_YEAR = 365 * 24 * 3600
_AUTHORITY_SECONDS = 20 * _YEAR


class Agents:
    """What `Identities` knows of single agents; its arguments are these."""

    def __init__(
        self,
        store: Store,
        *,
        trust_domain: str = "creto.local",
        suite: str = "standard",
        passphrase: bytes | None = None,
        sealer: _core.Sealer | None = None,
        reach: Reach | None = None,
        overlap: int = 24 * 3600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if sealer is None:
            if store.folder is None:
                raise InvalidInputError(
                    f"the store `{store.place}` has no folder for a sealing key; give `sealer=` or use a state folder"
                )
            sealer = _core.Sealer.open(store.folder / "keys", passphrase)
        self.trust_domain = trust_domain
        self.suite = suite
        self._store = store
        self._sealer = sealer
        self._overlap = overlap
        self._clock = clock
        self._reach = reach
        self._chains = _core.ChainCache()
        self._agents: dict[str, Agent] = {}
        self._authority = open_authority(store, sealer, trust_domain, suite, self._now(), _AUTHORITY_SECONDS)
        self._known = Known(store, self._authority.domain, self._now, self._forget)
        self.directory = self._known.directory
        if reach is not None:  # first, so that nothing comes between the two
            reach.on("identity", self._told)
        self.refresh()

    def _told(self, _key: str) -> None:
        self.refresh()

    def _forget(self, id: str) -> None:
        self._agents.pop(id, None)

    # --- the trust domain ---------------------------------------------------------------------------------------------

    def domain(self, trust_domain: str | None = None) -> _core.TrustDomain:
        """A trust domain that is known here.

        Args:
            trust_domain: Its name; this store's own where there is none.

        Raises:
            NotFoundError: It was never imported.
        """
        return self._known.domain(trust_domain or self.trust_domain)

    # --- agents -------------------------------------------------------------------------------------------------------

    def agent(self, name: str, *, path: Sequence[str] = ()) -> Agent:
        """The agent of this name, made on first use; of two that make it at once, one wins and the other reads.

        Args:
            name: Its name in the trust domain, or its whole SPIFFE id.
            path: Names above it, organisation first; used when it is made.

        Raises:
            InvalidInputError: The name is not one.
            UnauthorizedError: It was revoked, or its keys are elsewhere.
        """
        id = agent_id(name, self.trust_domain)
        held = self._agents.get(id)
        if held is not None:
            return held
        with self._known.lock:
            with self._store.read() as tx:
                row = tx.first(select(agents).where(agents.c.id == id))
            if row is None:
                self._make(id, path)
            agent = self._load(id)
        if row is None and path and self._reach is not None:
            # Here policies know its teams before it first acts. Where that cannot be read now, acts are denied anyway.
            with suppress(ConnectionFailedError):
                self._reach.catch_up()
        return agent

    def require_own(self, id: str) -> None:
        """Does nothing where an agent of this id was made in this store: unlike `agent`, it makes none.

        Raises:
            NotFoundError: There is none.
        """
        if id in self._agents:
            return
        with self._store.read() as tx:
            if tx.scalar(select(agents.c.own).where(agents.c.id == id)) is not True:
                raise NotFoundError(f"no agent `{id}` of this store is known here")

    def current(self, agent: Agent) -> Agent:
        """The agent with the keys that it has now, acting for whom it acted.

        Raises:
            UnauthorizedError: It was revoked.
        """
        now = self.agent(agent.id)
        return now if agent.delegation is None else now.acting_for(agent.delegation)

    def require_unexpired(self, agent: Agent) -> None:
        """Does nothing while the delegation that an agent acts under has time left, or where it acts for itself.

        Raises:
            UnauthorizedError: It has expired.
        """
        delegation = agent.delegation
        if delegation is not None and delegation.expiry <= self._clock():
            raise UnauthorizedError(
                f"the delegation chain under which `{agent.id}` acts for `{delegation.links[0]}` has expired; "
                "ask the delegator for a new one"
            )

    def find(self, name: str) -> _core.Identity:
        """The identity of an agent, of this store or imported: what one needs to write to it or to check it.

        Raises:
            NotFoundError: There is none of this name.
            UnauthorizedError: It was revoked.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as store:
            ...     identities = Identities(store)
            ...     _ = identities.agent("reader")
            ...     identities.find("reader").id, identities.find("reader").suite
            ('spiffe://creto.local/agent/reader', 'standard')
        """
        id = agent_id(name, self.trust_domain)
        found = self._known.find(id)
        if found is None:
            raise NotFoundError(
                f"no agent `{id}` is known here; `creto agent create` makes one, `creto agent import` takes one in"
            )
        return found

    def find_all(self, name: str) -> list[_core.Identity]:
        """Every identity of an agent that still verifies, the newest first: what it signed before a rotation counts.

        Raises:
            NotFoundError: There is none of this name.
            UnauthorizedError: It was revoked.
        """
        self.find(name)
        return self.directory.identities(agent_id(name, self.trust_domain))

    def agents(self) -> list[Summary]:
        """Every agent, of this store and imported, by id."""
        with self._store.read() as tx:
            return listed(tx)

    def show(self, name: str) -> Summary:
        """One of `agents`.

        Raises:
            NotFoundError: There is none of this name.
        """
        id = agent_id(name, self.trust_domain)
        for summary in self.agents():
            if summary.id == id:
                return summary
        raise _unknown(id)

    def _make(self, id: str, path: Sequence[str]) -> None:
        if id.split("/")[3:4] in (["approver"], ["user"]):
            raise InvalidInputError(f"`{id}` is the id of a human, whom an agent would pass for on record")
        # Before the transaction: making keys takes longer than anything in it.
        values = fresh_keys(self._authority, self._sealer, id, 1, self._now(), _YEAR)
        with self._store.begin() as tx:
            _changes.make(tx, self.trust_domain, id, path, self.suite, values)

    def _load(self, id: str) -> Agent:
        with self._store.read() as tx:
            row = tx.first(select(agents).where(agents.c.id == id))
            if row is None:
                raise _unknown(id)
            if row.state != "active":
                raise UnauthorizedError(f"agent `{id}` was revoked")
            if not row.own:
                raise UnauthorizedError(f"agent `{id}` was imported: its keys are elsewhere, so it cannot act here")
            keys = self._known.admit(tx, id)
        current = keys[0]
        identity = self.directory.find(id)
        if identity is None or current.valid_until <= self._now():
            raise UnauthorizedError(f"the keys of agent `{id}` have expired; run `creto agent rotate {row.name}`")
        agent = unsealed(self._sealer, identity, row.name, tuple(row.path), keys)
        self._agents[id] = agent
        return agent

    # --- rotation and revocation --------------------------------------------------------------------------------------

    async def rotate(self, name: str) -> Agent:
        """Gives an agent new keys; the old ones verify and open for the overlap, and sign no more.

        Raises:
            NotFoundError: There is none of this name.
            UnauthorizedError: It was revoked, or its keys are elsewhere.
        """
        return await anyio.to_thread.run_sync(self.rotate_blocking, name)

    def rotate_blocking(self, name: str) -> Agent:
        """`rotate`, in this thread.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as store:
            ...     identities = Identities(store)
            ...     before = identities.agent("reader")
            ...     after = identities.rotate_blocking("reader")
            ...     after.identity == before.identity, identities.show("reader").generation
            (False, 2)
        """
        id = agent_id(name, self.trust_domain)
        with self._store.read() as tx:
            row = tx.first(select(agents).where(agents.c.id == id))
            before = tx.scalar(
                select(agent_keys.c.generation).where(agent_keys.c.agent == id).order_by(agent_keys.c.generation.desc())
            )
        if row is None:
            raise _unknown(id)
        if row.state != "active" or not row.own:
            raise UnauthorizedError(f"agent `{id}` was revoked, or its keys are elsewhere; it cannot be rotated here")
        values = fresh_keys(self._authority, self._sealer, id, int(before) + 1, self._now(), _YEAR)
        with self._store.begin() as tx:
            _changes.rotate(tx, self.trust_domain, id, values, self._now() + self._overlap)
        self.refresh()
        with self._known.lock:
            self._agents.pop(id, None)
            return self._load(id)

    async def revoke(self, name: str, reason: str = "") -> None:
        """Ends an agent for good: in every process within a second, and whatever it passed on with it.

        Args:
            name: Its name or id.
            reason: Recorded.

        Raises:
            NotFoundError: There is none of this name.
        """
        await anyio.to_thread.run_sync(self.revoke_blocking, name, reason)

    def revoke_blocking(self, name: str, reason: str = "") -> None:
        """`revoke`, in this thread.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as store:
            ...     identities = Identities(store)
            ...     _ = identities.agent("reader")
            ...     identities.revoke_blocking("reader", "left")
            ...     identities.agent("reader")
            Traceback (most recent call last):
            ...
            creto.errors.UnauthorizedError: agent `spiffe://creto.local/agent/reader` was revoked
        """
        id = agent_id(name, self.trust_domain)
        with self._store.begin() as tx:
            _changes.revoke(tx, self.trust_domain, id, reason)
        self.refresh()

    @property
    def epoch(self) -> int:
        """Moves with every revocation and rotation; what was verified under an older one is verified again."""
        return self._known.epoch

    def refresh(self) -> bool:
        """Takes over what other processes changed; called by reach.

        Returns:
            True where anything had changed.
        """
        return self._known.refresh()

    def _now(self) -> int:
        return int(self._clock())


def listed(tx: Transaction) -> list[Summary]:
    """Every agent of a store, its own and imported, by id; no key is opened for it.

    Args:
        tx: A transaction of either kind.
    """
    rows = tx.all(
        select(agents, agent_keys.c.generation, agent_keys.c.fingerprint, agent_keys.c.valid_until)
        .join(agent_keys, agent_keys.c.agent == agents.c.id)
        .order_by(agents.c.id, agent_keys.c.generation)
    )
    newest = {row.id: row for row in rows}
    return [
        Summary(r.id, tuple(r.path), r.suite, r.state, r.own, r.generation, r.fingerprint, r.valid_until)
        for r in newest.values()
    ]


def _unknown(id: str) -> NotFoundError:
    return NotFoundError(f"no agent `{id}` is known here; `creto agent list` shows those that are")
