"""An outsider's reader of envelopes: the Python package `cryptography` and a few lines of DER, nothing of creto.

It follows docs/envelope.md from the top down, and is what an auditor would write.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

VERIFIERS: dict[str, Any] = {
    "1.3.101.112": ed25519.Ed25519PublicKey,
    "2.16.840.1.101.3.4.3.18": mldsa.MLDSA65PublicKey,
    "2.16.840.1.101.3.4.3.19": mldsa.MLDSA87PublicKey,
}
KDFS: dict[str, Any] = {"1.2.840.113549.1.9.16.3.28": SHA256, "1.2.840.113549.1.9.16.3.30": SHA512}


@dataclass
class Node:
    """One DER element."""

    tag: int
    content: bytes
    whole: bytes

    @property
    def parts(self) -> list[Node]:
        """The elements inside."""
        found, rest = [], self.content
        while rest:
            node = read(rest)
            found.append(node)
            rest = rest[len(node.whole) :]
        return found

    @property
    def oid(self) -> str:
        """The object identifier, dotted."""
        numbers, value = [], 0
        for byte in self.content:
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                numbers.append(value)
                value = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def read(data: bytes) -> Node:
    """The first element."""
    length, start = data[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(data[2:start], "big")
    return Node(data[0], data[start : start + length], data[: start + length])


@dataclass
class Envelope:
    """What was found in an envelope."""

    headers: list[tuple[str, str]]
    signers: list[tuple[str, bytes, bytes]]  # algorithm, key identifier, signature
    signed: bytes
    content: bytes
    recipients: list[dict[str, Any]]
    nonce: bytes
    body: bytes
    attributes: bytes
    tag: bytes


def parse(envelope: bytes) -> Envelope:
    """Takes an envelope apart."""
    kind, wrapped = read(envelope).parts
    assert kind.oid == "1.2.840.113549.1.7.2"
    _version, _digests, encapsulated, signers = wrapped.parts[0].parts
    kind, wrapped = encapsulated.parts
    assert kind.oid == "1.2.840.113549.1.9.16.1.6"
    content = wrapped.parts[0].content
    kind, wrapped = read(content).parts
    assert kind.oid == "1.2.840.113549.1.9.16.1.23"
    _version, recipients, encrypted, attributes, tag = wrapped.parts[0].parts
    _data, algorithm, body = encrypted.parts
    assert algorithm.parts[0].oid == "2.16.840.1.101.3.4.1.46"
    fields = attributes.parts[0].parts[1].parts[0].parts[1].parts
    infos = [node.parts for node in signers.parts]
    return Envelope(
        headers=[(f.parts[0].content.decode(), f.parts[1].content.decode()) for f in fields],
        signers=[(info[4].parts[0].oid, info[1].content, info[5].content) for info in infos],
        signed=b"\x31" + infos[0][3].whole[1:],
        content=content,
        recipients=[_recipient(node.parts[1].parts) for node in recipients.parts],
        nonce=algorithm.parts[1].parts[0].content,
        body=body.content,
        attributes=b"\x31" + attributes.whole[1:],
        tag=tag.content,
    )


def _recipient(parts: list[Node]) -> dict[str, Any]:
    _version, key, _kem, ciphertext, kdf, length, wrap, wrapped = parts
    return {
        "key": key.content,
        "ciphertext": ciphertext.content,
        "hash": KDFS[kdf.parts[0].oid],
        "info": b"\x30" + bytes([len(wrap.whole + length.whole)]) + wrap.whole + length.whole,
        "wrapped": wrapped.content,
    }


def verify(found: Envelope, public: dict[str, bytes]) -> None:
    """Verifies every signature under public keys by object identifier; raises where one does not hold."""
    attributes = {n.parts[0].oid: n.parts[1].parts[0] for n in read(found.signed).parts}
    assert attributes["1.2.840.113549.1.9.4"].content == hashlib.sha512(found.content).digest()
    assert [oid for oid, _, _ in found.signers] == list(public)
    for oid, key, signature in found.signers:
        assert key == hashlib.sha256(public[oid]).digest()[:20]
        VERIFIERS[oid].from_public_bytes(public[oid]).verify(signature, found.signed)


def content_key(found: Envelope, public: bytes, kem: Any) -> bytes:
    """The key that was wrapped for this ML-KEM key of `cryptography`'s."""
    mine = next(r for r in found.recipients if r["key"] == hashlib.sha256(public).digest()[:20])
    shared = kem.decapsulate(mine["ciphertext"])
    kek = HKDF(mine["hash"](), 32, None, mine["info"]).derive(shared)
    return aes_key_unwrap(kek, mine["wrapped"])


def open_with(found: Envelope, public: bytes, kem: Any) -> bytes:
    """Opens an envelope with `cryptography`'s ML-KEM private key."""
    cek = content_key(found, public, kem)
    hash = found.recipients[0]["hash"]().name
    block = hmac.new(cek, b"creto cek-commit v1" + found.nonce + b"\x01", hash).digest()[:32]
    assert dict(found.headers)["Creto-CEK-Commitment"] == block.hex()
    return AESGCM(cek).decrypt(found.nonce, found.body + found.tag, found.attributes)
