"""One record of the ledger, as Python sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

__all__ = ["AuditRecord"]

Outcome = Literal["success"] | Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord(Mapping[str, Any]):
    """Who did what to which resource, why it was allowed, and how it ended; also readable as a mapping of its fields.

    Args:
        who: SPIFFE id of the acting agent.
        what: The action, `namespace:verb`.
        resource: On what.
        delegation_chain: For whom: SPIFFE ids, the first delegator first.
        why: The policy, grant or rule that decided.
        outcome: None while it has not ended, `"success"`, or `{"failure": why}`.
        timestamp: The folder's hybrid logical time as a word: microseconds since the Unix epoch, times 4096, plus a
            counter; 0 for now.
        signature: The covering checkpoint with the proof of inclusion (C2SP tlog-proof text); empty until asked for.
        id: 32 hexadecimal digits; the same id is appended once. Empty for a new one.
        act: The act that it belongs to, likewise; empty for the id.
        kind: `intent`, `outcome`, `refusal` or `event`.
        digest: Digest of the act, hexadecimal.
        policy: Digest of the policy set that decided, hexadecimal.
        usage: Quantities used, by meter, in the meter's smallest unit.
        detail: Small further facts by name; never bodies, never secrets.
        shard: The shard that it lies in; set when it is read.
        index: Its place there; set when it is read.
        covered: True where the shard's latest checkpoint covers it; set when it is read.

    Example:
        >>> from creto.audit import AuditRecord
        >>> record = AuditRecord(who="spiffe://creto.local/agent/a", what="http:get", resource="https://example.org/")
        >>> record.kind, record["what"]
        ('event', 'http:get')
    """

    who: str
    what: str
    resource: str = ""
    delegation_chain: tuple[str, ...] = ()
    why: str = ""
    outcome: Outcome = None
    timestamp: int = 0
    signature: str = ""
    id: str = ""
    act: str = ""
    kind: Literal["intent", "outcome", "refusal", "event"] = "event"
    digest: str | None = None
    policy: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    detail: Mapping[str, str] = field(default_factory=dict)
    shard: str = ""
    index: int = -1
    covered: bool = False

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)

    @property
    def time(self) -> datetime:
        """When, as a point in time (UTC)."""
        return datetime.fromtimestamp((self.timestamp >> 12) / 1e6, UTC)

    @property
    def ended(self) -> str:
        """`success`, `failure`, `refused`, or empty."""
        if self.kind == "refusal":
            return "refused"
        if self.outcome is None:
            return ""
        return "success" if self.outcome == "success" else "failure"


_NAMES = tuple(f.name for f in fields(AuditRecord))
_WRITTEN = tuple(name for name in _NAMES if name not in {"signature", "shard", "index", "covered"})


def written(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as the native ledger takes it: what is empty is left out, and filled in there."""
    if type(record) is dict:
        return record
    return {name: value for name in _WRITTEN if (value := record.get(name)) not in ("", None, 0, ())}


def read(found: dict[str, Any]) -> AuditRecord:
    """A record as the native ledger gives it."""
    found["delegation_chain"] = tuple(found["delegation_chain"])
    return AuditRecord(**found)
