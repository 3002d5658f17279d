"""Past acts as the ledger holds them, to be recalled by likeness: what was done or refused, by whom, on what, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from creto import _core
from creto.audit import AuditRecord
from creto.audit._record import read
from creto.memory._memory import Entry

__all__ = ["MOST", "acts", "told"]

MOST = 100_000
"""How many acts are remembered: the latest. All of them are in the ledger, and found by `AuditClient.query`."""
_BATCH = 2_000


def acts(ledger: Path, after: Mapping[str, int]) -> Iterator[Entry]:
    """The acts of a ledger folder that have ended since a place in each of its shards.

    Args:
        ledger: The ledger folder.
        after: How many records of each shard were read before; a shard that is not named is read from its start, but
            for what lies too far back to be remembered.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     agent = layer.agent("researcher")
        ...     _ = layer.perform_blocking(agent, "tool:call", "search", lambda: 1, context={"q": "creto"})
        ...     ledger = layer.parts.folder / "ledger"
        >>> [entry.text[:26] for entry in acts(ledger, {}) if entry.text]
        ['tool:call tool:call search']
    """
    for name in _core.ledger_shards(ledger):
        shard = _core.LedgerShard(ledger / name)
        start = after.get(name)
        if start is None:
            checkpoint = shard.checkpoint()
            start = max(0, (checkpoint["size"] if checkpoint else 0) - 2 * MOST)
        follower = shard.follow(start)
        while records := follower.poll(_BATCH):
            for fields in records:
                record = read(fields)
                known = record.kind in ("outcome", "refusal")
                yield Entry(
                    key=f"{name}/{record.index}" if known else "",
                    text=told(record) if known else "",
                    subject=record.detail.get("subject", record.who),
                    position=record.index + 1,
                    part=name,
                )


def told(record: AuditRecord) -> str:
    """An act in words; what is sealed about a person is not among them.

    Example:
        >>> told(AuditRecord(who="spiffe://creto.local/agent/b", what="http:get", resource="r", kind="refusal"))
        'http:get http:get r b refused'
    """
    words = [record.what, record.what, record.resource, record.who.rsplit("/", 1)[-1], record.ended, record.why]
    words += [f"{name} {value}"[:200] for name, value in record.detail.items() if name not in ("subject", "personal")]
    if isinstance(record.outcome, Mapping):
        words.append(record.outcome["failure"][:200])
    return " ".join(word for word in words if word)
