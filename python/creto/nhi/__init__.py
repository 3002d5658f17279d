"""Non-human identities: agents with sealed keys, certificates, and delegation between them.

Example:
    >>> import tempfile
    >>> from creto.nhi import Identities
    >>> from creto.store import Store
    >>> with Store(tempfile.mkdtemp()) as store:
    ...     identities = Identities(store)
    ...     agent = identities.agent("researcher")
    ...     agent.id, agent == identities.agent("researcher")
    ('spiffe://creto.local/agent/researcher', True)
"""

from typing import TYPE_CHECKING

from creto._lazy import lazily

if TYPE_CHECKING:
    from creto._core import Chain as Chain
    from creto._core import Identity as Identity
    from creto.nhi._agent import Agent as Agent
    from creto.nhi._agent import Summary as Summary
    from creto.nhi._identities import Identities as Identities

_HOMES = {
    "Agent": "creto.nhi._agent",
    "Chain": "creto._core",
    "Identities": "creto.nhi._identities",
    "Identity": "creto._core",
    "Summary": "creto.nhi._agent",
}

__all__ = ["Agent", "Chain", "Identities", "Identity", "Summary"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
