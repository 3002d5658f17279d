"""Checkpoints kept where whoever can change the ledger cannot reach: appended to a file, or posted to a URL.

What is published is what `creto audit verify --seen` takes, so that a ledger that was rolled back, forked or written
anew is found out by anybody who has the file.
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from creto.audit._reading import shards
from creto.audit._web import ask, shown
from creto.errors import ConnectionFailedError, InvalidInputError

__all__ = ["Publisher", "is_url"]

_SECONDS = 10
_MOST = 1 << 20  # bytes of an answer, which is not looked at
_NOTE = re.compile(r"([^\n]+)\n([0-9]{1,19})\n[^\n]+\n\n.+\n", re.DOTALL)


def is_url(target: str) -> bool:
    """True for an address of the web; everything else is a file."""
    return target.startswith(("http://", "https://"))


class Publisher:
    """Publishes each new checkpoint of every shard, whichever process writes it.

    Args:
        folder: The ledger folder.
        target: A file, which signed notes are appended to with a NUL after each, or a URL, which each is posted to.

    Raises:
        InvalidInputError: The target is a URL of another kind.
    """

    def __init__(self, folder: Path, target: str) -> None:
        if "://" in target and not is_url(target):
            raise InvalidInputError(f"`{target}` is no place to publish to; name a file, or an http or https address")
        self._folder = folder
        self._target = target
        self._seen: dict[str, int] = {} if is_url(target) else self._kept()

    def _kept(self) -> dict[str, int]:
        """How far the file goes already, so that a second start appends nothing twice."""
        sizes: dict[str, int] = {}
        try:
            content = Path(self._target).read_text(encoding="utf-8")
        except FileNotFoundError:
            return sizes
        for note in content.split("\0"):
            # A part of a note, which a full disk has left, counts for nothing.
            if found := _NOTE.fullmatch(note.lstrip()):
                sizes[found[1]] = max(sizes.get(found[1], 0), int(found[2]))
        return sizes

    def publish(self) -> int:
        """Publishes what has come since, and returns how many checkpoints that were.

        Raises:
            ConnectionFailedError: The URL did not take one; it comes again next time.
        """
        published = 0
        for checkpoint in self._fresh():
            if is_url(self._target):
                _post(self._target, checkpoint["note"].encode())
            else:
                _append(Path(self._target), checkpoint["note"].encode() + b"\0")
            self._seen[checkpoint["origin"]] = checkpoint["size"]
            published += 1
        return published

    def _fresh(self) -> Iterator[dict[str, Any]]:
        for shard in shards(self._folder):
            checkpoint = shard.checkpoint()
            if checkpoint is not None and checkpoint["size"] > self._seen.get(checkpoint["origin"], 0):
                yield checkpoint

    def follow(self, interval: float, told: Callable[[int, str], None]) -> None:
        """Goes on until it is interrupted.

        Args:
            interval: Seconds between two looks.
            told: Called with how many were published, and why none could be.
        """
        while True:
            try:
                count, trouble = self.publish(), ""
            except ConnectionFailedError as error:
                count, trouble = 0, str(error)
            if count or trouble:
                told(count, trouble)
            time.sleep(interval)


def _append(path: Path, content: bytes) -> None:
    # One write to a file opened for appending: two that publish to one file do not tear each other's notes. Where the
    # disk takes no more than a part, the rest is tried, and a part that stays is ended: readers pass over it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        rest = content if not size or os.pread(descriptor, 1, size - 1) == b"\0" else b"\0" + content
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _post(url: str, note: bytes) -> None:
    request = urllib.request.Request(url, note, {"content-type": "text/plain; charset=utf-8"})  # noqa: S310 - checked
    status, _ = ask(request, most=_MOST, seconds=_SECONDS)
    if not 200 <= status < 300:
        raise ConnectionFailedError(f"`{shown(url)}` did not take a checkpoint: it answered {status}")
