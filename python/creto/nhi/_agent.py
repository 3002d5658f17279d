"""An agent as its owner holds it: a name, an identity that others can check, and handles to keys that stay in Rust."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from creto import _core
from creto.errors import InvalidInputError

__all__ = ["Agent", "Summary", "no_agent", "require_agent"]


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that this store holds the keys of; `Identities.agent` makes one.

    Args:
        id: `spiffe://<trust domain>/agent/<name>`.
        name: The last part of the id.
        path: Names above it, organisation first.
        identity: What others know of it.
        chain: Whom it acts for: each delegator's id and the Cedar text that bounds what it passed on; empty for itself.
        delegation: The verified chain behind `chain`.
        sandbox: The sandbox that it acts from, which records of its acts name; empty outside of any.

    Example:
        >>> import tempfile
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     Identities(store).agent("reader", path=["acme", "research"])
        Agent(id='spiffe://creto.local/agent/reader', name='reader', path=('acme', 'research'), chain=())
    """

    id: str
    name: str
    path: tuple[str, ...]
    identity: _core.Identity = field(repr=False, compare=False)
    signing_key: _core.SigningKey = field(repr=False, compare=False)
    kem_keys: tuple[_core.KemKey, ...] = field(repr=False, compare=False)
    chain: tuple[tuple[str, str], ...] = ()
    delegation: _core.Chain | None = field(default=None, repr=False, compare=False)
    sandbox: str = field(default="", repr=False, compare=False)

    @property
    def suite(self) -> str:
        """`standard` or `cnsa2`."""
        return self.identity.suite

    def acting_for(self, chain: _core.Chain) -> Agent:
        """The same agent under a delegation chain that ends at it.

        Args:
            chain: What `Identities.verify` gave.

        Raises:
            UnauthorizedError: The chain ends at another agent.
        """
        from creto.errors import UnauthorizedError

        links = chain.links
        if links[-1] != self.id:
            raise UnauthorizedError(f"the delegation chain ends at `{links[-1]}`, so `{self.id}` cannot act under it")
        return replace(self, chain=tuple(chain.attenuations), delegation=chain)

    def inside(self, sandbox: str) -> Agent:
        """The same agent, acting from a sandbox: the records of its acts name it, as `sandbox` of their detail.

        Args:
            sandbox: The sandbox's id.

        Example:
            >>> import tempfile, creto
            >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
            ...     agent = layer.agent("researcher").inside("box-7")
            ...     _ = layer.perform_blocking(agent, "tool:call", "add", lambda: 1 + 1)
            ...     (record,) = layer.call_blocking(lambda: layer.parts.audit.query(outcome="success"))
            ...     record.detail["sandbox"]
            'box-7'
        """
        return replace(self, sandbox=sandbox)


@dataclass(frozen=True, slots=True)
class Summary:
    """An agent as a list shows it.

    Args:
        id: Its SPIFFE id.
        path: Names above it, organisation first.
        suite: Of its keys.
        state: `active` or `revoked`.
        own: Whether this store holds its secret keys.
        generation: How often its keys were made; 1 for the first.
        fingerprint: SHA-256 of its verifying keys, in hexadecimal.
        valid_until: Seconds since the epoch.

    Example:
        >>> import tempfile
        >>> from creto.nhi import Identities
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     identities = Identities(store)
        ...     agent = identities.agent("reader")
        ...     [(each.id, each.state, each.own, each.generation) for each in identities.agents()]
        [('spiffe://creto.local/agent/reader', 'active', True, 1)]
    """

    id: str
    path: tuple[str, ...]
    suite: str
    state: str
    own: bool
    generation: int
    fingerprint: str
    valid_until: int


def no_agent(given: object) -> InvalidInputError:
    """What is told to who gives something else in an agent's place."""
    return InvalidInputError(f"`{given!r}` is no agent: give what `layer.agent(NAME)` returns, or `acting_for` of that")


def require_agent(given: object) -> None:
    """Does nothing for an agent.

    Raises:
        InvalidInputError: It is none.
    """
    if not isinstance(given, Agent):
        raise no_agent(given)
