"""Witnesses over HTTP (C2SP tlog-witness): being one, and asking one."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from creto import _core
from creto._plain import plain
from creto.audit._bounded import BoundedServer
from creto.audit._keys import place
from creto.audit._reading import require_own, shards
from creto.audit._web import ask
from creto.errors import ConnectionFailedError, IntegrityError, InvalidInputError

__all__ = ["cosign", "serve"]

_LABEL = "witness"
_MOST = 512 * 1024


def _key(memory: Path) -> _core.SigningKey:
    sealer = _core.Sealer.open(memory)
    sealed = memory / "witness.sealed"
    if not sealed.exists():
        place(sealed, _core.SigningKey.generate().seal(sealer, _LABEL))
    return _core.SigningKey.unseal(sealed.read_bytes(), sealer, _LABEL)


def serve(memory: Path, name: str, logs: list[str], listen: str, told: Callable[[str, int], None]) -> None:
    """Answers `add-checkpoint` until it is interrupted.

    Args:
        memory: The folder in which it remembers, and keeps its key.
        name: What it signs as.
        logs: Verifier keys of the logs that it knows.
        listen: `address:port`; port 0 for a free one.
        told: Called with its verifier key and its port once it answers.

    Raises:
        InvalidInputError: A key or the address has no valid reading.
    """
    memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    witness = _core.LedgerWitness(memory, name, _key(memory), logs)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            said = self.headers.get("content-length", "")
            length = int(said) if said.isdecimal() and len(said) < 10 else 0
            if self.path != "/add-checkpoint" or not 0 < length <= _MOST:
                self.send_error(404 if length <= _MOST else 413)
                return
            status, media, body = witness.add_checkpoint(self.rfile.read(length), int(time.time()))
            content = body.encode()
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with BoundedServer(listen, Handler) as server:
        told(witness.verifier_key, server.server_address[1])
        server.serve_forever(poll_interval=0.1)


def _ask(url: str, body: str) -> tuple[int, str]:
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"`{url}` is no address of a witness; it begins with http:// or https://")
    address = url.rstrip("/") + "/add-checkpoint"
    headers = {"content-type": "text/plain"}
    request = urllib.request.Request(address, body.encode(), headers)  # noqa: S310 - the scheme was checked
    status, answer = ask(request, most=_MOST)
    return status, answer.decode(errors="replace")


def cosign(folder: Path, url: str, witness: str) -> dict[str, str]:
    """Has a witness cosign the latest checkpoint of every shard.

    Args:
        folder: The ledger folder.
        url: The witness.
        witness: Its verifier key.

    Returns:
        The cosigned checkpoints by shard.

    Raises:
        IntegrityError: The witness remembers a history that the ledger does not extend: rolled back, forked or forged.
        ConnectionFailedError: It does not answer, or does not know the log.
    """
    notes = {}
    for shard in shards(folder):
        checkpoint = shard.checkpoint()
        if checkpoint is None:
            continue
        require_own(shard, checkpoint["origin"])
        old = 0
        # The first answer tells what the witness remembers; the second is to that.
        for _ in range(3):
            if old > checkpoint["size"]:
                raise IntegrityError(
                    f"shard `{shard.name}` holds {checkpoint['size']} records, but the witness saw {old}: "
                    "it was rolled back"
                )
            body, note = shard.witness_request(old)
            status, answer = _ask(url, body)
            if status != 409:
                break
            remembered = answer.strip()
            if not (remembered.isdecimal() and len(remembered) < 20):
                raise ConnectionFailedError(f"the witness at `{url}` says conflict, and not what it remembers")
            if int(remembered) == old:
                break
            old, checkpoint = int(remembered), shard.checkpoint() or checkpoint
        if status in (409, 422):
            raise IntegrityError(
                f"shard `{shard.name}` is not the log whose {old} records the witness saw: "
                "it was forked or written anew"
            )
        if status != 200:
            # Its own words, but not all of them, and none that a terminal would obey.
            said = plain(answer.strip(), most=200)
            raise ConnectionFailedError(f"the witness answers {status} about shard `{shard.name}`: {said}")
        notes[shard.name] = _core.ledger_with_cosignature(note, answer, witness)
    return notes
