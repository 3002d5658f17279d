"""The envelope, against somebody who has never seen creto: read by them, written by them, and attacked by them.

Each attack is first shown to work against a reader that does what CMS allows and no more.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import outside_reader
from creto import _core
from creto.errors import CretoError, EncryptionFailedError, InvalidInputError, SignatureVerificationFailedError
from outside_writer import Outsider, der
from quickest import quickest

NOW = 1_790_000_000
DOMAIN = "creto.test"


@dataclass
class Agent:
    """An agent of creto in these tests."""

    identity: _core.Identity
    signing: _core.SigningKey
    kem: _core.KemKey

    @property
    def id(self) -> str:
        return self.identity.id


class World:
    """A trust domain with two agents of creto and two outsiders, all known to each other."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.authority = _core.Authority.generate(DOMAIN, suite, NOW, 1_000_000)
        self.directory = _core.Directory()
        self.alice, self.bob = self._agent("alice"), self._agent("bob")
        self.outsider, self.other = Outsider(suite), Outsider(suite)
        self.outsider_identity = self._admit(
            "outsider", _core.VerifyingKey.from_bytes(self.outsider.key_set()), self.outsider.kem_public()
        )
        self._admit("other", _core.VerifyingKey.from_bytes(self.other.key_set()), self.other.kem_public())

    def _admit(self, name: str, key: _core.VerifyingKey, kem: bytes) -> _core.Identity:
        statement = self.authority.issue(f"spiffe://{DOMAIN}/agent/{name}", key, kem, NOW, 500_000)
        identity = self.authority.domain.admit(statement)
        self.directory.add(identity)
        return identity

    def _agent(self, name: str) -> Agent:
        signing, kem = _core.SigningKey.generate(self.suite), _core.KemKey.generate(self.suite)
        return Agent(self._admit(name, signing.verifying_key, kem.public()), signing, kem)

    def seal(self, to: list[_core.Identity], body: bytes) -> bytes:
        return _core.envelope_seal(
            self.alice.id,
            self.alice.signing,
            to,
            body,
            message_id="ab" * 16,
            date=NOW,
            expires=NOW + 60,
            content_type="text/plain",
        )

    def open(self, envelope: bytes, me: Agent | None = None, **changes: Any) -> bytes:
        who = me or self.bob
        options = {"suite": self.suite, "max_bytes": 1 << 21, "max_life": 300, "now": NOW + 1, **changes}
        verified = _core.envelope_verify(envelope, me=who.id, directory=self.directory, **options)
        return verified.open([who.kem])

    @property
    def bobs(self) -> dict[str, bytes]:
        return {self.bob.id: self.bob.kem.public()}

    def from_outsider(self, body: bytes = b"hello", **changes: Any) -> bytes:
        return self.outsider.seal(self.outsider_identity.id, self.bobs, body, NOW, **changes)


@pytest.fixture(params=["standard", "cnsa2"], scope="module")
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module")
def standard() -> World:
    return World("standard")


# --- both ways -------------------------------------------------------------------------------------------------------


def test_an_outsider_verifies_and_opens_what_creto_sealed(world: World) -> None:
    envelope = world.seal([world.outsider_identity, world.bob.identity], b"to you both")
    found = outside_reader.parse(envelope)
    public = dict(zip(world.outsider.public(), world.alice.signing.verifying_key.public().values(), strict=True))
    outside_reader.verify(found, public)
    assert outside_reader.open_with(found, world.outsider.kem_public(), world.outsider.kem) == b"to you both"
    assert world.open(envelope) == b"to you both"
    assert found.headers[:3] == [("From", world.alice.id), ("To", world.outsider_identity.id), ("To", world.bob.id)]
    with pytest.raises(AssertionError):  # the digest is another
        outside_reader.verify(outside_reader.parse(envelope.replace(b"text/plain", b"text/plait")), public)


def test_creto_opens_what_an_outsider_sealed(world: World) -> None:
    assert world.open(world.from_outsider(b"from outside")) == b"from outside"


def test_an_envelope_has_the_size_that_its_format_page_says(standard: World) -> None:
    one = len(standard.seal([standard.bob.identity], bytes(1024)))
    two = len(standard.seal([standard.bob.identity, standard.outsider_identity], bytes(1024)))
    assert one - 1024 < 5_700
    assert two - one < 1_300


def test_the_worked_example_of_the_format_page_is_what_creto_writes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "envelope.md").read_text()
    block = page.split("## A worked example")[1].split("```text\n")[1].split("```")[0]
    authority = _core.Authority.generate("creto.local", "standard", NOW, 1_000_000)
    names = {}
    for name in ("writer", "reader"):
        signing, kem = _core.SigningKey.generate(), _core.KemKey.generate()
        id = f"spiffe://creto.local/agent/{name}"
        statement = authority.issue(id, signing.verifying_key, kem.public(), NOW, 500_000)
        names[name] = Agent(authority.domain.admit(statement), signing, kem)
    envelope = _core.envelope_seal(
        names["writer"].id,
        names["writer"].signing,
        [names["reader"].identity],
        bytes(1024),
        message_id="00112233445566778899aabbccddeeff",
        date=NOW,
        expires=NOW + 86400,
        content_type="text/plain",
    )
    at = 0
    for line in block.splitlines():
        # Bytes in hexadecimal, up to two blanks before what they are; or how many random ones follow.
        if line.startswith("("):
            at += int(line[1:].split()[0])
            continue
        documented = bytes.fromhex(line.split("  ")[0])
        assert envelope[at : at + len(documented)] == documented, line
        at += len(documented)
    assert at == len(envelope)
    assert f"the whole envelope has {len(envelope)} bytes" in page
    assert len(outside_reader.parse(envelope).signed) == 142


# --- attacks ---------------------------------------------------------------------------------------------------------


def refused(world: World, envelope: bytes, kind: type[CretoError], text: str, **changes: Any) -> None:
    with pytest.raises(kind, match=text):
        world.open(envelope, **changes)


def naive(world: World, envelope: bytes) -> outside_reader.Envelope:
    """What CMS alone asks: whatever signatures are there hold under the known keys that they name."""
    found = outside_reader.parse(envelope)
    hold(world, [(key, signature) for _, key, signature in found.signers], found.signed)
    return found


def hold(world: World, signatures: list[tuple[bytes, bytes]], signed: bytes) -> None:
    known = {
        hashlib.sha256(public).digest()[:20]: outside_reader.VERIFIERS[oid].from_public_bytes(public)
        for writer in (world.outsider, world.other)
        for oid, public in writer.public().items()
    }
    for key, signature in signatures:
        known[key].verify(signature, signed)


def test_a_stripped_signature_is_refused(standard: World) -> None:
    for kept in (0, 1):
        envelope = standard.from_outsider(signing=[standard.outsider.signing[kept]])
        naive(standard, envelope)
        refused(standard, envelope, CretoError, "is missing|another value than the profile allows")


def test_an_added_signature_is_refused(standard: World) -> None:
    first, second = standard.outsider.signing
    doubled, before = (standard.from_outsider(signing=[first, *rest]) for rest in ([second, second], [first, second]))
    for envelope in (doubled, before):
        naive(standard, envelope)
    refused(standard, doubled, SignatureVerificationFailedError, "too many")
    refused(standard, before, CretoError, "another value than the profile")


def test_signatures_of_two_writers_are_refused(standard: World) -> None:
    mixed = standard.from_outsider(signing=[standard.outsider.signing[0], standard.other.signing[1]])
    naive(standard, mixed)
    refused(standard, mixed, SignatureVerificationFailedError, "the signature is not valid")


def test_author_theft_is_refused(world: World) -> None:
    """The other strips the outsider's signatures and signs the same ciphertext, to pass it off as its own."""
    theirs = world.from_outsider(b"my idea")
    content = outside_reader.parse(theirs).content
    stolen = world.other.signed(content, NOW)
    naive(world, stolen)
    refused(world, stolen, EncryptionFailedError, "cannot be opened by this recipient")


def test_surreptitious_forwarding_is_refused(world: World) -> None:
    """A recipient hands what was written to it on, with its key, as if it had been written to somebody else."""
    to_other = {f"spiffe://{DOMAIN}/agent/other": world.other.kem_public()}
    envelope = world.outsider.seal(world.outsider_identity.id, to_other, b"i love you", NOW)
    key = outside_reader.content_key(outside_reader.parse(envelope), world.other.kem_public(), world.other.kem)
    found = naive(world, envelope)
    assert AESGCM(key).decrypt(found.nonce, found.body + found.tag, found.attributes) == b"i love you"
    refused(world, envelope, EncryptionFailedError, "cannot be opened by this recipient")


def test_a_signer_without_signed_attributes_is_refused(world: World) -> None:
    """Without them a signature is over the content: one over signed attributes can be shown as one of a content."""
    envelope = world.from_outsider(bare=True)
    _version, _digests, encapsulated, signers = outside_reader.read(envelope).parts[1].parts[0].parts
    content = encapsulated.parts[1].parts[0].content
    hold(world, [(info.parts[1].content, info.parts[-1].content) for info in signers.parts], content)
    refused(world, envelope, InvalidInputError, "not strict DER as expected here")


def test_two_keys_for_one_ciphertext_are_refused(standard: World) -> None:
    """GCM lets a sender give two recipients two keys that open one ciphertext to two texts; the commitment does not."""
    nonce, first, second = bytes(range(12)), b"\1" * 32, b"\2" * 32
    ciphertext, tag, aad = _collide(standard, nonce, first, second)
    texts = [AESGCM(key).decrypt(nonce, ciphertext + tag, aad) for key in (first, second)]
    assert texts[0] != texts[1]  # the attack works where nothing binds the key
    to = {standard.bob.id: standard.bob.kem.public(), standard.outsider_identity.id: standard.outsider.kem_public()}
    headers = _headers(standard, list(to))
    content = standard.outsider.enveloped(
        headers,
        list(to.values()),
        b"",
        nonce=nonce,
        cek=first,
        ceks=[second, first],
        ciphertext=(ciphertext, tag),
    )
    envelope = standard.outsider.signed(content, NOW)
    assert AESGCM(second).decrypt(nonce, ciphertext + tag, aad) == texts[1]
    refused(standard, envelope, EncryptionFailedError, "cannot be opened by this recipient")


def _headers(world: World, to: list[str]) -> list[tuple[str, str]]:
    headers = world.outsider.headers(world.outsider_identity.id, to, NOW, 60)
    return [(name, "cd" * 16 if name == "Message-ID" else value) for name, value in headers]


def _collide(world: World, nonce: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes, bytes]:
    """A ciphertext with one tag under two keys: the last block solves GHASH of both (Dodis et al., CRYPTO 2018)."""
    to = [world.bob.id, world.outsider_identity.id]
    probe = world.outsider.enveloped(
        _headers(world, to), [world.bob.kem.public(), world.outsider.kem_public()], bytes(32), nonce=nonce, cek=first
    )
    aad = outside_reader.parse(world.outsider.signed(probe, NOW)).attributes

    def block(key: bytes, data: bytes) -> int:
        return int.from_bytes(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data), "big")

    def multiply(x: int, y: int) -> int:
        product = 0
        for bit in range(128):
            if y >> (127 - bit) & 1:
                product ^= x
            x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
        return product

    def power(x: int, exponent: int) -> int:
        result = 1 << 127
        while exponent:
            if exponent & 1:
                result = multiply(result, x)
            x = multiply(x, x)
            exponent >>= 1
        return result

    padded = aad + bytes(-len(aad) % 16)
    blocks = [int.from_bytes(padded[i : i + 16], "big") for i in range(0, len(padded), 16)]
    lengths = (len(aad) * 8) << 64 | 32 * 8
    fixed = int.from_bytes(b"sixteen bytes!!!", "big")

    def constant(key: bytes) -> tuple[int, int]:
        h, mask = block(key, bytes(16)), block(key, nonce + b"\0\0\0\1")
        terms = [*blocks, fixed]
        total = mask
        for number, term in enumerate(terms):
            total ^= multiply(term, power(h, len(terms) - number + 2))
        return total ^ multiply(lengths, h), multiply(h, h)

    (total1, square1), (total2, square2) = constant(first), constant(second)
    last = multiply(total1 ^ total2, power(square1 ^ square2, 2**128 - 2))
    tag = total1 ^ multiply(last, square1)
    ciphertext = fixed.to_bytes(16, "big") + last.to_bytes(16, "big")
    return ciphertext, tag.to_bytes(16, "big"), aad


def test_a_reordered_set_of_is_refused(world: World) -> None:
    to = {world.bob.id: world.bob.kem.public(), world.outsider_identity.id: world.outsider.kem_public()}
    sender = world.outsider_identity.id
    assert world.open(world.outsider.seal(sender, to, b"x", NOW)) == b"x"
    unsorted = world.outsider.seal(sender, to, b"x", NOW, unsorted=True)
    assert outside_reader.open_with(naive(world, unsorted), world.outsider.kem_public(), world.outsider.kem) == b"x"
    refused(world, unsorted, InvalidInputError, "out of order")


def test_unsigned_attributes_and_certificates_of_the_writers_choice_are_refused(world: World) -> None:
    extra = der(0xA1, der(0x30, der(6, b"\x2a\x03"), der(0x31, der(5))))
    refused(world, world.from_outsider(unsigned_attributes=extra), InvalidInputError, "left over")
    refused(world, world.from_outsider(certificates=der(0xA0, der(0x30))), InvalidInputError, "tag 0xa0 where 0x31")


def test_a_downgrade_of_the_suite_is_refused(standard: World) -> None:
    stronger = World("cnsa2")
    for ours, theirs in ((stronger, standard), (standard, stronger)):
        envelope = theirs.from_outsider()
        naive(theirs, envelope)
        told = f"made with suite `{theirs.suite}`, and only `{ours.suite}` is accepted"
        refused(ours, envelope, InvalidInputError, told)
    relabelled = standard.outsider.headers(standard.outsider_identity.id, [standard.bob.id], NOW, 60)
    relabelled = [(n, "cnsa2" if n == "Creto-Suite" else v) for n, v in relabelled]
    content = standard.outsider.enveloped(relabelled, [standard.bob.kem.public()], b"x")
    envelope = standard.outsider.signed(content, NOW)
    naive(standard, envelope)
    refused(standard, envelope, InvalidInputError, "made with suite `cnsa2`, and only `standard`")


def test_a_signing_time_that_is_not_the_date_is_refused(world: World) -> None:
    refused(
        world, world.from_outsider(signing_time=NOW + 1), SignatureVerificationFailedError, "the signature is not valid"
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda h: [*h, h[0]], id="a second From"),
        pytest.param(lambda h: h[::-1], id="another order"),
        pytest.param(lambda h: h[1:], id="no From"),
        pytest.param(lambda h: [*h, ("X-Extra", "1")], id="an unknown field"),
        pytest.param(lambda h: [(n, v + "\r\nTo: x" if n == "From" else v) for n, v in h], id="a line break"),
        pytest.param(lambda h: [(n, "x" * 257 if n == "Content-Type" else v) for n, v in h], id="too long"),
        pytest.param(lambda h: [(n, "2026-13-01T00:00:00Z" if n == "Date" else v) for n, v in h], id="no such date"),
    ],
)
def test_header_fields_outside_the_profile_are_refused(standard: World, change: Any) -> None:
    headers = change(standard.outsider.headers(standard.outsider_identity.id, [standard.bob.id], NOW, 60))
    content = standard.outsider.enveloped(headers, [standard.bob.kem.public()], b"x")
    refused(standard, standard.outsider.signed(content, NOW), InvalidInputError, "header field|time of a message")


def test_more_recipients_than_names_are_refused(standard: World) -> None:
    """A hidden recipient: the sealed key goes to one more than the header says."""
    headers = standard.outsider.headers(standard.outsider_identity.id, [standard.bob.id], NOW, 60)
    keys = [standard.bob.kem.public(), standard.other.kem_public()]
    envelope = standard.outsider.signed(standard.outsider.enveloped(headers, keys, b"x"), NOW)
    naive(standard, envelope)
    refused(standard, envelope, EncryptionFailedError, "cannot be opened by this recipient")


def test_every_fault_after_the_signatures_has_one_answer(standard: World) -> None:
    wrong_commitment = standard.from_outsider(commitment="00" * 32)
    wrong_tag = standard.from_outsider(ciphertext=(b"hello", bytes(16)))
    wrong_key = standard.from_outsider(ceks=[bytes(32)])
    not_mine = standard.outsider.seal(
        standard.outsider_identity.id, {standard.alice.id: standard.alice.kem.public()}, b"x", NOW
    )
    mine_sealed_for_another = standard.outsider.seal(
        standard.outsider_identity.id, {standard.bob.id: standard.alice.kem.public()}, b"x", NOW
    )
    texts = set()
    for envelope in (wrong_commitment, wrong_tag, wrong_key, not_mine, mine_sealed_for_another):
        with pytest.raises(EncryptionFailedError) as caught:
            standard.open(envelope)
        texts.add((str(caught.value), repr(caught.value.__cause__)))
    for late in (NOW + 60, NOW - 61):
        with pytest.raises(EncryptionFailedError) as caught:
            standard.open(standard.from_outsider(), now=late)
        texts.add((str(caught.value), repr(caught.value.__cause__)))
    assert texts == {("the message cannot be opened by this recipient: sealing or opening failed", "None")}


@contextmanager
def no_more_memory_than(more: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_claimed_gigabyte_is_refused_at_once_and_no_room_is_made_for_it(standard: World) -> None:
    envelope = bytearray(standard.from_outsider())
    envelope[1:4] = b"\x84\x40\x00\x00\x00"
    bad = bytes(envelope)
    with no_more_memory_than(256 << 20):
        # Who makes room for what is announced has none for anything else.
        with pytest.raises(MemoryError):
            bytearray(int.from_bytes(bad[2:6]))

        def taken() -> float:
            start = time.perf_counter()
            refused(standard, bad, InvalidInputError, "not strict DER")
            return time.perf_counter() - start

        assert quickest(taken, 0.1) < 0.1
    refused(standard, bytes(101), InvalidInputError, "has 101 bytes, and 100 are the limit", max_bytes=100)
