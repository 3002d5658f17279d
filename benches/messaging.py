"""Sealing and opening against the best Python library at the same primitive calls; peers, sizes, threads, delivery."""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cryptography
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap

import messaging_delivery
from creto import _core
from creto.messaging import Mailbox
from creto.nhi import Identities
from creto.store import Store

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


def row(
    case: str,
    ours: tuple[float, float],
    peer: float | None,
    note: str,
    samples: int = CALLS * REPEATS,
    *,
    unit: str = "us",
    peer_name: str = "cryptography",
    version: str = cryptography.__version__,
) -> None:
    """Prints one row of the report."""
    print(
        json.dumps(
            {
                "area": "messaging",
                "case": case,
                "unit": unit,
                "ours": ours[0],
                "peer": peer_name if peer is not None else None,
                "peer_version": version if peer is not None else None,
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


class World:
    """A trust domain with a sender and a reader."""

    def __init__(self) -> None:
        self.authority = _core.Authority.generate("creto.bench", "standard", NOW, 1_000_000)
        self.directory = _core.Directory()
        self.sender, self.signing, _ = self._agent("sender")
        self.reader, _, self.kem = self._agent("reader")
        self.body = bytes(1024)

    def _agent(self, name: str) -> tuple[_core.Identity, _core.SigningKey, _core.KemKey]:
        signing, kem = _core.SigningKey.generate(), _core.KemKey.generate()
        id = f"spiffe://creto.bench/agent/{name}"
        statement = self.authority.issue(id, signing.verifying_key, kem.public(), NOW, 500_000)
        identity = self.authority.domain.admit(statement)
        self.directory.add(identity)
        return identity, signing, kem

    def seal(self) -> bytes:
        """An envelope of 1 KiB for the reader."""
        return self.seal_to([self.reader])

    def verify(self, envelope: bytes) -> _core.VerifiedEnvelope:
        """An envelope for the reader, once it verifies."""
        return _core.envelope_verify(
            envelope,
            me=self.reader.id,
            directory=self.directory,
            suite="standard",
            max_bytes=1 << 20,
            max_life=300,
            now=NOW + 1,
        )

    def seal_to(self, to: list[_core.Identity]) -> bytes:
        """An envelope of 1 KiB."""
        return _core.envelope_seal(
            self.sender.id,
            self.signing,
            to,
            self.body,
            message_id="ab" * 16,
            date=NOW,
            expires=NOW + 60,
            content_type="application/octet-stream",
        )


def envelopes() -> None:
    """Seal and open at 1 KiB."""
    world = World()
    seal, verify, keys, body = world.seal, world.verify, [world.kem], world.body
    envelope = seal()

    def open_() -> bytes:
        return verify(envelope).open(keys)

    assert open_() == body
    peer = Peer(len(envelope) - 3700, body)
    note = "from Python; ours is the whole envelope, the peer makes the same primitive calls on prebuilt bytes"
    row("seal/1KiB", measure(seal), measure(peer.seal)[0], note)
    row("open/1KiB", measure(open_), measure(peer.open)[0], note)


def peers() -> None:
    """What sealing 1 KiB costs by others, with less promised: classical keys, and nobody's signature.

    One that one would look for cannot be had: liboqs-python 0.16 brings no liboqs, and the one that registries have
    (0.13, in the crate oqs-sys) lacks symbols that it asks for. Of MLS for Python there is rine-mls, young, with the
    hybrid KEM X-Wing (rfc9420 1.3 calls itself alpha, and the first example of its page does not run).
    """
    import nacl
    import nacl.public
    import pyhpke
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId

    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    pair = suite.kem.derive_key_pair(os.urandom(32))
    body = bytes(1024)

    def hpke() -> bytes:
        encapsulated, context = suite.create_sender_context(pair.public_key, info=b"bench")
        return bytes(encapsulated) + bytes(context.seal(body, aad=bytes(400)))

    mine, theirs = nacl.public.PrivateKey.generate(), nacl.public.PrivateKey.generate()
    box = nacl.public.Box(mine, theirs.public_key)
    sealed = nacl.public.SealedBox(theirs.public_key)
    seal = World().seal
    ours = measure(seal)
    note = "classical and unsigned, for scale; ours is the whole envelope, post-quantum and signed twice"
    row("seal/1KiB/hpke", ours, measure(hpke)[0], note, peer_name="pyhpke", version=pyhpke.__version__)
    note = "a sealed box of PyNaCl, classical and anonymous, for scale"
    call = measure(lambda: sealed.encrypt(body))[0]
    row("seal/1KiB/sealed-box", ours, call, note, peer_name="pynacl", version=nacl.__version__)
    note = "a box between two known keys of PyNaCl: no key is agreed on in the message, for scale"
    row(
        "seal/1KiB/box", ours, measure(lambda: box.encrypt(body))[0], note, peer_name="pynacl", version=nacl.__version__
    )


def groups() -> None:
    """What 1 KiB costs by MLS (RFC 9420) with X-Wing: in a group of two that is there, and to somebody new."""
    import importlib.metadata

    import rine_mls

    version, body, suite = importlib.metadata.version("rine-mls"), bytes(1024), rine_mls.CIPHER_SUITE_XWING
    # In memory: what its stores cost on a disk is not the question.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        writer, reader = (rine_mls.MlsClient(f"{folder}/{name}", os.urandom(32), suite) for name in ("w", "r"))
        group = writer.create_group_with_members(os.urandom(16), [reader.generate_key_package()])
        packages = iter([reader.generate_key_package() for _ in range(CALLS * REPEATS)])

        def to_somebody_new() -> bytes:
            fresh = writer.create_group_with_members(os.urandom(16), [next(packages)])
            return fresh.encrypt_application_message(body)

        ours = measure(World().seal)
        note = (
            "a message in a group of two that is there, which promises more (forward secrecy) and less: its signature "
            "is classical; its state is saved to memory"
        )
        call = measure(lambda: group.encrypt_application_message(body))[0]
        row("seal/1KiB/mls", ours, call, note, peer_name="rine-mls", version=version)
        note = "the group made for it, with its welcome, and the first message in it"
        row("seal/1KiB/mls/new", ours, measure(to_somebody_new)[0], note, peer_name="rine-mls", version=version)


def sizes() -> None:
    """Bytes on the wire, and what they are."""
    world = World()
    one, two = len(world.seal()), len(world.seal_to([world.reader, world.sender]))
    signatures, kem, body = 3309 + 64, 1088 + 40, 1024
    note = (
        f"1 KiB to one recipient: {body} of content, {signatures} of signatures, {kem} of encapsulated and wrapped "
        f"key, {one - body - signatures - kem} of names, times, attributes and DER; {two - one} for a further recipient"
    )
    row("wire/1KiB", (float(one), 0.0), None, note, 1, unit="bytes")


def threads() -> None:
    """How much faster two threads seal, and open, than one: both release the GIL."""
    world = World()
    envelope, keys = world.seal(), [world.kem]
    _on_two("seal/1KiB/2-threads", world.seal)
    _on_two("open/1KiB/2-threads", lambda: world.verify(envelope).open(keys))


def _on_two(case: str, call: Callable[[], Any]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alone = measure(call)[0]

    def many() -> None:
        for _ in range(CALLS):
            call()

    together = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            for each in [pool.submit(many) for _ in range(2)]:
                each.result()
            together.append((time.perf_counter() - start) / (2 * CALLS) * 1e6)
    middle = statistics.median(together)
    spread = (max(together) - min(together)) / middle
    row(case, (alone / middle, spread), None, "one thread's time over two threads'", unit="speed-up")


def batches() -> None:
    """A message of a sealed batch: sealed on two threads, filed in one transaction with its records."""
    import anyio

    async def sent() -> list[float]:
        with tempfile.TemporaryDirectory(dir=messaging_delivery.SCRATCH) as folder, Store(folder + "/state") as store:
            identities = Identities(store)
            mailbox, writer = Mailbox(store, identities), identities.agent("writer")
            identities.agent("reader")
            times = []
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                await mailbox.send_many(writer, [("reader", bytes(1024))] * CALLS)
                times.append((time.perf_counter() - start) / CALLS * 1e6)
            return times[1:]

    times = anyio.run(sent)
    middle = statistics.median(times)
    spread = (max(times) - min(times)) / middle
    note = (
        f"batches of {CALLS} messages of 1 KiB, each to one mailbox of this machine, durable when `send_many` returns"
    )
    row("send_many/each", (middle, spread), None, note)


def instructions() -> None:
    """What sealing and opening cost in instructions: unlike time, the same on every machine and under any load."""
    program = Path(__file__).resolve().parents[1] / "target" / "release" / "messaging"
    valgrind = shutil.which("valgrind")
    if valgrind is None or not program.exists():
        print("instructions are not counted: valgrind is not installed", file=sys.stderr)
        return

    def count(what: str, times: int) -> int:
        command = [
            valgrind,
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            str(program),
            "count",
            what,
            str(times),
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        return int(said.rpartition("Collected :")[2].split()[0])

    for what in ("seal", "open"):
        # What is made beforehand is in both counts; ML-DSA signs in a random number of rounds, so it takes many.
        few, many = 20, 1020
        each = (count(what, many) - count(what, few)) / (many - few)
        note = "counted by callgrind with AVX2 at most; the mean of 1,000, since ML-DSA signs in random time"
        row(f"{what}/1KiB/instructions", (each, 0.0), None, note, many - few, unit="instructions")


if __name__ == "__main__":
    gc.disable()
    envelopes()
    peers()
    groups()
    sizes()
    threads()
    batches()
    instructions()
    messaging_delivery.run(row)
