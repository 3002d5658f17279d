"""Power loss for the whole state folder: disks that it can leave, rebuilt, recovered, held against what was promised.

A run is recorded by strace as the writes, syncs and names that it asked for. The model grants nothing that POSIX does
not: after the last sync of a file any subset of its 512-byte sectors may have been written; a name made, changed or
removed may be lost until its folder is synced, independently of every other. What is mapped is not seen: SQLite's
`-shm` is left out, as SQLite makes it anew; so is the clock's page, whose own tests are in the crate creto-consensus.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import creto
from creto import _core
from creto.errors import NotFoundError
from creto.metering import read_usage
from creto.metering._invoice import digest
from creto.oversight._approvers import _label
from creto.runtime import Secrets
from durable import QUOTA, TOLD_OF_HER, invoice

SECTOR = 512
# One in so many states is opened by the whole product, which takes ten times as long as to look into it.
REOPENED = 6
_CALLS = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,ftruncate,truncate,fallocate,link,linkat,sendfile,copy_file_range"
)


Chance = random.Random
Shares = Sequence[float]


@dataclass(frozen=True, slots=True)
class Op:
    """One step of a run: `kind` says which of the other fields count."""

    kind: str
    path: str = ""
    to: str = ""
    file: int = -1
    offset: int = 0
    data: bytes = b""


Chosen = Callable[[Op], bool]


def record(command: list[str], state: Path, log: Path) -> list[Op]:
    """What a command asked of the state folder, and what it promised on its standard output."""
    options = ["-f", "-y", "-qq", "-xx", "-s", "67108864", "-e", f"trace={_CALLS}"]
    done = subprocess.run(["strace", *options, "-o", str(log), *command], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"the run that is recorded failed: {done.stderr}")
    return list(_parse(log, str(state)))


def _plain(text: str) -> bytes:
    """The bytes of a string as `strace -xx` prints it."""
    return bytes.fromhex(text.replace("\\x", ""))


_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"(\d+)<((?:\\x[0-9a-f]{2})*)>")


def _parse(log: Path, state: str) -> Iterable[Op]:
    files: dict[str, int] = {}
    lengths: dict[int, int] = {}
    pending: dict[str, str] = {}
    count = 0
    inside = state + "/"
    with log.open() as lines:
        for line in lines:
            found = _LINE.match(line)
            if not found:
                continue
            pid, rest = found.groups()
            if rest.endswith("<unfinished ...>\n") or rest.endswith("<unfinished ...>"):
                pending[pid] = rest.rstrip().removesuffix("<unfinished ...>")
                continue
            if rest.startswith("<... "):
                rest = pending.pop(pid, "") + rest.partition(" resumed>")[2]
            call = _CALL.match(rest)
            if not call or call[3].startswith("-") or call[3] == "?":
                continue
            name, arguments, result = call.groups()
            strings = [_plain(s) for s in _STRING.findall(arguments)]
            handle = _HANDLE.search(arguments)
            on = _plain(handle[2]).decode(errors="replace") if handle else ""
            if name == "write" and handle and handle[1] == "1":
                for told in strings[0].decode().splitlines():
                    if told.startswith("ACK "):
                        yield Op("ack", *told.split(" ")[1:3])
                continue
            paths = [s.decode(errors="replace") for s in strings]
            if name == "openat":
                path = paths[0]
                if path.startswith(inside) and "O_CREAT" in arguments and path not in files:
                    files[path], lengths[count] = count, 0
                    yield Op("name", path, file=count)
                    count += 1
                if path.startswith(inside) and "O_TRUNC" in arguments and lengths.get(files.get(path, -1)):
                    lengths[files[path]] = 0
                    yield Op("cut", path, file=files[path], offset=0)
            elif name in ("mkdir", "mkdirat") and (paths[0] + "/").startswith(inside):
                yield Op("folder", paths[0])
            elif name in ("unlink", "unlinkat", "rmdir") and paths[0].startswith(inside):
                files.pop(paths[0], None)
                yield Op("remove", paths[0])
            elif name.startswith("rename") and paths[0].startswith(inside):
                if paths[0] in files:
                    files[paths[1]] = files.pop(paths[0])
                yield Op("rename", paths[0], paths[1])
            elif name in ("link", "linkat") and paths[1].startswith(inside):
                files[paths[1]] = files[paths[0]]
                yield Op("name", paths[1], file=files[paths[0]])
            elif not (on + "/").startswith(inside):
                continue
            elif name in ("fsync", "fdatasync"):
                yield Op("sync", on, file=files[on]) if on in files else Op("sync folder", on)
            elif on not in files:
                continue
            elif name == "ftruncate":
                length = int(arguments.rsplit(",", 1)[1])
                if length < lengths[files[on]]:
                    yield Op("cut", on, file=files[on], offset=length)
                lengths[files[on]] = length
            elif name == "fallocate":
                whole = sum(map(int, arguments.rsplit(",", 2)[1:]))
                if whole > lengths[files[on]]:
                    yield Op(
                        "write", on, file=files[on], offset=lengths[files[on]], data=bytes(whole - lengths[files[on]])
                    )
                    lengths[files[on]] = whole
            elif name in ("write", "pwrite64"):
                data, at = strings[0][: int(result)], lengths[files[on]]
                if name == "pwrite64":
                    at = int(arguments.rsplit(",", 1)[1])
                lengths[files[on]] = max(lengths[files[on]], at + len(data))
                yield Op("write", on, file=files[on], offset=at, data=data)
            else:
                raise RuntimeError(f"`{name}` on `{on}` is not modelled")


def left(ops: list[Op], at: int, state: str, chance: random.Random) -> tuple[dict[str, bytes], set[str], list[Op]]:
    """Files, folders and promises of a disk that a loss of power after the first `at` steps may have left."""
    synced: dict[int, int] = {}
    folders_synced: dict[str, int] = {}
    for i, op in enumerate(ops[:at]):
        if op.kind == "sync":
            synced[op.file] = i
        elif op.kind == "sync folder":
            folders_synced[op.path] = i
    # Mostly some of what was not synced is there; sometimes all or nothing of it.
    share = chance.choice([0.0, 1.0, 0.5, 0.2, 0.8])

    def named(path: str, i: int) -> bool:
        return folders_synced.get(path.rpartition("/")[0], -1) > i

    files: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    folders = {state}
    promised = []
    for i, op in enumerate(ops[:at]):
        if op.kind == "ack":
            promised.append(op)
        elif op.kind in ("write", "cut"):
            file = files.setdefault(op.file, bytearray())
            whole = synced.get(op.file, -1) > i or share == 1.0
            if op.kind == "cut":
                if whole or chance.random() < share:
                    del file[op.offset :]
                continue
            start = 0
            while start < len(op.data):
                end = len(op.data) if whole else min(start + SECTOR - (op.offset + start) % SECTOR, len(op.data))
                if whole or chance.random() < share:
                    if len(file) < op.offset + end:
                        file.extend(bytes(op.offset + end - len(file)))
                    file[op.offset + start : op.offset + end] = op.data[start:end]
                start = end
        elif op.kind in ("name", "remove", "folder", "rename"):
            durable = named(op.path, i) and (op.kind != "rename" or named(op.to, i))
            if not durable and chance.random() >= share:
                continue
            if op.kind == "name":
                names[op.path] = op.file
            elif op.kind == "folder":
                folders.add(op.path)
            elif op.kind == "remove":
                names.pop(op.path, None)
                folders.discard(op.path)
            elif op.path in names:
                names[op.to] = names.pop(op.path)

    def reachable(path: str) -> bool:
        above = path.rpartition("/")[0]
        return above == state or (above in folders and reachable(above))

    there = {path: bytes(files.get(file, b"")) for path, file in names.items() if reachable(path)}
    return there, {folder for folder in folders if folder == state or reachable(folder)}, promised


def materialise(ops: list[Op], at: int, state: str, into: Path, chance: random.Random) -> list[Op]:
    """Writes such a disk into a folder and returns what had been promised by then."""
    files, folders, promised = left(ops, at, state, chance)
    into.mkdir(mode=0o700)
    for folder in sorted(folders - {state}):
        (into / folder[len(state) + 1 :]).mkdir(mode=0o700)
    for path, data in files.items():
        if not path.endswith("-shm") and path != f"{state}/clock":
            target = into / path[len(state) + 1 :]
            target.write_bytes(data)
            target.chmod(0o600)
    return promised


class BrokenError(Exception):
    """A promise that a state does not keep."""


Rows = Callable[[str, tuple[object, ...]], list[tuple[object, ...]]]


def _rows(folder: Path) -> Rows:
    place = folder / "creto.db"
    if not place.exists():
        return lambda _query, _values: []
    connection = sqlite3.connect(place)
    (verdict,) = connection.execute("pragma integrity_check").fetchone()
    if verdict != "ok":
        raise BrokenError(f"the store is damaged: {verdict}")

    def rows(query: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise

    return rows


def _records(folder: Path) -> list[dict[str, object]]:
    """All records of the ledger, after its own recovery."""
    clock = _core.HybridLogicalClock(folder / "clock")
    if not (folder / "ledger").exists():
        return []
    ledger = _core.Ledger(folder / "ledger", clock, _core.SigningKey.generate())
    ledger.close_blocking()
    records: list[dict[str, object]] = []
    for name in _core.ledger_shards(folder / "ledger"):
        shard = _core.LedgerShard(folder / "ledger" / name)
        checkpoint = shard.checkpoint()
        if checkpoint:
            records += shard.records(0, checkpoint["size"], checkpoint["size"])
    return records


def check(folder: Path, promised: list[Op]) -> None:
    """Holds a state against what had been promised.

    Raises:
        BrokenError: A promise is not kept.
    """
    rows = _rows(folder)
    records = _records(folder)
    ids = [record["id"] for record in records]
    if len(ids) != len(set(ids)):
        raise BrokenError("a record is in the ledger twice")
    sealer = _core.Sealer.open(str(folder / "keys")) if (folder / "keys" / "sealing.key").exists() else None
    for promise in promised:
        kind, key = promise.path, promise.to
        if kind == "agent":
            kept = rows("select sealed_signing_key, generation from agent_keys where agent = ?", (key,))
            if not kept or sealer is None:
                raise BrokenError(f"agent `{key}` or its keys are gone")
            for sealed, generation in kept:
                _core.SigningKey.unseal(sealed, sealer, f"agent {key} {generation} signing")
        elif kind == "approver":
            kept = rows(
                "select state, sealed_keys, public_keys, token_digest, policies from approvers where id = ?", (key,)
            )
            if not kept or sealer is None:
                raise BrokenError(f"approver `{key}` or its keys are gone")
            for state, sealed, public, token, policies in kept:
                # Whoever is being dismissed has no keys any more; who was dismissed is looked at below.
                if state == "active":
                    own = _core.SigningKey.unseal(sealed, sealer, _label(key, token, json.loads(policies)))
                    if own.verifying_key.to_text() != json.loads(str(public)):
                        raise BrokenError(f"approver `{key}` has the keys of another")
        elif kind == "dismissed":
            if rows("select state, sealed_keys from approvers where id = ?", (key,)) != [("revoked", None)]:
                raise BrokenError(f"approver `{key}` was dismissed, and may answer again")
        elif kind == "approved":
            if not rows("select 1 from grants where request = ?", (key,)):
                raise BrokenError(f"the grant of request `{key}` is gone")
        elif kind in ("running", "performed"):
            of = [record for record in records if record["resource"] == key]
            if not any(record["kind"] == "intent" for record in of):
                raise BrokenError(f"`{key}` ran, and its intent is not in the ledger")
            states = {
                str(state) for (state,) in rows("select state from oversight_requests where resource = ?", (key,))
            }
            if not states or not states <= {"executing", "executed", "unknown"}:
                raise BrokenError(f"`{key}` ran, and its request is {states or 'gone'}: it could run again")
            if kind == "performed" and not any(
                record["outcome"] == "success" for record in of if record["kind"] == "outcome"
            ):
                raise BrokenError(f"`{key}` was performed, and its outcome is not in the ledger")
        elif kind == "message":
            blobs = rows("select digest, blob from attachments", ())
            if not rows("select 1 from mailbox where message_id = ?", (key,)) or not blobs:
                raise BrokenError(f"message `{key}` is gone, or what was attached to it")
            if any(hashlib.sha512(blob).digest() != digest for digest, blob in blobs):
                raise BrokenError(f"what was attached to message `{key}` is damaged")
        elif kind == "leaving":
            waiting = rows("select state, length(envelope) from outgoing where message_id = ?", (key,))
            if not waiting or (waiting[0][0] == "waiting" and not waiting[0][1]):
                raise BrokenError(f"message `{key}` for another machine is gone before anybody has it")
        elif kind == "received":
            if not rows("select 1 from outgoing where message_id = ? and state = 'received' and receipt <> ''", (key,)):
                raise BrokenError(f"the receipt of message `{key}` is gone")
        elif kind == "answered":
            if not rows("select 1 from mailbox where message_id = ? and length(envelope) > 0", (key,)):
                raise BrokenError(f"message `{key}` came, its sender has a receipt for it, and it is gone")
        elif kind in ("person", "erased"):
            if sealer is None:
                raise BrokenError("the sealing key is gone")
            person = key.replace("_", " ")
            try:
                read = _told_of(folder, records, sealer, person)
            except NotFoundError:
                read = None
            if kind == "person" and read != TOLD_OF_HER:
                raise BrokenError(f"what was recorded of `{person}` cannot be read: {read}")
            if kind == "erased" and read is not None:
                raise BrokenError(f"`{person}` was erased, and can be read again: {read}")
        elif kind == "invoice":
            _check_invoice(rows, key)
        elif kind == "rotated":
            if sorted(rows("select generation from agent_keys where agent = ?", (key,))) != [(1,), (2,)]:
                raise BrokenError(f"agent `{key}` lost its new keys")
        elif kind == "revoked":
            if rows("select state from agents where id = ?", (key,)) != [("revoked",)]:
                raise BrokenError(f"agent `{key}` was revoked, and may act again")
        elif kind == "secret":
            if not rows("select 1 from secrets where agent = ?", (key,)):
                raise BrokenError(f"the secret of `{key}` is gone")
        elif kind == "usage":
            usage = read_usage(folder / "ledger")
            # Twenty events of two pages each, from every run on this folder.
            pages = sum(int(bucket.value) for bucket in usage.aggregate("pages"))
            if usage.duplicates or pages < 40 or pages % 40:
                raise BrokenError(f"usage of `{key}` was taken, and is not there, or twice")


def _told_of(folder: Path, records: list[dict[str, object]], sealer: _core.Sealer, person: str) -> object:
    """What the ledger says of a person."""
    subjects = _core.LedgerSubjects(folder / "keys" / "subjects", sealer)
    pseudonym = subjects.pseudonym(person)
    for record in records:
        detail = record["detail"]
        assert isinstance(detail, Mapping)
        if detail.get("subject") == pseudonym:
            return json.loads(subjects.open(person, str(record["id"]), detail["personal"]))
    raise BrokenError(f"the record about `{person}` is gone")


def _check_invoice(rows: Rows, number: str) -> None:
    for document, kept in rows("select document, digest from invoices where number = ?", (number,)):
        if digest(json.loads(str(document))) != (kept.hex() if isinstance(kept, bytes) else kept):
            raise BrokenError(f"invoice {number} is not the one that was finalized")
        break
    else:
        raise BrokenError(f"invoice {number} is gone")
    given = [str(one) for (one,) in rows("select number from invoices order by number", ())]
    series = number.rpartition("-")[0]
    [(last,)] = rows("select last from numbers where series = ?", (series.replace("INV-", "invoice/"),))
    if given != [f"{series}-{n:06d}" for n in range(1, len(given) + 1)] or last != len(given):
        raise BrokenError(f"the numbers {given} of invoices have a gap, or the next one is given twice (last: {last})")


def check_reopened(folder: Path, promised: list[Op]) -> None:
    """Opens the whole product on a state, has it act, and holds what it says against what had been promised.

    Raises:
        BrokenError: A promise is not kept.
    """
    config = folder.parent / "house.toml"
    config.write_text(QUOTA)
    with creto.open_blocking(folder, config=[config]) as layer:
        parts = layer.parts
        for promise in promised:
            if promise.path == "secret":
                value = Secrets(parts.store, parts.sealer).of(promise.to).get("TOKEN", "")
                if not value.startswith("secret of "):
                    raise BrokenError(f"the secret of `{promise.to}` is {value!r}")
            elif promise.path == "spent":
                # Never less than was spent: that could be spent again.
                held = sum(window["used"] + window["held"] for window in parts.quota.leases.authority.usage(0))
                if held < 1:
                    raise BrokenError(f"`{promise.to}` was charged, and its unit could be spent again")
        numbered = [promise.to for promise in promised if promise.path == "invoice"]
        if numbered:
            later = invoice(parts.store, "later")
            _check_invoice(_rows(folder), later)
            for number in numbered:
                found = layer.call_blocking(partial(parts.audit.query, action="invoice:finalize", resource=number))
                if len(found) != 1:
                    raise BrokenError(f"the ledger tells {len(found)} times that {number} was finalized")
        layer.perform_blocking(layer.agent("later"), "tool:call", "later", lambda: None, usage={"requests": 1})
        layer.call_blocking(parts.audit.verify)
    ids = [record["id"] for record in _records(folder)]
    if len(ids) != len(set(ids)):
        raise BrokenError("once it was opened again, a record is in the ledger twice")
    if waiting := _rows(folder)("select record_id from outbox", ()):
        raise BrokenError(f"{len(waiting)} records still wait in the outbox after it was opened and closed")


def explore(ops: list[Op], state: str, scratch: Path, numbers: Iterable[int]) -> str | None:
    """Checks states by their numbers; what is wrong with the first that does not hold."""
    for number in numbers:
        chance = random.Random(number)
        at = chance.randrange(len(ops) + 1)
        folder = scratch / f"{number}"
        try:
            promised = materialise(ops, at, state, folder, chance)
            check(folder, promised)
            if number % REOPENED == 0:
                check_reopened(folder, promised)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a recovery is what is looked for
            return f"state {number} (after {at} of {len(ops)} steps): {type(error).__name__}: {error}"
        finally:
            subprocess.run(["rm", "-rf", str(folder)], check=True)
    return None


if __name__ == "__main__":
    # In a process of its own: the steps that `record` logged, and the numbers of states to check.
    log, state, scratch, first, after = (
        Path(sys.argv[1]),
        sys.argv[2],
        Path(sys.argv[3]),
        int(sys.argv[4]),
        int(sys.argv[5]),
    )
    wrong = explore(list(_parse(log, state)), state, scratch, range(first, after))
    print(wrong or "")
    sys.exit(wrong is not None)
