"""Reading a ledger folder, in any process: all shards as one, merged by timestamp."""

from __future__ import annotations

import heapq
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from creto import _core
from creto._progress import Progress, watched
from creto.audit._filter import Filter, is_id
from creto.audit._index import LedgerIndex, StaleIndexError
from creto.audit._record import AuditRecord, read
from creto.errors import IntegrityError, InvalidInputError, NotFoundError

__all__ = [
    "Followers",
    "Proof",
    "Verified",
    "check",
    "find",
    "intact",
    "pages",
    "prove",
    "query",
    "require_own",
    "scan",
    "shards",
    "verify",
]

T = TypeVar("T")
_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class Proof:
    """That a record is in the ledger, for whoever has the public key and nothing else.

    Args:
        text: The proof (C2SP tlog-proof): place, path to the root, signed checkpoint.
        entry: The record's bytes, of which the tree's leaf is the hash.
        record: The record, its `signature` set to the proof.
        origin: The log that the checkpoint is of.
        size: How many records it covers.
        root: Its root, hexadecimal.

    Example:
        >>> import tempfile, creto
        >>> from creto.audit import trusted_keys
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
        ...     proof = layer.call_blocking(layer.parts.audit.prove, "0000/0")
        ...     proof.verify(trusted_keys(layer.parts.folder))
    """

    text: str
    entry: bytes
    record: AuditRecord
    origin: str
    size: int
    root: str

    def verify(self, keys: Iterable[_core.VerifyingKey]) -> None:
        """Raises unless the record is under a checkpoint that one of these key sets signed.

        Args:
            keys: Public keys that are trusted.

        Raises:
            IntegrityError: The proof does not lead to the root.
            SignatureVerificationFailedError: None of the keys signed it.
        """
        check(self.text, self.entry, keys)


def check(text: str, entry: bytes, keys: Iterable[_core.VerifyingKey]) -> dict[str, Any]:
    """The checkpoint that a proof of a record's bytes leads to, where one of the keys signed it."""
    from creto.errors import SignatureVerificationFailedError

    refused: SignatureVerificationFailedError | None = None
    for key in keys:
        try:
            return _core.ledger_verify_proof(text, entry, key)
        except SignatureVerificationFailedError as error:
            refused = error
    raise refused or SignatureVerificationFailedError("there is no public key to check the proof with")


@dataclass(frozen=True, slots=True)
class Verified:
    """A shard that was found intact.

    Args:
        shard: Its name.
        origin: What its checkpoints are signed under.
        size: How many records its checkpoint covers.
        root: The root of the tree over them, hexadecimal.
        note: The signed checkpoint; keep it, and give it back as `seen` next time.
        unsigned: How many more records are on disk: no checkpoint covers them yet, and nothing was checked of them.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     _ = layer.perform_blocking(layer.agent("researcher"), "tool:call", "add", lambda: 1 + 1)
        ...     found = layer.call_blocking(layer.parts.audit.verify)
        >>> [(shard.shard, shard.size > 1, len(shard.root)) for shard in found]
        [('0000', True, 64)]
    """

    shard: str
    origin: str
    size: int
    root: str
    note: str
    unsigned: int = 0


def shards(folder: Path) -> list[_core.LedgerShard]:
    """Every shard of a ledger folder."""
    return [_core.LedgerShard(folder / name) for name in _core.ledger_shards(folder)]


def query(
    folder: Path,
    index: LedgerIndex,
    wanted: Filter,
    *,
    limit: int = 1000,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[AuditRecord]:
    """The latest records that match, over all shards, in order of time."""
    if limit < 1:
        raise InvalidInputError(f"a limit is at least 1, not {limit}")
    found = _by_index(index, progress, lambda: index.latest(wanted, limit), stop)
    return scan(folder, wanted, limit=limit) if found is None else found


def scan(folder: Path, wanted: Filter, *, limit: int = 1000) -> list[AuditRecord]:
    """The same without an index: every record is looked at, from the latest back."""
    fields = {name: getattr(wanted, name) for name in Filter.__slots__ if name != "subject"}
    # The native search knows nothing of people, so it gives all that else fits.
    most = limit if wanted.subject is None else _ALL
    found = [map(read, shard.query(limit=most, **fields)) for shard in shards(folder)]
    merged = sorted(
        (record for records in found for record in records if wanted.fits(record)),
        key=lambda r: (r.timestamp, r.shard, r.index),
    )
    return merged[-limit:]


def pages(
    folder: Path, index: LedgerIndex, wanted: Filter, *, progress: Progress | None = None
) -> tuple[int, Iterator[list[AuditRecord]]]:
    """How many records match, and all of them, in order of time, a thousand at a time."""
    count = _by_index(index, progress, lambda: index.count(wanted))
    if count is None:
        found = scan(folder, wanted, limit=_ALL)
        return len(found), iter([found])
    return count, _paged(index, wanted)


def _paged(index: LedgerIndex, wanted: Filter) -> Iterator[list[AuditRecord]]:
    try:
        yield from index.each(wanted)
    except StaleIndexError as error:
        index.discard()
        raise IntegrityError(f"the ledger was changed while it was read ({error}); read it again") from error


def _by_index(
    index: LedgerIndex, progress: Progress | None, use: Callable[[], T], stop: threading.Event | None = None
) -> T | None:
    """What the index gives once it has caught up; None where there can be none here."""
    for _ in range(2):
        try:
            index.catch_up(progress, stop)
            if stop is not None and stop.is_set():
                raise InterruptedError("whoever asked is gone")
            return use()
        except StaleIndexError:
            index.discard()
        except InterruptedError:
            raise
        except (sqlite3.OperationalError, OSError):
            return None  # a folder that cannot be written to, a full disk, a process that holds on to it
        except sqlite3.DatabaseError:
            index.discard()  # damaged: it is made anew
    return None


def find(folder: Path, index: LedgerIndex, name: str) -> list[AuditRecord]:
    """The records of an act, or the one of an id; `name` is 32 hexadecimal digits, or `shard/index`."""
    shard, slash, place = name.partition("/")
    if slash:
        known = place.isascii() and place.isdecimal() and len(place) < 20 and shard in _core.ledger_shards(folder)
        found = [read(one) for one in _core.LedgerShard(folder / shard).pick({int(place)})] if known else []
    else:
        if not is_id(name):
            raise InvalidInputError(
                f"`{name}` is no id: give the 32 hexadecimal digits of an act or a record, or a record's place as "
                "`creto audit tail` shows it, such as `0000/17`"
            )
        found = query(folder, index, Filter(act=name), limit=100_000) or query(folder, index, Filter(id=name), limit=1)
    if not found:
        raise NotFoundError(f"there is no {'record' if slash else 'act or record'} `{name}`")
    return found


def prove(folder: Path, record: AuditRecord) -> Proof:
    """The proof that a record is in the ledger, by its shard's latest checkpoint.

    Raises:
        NotFoundError: No checkpoint covers it yet.
    """
    from dataclasses import replace

    shard = _proving(folder / record.shard)
    text = shard.prove(record.index)
    checkpoint = shard.checkpoint()
    if checkpoint is None:
        raise NotFoundError(f"shard `{record.shard}` has no checkpoint")
    entry = shard.entry(record.index, checkpoint["size"])
    origin, size, root = _named(text)
    whole = replace(record, signature=text, covered=True)
    return Proof(text=text, entry=entry, record=whole, origin=origin, size=size, root=root)


@lru_cache(maxsize=8)
def _proving(path: Path) -> _core.LedgerShard:
    """A shard whose upper tiles are kept from one proof to the next; a proof is checked before it is handed out."""
    return _core.LedgerShard(path)


def _named(proof: str) -> tuple[str, int, str]:
    from base64 import b64decode

    origin, size, root = proof.split("\n\n", 1)[1].split("\n")[:3]
    return origin, int(size), b64decode(root).hex()


def verify(
    folder: Path,
    keys: Sequence[_core.VerifyingKey],
    seen: Sequence[str] = (),
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[Verified]:
    """Checks every shard: each record, tile and signature, and that it extends what was seen of it before.

    Args:
        folder: The ledger folder.
        keys: Public keys that are trusted.
        seen: Signed checkpoints of its shards, kept from before or published elsewhere.
        progress: Called with shard, records checked and records in all, now and then.
        stop: Once it is set nobody waits for the answer, and no further shard is checked.

    Raises:
        IntegrityError: A record was changed or removed, or the ledger was rolled back or forked; the text says where.
        SignatureVerificationFailedError: A checkpoint is not signed by any of the keys.
    """
    origins: dict[str, list[str]] = {}
    for note in seen:
        origins.setdefault(note.split("\n", 1)[0], []).append(note)
    verified: list[Verified] = []
    for shard in shards(folder):
        if stop is not None and stop.is_set():
            return verified
        checkpoint = shard.checkpoint()
        if checkpoint is None:
            # Made, and closed or killed before its first record; where it was seen before, its log is gone: see below.
            if shard.tail(0) and not any(origin.rpartition("/")[2] == shard.name for origin in origins):
                raise NotFoundError(
                    f"shard `{shard.name}` has records and no checkpoint; open the ledger once to recover it"
                )
            continue
        with watched(progress, shard.name, checkpoint["size"]) as counter:
            found = intact(shard, keys, origins.pop(checkpoint["origin"], []), counter)
        beyond = len(shard.tail(found["size"]))
        verified.append(Verified(shard.name, found["origin"], found["size"], found["root"], found["note"], beyond))
    if origins:
        gone = sorted(origins)[0]
        raise IntegrityError(
            f"the log `{gone}` was seen before and is not there any more: it was removed or put in another's place"
        )
    return verified


def intact(
    shard: _core.LedgerShard, keys: Sequence[_core.VerifyingKey], seen: Sequence[str], counter: _core.Progress
) -> dict[str, Any]:
    """A shard's checkpoint, once every record, tile and signature was checked, and that it is this shard's own.

    One key signs all logs of a folder: without the name, a log could stand in another's place, or twice.

    Args:
        shard: The shard.
        keys: Public keys that are trusted.
        seen: Signed checkpoints of its log, kept from before.
        counter: Counts records as they are checked.

    Raises:
        IntegrityError: Something was changed, or it is the log of another shard.
        SignatureVerificationFailedError: A checkpoint is not signed by any of the keys.
    """
    found = shard.verify(list(keys), list(seen), counter)
    origin: str = found["origin"]
    require_own(shard, origin)
    if any(note.split("\n", 1)[0] != origin for note in seen):
        raise IntegrityError(f"shard `{shard.name}` was put in another's place while it was checked")
    return found


def require_own(shard: _core.LedgerShard, origin: str) -> None:
    """Does nothing where a log is this shard's own, as its name says.

    Raises:
        IntegrityError: It is the log of another shard.
    """
    if origin.rpartition("/")[2] != shard.name:
        raise IntegrityError(f"shard `{shard.name}` is a copy of another: its checkpoint is of the log `{origin}`")


class Followers:
    """All shards of a ledger folder, followed as they are written; new ones are found as they appear."""

    def __init__(self, folder: Path, *, from_start: bool) -> None:
        self._folder = folder
        self._from_start = from_start
        self._followers: dict[str, _core.LedgerFollower] = {}
        self._look()
        self._from_start = True
        if not from_start:
            self.poll()

    def _look(self) -> None:
        for name in _core.ledger_shards(self._folder):
            if name not in self._followers:
                shard = _core.LedgerShard(self._folder / name)
                checkpoint = None if self._from_start else shard.checkpoint()
                self._followers[name] = shard.follow(checkpoint["size"] if checkpoint else 0)

    def poll(self) -> list[AuditRecord]:
        """The records that have come since last asked, merged by timestamp."""
        self._look()
        parts = [sorted(map(read, follower.poll()), key=lambda r: r.timestamp) for follower in self._followers.values()]
        return list(heapq.merge(*parts, key=lambda r: (r.timestamp, r.shard, r.index)))

    def reached(self) -> tuple[int, int]:
        """How many records were followed so far, and how many of them no checkpoint covers."""
        behind = 0
        for name, follower in self._followers.items():
            checkpoint = _core.LedgerShard(self._folder / name).checkpoint()
            behind += max(0, follower.next - (checkpoint["size"] if checkpoint else 0))
        return sum(follower.next for follower in self._followers.values()), behind
