"""Erasing a person from a state folder: the key that opens what records say, and every copy that is kept beside them.

The ledger itself loses nothing: its records and proofs stay as they are, and what they said about the person cannot be
read any more, in any copy of it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio.to_thread

from creto.errors import UnauthorizedError
from creto.oversight._erasure import erase_mentions, mentioned

if TYPE_CHECKING:
    from creto.audit import AuditClient, Subjects
    from creto.memory import Precedents
    from creto.store import Store

__all__ = ["FLOOR_DAYS", "Erased", "erase", "expire"]

FLOOR_DAYS = 183
"""Nothing expires earlier, whatever is configured: six months are the least that logs of AI systems are kept for
(Regulation (EU) 2024/1689, articles 19 and 26)."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Args:
        pseudonym: The name that stands in records for the person.
        key: True where there was a key to erase: False where it was erased before, or nothing was ever recorded.
        requests: How many past oversight requests named the person, and were emptied.
        still_open: How many open ones do; erase again once they have ended.

    Example:
        >>> Erased("p-0f2c", key=True, requests=2, still_open=0).requests
        2
    """

    pseudonym: str
    key: bool
    requests: int
    still_open: int


async def erase(
    subject: str,
    *,
    audit: AuditClient,
    subjects: Subjects,
    store: Store,
    precedents: Precedents,
    retention_days: int = 183,
    early: str = "",
) -> Erased:
    """Erases a person: from records, from past oversight requests, from what is recalled, and from the files of these.

    Each step may be done again: after a crash, erase again. The last step is the record that it was done.

    Args:
        subject: Whom, by the name that records were sealed under.
        audit: The ledger, opened for writing.
        subjects: The keys.
        store: The store.
        precedents: What is recalled of past decisions.
        retention_days: For how long what is recorded about a person is kept at least.
        early: Why it is erased earlier, which is recorded.

    Raises:
        UnauthorizedError: Something was recorded about the person within that time, and no reason is given.
        TimeoutError: Another process holds the store; what was erased may be in its log of changes still.

    Example:
        >>> import asyncio, tempfile, creto
        >>> from creto.audit import Subjects
        >>> from creto.memory import Precedents
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         parts = layer.parts
        ...         subjects = Subjects(parts.folder, parts.sealer)
        ...         held = {"audit": parts.audit, "store": parts.store, "precedents": Precedents(parts.store)}
        ...         erased = await erase("anna@example.org", subjects=subjects, **held)
        ...         return erased.key, erased.requests
        >>> asyncio.run(main())  # nothing was recorded about her
        (False, 0)
    """
    pseudonym = subjects.pseudonym(subject)
    latest = await audit.query(subject=pseudonym, limit=1)
    until = latest[0].time + timedelta(days=retention_days) if latest else None
    if until is not None and until > datetime.now(UTC) and not early:
        raise UnauthorizedError(
            f"what is recorded about this person is kept until {until:%Y-%m-%d} (`audit.retention_days` is "
            f"{retention_days}); to erase it earlier, give the reason, which is recorded"
        )
    key = subjects.erase(subject)
    emptied, still_open = await store.run(erase_mentions, subject, pseudonym)
    precedents.drop(emptied)
    await anyio.to_thread.run_sync(store.scrub)
    # A crash may have come between: the record is made up for.
    told = await audit.query(action="subject:erase", resource=pseudonym, limit=1)
    if key or emptied or (latest and not told):
        why = early or f"nothing was recorded about this person for {retention_days} days"
        await audit.log({"who": "creto", "what": "subject:erase", "resource": pseudonym, "why": why})
    return Erased(pseudonym, key, len(emptied), still_open)


async def expire(
    *,
    audit: AuditClient,
    subjects: Subjects,
    store: Store | None = None,
    precedents: Precedents | None = None,
    retention_days: int = FLOOR_DAYS,
    look_only: bool = False,
) -> list[str]:
    """Erases everybody about whom nothing has been recorded for as long as the retention lasts.

    Nobody has to be named for it: where past oversight requests say a name, as a whole text or as a word of one, its
    pseudonym shows whose it is, and they are emptied as by `erase`. Each erasure is in the ledger before it is done and
    again once it is: a crash between leaves a key that the next time erases.

    Args:
        audit: The ledger; opened for writing, unless it is only looked.
        subjects: The keys.
        store: Where past oversight requests are; they are left as they are where none is given.
        precedents: What is recalled of past decisions.
        retention_days: For how long what is recorded about a person is kept; `FLOOR_DAYS` where that is more.
        look_only: Erase nothing.

    Returns:
        The pseudonyms of those who were erased, or would be.

    Example:
        >>> import asyncio, tempfile, creto
        >>> from creto.audit import AuditRecord, Subjects
        >>> async def main():
        ...     async with creto.open(tempfile.mkdtemp()) as layer:
        ...         subjects = Subjects(layer.parts.folder, layer.parts.sealer)
        ...         record = AuditRecord(who="w", what="crm:read")
        ...         await layer.parts.audit.log(subjects.sealed(record, "ann@example.org", {"born": "1970"}))
        ...         return await expire(audit=layer.parts.audit, subjects=subjects)
        >>> asyncio.run(main())  # it was recorded just now
        []
    """
    days = max(retention_days, FLOOR_DAYS)
    before = datetime.now(UTC) - timedelta(days=days)
    due = []
    for pseudonym, made in await anyio.to_thread.run_sync(subjects.kept):
        if made >= before:
            continue
        latest = await audit.query(subject=pseudonym, limit=1)
        if not latest or latest[0].time < before:
            due.append(pseudonym)
    if look_only or not due:
        return due
    acts = {pseudonym: secrets.token_hex(16) for pseudonym in due}

    async def tell(pseudonym: str, **ended: str) -> None:
        why = f"nothing was recorded about this person for {days} days"
        told = {"who": "creto", "what": "subject:erase", "resource": pseudonym, "why": why, "act": acts[pseudonym]}
        await audit.log({**told, **ended})

    for pseudonym in due:
        await tell(pseudonym, kind="intent")
    if store is not None:
        # Before their keys are gone: without those a next time would not look for them.
        await _empty(store, precedents, subjects, due)
    for pseudonym in due:
        await anyio.to_thread.run_sync(subjects.erase_pseudonym, pseudonym)
        await tell(pseudonym, kind="outcome", outcome="success")
    return due


async def _empty(store: Store, precedents: Precedents | None, subjects: Subjects, due: list[str]) -> None:
    emptied: list[str] = []
    for name, pseudonym in (await store.fetch(mentioned, subjects.pseudonym, set(due))).items():
        emptied += (await store.run(erase_mentions, name, pseudonym))[0]
    if precedents is not None:
        precedents.drop(emptied)
    if emptied:
        await anyio.to_thread.run_sync(store.scrub)
