"""An outsider's writer of envelopes: the Python package `cryptography` and a few lines of DER, nothing of creto."""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

SUITES: dict[str, dict[str, Any]] = {
    "standard": {
        "signers": [("1.3.101.112", ed25519.Ed25519PrivateKey), ("2.16.840.1.101.3.4.3.18", mldsa.MLDSA65PrivateKey)],
        "kem": ("2.16.840.1.101.3.4.4.2", mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
        "kdf": ("1.2.840.113549.1.9.16.3.28", SHA256),
    },
    "cnsa2": {
        "signers": [("2.16.840.1.101.3.4.3.19", mldsa.MLDSA87PrivateKey)],
        "kem": ("2.16.840.1.101.3.4.4.3", mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
        "kdf": ("1.2.840.113549.1.9.16.3.30", SHA512),
    },
}


def der(tag: int, *parts: bytes) -> bytes:
    """One element."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def oid(dotted: str) -> bytes:
    """An object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for number in [first * 40 + second, *rest]:
        part = [number & 0x7F]
        while number := number >> 7:
            part.append(0x80 | number & 0x7F)
        out += bytes(reversed(part))
    return der(6, out)


def algorithm(dotted: str, *parameters: bytes) -> bytes:
    """An AlgorithmIdentifier."""
    return der(0x30, oid(dotted), *parameters)


def attribute(kind: str, value: bytes) -> bytes:
    """An attribute with one value."""
    return der(0x30, oid(kind), der(0x31, value))


class Outsider:
    """Somebody with keys that creto never had."""

    def __init__(self, suite: str) -> None:
        self.suite = SUITES[suite]
        self.name = suite
        self.signing = [(o, kind.generate()) for o, kind in self.suite["signers"]]
        self.kem = self.suite["kem"][1].generate()

    def public(self) -> dict[str, bytes]:
        """Public signing keys by object identifier."""
        return {o: key.public_key().public_bytes_raw() for o, key in self.signing}

    def kem_public(self) -> bytes:
        """The public half of the key-encapsulation key."""
        public: bytes = self.kem.public_key().public_bytes_raw()
        return public

    def key_set(self) -> bytes:
        """The verifying keys as creto takes them: a SEQUENCE of SubjectPublicKeyInfo."""
        return der(0x30, *(der(0x30, algorithm(o), der(3, b"\0", raw)) for o, raw in self.public().items()))

    def _encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        shared, ciphertext = self.suite["kem"][2].from_public_bytes(public).encapsulate()
        return shared, ciphertext

    def headers(self, sender: str, to: list[str], date: int, life: int) -> list[tuple[str, str]]:
        """Header fields up to the commitment."""
        text = [datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (date, date + life)]
        return [
            ("From", sender),
            *(("To", one) for one in to),
            ("Message-ID", os.urandom(16).hex()),
            ("Date", text[0]),
            ("Expires", text[1]),
            ("Content-Type", "text/plain"),
            ("Priority", "normal"),
            ("Creto-Suite", self.name),
        ]

    def enveloped(self, headers: list[tuple[str, str]], kem_publics: list[bytes], body: bytes, **changes: Any) -> bytes:
        """The encrypted half: a ContentInfo. `changes` make it wrong on purpose."""
        kdf_oid, hash_ = self.suite["kdf"]
        nonce = changes.get("nonce") or os.urandom(12)
        cek = changes.get("cek") or os.urandom(32)
        block = hmac.new(cek, b"creto cek-commit v1" + nonce + b"\x01", hash_().name).digest()[:32]
        fields = [*headers, ("Creto-CEK-Commitment", changes.get("commitment") or block.hex())]
        secure = der(
            0x31,
            der(0x0A, b"\0"),
            der(0x30, *(der(0x30, der(0x1A, n.encode()), der(0x0C, v.encode())) for n, v in fields)),
        )
        attributes = attribute("1.2.840.113549.1.9.16.2.55", secure)
        sealed = AESGCM(cek).encrypt(nonce, body, der(0x31, attributes))
        ciphertext, tag = changes.get("ciphertext") or (sealed[:-16], sealed[-16:])
        wrap = algorithm("2.16.840.1.101.3.4.1.45")
        recipients = []
        for number, public in enumerate(kem_publics):
            encapsulate = changes.get("encapsulate") or self._encapsulate
            shared, kemct = encapsulate(public)
            kek = HKDF(hash_(), 32, None, der(0x30, wrap, der(2, b"\x20"))).derive(shared)
            wrapped = aes_key_wrap(kek, changes.get("ceks", [cek] * len(kem_publics))[number])
            info = der(
                0x30,
                der(2, b"\0"),
                der(0x80, hashlib.sha256(public).digest()[:20]),
                algorithm(self.suite["kem"][0]),
                der(4, kemct),
                algorithm(kdf_oid),
                der(2, b"\x20"),
                wrap,
                der(4, wrapped),
            )
            recipients.append(der(0xA4, oid("1.2.840.113549.1.9.16.13.3"), info))
        recipients.sort(reverse=changes.get("unsorted", False))
        gcm = algorithm("2.16.840.1.101.3.4.1.46", der(0x30, der(4, nonce), der(2, b"\x10")))
        return der(
            0x30,
            oid("1.2.840.113549.1.9.16.1.23"),
            der(
                0xA0,
                der(
                    0x30,
                    der(2, b"\0"),
                    der(0x31, *recipients),
                    der(0x30, oid("1.2.840.113549.1.7.1"), gcm, der(0x80, ciphertext)),
                    der(0xA1, attributes),
                    der(4, tag),
                ),
            ),
        )

    def signed(self, content: bytes, date: int, **changes: Any) -> bytes:
        """The whole: a ContentInfo of the encrypted half, signed. `changes` make it wrong on purpose."""
        time = datetime.fromtimestamp(changes.get("signing_time", date), UTC).strftime("%y%m%d%H%M%SZ").encode()
        sha512 = algorithm("2.16.840.1.101.3.4.2.3")
        attributes = (
            attribute("1.2.840.113549.1.9.3", oid("1.2.840.113549.1.9.16.1.6"))
            + attribute("1.2.840.113549.1.9.5", der(0x17, time))
            + attribute("1.2.840.113549.1.9.4", der(4, hashlib.sha512(content).digest()))
        )
        infos = []
        for o, key in changes.get("signing", self.signing):
            bare = changes.get("bare", False)  # without signedAttrs: the signature is over the content itself
            signature = key.sign(content if bare else der(0x31, attributes))
            infos.append(
                der(
                    0x30,
                    der(2, b"\3"),
                    der(0x80, hashlib.sha256(key.public_key().public_bytes_raw()).digest()[:20]),
                    sha512,
                    b"" if bare else der(0xA0, attributes),
                    algorithm(o),
                    der(4, signature),
                    changes.get("unsigned_attributes", b""),
                )
            )
        return der(
            0x30,
            oid("1.2.840.113549.1.7.2"),
            der(
                0xA0,
                der(
                    0x30,
                    der(2, b"\3"),
                    der(0x31, sha512),
                    der(0x30, oid("1.2.840.113549.1.9.16.1.6"), der(0xA0, der(4, content))),
                    changes.get("certificates", b""),
                    der(0x31, *infos),
                ),
            ),
        )

    def seal(self, sender: str, to: dict[str, bytes], body: bytes, date: int, life: int = 60, **changes: Any) -> bytes:
        """An envelope for recipients by id, with their public keys."""
        content = self.enveloped(self.headers(sender, list(to), date, life), list(to.values()), body, **changes)
        return self.signed(content, date, **changes)
