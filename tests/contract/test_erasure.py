"""What erasing a person promises: nothing that was kept about them can be read from any file of the state folder."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from creto import _core
from creto.audit import AuditClient, Subjects, open_ledger, trusted_keys
from creto.cli import main
from creto.erasure import Erased, erase, expire
from creto.errors import NotFoundError, UnauthorizedError
from creto.memory import Precedents
from creto.store import open_folder
from desks import AGENT, Office, act, wait_for_request

PERSON = "Mira.Oduya@example.org"
BORN = "1970-01-02"


def bytes_of(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for file in folder.rglob("*"):
            if not file.is_file():
                continue
            content = file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    content += b"".join(archive.read(name) for name in archive.namelist())
            yield file, content


def naming(text: str, *folders: Path) -> list[str]:
    needles = [text.encode(), text.casefold().encode(), text.encode("utf-32-le")]
    return [file.name for file, content in bytes_of(*folders) if any(needle in content for needle in needles)]


async def pay(office: Office, what: Any) -> None:
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            clearance = await office.desk.ask(what, ["payments"])
            await office.desk.execute(clearance, act="ab" * 16)
            await office.desk.settle(clearance, "executed")

        group.start_soon(ask)
        (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
        await anyio.to_thread.run_sync(office.desk.approve, request, office.ann, "known supplier")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, state: Path) -> str | Path:
    if request.param == "sqlite":
        return state
    return str(request.getfixturevalue("postgres"))


def test_once_erased_a_person_is_in_no_file_and_the_ledger_still_verifies(place: str | Path, state: Path) -> None:
    open_folder(state)
    sealer = _core.Sealer.open(state / "keys")
    office = Office(place, folder=state)
    kept = [state]
    if isinstance(place, str):
        # What the server's own log of changes and its backups keep is for who runs it to let go.
        with psycopg.connect(place) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
            assert row is not None
            kept.append(Path(row[0]) / "base")
    subjects = Subjects(state, sealer)

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        office.store.attach(audit)
        precedents = office.desk.precedents
        assert isinstance(precedents, Precedents)
        with anyio.fail_after(60):
            await pay(office, act(80, to=PERSON))
            await pay(office, act(90, to="DE89"))
            assert len(precedents.recall(f"tool:call send_money to {PERSON}")) == 2
            await audit.log(subjects.sealed({"who": AGENT, "what": "crm:read"}, PERSON, {"born": BORN}))
            await audit.query(subject=subjects.pseudonym(PERSON))
            _flush(place)
            assert naming(PERSON, *kept)
            assert not naming(BORN, *kept)  # it was never written in the clear

            async def again(**options: Any) -> Erased:
                return await erase(
                    PERSON, audit=audit, subjects=subjects, store=office.store, precedents=precedents, **options
                )

            with pytest.raises(
                UnauthorizedError, match=r"is kept until 20\d\d-\d\d-\d\d \(`audit.retention_days` is 183\)"
            ):
                await again()
            assert naming(PERSON, *kept)
            erased = await again(early="asked for under GDPR article 17")
            assert (erased.key, erased.requests, erased.still_open) == (True, 1, 0)
            _flush(place)
            assert naming(PERSON, *kept) == []
            assert await again(early="twice") == Erased(erased.pseudonym, False, 0, 0)

            # What is left says that there was something, and that it was erased; the other decision is as it was.
            found = precedents.recall("tool:call tool:call send_money assistant amount 85 to DE89")
            assert any("DE89" in one.text for one in found)
            assert all("oduya" not in one.text.casefold() for one in found)
            (record,) = await audit.query(subject=erased.pseudonym)
            with pytest.raises(NotFoundError, match="was erased"):
                subjects.personal(record, PERSON)
            (told,) = await audit.query(action="subject:erase")
            assert (told.resource, told.why) == (erased.pseudonym, "asked for under GDPR article 17")
            assert (await audit.verify(trusted_keys(state)))[0].size == len(await audit.query())
        await audit.close()

    anyio.run(main)
    office.close()


def _flush(place: str | Path) -> None:
    """Brings what PostgreSQL holds in memory to its files, and lets it remove those that it has replaced."""
    if isinstance(place, str):
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute("CHECKPOINT")


def test_an_open_request_that_names_the_person_stays_until_it_has_ended(state: Path) -> None:
    office = Office(state)
    sealer = _core.Sealer.open(state / "keys")

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        options: dict[str, Any] = {
            "audit": audit,
            "subjects": Subjects(state, sealer),
            "store": office.store,
            "precedents": Precedents(office.store),
        }
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    with pytest.raises(UnauthorizedError):
                        await office.desk.ask(act(80, to=PERSON), ["payments"])

                group.start_soon(ask)
                (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
                erased = await erase(PERSON, **options)
                assert (erased.requests, erased.still_open) == (0, 1)
                assert json.loads(request.core)["context"]["to"] == PERSON
                await anyio.to_thread.run_sync(office.desk.deny, request, office.ann, "never heard of them")
            assert (await erase(PERSON, **options)).requests == 1
        await audit.close()

    anyio.run(main)
    office.close()
    assert naming(PERSON, state) == []


def test_who_was_not_heard_of_for_the_retention_is_erased_by_the_timer_and_nobody_earlier(state: Path) -> None:
    open_folder(state)
    sealer = _core.Sealer.open(state / "keys")
    subjects = Subjects(state, sealer)
    now = time.time()

    def said(person: str, days: float) -> dict[str, Any]:
        record = subjects.sealed({"who": AGENT, "what": "crm:read"}, person, {"born": BORN})
        made = now - days * 86_400
        os.utime(state / "keys/subjects" / subjects.pseudonym(person), (made, made))
        return {**record, "timestamp": int(made * 1e6) << 12}

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        records = {
            person: said(person, days)
            for person, days in {"old@x": 200, "new@x": 182, "edge@x": 183.5, "both@x": 400}.items()
        }
        for record in records.values():
            await audit.log(record)
        await audit.log(said("both@x", 1))
        subjects.sealed({"who": AGENT, "what": "crm:read"}, "never-logged@x", {"born": BORN})
        due = sorted(map(subjects.pseudonym, ("old@x", "edge@x")))
        # A retention below the floor changes nothing, and looking neither.
        assert await expire(audit=audit, subjects=subjects, retention_days=1, look_only=True) == due
        assert await audit.query(action="subject:erase") == []
        assert await expire(audit=audit, subjects=subjects, retention_days=1) == due
        assert await expire(audit=audit, subjects=subjects) == []
        for person in ("old@x", "edge@x"):
            with pytest.raises(NotFoundError, match="was erased"):
                subjects.personal(records[person], person)
        for person in ("new@x", "both@x"):
            assert subjects.personal(records[person], person) == {"born": BORN}
        told = await audit.query(action="subject:erase")
        assert sorted((one.resource, one.kind) for one in told) == [
            (pseudonym, kind) for pseudonym in due for kind in ("intent", "outcome")
        ]
        assert {one.why for one in told} == {"nothing was recorded about this person for 183 days"}
        # The ledger lost nothing.
        assert (await audit.verify(trusted_keys(state)))[0].size == 5 + 4
        await audit.close()

    anyio.run(main)


def _said_long_ago(state: Path, subjects: Subjects) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was recorded about somebody 200 days ago, as it was sealed and as it is logged."""
    record = subjects.sealed({"who": AGENT, "what": "crm:read"}, "old@x", {"born": BORN})
    then = time.time() - 200 * 86_400
    os.utime(state / "keys/subjects" / subjects.pseudonym("old@x"), (then, then))
    return record, {**record, "timestamp": int(then * 1e6) << 12}


def test_who_is_erased_by_the_timer_goes_from_past_requests_too_though_nobody_names_them(state: Path) -> None:
    open_folder(state)
    office = Office(state)
    sealer = _core.Sealer.open(state / "keys")
    subjects = Subjects(state, sealer)

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        office.store.attach(audit)
        precedents = office.desk.precedents
        assert isinstance(precedents, Precedents)
        with anyio.fail_after(60):
            await pay(office, act(80, to="old@x"))
            await pay(office, act(90, to="somebody else"))
            assert len(precedents.recall("tool:call send_money to old@x")) == 2
            _, logged = _said_long_ago(state, subjects)
            await audit.log(logged)
            held: dict[str, Any] = {"audit": audit, "subjects": subjects, "store": office.store}
            assert len(await expire(**held, precedents=precedents, look_only=True)) == 1
            assert naming("old@x", state)
            (gone,) = await expire(**held, precedents=precedents)
            assert naming("old@x", state) == []
            kept = sorted(json.loads(one.core)["context"].get("to", gone) for one in office.desk.all())
            assert kept == sorted(["somebody else", gone])
            assert [json.loads(one.core)["context"] for one in office.desk.all()].count({"erased": gone}) == 1
        await audit.close()

    anyio.run(main)
    office.close()


def test_a_longer_retention_than_the_floor_holds(state: Path) -> None:
    open_folder(state)
    sealer = _core.Sealer.open(state / "keys")
    subjects = Subjects(state, sealer)

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        _, logged = _said_long_ago(state, subjects)
        await audit.log(logged)
        assert await expire(audit=audit, subjects=subjects, retention_days=365) == []
        assert len(await expire(audit=audit, subjects=subjects, retention_days=199)) == 1
        await audit.close()

    anyio.run(main)


def test_a_crash_before_the_key_is_gone_is_made_up_for_by_the_next_run(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_folder(state)
    sealer = _core.Sealer.open(state / "keys")
    subjects = Subjects(state, sealer)

    async def main() -> None:
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        record, logged = _said_long_ago(state, subjects)
        await audit.log(logged)

        def falls(_: Subjects, pseudonym: str) -> bool:
            raise KeyboardInterrupt(pseudonym)

        with monkeypatch.context() as patched:
            patched.setattr(Subjects, "erase_pseudonym", falls)
            with pytest.raises(KeyboardInterrupt):
                await expire(audit=audit, subjects=subjects)
        assert subjects.personal(record, "old@x") == {"born": BORN}
        assert len(await expire(audit=audit, subjects=subjects)) == 1
        kinds = [one.kind for one in await audit.query(action="subject:erase")]
        assert kinds == ["intent", "intent", "outcome"]
        await audit.close()

    anyio.run(main)


def test_the_command_says_who_would_go_and_asks_first(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_folder(state)
    subjects = Subjects(state, _core.Sealer.open(state / "keys"))
    subjects.sealed({"who": AGENT, "what": "crm:read"}, "old@x", {"born": BORN})
    pseudonym = subjects.pseudonym("old@x")
    then = time.time() - 200 * 86_400
    os.utime(state / "keys/subjects" / pseudonym, (then, then))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--state", str(state), "audit", "expire", *arguments])
        return (code, *capsys.readouterr())

    unasked = run()
    assert (unasked[0], "give --yes to erase without being asked" in unasked[2]) == (2, True)
    looked = run("--dry-run")
    told = f"nothing was recorded for 183 days about 1 people; nobody was erased: --dry-run\n{pseudonym}\n"
    assert looked[:2] == (0, told)
    assert [name for name, _ in subjects.kept()] == [pseudonym]
    done = run("--yes", "--json")
    assert json.loads(done[1]) == {"days": 183, "expired": [pseudonym], "erased": True}
    assert subjects.kept() == []
    assert run("--yes")[1] == "nothing was recorded for 183 days about 0 people\n"


@pytest.mark.parametrize("written", ["Jose\u0301 Nu\u0301n\u0303ez", "JOSÉ NÚÑEZ", "\uff2aos\u00e9 Núñez"])
def test_a_name_is_erased_however_its_letters_are_written(state: Path, written: str) -> None:
    office = Office(state)
    sealer = _core.Sealer.open(state / "keys")

    async def main() -> None:
        await pay(office, act(80, to=f"account of {written}"))
        audit = AuditClient(open_ledger(state, _core.HybridLogicalClock(state / "clock"), sealer), state)
        kept: dict[str, Any] = {"store": office.store, "precedents": Precedents(office.store)}
        erased = await erase("José Núñez", audit=audit, subjects=Subjects(state, sealer), **kept)
        assert erased.requests == 1
        await audit.close()

    anyio.run(main)
    office.close()
    assert naming(written, state) == []
