"""Fetches the public ledger of somebody else, by the paths that `creto audit serve` answers, into a folder like theirs.

Nothing that comes is believed: whoever reads the folder checks signed checkpoints, tiles and batches as in any other.
Nothing that comes fills the disk, or takes for ever: what is fetched has a bound, and each answer its time.
"""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from creto import _core
from creto.audit._web import ask
from creto.errors import ConnectionFailedError, InvalidInputError, NotFoundError

__all__ = ["MOST_BYTES", "fetch"]

MOST_BYTES = 4 << 30
"""No ledger larger than this is fetched, unless said otherwise."""

_BLOCK = 4096  # what a file takes at least
_LEAST = 64  # bytes of the shortest record, with its hash
_MOST = 64 << 20  # bytes of one answer: a tile of entries has at most 256 records of 64 KiB
_WIDTH = 256
_CHUNK = 4096
_NAME = re.compile(r"[0-9]{4}")
_PLACE = re.compile(r"([0-9]{1,6}):([0-9]{1,12}):([0-9]{1,10})")
_SIZE = re.compile(rb"[0-9]{1,12}")


class _Budget:
    """How much may still be written."""

    def __init__(self, url: str, folder: Path, most: int) -> None:
        self._url, self._folder, self._most, self._taken = url, folder, most, 0
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        # What others need of the disk stays.
        self._room = min(most, free * 9 // 10)

    def foresee(self, name: str, records: int) -> None:
        """Refuses before the first tile what cannot fit."""
        if self._taken + records * _LEAST > self._room:
            raise self._too_large(
                f"log {name} has {records:,} records, {records * _LEAST >> 20:,} MiB at the very least"
            )

    def take(self, content: bytes) -> None:
        """Counts what is about to be written."""
        self._taken += -(-len(content) // _BLOCK) * _BLOCK
        if self._taken > self._room:
            raise self._too_large(f"{self._taken >> 20:,} MiB have come, and more is there")

    def _too_large(self, what: str) -> InvalidInputError:
        bound = f"{self._most >> 20:,} MiB may be fetched"
        if self._room < self._most:
            bound = f"{self._room >> 20:,} MiB are free for it in `{self._folder}`"
        return InvalidInputError(
            f"the ledger at {self._url} is too large: {what}, but {bound}; allow more, or have its folder given to you"
        )


def fetch(url: str, folder: Path, *, most: int = MOST_BYTES) -> list[str]:
    """Fetches checkpoints, tiles and batches of every log that a server has.

    Args:
        url: Where it answers, as `http://127.0.0.1:8474`.
        folder: Where they go, an empty one.
        most: Bytes on disk that it may take; nine tenths of what is free there at the most, whatever is given.

    Returns:
        The names of the logs.

    Raises:
        InvalidInputError: It is no address, answers what no ledger does, or is larger than may be fetched; what had
            come by then is left in the folder.
        ConnectionFailedError: It does not answer, or takes minutes for one answer.

    Example:
        >>> import tempfile
        >>> fetch("ftp://127.0.0.1", Path(tempfile.mkdtemp()))
        Traceback (most recent call last):
        ...
        creto.errors.InvalidInputError: `ftp://127.0.0.1` is no address of a ledger; write http://HOST:PORT or https://HOST
    """
    if not re.match(r"https?://[^/]", url):
        raise InvalidInputError(f"`{url}` is no address of a ledger; write http://HOST:PORT or https://HOST")
    told = _get(url, "/").decode(errors="replace").splitlines()
    names = list(dict.fromkeys(line.split(" ")[0] for line in told))
    if not all(_NAME.fullmatch(name) for name in names):
        raise InvalidInputError(f"{url} answers what no ledger does")
    budget = _Budget(url, folder, most)
    for name in names:
        _log(url, name, folder, budget)
    return names


def _log(url: str, name: str, folder: Path, budget: _Budget) -> None:
    note = _get(url, f"/{name}/checkpoint")
    stated = note.split(b"\n", 2)[1:2]
    # Not `int` alone: a size below nothing has no end of tiles.
    if not (stated and _SIZE.fullmatch(stated[0])):
        raise InvalidInputError(f"{url}/{name}/checkpoint is no checkpoint")
    size = int(stated[0])
    budget.foresee(name, size)
    for tile in _tiles(size):
        try:
            _put(folder / name / tile, _get(url, f"/{name}/{tile}"), budget)
        except NotFoundError:
            # Its log has grown since: the full tile is there, and holds the same hashes.
            whole, partial, _ = tile.partition(".p/")
            if not partial:
                raise
            _put(folder / name / whole, _get(url, f"/{name}/{whole}"), budget)
    _put(folder / name / "checkpoint", note, budget)
    shard = _core.LedgerShard(str(folder / name))
    for start in range(0, size, _CHUNK):
        for record in shard.records(start, min(start + _CHUNK, size), size):
            if record["what"] == "usage:batch":
                _batch(url, name, folder, str((record["detail"] or {}).get("batch")), budget)


def _tiles(size: int) -> Iterator[str]:
    """The paths of all tiles of a log, hashes and entries (C2SP tlog-tiles)."""
    yield from _level("entries", size)
    level, width = 0, size
    while width:
        yield from _level(str(level), width)
        level, width = level + 1, width // _WIDTH


def _level(level: str, count: int) -> Iterator[str]:
    for number in range(count // _WIDTH):
        yield f"tile/{level}/{_number(number)}"
    if count % _WIDTH:
        yield f"tile/{level}/{_number(count // _WIDTH)}.p/{count % _WIDTH}"


def _number(number: int) -> str:
    last = f"{number % 1000:03}"
    while number := number // 1000:
        last = f"x{number % 1000:03}/{last}"
    return last


def _batch(url: str, name: str, folder: Path, place: str, budget: _Budget) -> None:
    """The bytes of one batch, at their place in a file with holes."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise InvalidInputError(f"`{place}` is no place of a batch")
    file, offset, length = (int(part) for part in found.groups())
    if length > _MOST:
        raise InvalidInputError(f"the batch at {place} is larger than {_MOST} bytes")
    own = f"batches/{file:06}"
    content = _get(url, f"/{name}/{own}", f"bytes={offset}-{offset + length - 1}") if length else b""
    budget.take(content)
    path = folder / name / own
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("r+b") as out:
        out.seek(offset)
        out.write(content)


def _put(path: Path, content: bytes, budget: _Budget) -> None:
    budget.take(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _get(url: str, path: str, part: str = "") -> bytes:
    whole = url.rstrip("/") + path
    request = urllib.request.Request(whole, headers={"range": part} if part else {})  # noqa: S310 - checked
    status, content = ask(request, most=_MOST)
    if status == 404:
        raise NotFoundError(f"{whole} is not there")
    if status not in (200, 206):
        raise ConnectionFailedError(f"{whole} answers {status}")
    return content
