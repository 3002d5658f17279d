"""The envelope in the hands of stock OpenSSL 4: it reads what creto sealed, and creto reads what it made.

`make interop` builds OpenSSL once and runs this; elsewhere the tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import outside_reader
from creto import _core
from creto.errors import CretoError, InvalidInputError, SignatureVerificationFailedError
from outside_writer import SUITES, Outsider, der, oid

OPENSSL = os.environ.get("CRETO_OPENSSL", "")
pytestmark = pytest.mark.skipif(not OPENSSL, reason="needs OpenSSL 4: run `make interop`")

DOMAIN = "creto.test"
NAMES = {
    "1.3.101.112": "ED25519",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
    "2.16.840.1.101.3.4.4.2": "ML-KEM-768",
    "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
}


class World:
    """A trust domain with an agent of creto, and one whose keys OpenSSL made and holds."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.suite, self.folder, self.now = suite, folder, int(time.time())
        self.authority = _core.Authority.generate(DOMAIN, suite, self.now, 1_000_000)
        self.directory = _core.Directory()
        self.signing, self.kem = _core.SigningKey.generate(suite), _core.KemKey.generate(suite)
        self.agent = self._admit("agent", self.signing.verifying_key, self.kem.public())
        keys = [self._key(dotted) for dotted, _ in SUITES[suite]["signers"]]
        kem = self._key(SUITES[suite]["kem"][0])
        key_set = _core.VerifyingKey.from_bytes(der(0x30, *(spki for _, spki in keys)))
        size = {"standard": 1184, "cnsa2": 1568}[suite]
        self.foreign = self._admit("foreign", key_set, kem[1][-size:])
        self.foreign_keys = [file for file, _ in keys]
        self.foreign_kem = kem[0]
        self.roots = self._pem("roots", self.authority.domain.certificates())

    def _admit(self, name: str, key: _core.VerifyingKey, kem: bytes) -> _core.Identity:
        statement = self.authority.issue(f"spiffe://{DOMAIN}/agent/{name}", key, kem, self.now, 500_000)
        identity = self.authority.domain.admit(statement)
        self.directory.add(identity)
        return identity

    def _key(self, dotted: str) -> tuple[Path, bytes]:
        """A private key made by OpenSSL, and its SubjectPublicKeyInfo."""
        file = self.folder / f"{NAMES[dotted]}.pem"
        self.openssl("genpkey", "-algorithm", NAMES[dotted], "-out", file)
        return file, self.openssl("pkey", "-in", file, "-pubout", "-outform", "DER")

    def _pem(self, name: str, certificates: list[bytes]) -> Path:
        file = self.folder / f"{name}.pem"
        file.write_bytes(b"".join(self.openssl("x509", "-inform", "DER", stdin=one) for one in certificates))
        return file

    def openssl(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """Runs `openssl` and returns what it printed; raises with its words where it fails."""
        run = subprocess.run([OPENSSL, *map(str, arguments)], input=stdin, capture_output=True, timeout=60)
        if run.returncode:
            raise RuntimeError(run.stderr.decode())
        return run.stdout

    def seal(self, to: list[_core.Identity], body: bytes) -> bytes:
        return _core.envelope_seal(
            self.agent.id,
            self.signing,
            to,
            body,
            message_id=os.urandom(16).hex(),
            date=self.now,
            expires=self.now + 60,
            content_type="text/plain",
        )

    def verify_by_openssl(self, envelope: bytes) -> bytes:
        """`openssl cms -verify`: the sealed content, once the signatures and their certificates hold."""
        *signing, _kem = self.agent.certificates()
        return self.openssl(
            *("cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any"),
            *("-certfile", self._pem("signers", signing), "-CAfile", self.roots),
            stdin=envelope,
        )

    def decrypt_by_openssl(self, content: bytes) -> bytes:
        """`openssl cms -decrypt` with the key that OpenSSL made."""
        recipient = self._pem("recipient", self.foreign.certificates()[-1:])
        command = ("cms", "-decrypt", "-binary", "-inform", "DER", "-recip", recipient, "-inkey", self.foreign_kem)
        return self.openssl(*command, stdin=content)

    def sign_by_openssl(self, content: bytes) -> bytes:
        """`openssl cms -sign` with every key of the suite, as the profile has it."""
        *certificates, _kem = self.foreign.certificates()
        signers: list[str | Path] = []
        for number, (key, certificate) in enumerate(zip(self.foreign_keys, certificates, strict=True)):
            signers += ["-signer", self._pem(f"signer{number}", [certificate]), "-inkey", key]
        return self.openssl(
            *("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-keyid", "-nocerts", "-nosmimecap"),
            *("-md", "sha512", "-econtent_type", "1.2.840.113549.1.9.16.1.6", *signers),
            stdin=content,
        )

    def encapsulate_by_openssl(self, public: bytes) -> tuple[bytes, bytes]:
        """`openssl pkeyutl -encap`: the shared secret, and its ciphertext."""
        spki = der(0x30, der(0x30, oid(SUITES[self.suite]["kem"][0])), der(3, b"\0", public))
        file, secret, ciphertext = (self.folder / name for name in ("public.der", "secret", "ciphertext"))
        file.write_bytes(spki)
        command = ("pkeyutl", "-encap", "-pubin", "-keyform", "DER", "-inkey", file)
        self.openssl(*command, "-secret", secret, "-out", ciphertext)
        return secret.read_bytes(), ciphertext.read_bytes()

    def open(self, envelope: bytes) -> bytes:
        verified = _core.envelope_verify(
            envelope,
            me=self.agent.id,
            directory=self.directory,
            suite=self.suite,
            max_bytes=1 << 22,
            max_life=300,
            now=int(time.time()),
        )
        return verified.open([self.kem])


@pytest.fixture(params=["standard", "cnsa2"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path)


def test_it_is_openssl_4() -> None:
    shown = subprocess.run([OPENSSL, "version"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("OpenSSL 4."), shown


@pytest.mark.parametrize("size", [0, 1, 1024, 1 << 20])
def test_openssl_verifies_and_decrypts_what_creto_sealed(world: World, size: int) -> None:
    body = os.urandom(size)
    envelope = world.seal([world.foreign, world.agent], body)
    assert world.decrypt_by_openssl(world.verify_by_openssl(envelope)) == body
    assert world.open(envelope) == body


def test_openssl_refuses_what_was_changed_on_its_way(world: World) -> None:
    envelope = world.seal([world.foreign], b"to the letter")
    content = world.verify_by_openssl(envelope)
    for place in (400, len(envelope) - 1):  # in the first ciphertext, and in the last signature
        changed = bytearray(envelope)
        changed[place] ^= 1
        with pytest.raises(RuntimeError, match=r"(?i)verif|digest|signature"):
            world.verify_by_openssl(bytes(changed))
    altered = content.replace(b"text/plain", b"text/plait")  # a header field is associated data of the encryption
    assert altered != content
    with pytest.raises(RuntimeError, match=r"(?i)error decrypting|cipher"):
        world.decrypt_by_openssl(altered)


def stripped(envelope: bytes) -> bytes:
    """The same envelope without its last signature: no key is needed for that."""
    kind, wrapped = outside_reader.read(envelope).parts
    *head, infos = wrapped.parts[0].parts
    kept = der(0x31, *(info.whole for info in infos.parts[:-1]))
    return der(0x30, kind.whole, der(0xA0, der(0x30, *(part.whole for part in head), kept)))


def test_openssl_accepts_an_envelope_whose_second_signature_was_stripped_and_creto_does_not(tmp_path: Path) -> None:
    world = World("standard", tmp_path)
    envelope = stripped(world.seal([world.foreign, world.agent], b"signed twice"))
    assert world.decrypt_by_openssl(world.verify_by_openssl(envelope)) == b"signed twice"
    with pytest.raises(SignatureVerificationFailedError, match="the signature of ML-DSA-65 is missing"):
        world.open(envelope)


def test_creto_opens_what_openssl_encapsulated_and_signed(world: World) -> None:
    writer = Outsider(world.suite)
    for _ in range(5):
        # `cms -sign` takes the time itself, and the profile wants it to be the message's Date.
        date = int(time.time())
        headers = writer.headers(world.foreign.id, [world.agent.id], date, 60)
        content = writer.enveloped(
            headers, [world.kem.public()], b"from OpenSSL", encapsulate=world.encapsulate_by_openssl
        )
        envelope = world.sign_by_openssl(content)
        if int(time.time()) == date:
            break
    assert world.open(envelope) == b"from OpenSSL"
    # Signed again by OpenSSL for the outsider: well formed, and not from whom the header says.
    with pytest.raises(CretoError):
        world.open(world.sign_by_openssl(content.replace(b"agent/foreign", b"agent/another")))


def test_a_message_that_openssl_makes_alone_has_no_addressing_and_is_refused(world: World) -> None:
    recipient = world._pem("agent", world.agent.certificates()[-1:])
    command = ("cms", "-encrypt", "-aes-256-gcm", "-binary", "-outform", "DER", "-keyid", "-recip", recipient)
    content = world.openssl(*command, stdin=b"to whom it may concern")
    with pytest.raises(InvalidInputError, match="not strict DER as expected here"):
        world.open(world.sign_by_openssl(content))
