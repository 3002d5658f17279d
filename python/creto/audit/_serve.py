"""The ledger over HTTP, read-only, by the paths of C2SP tlog-tiles: what any client of transparency logs reads.

Each shard is a log of its own, under its name: `/0000/checkpoint`, `/0000/tile/0/000`, `/0000/tile/entries/000`. Beside
these lie the batches of usage events that records stand for, by stretches of bytes: `/0000/batches/000000`. It
authenticates nobody: entries are the records themselves, so it listens on this machine unless told otherwise, and can
leave them out and still prove what was kept elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import BinaryIO

from creto.audit._bounded import BoundedServer
from creto.audit._reading import shards

__all__ = ["serve"]

# A name outside this grammar is not there: no path is put together from what somebody else wrote.
_PATH = re.compile(
    r"/(?P<shard>\d{4})/(?P<file>checkpoint|tile/(?:entries|\d|[1-5]\d|6[0-3])/(?:x\d{3}/){0,5}\d{3}"
    r"(?:\.p/(?:[1-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]))?)"
)
_BATCHES = re.compile(r"/(?P<shard>\d{4})/(?P<file>batches/\d{6})")
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})")
_MOST = 64 << 20  # bytes of a batch in one answer
_TILE = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"
_FOREVER = "public, max-age=31536000, immutable"  # a tile never changes, a partial one neither


def serve(folder: Path, listen: str, told: Callable[[int], None], *, entries: bool = True) -> None:
    """Serves until it is interrupted.

    Args:
        folder: The ledger folder.
        listen: `address:port`; port 0 for a free one.
        told: Called with the port once it answers.
        entries: False leaves the records out: hashes and checkpoints only.

    Raises:
        InvalidInputError: The address has no valid reading, or is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        server_version, sys_version = "creto", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/":
                self._send(_list(folder).encode(), _TEXT, "no-cache")
                return
            batch = _BATCHES.fullmatch(path)
            if batch is not None and entries:
                self._part(batch)
                return
            named = _PATH.fullmatch(path)
            if named is None or (not entries and named["file"].startswith("tile/entries/")):
                self._refuse(HTTPStatus.NOT_FOUND)
                return
            try:
                with _opened(folder, named) as file:
                    content = file.read()
            except OSError:
                # A partial tile goes once its full one is there: clients take that, as the specification says.
                self._refuse(HTTPStatus.NOT_FOUND)
                return
            if named["file"] == "checkpoint":
                self._send(content, _TEXT, "no-cache")
            else:
                self._send(content, _TILE, _FOREVER)

        do_HEAD = do_GET  # noqa: N815 - the base class's name

        def _send(self, content: bytes, media: str, caching: str) -> None:
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            same = tag in [one.strip().removeprefix("W/") for one in self.headers.get("if-none-match", "").split(",")]
            status = HTTPStatus.NOT_MODIFIED if same else HTTPStatus.OK
            self._answer(status, None if same else content, media, caching, ("etag", tag))

        def _part(self, batch: re.Match[str]) -> None:
            """A stretch of a file of batches, as a record tells where its batch lies."""
            stretch = _RANGE.fullmatch(self.headers.get("range", ""))
            first, last = (int(stretch[1]), int(stretch[2])) if stretch is not None else (0, -1)
            if not 0 <= last - first < _MOST:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            try:
                with _opened(folder, batch) as kept:
                    kept.seek(first)
                    content = kept.read(last - first + 1)
            except OSError:
                self._refuse(HTTPStatus.NOT_FOUND)
                return
            place = ("content-range", f"bytes {first}-{first + len(content) - 1}/*")
            self._answer(HTTPStatus.PARTIAL_CONTENT, content, _TILE, "no-cache", place)

        def _answer(
            self, status: HTTPStatus, content: bytes | None, media: str, caching: str, header: tuple[str, str]
        ) -> None:
            self.send_response(status)
            self.send_header(*header)
            self.send_header("cache-control", caching)
            self.send_header("x-content-type-options", "nosniff")
            # Pages of other origins may read what anybody may read.
            self.send_header("access-control-allow-origin", "*")
            if content is not None:
                self.send_header("content-type", media)
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            if content is not None and self.command == "GET":
                self.wfile.write(content)

        def _refuse(self, status: HTTPStatus) -> None:
            body = f"{status.value} {status.phrase.lower()}\n".encode()
            self.send_response(status)
            self.send_header("content-type", _TEXT)
            self.send_header("cache-control", "no-store")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with BoundedServer(listen, Handler) as server:
        told(server.server_address[1])
        server.serve_forever(poll_interval=0.1)


def _opened(folder: Path, named: re.Match[str]) -> BinaryIO:
    """A file of a shard, opened; a folder that somebody else has made may hold links to others, and pipes."""
    root = folder.resolve()
    place = (root / named["shard"] / named["file"]).resolve(strict=True)
    if not place.is_relative_to(root):
        raise FileNotFoundError(place)
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileNotFoundError(place)
    return file


def _list(folder: Path) -> str:
    """One line for each log: its name here, its origin, how many records its checkpoint covers."""
    lines = []
    for shard in shards(folder):
        checkpoint = shard.checkpoint()
        if checkpoint is not None:
            lines.append(f"{shard.name} {checkpoint['origin']} {checkpoint['size']}\n")
    return "".join(lines)
