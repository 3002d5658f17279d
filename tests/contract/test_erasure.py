"""What erasing a person promises: nothing that was kept about them can be read from any file of the state folder."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from creto import _core
from creto.audit import AuditClient, Subjects, open_ledger, trusted_keys
from creto.erasure import Erased, erase
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
