"""What the keys promise: whole signature sets or nothing, both providers alike, and bytes that others understand."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from creto import _core
from creto.crypto import IN_TOTO, Sealer, SigningKey, VerifyingKey, crypto_providers, dsse_sign, dsse_verify
from creto.errors import EncryptionFailedError, InvalidInputError, SignatureVerificationFailedError


def test_both_providers_pass_their_self_test_and_one_is_chosen() -> None:
    found = crypto_providers()
    assert [name for name, _, _ in found] == ["aws-lc", "rustcrypto"]
    assert [problem for _, _, problem in found] == [None, None]
    assert [name for name, chosen, _ in found if chosen] == ["aws-lc"]


def test_a_signature_set_is_valid_only_whole_and_in_order() -> None:
    key = SigningKey.generate()
    good = key.sign(b"report")
    key.verifying_key.verify(b"report", good)
    other = SigningKey.generate().sign(b"report")
    for bad in ([], good[:1], good[1:], good[::-1], good + good[:1], [good[0], other[1]], [other[0], good[1]]):
        with pytest.raises(SignatureVerificationFailedError, match="the signature is not valid"):
            key.verifying_key.verify(b"report", bad)
    with pytest.raises(SignatureVerificationFailedError):
        key.verifying_key.verify(b"another report", good)


@pytest.mark.parametrize("suite", ["standard", "cnsa2"])
def test_an_outsider_verifies_a_statement_with_a_json_reader_and_cryptography(suite: str) -> None:
    key = SigningKey.generate(suite)
    envelope = json.loads(dsse_sign(key, IN_TOTO, b'{"_type":"x"}'))
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    public = key.verifying_key.public()
    readers = {
        "Ed25519": ed25519.Ed25519PublicKey.from_public_bytes,
        "ML-DSA-65": mldsa.MLDSA65PublicKey.from_public_bytes,
        "ML-DSA-87": mldsa.MLDSA87PublicKey.from_public_bytes,
    }
    assert [s["keyid"].split(":")[0] for s in envelope["signatures"]] == list(public)
    for (name, raw), signature in zip(public.items(), envelope["signatures"], strict=True):
        reader = readers[name](raw)
        reader.verify(base64.b64decode(signature["sig"]), signed)
        with pytest.raises(InvalidSignature):
            reader.verify(base64.b64decode(signature["sig"]), signed + b"!")


def test_public_keys_are_subject_public_key_infos_that_cryptography_reads() -> None:
    key = SigningKey.generate().verifying_key
    encoded = key.to_bytes()
    assert encoded[:2] == b"\x30\x82"
    rest, found = encoded[4:], []
    while rest:
        header = 2 if rest[1] < 0x80 else 4
        length = rest[1] if rest[1] < 0x80 else int.from_bytes(rest[2:4], "big")
        found.append(load_der_public_key(rest[: header + length]).public_bytes_raw())  # type: ignore[union-attr]
        rest = rest[header + length :]
    assert found == list(key.public().values())
    assert VerifyingKey.from_bytes(encoded) == VerifyingKey.from_text(key.to_text()) == key


def test_every_flipped_bit_of_a_statement_is_refused() -> None:
    key = SigningKey.generate()
    envelope = dsse_sign(key, IN_TOTO, b"{}")
    dsse_verify(key.verifying_key, IN_TOTO, envelope)
    parsed = json.loads(envelope)
    for field in ("payload", "payloadType"):
        changed = json.loads(envelope)
        changed[field] = changed[field][:-1] + ("A" if changed[field][-1] != "A" else "B")
        with pytest.raises((SignatureVerificationFailedError, InvalidInputError)):
            dsse_verify(key.verifying_key, IN_TOTO, json.dumps(changed))
    for number, signature in enumerate(parsed["signatures"]):
        raw = bytearray(base64.b64decode(signature["sig"]))
        for bit in range(0, len(raw) * 8, 7):
            raw[bit // 8] ^= 1 << bit % 8
            changed = json.loads(envelope)
            changed["signatures"][number]["sig"] = base64.b64encode(raw).decode()
            with pytest.raises(SignatureVerificationFailedError):
                dsse_verify(key.verifying_key, IN_TOTO, json.dumps(changed))
            raw[bit // 8] ^= 1 << bit % 8


def test_a_key_comes_back_from_its_seal_and_under_no_other_label(tmp_path: Path) -> None:
    sealer = Sealer.open(tmp_path / "keys")
    key = SigningKey.generate()
    sealed = key.seal(sealer, "agent a")
    again = SigningKey.unseal(sealed, Sealer.open(tmp_path / "keys"), "agent a")
    assert again.verifying_key == key.verifying_key
    with pytest.raises(EncryptionFailedError, match="sealing or opening failed"):
        SigningKey.unseal(sealed, sealer, "agent b")
    with pytest.raises(EncryptionFailedError):
        SigningKey.unseal(sealed, Sealer.open(tmp_path / "other"), "agent a")


def test_a_key_file_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    Sealer.open(tmp_path / "keys")
    file = tmp_path / "keys" / "sealing.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o604)
    with pytest.raises(InvalidInputError, match="mode 0604, so others may read it; run `chmod 600` on it"):
        Sealer.open(tmp_path / "keys")


def test_a_passphrase_seals_and_a_wrong_one_does_not_open(tmp_path: Path) -> None:
    sealed = Sealer.open(tmp_path, b"correct horse").seal(b"x", "l")
    assert Sealer.open(tmp_path, b"correct horse").open_sealed(sealed, "l") == b"x"
    with pytest.raises(InvalidInputError, match="the passphrase does not open"):
        Sealer.open(tmp_path, b"battery staple")
    with pytest.raises(InvalidInputError, match="sealed under a passphrase; give it"):
        Sealer.open(tmp_path)


def test_an_unknown_suite_is_named_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInputError, match="`rsa` is not a suite known here; known are `standard` and `cnsa2`"):
        SigningKey.generate("rsa")


def test_no_secret_is_in_a_repr_an_exception_or_an_attribute(tmp_path: Path) -> None:
    key, kem = SigningKey.generate(), _core.KemKey.generate()
    sealer = Sealer.open(tmp_path)
    secret = (tmp_path / "sealing.key").read_bytes()
    texts = [repr(key), repr(kem), repr(sealer), str(dir(key)), str(dir(kem)), str(dir(sealer))]
    try:
        SigningKey.unseal(b"creto-sealed-1\n" + bytes(80), sealer, "x")
    except EncryptionFailedError as error:
        texts.append(repr(error) + str(error.__cause__))
    for text in texts:
        assert secret.hex() not in text
        assert "seed" not in text
        assert "private" not in text


SCAN = """
import gc, os, re, sys
from creto.crypto import Sealer, SigningKey
from creto import _core
folder = sys.argv[1]
sealer = Sealer.open(folder)
canary = os.urandom(16).hex().encode()
sealed = sealer.seal(b"key=" + canary, "c")
key = SigningKey.generate()
blob = key.seal(sealer, "k")
with open(os.path.join(folder, "sealing.key"), "rb") as file:
    wanted = file.read()
del key, sealer
gc.collect()
# Our own copy is needed to look for; it is kept inverted, so that it does not find itself.
inverted = bytes(255 - byte for byte in wanted)
del wanted, file
gc.collect()
found = 0
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        place, rights = line.split()[:2]
        if not rights.startswith("rw") or "[vvar" in line:
            continue
        start, end = (int(part, 16) for part in place.split("-"))
        try:
            memory.seek(start)
            data = memory.read(end - start)
        except (OSError, ValueError):
            continue
        first = inverted[0] ^ 255
        at = data.find(bytes([first]))
        head = bytes(255 - b for b in inverted[:8])
        at = data.find(head)
        while at != -1:
            if all(data[at + i] == 255 - inverted[i] for i in range(32)):
                found += 1
            at = data.find(head, at + 1)
print(found)
"""


def test_the_sealing_key_is_wiped_from_memory_with_its_last_handle(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCAN, str(tmp_path / "k")],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    # Python's own buffers from reading the file in the scan may keep one copy of theirs; the control below shows what a
    # handle that still lives looks like.
    control = SCAN.replace("del key, sealer\n", "del key\n")
    alive = subprocess.run(
        [sys.executable, "-c", control, str(tmp_path / "k")],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert int(run.stdout) < int(alive.stdout)
