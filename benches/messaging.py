"""Sealing and opening against the best Python library at the same primitive calls; and delivery within one process."""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import anyio
import cryptography
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap

from creto import _core

NOW = 1_790_000_000
CALLS, REPEATS = 300, 7


def measure(call: Callable[[], Any]) -> tuple[float, float]:
    """Microseconds: the mean of many calls (ML-DSA signs in random time), the median of its repeats, their spread."""
    means = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        means.append((time.perf_counter() - start) / CALLS * 1e6)
    middle = statistics.median(means)
    return middle, (max(means) - min(means)) / middle


def row(case: str, ours: tuple[float, float], peer: float | None, note: str, samples: int = CALLS * REPEATS) -> None:
    """Prints one row of the report."""
    print(
        json.dumps(
            {
                "area": "messaging",
                "case": case,
                "unit": "us",
                "ours": ours[0],
                "peer": "cryptography" if peer is not None else None,
                "peer_version": cryptography.__version__ if peer is not None else None,
                "peer_value": peer,
                "samples": samples,
                "spread": ours[1],
                "note": note,
            }
        )
    )


class Peer:
    """The primitives of one envelope, called through `cryptography`."""

    def __init__(self, content: int, body: bytes) -> None:
        self.body = body
        self.content = bytes(content)
        self.attributes = bytes(142)
        self.headers = bytes(400)
        self.info = bytes(18)
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.ml = mldsa.MLDSA65PrivateKey.generate()
        self.kem = mlkem.MLKEM768PrivateKey.generate()
        self.public = (self.ed.public_key(), self.ml.public_key(), self.kem.public_key())
        self.sealed = self.seal()

    def _kek(self, shared: bytes) -> bytes:
        return HKDF(SHA256(), 32, None, self.info).derive(shared)

    def _commitment(self, cek: bytes, nonce: bytes) -> bytes:
        return hmac.digest(cek, b"creto cek-commit v1" + nonce + b"\x01", "sha256")

    def seal(self) -> tuple[Any, ...]:
        """What sealing cannot do without."""
        cek, nonce = os.urandom(32), os.urandom(12)
        commitment = self._commitment(cek, nonce)
        shared, ciphertext = self.public[2].encapsulate()
        wrapped = aes_key_wrap(self._kek(shared), cek)
        text = AESGCM(cek).encrypt(nonce, self.body, self.headers)
        hashlib.sha512(self.content).digest()
        return (
            nonce,
            commitment,
            ciphertext,
            wrapped,
            text,
            self.ed.sign(self.attributes),
            self.ml.sign(self.attributes),
        )

    def open(self) -> bytes:
        """What opening cannot do without."""
        nonce, commitment, ciphertext, wrapped, text, classical, lattice = self.sealed
        hashlib.sha512(self.content).digest()
        self.public[0].verify(classical, self.attributes)
        self.public[1].verify(lattice, self.attributes)
        cek = aes_key_unwrap(self._kek(self.kem.decapsulate(ciphertext)), wrapped)
        assert hmac.compare_digest(self._commitment(cek, nonce), commitment)
        return AESGCM(cek).decrypt(nonce, text, self.headers)


def envelopes() -> None:
    """Seal and open at 1 KiB."""
    authority = _core.Authority.generate("creto.bench", "standard", NOW, 1_000_000)
    directory = _core.Directory()

    def agent(name: str) -> tuple[_core.Identity, _core.SigningKey, _core.KemKey]:
        signing, kem = _core.SigningKey.generate(), _core.KemKey.generate()
        id = f"spiffe://creto.bench/agent/{name}"
        identity = authority.domain.admit(authority.issue(id, signing.verifying_key, kem.public(), NOW, 500_000))
        directory.add(identity)
        return identity, signing, kem

    (sender, signing, _), (reader, _, kem) = agent("sender"), agent("reader")
    body, to, keys = bytes(1024), [reader], [kem]

    def seal() -> bytes:
        return _core.envelope_seal(
            sender.id,
            signing,
            to,
            body,
            message_id="ab" * 16,
            date=NOW,
            expires=NOW + 60,
            content_type="application/octet-stream",
        )

    envelope = seal()

    def open_() -> bytes:
        verified = _core.envelope_verify(
            envelope,
            me=reader.id,
            directory=directory,
            suite="standard",
            max_bytes=1 << 20,
            max_life=300,
            now=NOW + 1,
        )
        return verified.open(keys)

    assert open_() == body
    peer = Peer(len(envelope) - 3700, body)
    note = "from Python; ours is the whole envelope, the peer makes the same primitive calls on prebuilt bytes"
    row("seal/1KiB", measure(seal), measure(peer.seal)[0], note)
    row("open/1KiB", measure(open_), measure(peer.open)[0], note)


async def delivery() -> None:
    """One message from send to the reader's hands within a process, with a record of each side."""
    from creto.messaging import Mailbox
    from creto.nhi import Identities
    from creto.store import Store

    async def allow(_agent: Any, _other: str, _context: Any) -> None:
        return None

    with tempfile.TemporaryDirectory() as folder, Store(folder + "/state") as store:
        identities = Identities(store)
        records: list[dict[str, Any]] = []
        mailbox = Mailbox(store, identities, authorize_send=allow, authorize_receive=allow, record=records.append)
        writer, reader = identities.agent("writer"), identities.agent("reader")
        body, times = bytes(1024), []
        async with mailbox.inbox(reader) as inbox:
            for _ in range(1000):
                records.clear()
                start = time.perf_counter()
                await mailbox.send(writer, "reader", body, durable=False)
                message = await inbox.__anext__()
                times.append((time.perf_counter() - start) * 1e6)
                assert message.body == body
                assert len(records) == 2
    times = times[100:]
    middle = statistics.median(times)
    spread = (statistics.quantiles(times, n=20)[-1] - min(times)) / middle
    row(
        "deliver/in-process",
        (middle, spread),
        None,
        "1 KiB: sealed, handed over in memory, verified, opened; policy hooks answer at once, records go to a list",
        len(times),
    )


if __name__ == "__main__":
    gc.disable()
    envelopes()
    anyio.run(delivery)
