"""What changes the identities of a store: one transaction each, with its record and the word to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from creto._user import user_id
from creto.errors import NotFoundError, UnauthorizedError
from creto.nhi._names import name_of
from creto.store.tables import agent_keys, agents

if TYPE_CHECKING:
    from creto.nhi._bundle import Bundle
    from creto.store import Transaction

__all__ = ["make", "revoke", "rotate", "take_in"]


def make(tx: Transaction, domain: str, id: str, path: Sequence[str], suite: str, keys: Mapping[str, Any]) -> None:
    """Makes an agent with its first keys, unless another process has made it in the meantime."""
    made = tx.insert_once(
        agents,
        id=id,
        name=name_of(id),
        path=list(path),
        suite=suite,
        state="active",
        own=True,
        created=tx.now,
        revoked=None,
    )
    if made:
        tx.insert(agent_keys, created=tx.now, **keys)
        _record(tx, domain, "identity:create", id, _of_keys(keys))
        if path:
            tx.publish("identity", id)  # policies may name its teams; what was verified before stays as it is


def rotate(tx: Transaction, domain: str, id: str, keys: Mapping[str, Any], retires: int) -> None:
    """Gives an agent new keys, unless another process has done so in the meantime; the old ones retire.

    Raises:
        UnauthorizedError: It was revoked.
    """
    if tx.scalar(select(agents.c.state).where(agents.c.id == id)) != "active":
        raise UnauthorizedError(f"agent `{id}` was revoked")
    if not tx.insert_once(agent_keys, created=tx.now, **keys):
        return
    tx.execute(
        update(agent_keys)
        .where(
            agent_keys.c.agent == id,
            agent_keys.c.generation < keys["generation"],
            agent_keys.c.retires.is_(None),
        )
        .values(retires=retires)
    )
    _record(tx, domain, "identity:rotate", id, _of_keys(keys))
    _tell(tx, id)


def revoke(tx: Transaction, domain: str, id: str, reason: str) -> None:
    """Ends an agent; one that was revoked before stays so.

    Raises:
        NotFoundError: There is none of this id.
    """
    if tx.scalar(select(agents.c.state).where(agents.c.id == id)) is None:
        raise NotFoundError(f"no agent `{id}` is known here")
    if tx.swap(agents, (agents.c.id == id) & (agents.c.state == "active"), state="revoked", revoked=tx.now):
        _record(tx, domain, "identity:revoke", id, {}, reason)
        _tell(tx, id)


def take_in(tx: Transaction, domain: str, bundle: Bundle) -> None:
    """Takes in what another trust domain vouches for, once it was verified."""
    bundle.take_in(tx)
    detail = {"fingerprint": bundle.key.fingerprint, "identities": len(bundle.identities)}
    _record(tx, domain, "identity:import", bundle.trust_domain, detail)
    _tell(tx, bundle.trust_domain)


def _of_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: keys[name] for name in ("fingerprint", "generation")}


def _record(tx: Transaction, domain: str, what: str, resource: str, detail: Mapping[str, Any], why: str = "") -> None:
    tx.outbox({"who": user_id(domain), "what": what, "resource": resource, "why": why, "detail": detail})


def _tell(tx: Transaction, key: str) -> None:
    tx.bump("revocation")
    tx.publish("identity", key)
