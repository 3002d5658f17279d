"""The order of signed policy sets: what one state folder has had in force is not undone by an older set.

A signature says who made a set, and nothing of whether it is the latest: whoever can put files in place could bring
back one that was signed last year and withdrawn since. So the folder's store keeps when the set in force was signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from creto.authz._signed import moment
from creto.errors import SignatureVerificationFailedError
from creto.store.tables import epochs

if TYPE_CHECKING:
    from creto.store import Store, Transaction

__all__ = ["TOPIC", "allow_older", "keep", "last", "require_not_older"]

TOPIC = "policy-order"
"""What other processes hear of where an operator goes back to an older set."""
_EPOCH = "policy-signed"


def last(tx: Transaction) -> int | None:
    """When the set that was last in force was signed, in microseconds since the epoch; None where none was.

    Args:
        tx: A transaction of either kind.
    """
    found = tx.scalar(select(epochs.c.value).where(epochs.c.name == _EPOCH))
    return None if found is None else int(found)


def require_not_older(store: Store, signed: int) -> None:
    """Does nothing unless the set is older than the one that was last in force.

    Args:
        store: Of the state folder.
        signed: When the set was signed.

    Raises:
        SignatureVerificationFailedError: It is.
    """
    with store.read() as tx:
        _require(tx, signed)


def keep(store: Store, signed: int) -> None:
    """Notes that a set is in force; from here on, none that was signed before it is taken in.

    Args:
        store: Of the state folder.
        signed: When the set was signed.

    Raises:
        SignatureVerificationFailedError: Meanwhile another process has taken in a newer one.
    """
    with store.read() as tx:
        if last(tx) == signed:
            return
    with store.begin() as tx:
        _require(tx, signed)
        _put(tx, signed)


def allow_older(store: Store, signed: int, *, resource: str, who: str, why: str) -> int | None:
    """Goes back to an older set on purpose; on record, and heard of by every process of the folder.

    Args:
        store: Of the state folder.
        signed: When the older set was signed.
        resource: Which set, for the record.
        who: The operator.
        why: Their reason.

    Returns:
        When the set was signed that was last in force; None where the set is not older, and nothing was done.
    """
    with store.begin() as tx:
        before = last(tx)
        if before is None or before <= signed:
            return None
        _put(tx, signed)
        tx.publish(TOPIC, str(signed))
        tx.outbox(
            {
                "who": who,
                "what": "policy:allow-older",
                "resource": resource,
                "why": why,
                "outcome": "success",
                "kind": "event",
                "detail": {"signed": moment(signed), "before": moment(before)},
            }
        )
        return before


def _require(tx: Transaction, signed: int) -> None:
    before = last(tx)
    if before is not None and signed < before:
        raise SignatureVerificationFailedError(
            f"the policy set was signed at {moment(signed)}, and the set that was last in force here at "
            f"{moment(before)}: an older set does not come back into force; sign the files anew with "
            "`creto policy sign`, or go back on purpose with `creto policy accept --allow-older`"
        )


def _put(tx: Transaction, signed: int) -> None:
    if not tx.swap(epochs, epochs.c.name == _EPOCH, value=signed):
        tx.insert(epochs, name=_EPOCH, value=signed)
