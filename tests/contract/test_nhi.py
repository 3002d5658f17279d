"""What identities promise: one winner, keys sealed, certificates that others accept, and chains that only narrow."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import select

import creto
from creto import _core
from creto.errors import CretoError, InvalidInputError, NotFoundError, UnauthorizedError
from creto.nhi import Agent, Identities
from creto.reach import Reach
from creto.store import Store, tables

SPKI = PublicFormat.SubjectPublicKeyInfo
PERMIT = "permit(principal, action, resource);"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with Store(state) as opened:
        yield opened


@pytest.fixture
def identities(store: Store) -> Identities:
    return Identities(store)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


# --- made on first use -----------------------------------------------------------------------------------------------


def test_an_agent_is_made_on_first_use_and_is_the_same_ever_after(state: Path, identities: Identities) -> None:
    made = identities.agent("researcher", path=("acme", "lab"))
    assert (made.id, made.path) == ("spiffe://creto.local/agent/researcher", ("acme", "lab"))
    with Store(state) as again:
        other = Identities(again).agent("researcher")
    assert other == made
    assert other.signing_key.verifying_key == made.signing_key.verifying_key


MAKER = """
import sys
from creto.nhi import Identities
from creto.store import Store
with Store(sys.argv[1]) as store:
    sys.stdin.readline()
    print(Identities(store).agent("researcher").signing_key.verifying_key.fingerprint)
"""


def test_processes_that_make_the_same_agent_at_once_hold_the_same_keys(state: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    fingerprints = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(fingerprints) == 1
    with Store(state) as store, store.read() as tx:
        assert len(tx.all(select(tables.agent_keys))) == 1


def test_threads_that_make_the_same_agent_at_once_hold_the_same_keys(identities: Identities) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(identities.agent("x").signing_key.verifying_key.fingerprint))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "x" * 121, "é", ".."])
def test_a_name_that_is_none_is_refused(identities: Identities, name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot name an agent: use 1 to 120 letters"):
        identities.agent(name)


def test_no_secret_is_in_the_store_in_clear(state: Path, store: Store, identities: Identities) -> None:
    identities.agent("researcher")
    with store.read() as tx:
        row = tx.first(select(tables.agent_keys))
    assert row is not None
    for sealed in (row.sealed_signing_key, row.sealed_kem_key):
        assert sealed.startswith(b"creto-sealed-1\n")
    # The sealing key opens both: without the key file the store is of no use.
    (state / "keys" / "sealing.key").unlink()
    with pytest.raises(Exception, match="were sealed by another sealing key"):
        Identities(store)


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_an_ordinary_verifier_accepts_the_classical_certificate(
    tmp_path: Path, identities: Identities, purpose: str
) -> None:
    identity = identities.agent("researcher").identity
    leaf, root = tmp_path / "leaf.pem", tmp_path / "root.pem"
    for file, der in ((leaf, identity.certificates()[0]), (root, identities.domain().certificates()[0])):
        file.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(root), str(leaf)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout == f"{leaf}: OK\n", run.stdout + run.stderr


@pytest.mark.parametrize("suite", ["standard", "cnsa2"])
def test_every_certificate_names_the_agent_once_and_carries_its_own_key(store: Store, suite: str) -> None:
    identities = Identities(store, suite=suite)
    identity = identities.agent("researcher").identity
    certificates = [x509.load_der_x509_certificate(der) for der in identity.certificates()]
    kinds = {
        "standard": [ed25519.Ed25519PublicKey, mldsa.MLDSA65PublicKey, mlkem.MLKEM768PublicKey],
        "cnsa2": [mldsa.MLDSA87PublicKey, mlkem.MLKEM1024PublicKey],
    }[suite]
    for certificate, kind in zip(certificates, kinds, strict=True):
        assert isinstance(certificate.public_key(), kind)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [identity.id]
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    roots = [x509.load_der_x509_certificate(der) for der in identities.domain().certificates()]
    for certificate, root in zip([*certificates[:-1], certificates[-1]], [*roots, roots[-1]], strict=True):
        root.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes)  # type: ignore[union-attr,call-arg]
    usage = certificates[0].extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature is True
    assert certificates[-1].extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment is True
    purposes = certificates[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_trust_domain_keeps_its_suite(store: Store, identities: Identities) -> None:
    with pytest.raises(InvalidInputError, match="was made with suite `standard`, and `cnsa2` is configured"):
        Identities(store, suite="cnsa2")


# --- rotation and revocation -----------------------------------------------------------------------------------------


def test_rotated_keys_verify_for_the_overlap_and_sign_no_more(store: Store) -> None:
    now = [1_790_000_000.0]
    identities = Identities(store, overlap=100, clock=lambda: now[0])
    before = identities.agent("researcher")
    identities.agent("reviewer")
    hops = identities.delegate_blocking("researcher", "reviewer", seconds=1000)
    after = identities.rotate_blocking("researcher")
    assert after.signing_key.verifying_key != before.signing_key.verifying_key
    assert len(after.kem_keys) == 2
    assert identities.verify(hops).links[0] == before.id
    now[0] += 101
    fresh = Identities(store, overlap=100, clock=lambda: now[0])
    with pytest.raises(UnauthorizedError, match="no key of .*researcher` that may sign it"):
        fresh.verify(hops)
    assert len(fresh.agent("researcher").kem_keys) == 1


def test_what_replaced_keys_sign_after_their_rotation_does_not_count(store: Store) -> None:
    """Whoever got hold of the old keys signs in the agent's name, within the overlap in which they still verify."""
    now = [1_790_000_000.0]
    identities = Identities(store, overlap=10_000, clock=lambda: now[0])
    stolen = identities.agent("researcher")
    reviewer = identities.agent("reviewer")
    identities.rotate_blocking("researcher")

    def hop(issued_at: int) -> list[str]:
        return [
            _core.delegate(
                stolen.id,
                stolen.signing_key,
                reviewer.identity,
                attenuation=PERMIT,
                audience="creto.local",
                issued_at=issued_at,
                expiry=issued_at + 1000,
                depth=0,
            )
        ]

    assert identities.verify(hop(int(now[0]))).links[0] == stolen.id  # another process may not know of it yet
    now[0] += 300
    with pytest.raises(UnauthorizedError, match="hop 1 .* it is not valid at this time"):
        identities.verify(hop(int(now[0])))


def test_keys_made_in_one_second_are_told_apart_by_their_generation(store: Store) -> None:
    identities = Identities(store, clock=lambda: 1_790_000_000.0)
    identities.agent("researcher")
    newest = identities.rotate_blocking("researcher")
    for seen in (identities, Identities(store, clock=lambda: 1_790_000_000.0)):
        assert seen.find("researcher").verifying_key == newest.signing_key.verifying_key
        assert len(seen.find_all("researcher")) == 2


def test_revocation_binds_in_another_process_within_a_second(state: Path, store: Store) -> None:
    with Reach(store) as reach:
        identities = Identities(store, reach=reach)
        identities.agent("researcher")
        identities.agent("reviewer")
        hops = identities.delegate_blocking("researcher", "reviewer")
        chain = identities.verify(hops)
        assert chain.is_current(identities.epoch, int(time.time()))
        code = (
            "import sys; from creto.nhi import Identities; from creto.store import Store\n"
            "with Store(sys.argv[1]) as store: Identities(store).revoke_blocking('researcher', 'lost')"
        )
        subprocess.run([sys.executable, "-c", code, str(state)], check=True)
        done = time.monotonic()
        # It looks each half second; after the first look since then, however late on a busy machine, it knows.
        assert until(lambda: reach._read_at > done, 60)
        assert not chain.is_current(identities.epoch, int(time.time()))
        with pytest.raises(UnauthorizedError, match="was revoked"):
            identities.agent("researcher")
        with pytest.raises(UnauthorizedError):
            identities.verify(hops)


def test_what_happens_to_identities_is_recorded(store: Store, identities: Identities) -> None:
    identities.agent("researcher")
    identities.rotate_blocking("researcher")
    identities.revoke_blocking("researcher", "keys were lost")
    with store.read() as tx:
        records = [row.record for row in tx.all(select(tables.outbox).order_by(tables.outbox.c.seq))]
    assert [record["what"] for record in records] == [
        "identity:found",
        "identity:create",
        "identity:rotate",
        "identity:revoke",
    ]
    assert records[-1]["why"] == "keys were lost"


# --- delegation ------------------------------------------------------------------------------------------------------


def test_a_chain_names_who_acts_for_whom_and_what_each_passed_on(identities: Identities) -> None:
    for name in ("alice", "researcher", "helper"):
        identities.agent(name)
    hops = identities.delegate_blocking("alice", "researcher", attenuation=PERMIT, depth=1)
    hops = identities.delegate_blocking(
        "researcher", "helper", attenuation="forbid(principal, action, resource);", previous=hops
    )
    helper = identities.agent("helper").acting_for(identities.verify(hops))
    assert helper.chain == (
        ("spiffe://creto.local/agent/alice", PERMIT),
        ("spiffe://creto.local/agent/researcher", "forbid(principal, action, resource);"),
    )
    with pytest.raises(UnauthorizedError, match="ends at .*helper`, so .*alice` cannot act under it"):
        identities.agent("alice").acting_for(identities.verify(hops))


def test_a_hop_beyond_the_depth_or_for_another_audience_is_refused(identities: Identities) -> None:
    for name in ("alice", "researcher", "helper"):
        identities.agent(name)
    hops = identities.delegate_blocking("alice", "researcher", depth=0)
    with pytest.raises(InvalidInputError, match="its depth is 0, and the hop before it allows at most -1"):
        identities.delegate_blocking("researcher", "helper", previous=hops)
    with pytest.raises(UnauthorizedError, match=r"hop 1 .* was made for `creto.local`, not for `payments`"):
        identities.verify(hops, audience="payments")


def test_an_altered_chain_is_refused_naming_the_hop(identities: Identities) -> None:
    for name in ("alice", "researcher", "helper"):
        identities.agent(name)
    hops = identities.delegate_blocking("alice", "researcher", depth=1)
    hops = identities.delegate_blocking("researcher", "helper", previous=hops)
    altered = json.loads(hops[1])
    # One hexadecimal digit of what is random in it: a name that was changed would be one that nobody knows.
    said = json.loads(base64.b64decode(altered["payload"]))
    nonce = said["predicate"]["nonce"]
    said["predicate"]["nonce"] = ("1" if nonce[0] == "0" else "0") + nonce[1:]
    altered["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    with pytest.raises(UnauthorizedError, match="hop 2 of the delegation chain does not hold"):
        identities.verify([hops[0], json.dumps(altered)])
    with pytest.raises(UnauthorizedError, match="a delegation chain has 1 to 16 hops, and this one 0"):
        identities.verify([])


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_a_bundle_is_taken_in_once_its_fingerprint_was_compared(tmp_path: Path, identities: Identities) -> None:
    identities.agent("researcher")
    bundle, fingerprint = identities.export(), identities.domain().verifying_key.fingerprint
    with Store(tmp_path / "far") as store:
        far = Identities(store, trust_domain="far.test")
        with pytest.raises(UnauthorizedError, match=f"is new here; compare its fingerprint {fingerprint}"):
            far.import_blocking(bundle)
        with pytest.raises(UnauthorizedError, match="not the key known"):
            far.import_blocking(bundle, fingerprint="0" * 64)
        assert far.import_blocking(bundle, fingerprint=fingerprint) == ["spiffe://creto.local/agent/researcher"]
        assert far.find("spiffe://creto.local/agent/researcher").suite == "standard"
        with pytest.raises(UnauthorizedError, match="imported: its keys are elsewhere"):
            far.agent("spiffe://creto.local/agent/researcher")
        far.import_blocking(bundle)
        with pytest.raises(NotFoundError, match="creto agent import"):
            far.find("spiffe://creto.local/agent/nobody")


ODD = [None, True, -1, 1e400, 2**70, "", "\ud800", "\x00", [], [None], {}, "spiffe://x/agent/y"]


@pytest.mark.parametrize(
    "place", ["kind", "trust_domain", "suite", "verifying_key", "certificates", "issued_at", "identities", "revoked"]
)
def test_a_signed_bundle_with_anything_in_it_is_an_error_or_a_bundle(
    tmp_path: Path, identities: Identities, place: str
) -> None:
    identities.agent("researcher")
    payload = json.loads(base64.b64decode(json.loads(identities.export())["payload"]))
    with Store(tmp_path / "far") as store:
        far = Identities(store, trust_domain="far.test")
        for odd in ODD:
            values = [odd] if not isinstance(payload[place], list) else [odd, [odd], [*payload[place], odd]]
            for value in values:
                text = json.dumps({**payload, place: value}).encode()
                bundle = _core.dsse_sign(identities._authority.key, "application/vnd.creto.bundle+json", text)
                with suppress(CretoError):
                    far.import_blocking(bundle, fingerprint=identities.domain().verifying_key.fingerprint)


def test_a_bundle_tells_who_was_revoked_and_an_older_one_does_not_bring_them_back(
    tmp_path: Path, identities: Identities
) -> None:
    identities.agent("researcher")
    identities.agent("reviewer")
    old, fingerprint = identities.export(), identities.domain().verifying_key.fingerprint
    researcher = "spiffe://creto.local/agent/researcher"
    with Store(tmp_path / "far") as store:
        far = Identities(store, trust_domain="far.test")
        far.import_blocking(old, fingerprint=fingerprint)
        identities.revoke_blocking("researcher")
        far.import_blocking(identities.export())
        for bundle in (identities.export(), old):
            far.import_blocking(bundle)
            with pytest.raises(UnauthorizedError, match="researcher` was revoked"):
                far.find(researcher)
        assert far.find("spiffe://creto.local/agent/reviewer").suite == "standard"


def test_a_trust_domain_that_certifies_anothers_key_takes_nothing_from_it(tmp_path: Path, store: Store) -> None:
    """Nobody proves to hold what is certified: a hostile domain certifies a victim's key, whole or in part."""
    identities = Identities(store)
    victim = identities.agent("victim")
    fake = _core.Authority.generate("fake.test", "standard", int(time.time()), 100_000)
    own = _core.SigningKey.generate().verifying_key.public()
    theirs = victim.signing_key.verifying_key
    spkis = [load_der_public_key(spki_of(theirs, 0)), mldsa.MLDSA65PublicKey.from_public_bytes(own["ML-DSA-65"])]
    mixed = _core.VerifyingKey.from_bytes(sequence([key.public_bytes(Encoding.DER, SPKI) for key in spkis]))
    kem = _core.KemKey.generate().public()
    for key in (theirs, mixed):
        statement = fake.issue("spiffe://fake.test/agent/thief", key, kem, int(time.time()), 1000)
        identities.directory.add(fake.domain.admit(statement))
    envelope = _core.envelope_seal(
        victim.id,
        victim.signing_key,
        [victim.identity],
        b"mine",
        message_id="ab" * 16,
        date=int(time.time()),
        expires=int(time.time()) + 60,
        content_type="text/plain",
    )
    verified = _core.envelope_verify(
        envelope,
        me=victim.id,
        directory=identities.directory,
        suite="standard",
        max_bytes=1 << 20,
        max_life=300,
        now=int(time.time()),
    )
    assert verified.open(list(victim.kem_keys)) == b"mine"


def sequence(parts: list[bytes]) -> bytes:
    content = b"".join(parts)
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def spki_of(key: _core.VerifyingKey, place: int) -> bytes:
    """One SubjectPublicKeyInfo of a set."""
    rest = key.to_bytes()[4:]
    for _ in range(place + 1):
        header = 2 if rest[1] < 0x80 else 4
        length = header + (rest[1] if header == 2 else int.from_bytes(rest[2:4], "big"))
        found, rest = rest[:length], rest[length:]
    return found


@pytest.mark.parametrize(
    "id",
    [
        "spiffe://creto.local/agent/Researcher",
        "spiffe://creto.local/agent/researcher/",
        "spiffe://creto.local//agent/researcher",
        "spiffe://creto.local/agent/./researcher",
        "spiffe://creto.local/agent/x/../researcher",
        "spiffe://CRETO.local/agent/researcher",
        "spiffe://creto.local./agent/researcher",
        "SPIFFE://creto.local/agent/researcher",
        "spiffe://creto.local:443/agent/researcher",
        "spiffe://user@creto.local/agent/researcher",
        "spiffe://creto.local/agent/researcher?x=1",
        "spiffe://creto.local/agent/researcher#x",
        "spiffe://creto.local/agent/%72esearcher",
        "spiffe://creto.local/agent/r\u0435searcher",
        "spiffe://cr\u0435to.local/agent/researcher",
        "spiffe://creto.local/agent/researcher\u200b",
        "spiffe://creto.local/agent/researcher\0",
        " spiffe://creto.local/agent/researcher",
    ],
)
def test_no_other_spelling_of_a_name_is_that_name(identities: Identities, id: str) -> None:
    identities.agent("researcher")
    with pytest.raises((InvalidInputError, NotFoundError, UnauthorizedError)):
        identities.find(id)
    for name in ("researcher", id):
        with pytest.raises((InvalidInputError, NotFoundError, UnauthorizedError)):
            identities.delegate_blocking(name, id)


def test_a_chain_from_another_trust_domain_verifies_offline(tmp_path: Path, identities: Identities) -> None:
    identities.agent("alice")
    with Store(tmp_path / "far") as store:
        far = Identities(store, trust_domain="far.test")
        far.agent("helper")
        identities.import_blocking(far.export(), fingerprint=far.domain().verifying_key.fingerprint)
        far.import_blocking(identities.export(), fingerprint=identities.domain().verifying_key.fingerprint)
        hops = identities.delegate_blocking("alice", "spiffe://far.test/agent/helper", audience="far.test")
        assert far.verify(hops).links == ["spiffe://creto.local/agent/alice", "spiffe://far.test/agent/helper"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_awaited_forms_do_the_same(backend: str, identities: Identities) -> None:
    async def main() -> None:
        identities.agent("alice")
        identities.agent("helper")
        chain = identities.verify(await identities.delegate("alice", "helper"))
        assert chain.links[-1] == "spiffe://creto.local/agent/helper"
        before = identities.epoch
        await identities.rotate("alice")
        await identities.revoke("helper")
        assert identities.epoch == before + 2

    anyio.run(main, backend=backend)


# --- what a chain means for acts -------------------------------------------------------------------------------------


def test_an_act_under_a_chain_is_bounded_by_every_link_and_ends_with_it(state: Path) -> None:
    async def main() -> None:
        async with creto.open(state) as layer:
            identities = layer.parts.identities
            layer.agent("alice")
            helper = layer.agent("helper")

            async def call(agent: Agent) -> int:
                return await layer.perform(agent, "tool:call", "add", lambda: 3)

            assert await call(helper) == 3
            reads = 'permit(principal, action == Action::"http:get", resource);'
            narrow = helper.acting_for(
                identities.verify(await identities.delegate("alice", "helper", attenuation=reads))
            )
            with pytest.raises(UnauthorizedError, match="the delegation to .*alice` does not cover it"):
                await call(narrow)
            brief = helper.acting_for(identities.verify(await identities.delegate("alice", "helper", seconds=6)))
            assert await call(brief) == 3
            await anyio.sleep(6.1)
            with pytest.raises(UnauthorizedError, match="chain under which .*helper` acts .* has expired"):
                await call(brief)
            wide = helper.acting_for(identities.verify(await identities.delegate("alice", "helper")))
            assert await call(wide) == 3
            await identities.revoke("alice")
            with pytest.raises(UnauthorizedError, match="alice` was revoked"):
                await call(wide)
            assert await call(helper) == 3

    anyio.run(main)
