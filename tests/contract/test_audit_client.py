"""What `creto.audit` promises to applications and auditors."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto import _core
from creto.audit import AuditClient, AuditRecord, Subjects, open_ledger, signing_key, trusted_keys
from creto.errors import IntegrityError, InvalidInputError, NotFoundError, SignatureVerificationFailedError

ALICE = "spiffe://creto.local/agent/alice"
BOB = "spiffe://creto.local/agent/bob"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sealer() -> _core.Sealer:
    return _core.Sealer.ephemeral()


@asynccontextmanager
async def opened(folder: Path, sealer: _core.Sealer) -> AsyncIterator[AuditClient]:
    folder.mkdir(exist_ok=True)
    audit = AuditClient(open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), sealer), folder)
    try:
        yield audit
    finally:
        await audit.close()


def record(
    who: str = ALICE, what: str = "http:get", resource: str = "https://example.org/", **fields: Any
) -> AuditRecord:
    return AuditRecord(who=who, what=what, resource=resource, **fields)


@pytest.mark.anyio
async def test_what_was_logged_is_found_by_agent_action_resource_time_and_outcome(
    tmp_path: Path, sealer: _core.Sealer
) -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    async with opened(tmp_path, sealer) as audit:
        await audit.log(record(outcome="success", kind="outcome"))
        await audit.log(record(BOB, "net:connect", "example.org:443", outcome={"failure": "no route"}, kind="outcome"))
        audit.log_nowait(record(BOB, "http:post", kind="refusal", delegation_chain=(ALICE,)))

        async def found(**filters: Any) -> list[str]:
            return [r.what for r in await audit.query(**filters)]

        assert await found() == ["http:get", "net:connect", "http:post"]
        assert await found(agent=ALICE) == ["http:get", "http:post"]
        assert await found(action="http:*") == ["http:get", "http:post"]
        assert await found(resource="example.org:443") == ["net:connect"]
        assert await found(outcome="success") == ["http:get"]
        assert await found(outcome="failure") == ["net:connect"]
        assert await found(outcome="refused") == ["http:post"]
        assert await found(since=start, until=start + timedelta(minutes=1)) == ["http:get", "net:connect", "http:post"]
        assert await found(until=start) == []
        assert await found(limit=2) == ["net:connect", "http:post"]
        with pytest.raises(InvalidInputError, match="a limit is at least 1, not 0"):
            await found(limit=0)


@pytest.mark.anyio
async def test_shards_are_one_ledger_in_order_of_time(tmp_path: Path, sealer: _core.Sealer) -> None:
    async with opened(tmp_path, sealer) as one, opened(tmp_path, sealer) as two:
        assert one.origin != two.origin
        for number in range(10):
            await (one, two)[number % 2].log(record(resource=str(number)))
        found = await AuditClient.reading(tmp_path).query()
        assert [r.resource for r in found] == [str(n) for n in range(10)]
        assert [r.shard for r in found] == ["0000", "0001"] * 5
        with pytest.raises(InvalidInputError, match="reads only"):
            await AuditClient.reading(tmp_path).log(record())


@pytest.mark.anyio
async def test_followers_see_what_any_process_writes_once_and_new_shards_too(
    tmp_path: Path, sealer: _core.Sealer
) -> None:
    seen: list[str] = []

    async def follow(*, from_start: bool, want: int, ready: anyio.Event) -> None:
        followed = AuditClient.reading(tmp_path).follow(from_start=from_start, action="a:*", interval=0.02)
        ready.set()
        async with aclosing(followed):
            async for r in followed:
                seen.append(r.resource)
                if len(seen) == want:
                    return

    async with opened(tmp_path, sealer) as one:
        await one.log(record(what="a:b", resource="before"))
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                ready = anyio.Event()
                group.start_soon(lambda: follow(from_start=True, want=601, ready=ready))
                await ready.wait()
                async with opened(tmp_path, sealer) as two:
                    for number in range(300):
                        one.log_nowait(record(what="a:b", resource=f"one {number}"))
                        two.log_nowait(record(what="a:b", resource=f"two {number}"))
                        two.log_nowait(record(what="other:b", resource="x"))
    assert sorted(seen) == sorted(["before", *(f"{w} {n}" for w in ("one", "two") for n in range(300))])


@pytest.mark.anyio
async def test_following_begins_when_it_is_asked_for_and_not_with_the_first_look(
    tmp_path: Path, sealer: _core.Sealer
) -> None:
    """As `audit tail -f` does, which looks back first: what comes meanwhile would be in neither."""
    async with opened(tmp_path, sealer) as audit:
        await audit.log(record(resource="before"))
        await audit.checkpoint()
        async with aclosing(AuditClient.reading(tmp_path).follow()) as followed:
            await audit.log(record(resource="meanwhile"))
            await audit.checkpoint()
            with anyio.fail_after(60):
                assert (await anext(followed)).resource == "meanwhile"


@pytest.mark.anyio
async def test_following_goes_on_over_segments_that_end_and_go(tmp_path: Path, sealer: _core.Sealer) -> None:
    count, body = 1_500, "x" * 3_000
    async with opened(tmp_path, sealer) as audit:
        followed = AuditClient.reading(tmp_path).follow(from_start=True, interval=0.01)
        with anyio.fail_after(60):
            async with aclosing(followed), anyio.create_task_group() as group:

                async def write() -> None:
                    for number in range(count):
                        audit.log_nowait(record(resource=str(number), detail={"body": body}))
                        if number % 100 == 0:
                            await anyio.sleep(0.01)

                group.start_soon(write)
                numbers = []
                async for r in followed:
                    numbers.append(int(r.resource))
                    if len(numbers) == count:
                        break
    assert numbers == list(range(count))


@pytest.mark.anyio
async def test_a_record_is_proved_to_someone_with_the_public_key_alone(tmp_path: Path, sealer: _core.Sealer) -> None:
    async with opened(tmp_path, sealer) as audit:
        await audit.log(record(id="ab" * 16, detail={"cost": "3"}))
        proof = await audit.prove("ab" * 16)
        assert proof.record.signature == proof.text
        proof.verify(trusted_keys(tmp_path))
        with pytest.raises(SignatureVerificationFailedError):
            proof.verify([_core.SigningKey.generate().verifying_key])
        assert [r.id for r in await audit.find("0000/0")] == ["ab" * 16]
        for name in ("cd" * 16, "0000/7", "0007/0"):
            with pytest.raises(NotFoundError):
                await audit.find(name)


def test_two_that_make_the_signing_key_at_once_get_the_same(tmp_path: Path, sealer: _core.Sealer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing_key(tmp_path, sealer).verifying_key.fingerprint, range(8)))
    assert len(set(keys)) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 2


# --- what an outside verifier finds out -------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, sealer: _core.Sealer) -> Path:
    """A closed ledger of 700 records, with an older copy of itself beside it."""

    async def main() -> None:
        async with opened(tmp_path / "state", sealer) as audit:
            for number in range(400):
                audit.log_nowait(record(resource=str(number)))
        shutil.copytree(tmp_path / "state", tmp_path / "older")
        async with opened(tmp_path / "state", sealer) as audit:
            for number in range(400, 700):
                audit.log_nowait(record(resource=str(number)))

    anyio.run(main)
    return tmp_path / "state"


def verified(folder: Path, keys: list[_core.VerifyingKey] | None = None, seen: list[str] | None = None) -> list[Any]:
    async def main() -> list[Any]:
        return list(await AuditClient.reading(folder).verify(keys, seen=seen or ()))

    return anyio.run(main)


def notes(folder: Path) -> list[str]:
    return [v.note for v in verified(folder)]


def test_an_intact_ledger_is_found_so_and_extends_what_was_seen_of_it(state: Path) -> None:
    counts: list[tuple[str, int, int]] = []

    async def main() -> Any:
        return await AuditClient.reading(state).verify(seen=notes_older, progress=lambda *a: counts.append(a))

    notes_older = notes(state.parent / "older")
    (found,) = anyio.run(main)
    assert (found.shard, found.size) == ("0000", 700)
    assert counts[-1] == ("0000", 700, 700)


def test_an_edited_record_is_named(state: Path) -> None:
    bundle = state / "ledger/0000/tile/entries/001"
    content = bytearray(bundle.read_bytes())
    at = content.index(b"https") if b"https" in content else content.index(b"300")
    content[at] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"record \d+ does not hash to its leaf of the tree"):
        verified(state)


def test_an_edited_record_whose_leaf_was_edited_too_is_found(state: Path) -> None:
    tile = state / "ledger/0000/tile/0/001"
    entry = state / "ledger/0000/tile/entries/001"
    content = bytearray(entry.read_bytes())
    import hashlib

    length = int.from_bytes(content[:2])
    content[40] ^= 1
    entry.write_bytes(content)
    hashes = bytearray(tile.read_bytes())
    hashes[:32] = hashlib.sha256(b"\0" + bytes(content[2 : 2 + length])).digest()
    tile.write_bytes(hashes)
    with pytest.raises(IntegrityError):
        verified(state)


def test_a_truncated_ledger_is_found(state: Path) -> None:
    (state / "ledger/0000/tile/entries/002.p/188").unlink()
    with pytest.raises(IntegrityError, match=r"entries/002\.p/188` is missing"):
        verified(state)


def test_a_ledger_that_was_rolled_back_is_found_by_whoever_saw_it_before(state: Path) -> None:
    seen = notes(state)
    shutil.rmtree(state / "ledger")
    shutil.copytree(state.parent / "older" / "ledger", state / "ledger")
    (found,) = verified(state)
    assert found.size == 400
    with pytest.raises(
        IntegrityError, match="it holds 400 records, but a checkpoint over 700 was seen before: it was rolled back"
    ):
        verified(state, seen=seen)


def test_a_forked_ledger_is_found_by_whoever_saw_the_other_branch(state: Path, sealer: _core.Sealer) -> None:
    async def other() -> None:
        async with opened(state.parent / "older", sealer) as audit:
            for number in range(400, 800):
                audit.log_nowait(record(resource=f"other {number}"))

    anyio.run(other)
    seen = notes(state)
    verified(state.parent / "older")
    with pytest.raises(IntegrityError, match="it is not the log whose checkpoint over 700 records was seen before"):
        verified(state.parent / "older", seen=seen)


def test_a_ledger_rewritten_from_the_start_with_the_stolen_key_is_found(state: Path, sealer: _core.Sealer) -> None:
    seen = notes(state)
    origin = (state / "ledger/0000/origin").read_text()
    forged = state.parent / "forged"
    shutil.copytree(state / "keys", forged / "keys")

    async def forge() -> None:
        (forged / "ledger/0000").mkdir(parents=True)
        (forged / "ledger/0000/origin").write_text(origin)
        async with opened(forged, sealer) as audit:
            for number in range(701):
                audit.log_nowait(record(resource=f"forged {number}"))

    anyio.run(forge)
    verified(forged, trusted_keys(state))
    with pytest.raises(IntegrityError, match="it is not the log whose checkpoint"):
        verified(forged, trusted_keys(state), seen)


def test_a_ledger_that_is_not_there_any_more_is_found(state: Path) -> None:
    seen = notes(state)
    shutil.rmtree(state / "ledger/0000")
    with pytest.raises(IntegrityError, match="is not there any more"):
        verified(state, seen=seen)


def test_a_ledger_signed_by_another_key_is_refused(state: Path) -> None:
    with pytest.raises(SignatureVerificationFailedError, match="Ed25519"):
        verified(state, [_core.SigningKey.generate().verifying_key])


def test_a_checkpoint_without_its_post_quantum_line_is_refused(state: Path) -> None:
    path = state / "ledger/0000/checkpoint"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(SignatureVerificationFailedError, match="ML-DSA-65"):
        verified(state)


# --- people -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_is_recorded_about_a_person_is_unreadable_once_erased_and_the_ledger_still_verifies(
    tmp_path: Path, sealer: _core.Sealer
) -> None:
    subjects = Subjects(tmp_path, sealer)
    async with opened(tmp_path, sealer) as audit:
        await audit.log(subjects.sealed(record(), "ann@example.org", {"born": "1970-01-02"}))
        await audit.log(subjects.sealed(record(), "bob@example.org", {"born": "1980-03-04"}))
        ann, bob = await audit.query()
        assert subjects.personal(ann, "ann@example.org") == {"born": "1970-01-02"}
        assert subjects.personal(bob, "ann@example.org") == {}
        assert subjects.erase("ann@example.org")
        # Another process, or a later one, cannot read it either; the other person's is as it was.
        later = Subjects(tmp_path, sealer)
        with pytest.raises(NotFoundError, match="was erased"):
            later.personal(ann, "ann@example.org")
        with pytest.raises(NotFoundError, match="was erased"):
            later.sealed(record(), "ann@example.org", {"born": "again"})
        assert later.personal(bob, "bob@example.org") == {"born": "1980-03-04"}
        assert (await audit.verify())[0].size == 2
        (await audit.prove(ann)).verify(trusted_keys(tmp_path))
    for file in tmp_path.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert b"1970-01-02" not in content
        assert b"ann@example.org" not in content


def test_two_that_make_a_persons_key_at_once_get_the_same(tmp_path: Path, sealer: _core.Sealer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def make(_: int) -> dict[str, Any]:
        return Subjects(tmp_path, sealer).sealed(record(id="ab" * 16), "ann", {"a": "b"})

    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(make, range(8)))
    assert all(Subjects(tmp_path, sealer).personal(r, "ann") == {"a": "b"} for r in sealed)
