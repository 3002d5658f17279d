"""The identities of a store: its agents, delegated between, exported to other trust domains and imported from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import anyio.to_thread

from creto import _core
from creto.errors import InvalidInputError, NotFoundError, UnauthorizedError
from creto.nhi import _changes
from creto.nhi._agents import Agents
from creto.nhi._bundle import export_bundle, read_bundle
from creto.nhi._delegation import Terms, sign_hop
from creto.nhi._names import agent_id

__all__ = ["Identities"]


class Identities(Agents):
    """The agents of a store, and what is known of those of others.

    Args:
        store: Where they are kept, keys sealed.
        trust_domain: The name of this store's own trust domain.
        suite: Of new keys: `standard` or `cnsa2`; identities of another suite are refused.
        passphrase: Seals the keys (Argon2id), in place of the key file in the state folder.
        sealer: Seals the keys, in place of both; needed where the store is a database without a folder.
        reach: Tells this process what others changed; without it a change is seen at the next `refresh`.
        overlap: Seconds for which a rotated key still verifies and opens what was made before.
        clock: Seconds since the epoch.

    Raises:
        InvalidInputError: The trust domain cannot be one, or the sealing key does not open the store's keys.

    Example:
        >>> import tempfile
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     identities = Identities(store)
        ...     identities.agent("reader", path=["acme", "research"]).id, identities.show("reader").generation
        ('spiffe://creto.local/agent/reader', 1)
    """

    # --- delegation ---------------------------------------------------------------------------------------------------

    async def delegate(self, delegator: str, delegatee: str, **terms: Unpack[Terms]) -> list[str]:
        """Lets one agent act for another, within an attenuation.

        Args:
            delegator: Who passes on; an agent whose keys are here.
            delegatee: Who may act for it.
            terms: `attenuation`: Cedar policies, everything where none are given; what a chain allows is what every
                link's policies allow. `audience`: where it counts, this trust domain where none is given. `seconds`:
                how long it holds, 3600 by default, and never longer than the chain before it. `depth`: how many
                further hops may follow, 0 by default, at most one less than the hop before it allows. `previous`: the
                chain that ends at the delegator, where it acts for somebody itself.

        Returns:
            The whole chain: one DSSE envelope for each hop, the newest last.

        Raises:
            UnauthorizedError: The chain so far does not hold.
            InvalidInputError: The hop would reach further than the one before it.
        """
        return await anyio.to_thread.run_sync(partial(self.delegate_blocking, delegator, delegatee, **terms))

    def delegate_blocking(self, delegator: str, delegatee: str, **terms: Unpack[Terms]) -> list[str]:
        """`delegate`, in this thread.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as store:
            ...     identities = Identities(store)
            ...     boss, clerk = identities.agent("boss"), identities.agent("clerk")
            ...     only = 'permit (principal, action == Action::"tool:call", resource);'
            ...     hops = identities.delegate_blocking("boss", "clerk", attenuation=only, seconds=600)
            ...     clerk.acting_for(identities.verify(hops)).chain == ((boss.id, only),)
            True
        """
        signer, identity = self.agent(delegator), self.find(delegatee)
        place, previous = terms.get("audience") or self.trust_domain, list(terms.get("previous", ()))
        chain = self.verify(previous, audience=place) if previous else None
        hop, record = sign_hop(signer, identity, chain, terms, place, self._now())
        with self._store.begin() as tx:
            tx.outbox(record)
        return [*previous, hop]

    def verify(self, hops: Sequence[str], *, audience: str | None = None) -> _core.Chain:
        """Verifies a delegation chain, or finds it verified already; offline.

        Args:
            hops: DSSE envelopes, the first hop first.
            audience: Where it is to count; this trust domain where none is given.

        Raises:
            UnauthorizedError: It does not hold; the text says which hop and why.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as store:
            ...     identities = Identities(store)
            ...     _, _ = identities.agent("boss"), identities.agent("clerk")
            ...     hops = identities.delegate_blocking("boss", "clerk")
            ...     identities.verify(hops).links
            ['spiffe://creto.local/agent/boss', 'spiffe://creto.local/agent/clerk']
        """
        for name in _core.delegation_names(list(hops)):
            if self.directory.find(name) is None:
                try:
                    self.find(name)
                except NotFoundError as error:
                    raise UnauthorizedError(
                        f"the delegation chain names an agent that is not known: {error}"
                    ) from error
        return self._chains.verify(list(hops), self.directory, audience or self.trust_domain, self._now(), self.epoch)

    # --- bundles ------------------------------------------------------------------------------------------------------

    def export(self, *names: str) -> str:
        """A bundle that others import: this trust domain's certificates, the identities of agents, and who was revoked.

        Args:
            names: Agents; every active one of this store where none is given.

        Returns:
            JSON, signed by the trust domain. It holds public keys only.

        Raises:
            NotFoundError: There is no active agent of a name.
        """
        with self._store.read() as tx:
            return export_bundle(
                tx, self._authority, self.suite, [agent_id(name, self.trust_domain) for name in names], self._now()
            )

    def import_blocking(self, bundle: str, *, fingerprint: str | None = None) -> list[str]:
        """Takes in a bundle of another trust domain.

        Args:
            bundle: What `export` gave.
            fingerprint: SHA-256 of the trust domain's keys, as its owner told you otherwise; needed the first time.

        Returns:
            The ids that are known now.

        Raises:
            UnauthorizedError: The trust domain is new and its fingerprint was not given, or is another.
            InvalidInputError: It is not a bundle.
            SignatureVerificationFailedError: It was changed on its way.

        Example:
            >>> import tempfile
            >>> from creto.nhi import Identities
            >>> from creto.store import Store
            >>> with Store(tempfile.mkdtemp()) as ours, Store(tempfile.mkdtemp()) as theirs:
            ...     here, there = Identities(ours), Identities(theirs, trust_domain="partner.example")
            ...     _ = there.agent("reviewer")
            ...     told = there.domain().verifying_key.fingerprint  # by another way than the bundle
            ...     here.import_blocking(there.export("reviewer"), fingerprint=told)
            ['spiffe://partner.example/agent/reviewer']
        """
        read = read_bundle(bundle)
        if read.suite != self.suite:
            raise InvalidInputError(
                f"trust domain `{read.trust_domain}` uses suite `{read.suite}`, and only `{self.suite}` is accepted "
                "here"
            )
        read.require_known(self._known_key(read.trust_domain), fingerprint, own=read.trust_domain == self.trust_domain)
        with self._store.begin() as tx:
            _changes.take_in(tx, self.trust_domain, read)
        self.refresh()
        return sorted({identity.id for _, identity in read.identities})

    async def import_(self, bundle: str, *, fingerprint: str | None = None) -> list[str]:
        """`import_blocking`, awaited."""
        return await anyio.to_thread.run_sync(partial(self.import_blocking, bundle, fingerprint=fingerprint))

    def _known_key(self, name: str) -> _core.VerifyingKey | None:
        try:
            return self.domain(name).verifying_key
        except NotFoundError:
            return None
