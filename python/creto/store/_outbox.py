"""The outbox: what a transaction decided is written beside it, and reaches the ledger exactly once.

A row holds its record under an id fixed before the first append. The ledger skips an id that its shard has; a row
names the shard that appends it, by its origin, so a crash between append and delete leaves nothing twice.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, delete, insert, select, update

from creto.errors import InvalidInputError
from creto.store.tables import outbox

__all__ = ["LedgerPort", "claim", "forget", "normal", "write"]

_DEFAULTS: dict[str, Any] = {
    "who": "",
    "delegation_chain": [],
    "what": "",
    "resource": "",
    "why": "",
    "outcome": None,
    "kind": "event",
    "digest": None,
    "policy": None,
    "usage": {},
    "detail": {},
}
_FIELDS = frozenset(_DEFAULTS) | {"id", "act", "timestamp"}


class LedgerPort(Protocol):
    """What the store needs of a ledger.

    Example:
        >>> import tempfile
        >>> from creto.store import Store
        >>> class Printed:
        ...     origin = "creto.local/ledger/1f/0000"
        ...     def append_records(self, records, /):
        ...         print([record["what"] for record in records])
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     _ = store.attach(Printed())
        ...     with store.begin() as tx:
        ...         _ = tx.outbox({"who": "creto", "what": "agent:create"})
        ['agent:create']
    """

    @property
    def origin(self) -> str:
        """What sets the shard that this process writes apart from those of all other folders and machines."""
        ...

    def append_records(self, records: Sequence[Mapping[str, Any]], /) -> None:
        """Appends the records, skips those whose id its shard has, and returns once all are on disk."""
        ...


def normal(record: Mapping[str, Any], now: int) -> dict[str, Any]:
    """A record with every field, as the ledger takes it.

    Args:
        record: Fields of `AuditRecord` by name; bytes are hexadecimal text or `bytes`.
        now: The timestamp of one that brings none, as a word.

    Raises:
        InvalidInputError: A field that no record has.
    """
    unknown = sorted(set(record) - _FIELDS)
    if unknown:
        raise InvalidInputError(f"a record has no field `{unknown[0]}`; it has {', '.join(sorted(_FIELDS))}")
    whole = {**_DEFAULTS, **record}
    whole["id"] = _hex(record.get("id")) or secrets.token_hex(16)
    whole["act"] = _hex(record.get("act")) or whole["id"]
    whole["timestamp"] = int(record.get("timestamp") or now)
    for name in ("digest", "policy"):
        whole[name] = _hex(whole[name])
    whole["delegation_chain"] = list(whole["delegation_chain"])
    whole["usage"] = {str(meter): int(units) for meter, units in dict(whole["usage"]).items()}
    whole["detail"] = {str(name): _text(value) for name, value in dict(whole["detail"]).items()}
    return whole


def _hex(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value.hex() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def write(connection: Connection, records: Iterable[dict[str, Any]], shard: str | None) -> None:
    """Puts records beside what the transaction decided."""
    rows = [{"record_id": record["id"], "shard": shard, "record": record} for record in records]
    if rows:
        connection.execute(insert(outbox), rows)


def claim(connection: Connection, shard: str, limit: int) -> list[dict[str, Any]]:
    """Takes over rows that no shard has claimed, and returns those of this one, oldest first."""
    connection.execute(update(outbox).where(outbox.c.shard.is_(None)).values(shard=shard))
    rows = connection.scalars(
        select(outbox.c.record).where(outbox.c.shard == shard).order_by(outbox.c.seq).limit(limit)
    )
    return list(rows)


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Removes rows whose records are in the ledger."""
    for start in range(0, len(ids), 500):
        connection.execute(delete(outbox).where(outbox.c.record_id.in_(ids[start : start + 500])))
