"""What a database of others can do to a store: it goes away, refuses, is slow, or is set up in another way."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select, text

import creto
from creto.errors import ConnectionFailedError, CretoError, InternalError, InvalidInputError, TimeoutError
from creto.nhi import Agent
from creto.reach import Reach
from creto.store import Store, Transaction, tables
from desks import wait_until
from file_ledger import FileLedger
from quickest import quickest
from servers import PostgreSQL, free_port, postgresql


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql("max_connections=20", "superuser_reserved_connections=0") as made, made.running():
        yield made


@pytest.fixture
def database(server: PostgreSQL) -> str:
    return server.database()


def names(store: Store) -> list[str]:
    with store.read() as tx:
        return [row.name for row in tx.all(select(tables.meta.c.name).order_by(tables.meta.c.name))]


def put(store: Store, name: str) -> None:
    with store.begin() as tx:
        tx.insert(tables.meta, name=name, value="x")


class Between:
    """Passes bytes between a client and the server, until a commit comes by: then the line is cut.

    Args:
        server: Where to.
        passes: True where the server gets the commit, and only its answer is lost.
    """

    def __init__(self, server: PostgreSQL, passes: bool) -> None:
        self._server, self._passes = server, passes
        self.cuts = 0
        """How many more commits it cuts."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.port == 0:
                    client.close()  # it has gone for good
                    continue
                there = socket.create_connection(("127.0.0.1", self._server.port))
                threading.Thread(target=self._asked, args=(client, there), daemon=True).start()
                threading.Thread(target=self._answered, args=(client, there), daemon=True).start()

    def _asked(self, client: socket.socket, there: socket.socket) -> None:
        with closing(there), closing(client), suppress(OSError):
            while asked := client.recv(65_536):
                cut = b"COMMIT\0" in asked and self.cuts > 0
                if cut:
                    self.cuts -= 1
                    # First, so that no answer comes by.
                    client.shutdown(socket.SHUT_RDWR)
                if not cut or self._passes:
                    there.sendall(asked)
                if cut:
                    if self._passes:
                        time.sleep(0.3)  # the server finds its client gone only after it has answered
                    there.shutdown(socket.SHUT_RDWR)
                    return

    def _answered(self, client: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while answer := there.recv(65_536):
                client.sendall(answer)
            client.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """From now on nobody gets through."""
        self.port = 0


@pytest.mark.parametrize("passes", [True, False])
def test_a_commit_whose_answer_is_lost_counts_or_not_by_the_databases_own_word(
    server: PostgreSQL, database: str, passes: bool, tmp_path: Path
) -> None:
    between = Between(server, passes)
    with Store(f"postgresql://creto@127.0.0.1:{between.port}/{database}") as store:
        ledger = FileLedger(tmp_path, "1")
        store.attach(ledger)
        between.cuts = 1
        try:
            with store.begin() as tx:
                tx.insert(tables.meta, name="once", value="x")
                tx.outbox({"what": "x:y"})
        except ConnectionFailedError:
            assert not passes
        else:
            assert passes
        assert between.cuts == 0
        assert names(store) == (["once"] if passes else [])
        assert len(ledger.records()) == len(names(store))
        put(store, "later")


def test_where_nobody_can_say_whether_a_commit_counts_that_is_said_and_its_record_comes_after_all(
    server: PostgreSQL, database: str, tmp_path: Path
) -> None:
    between = Between(server, True)
    with Store(f"postgresql://creto@127.0.0.1:{between.port}/{database}", timeout=2.0) as store:
        ledger = FileLedger(tmp_path, "1")
        store.attach(ledger)
        port = between.port
        with (
            pytest.raises(InternalError, match=r"in the midst of a commit, .* within 2 s .*; look before you try"),
            store.begin() as tx,
        ):
            tx.outbox({"what": "x:y"})
            between.cuts = 1
            between.leave()
        assert ledger.records() == []
        between.port = port
        put(store, "later")
        assert [record["what"] for record in ledger.records()] == ["x:y"]


def test_what_the_server_ends_in_the_midst_is_taken_back_whole_and_can_be_tried_again(
    server: PostgreSQL, database: str
) -> None:
    with Store(server.url(database)) as store:
        for last in (True, False):
            with (
                pytest.raises(ConnectionFailedError, match="ended the connection: terminating .*; try again"),
                store.begin() as tx,
            ):
                tx.insert(tables.meta, name="half", value="x")
                server.say(f"SELECT pg_terminate_backend({tx.scalar(text('SELECT pg_backend_pid()'))})")
                if not last:
                    tx.insert(tables.meta, name="other half", value="x")
        assert names(store) == []
        put(store, "whole")
    # What a server is set to; here for one transaction, so that a busy machine breaks none of the others.
    with Store(server.url(database)) as store, psycopg.connect(server.url(), autocommit=True) as watching:
        with pytest.raises(ConnectionFailedError, match="idle-in-transaction timeout"), store.begin() as tx:
            tx.insert(tables.meta, name="half", value="x")
            backend = tx.scalar(text("SELECT pg_backend_pid()"))
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))
            here = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: None if watching.execute(here, [backend]).fetchone() else True)
            tx.insert(tables.meta, name="other half", value="x")
        assert names(store) == ["whole"]
        with pytest.raises(TimeoutError, match="stayed busy: .*statement timeout"), store.begin() as tx:
            tx.execute(text("SET LOCAL statement_timeout = '100ms'"))
            tx.execute(text("SELECT pg_sleep(60)"))
        assert names(store) == ["whole"]


def test_a_server_that_was_away_is_used_again_and_what_was_decided_is_there(database: str) -> None:
    with postgresql() as own, ExitStack() as running:
        running.enter_context(own.running())
        with Store(own.url()) as store:
            put(store, "before")
            running.close()
            with pytest.raises(ConnectionFailedError, match="could not be reached: .*Connection refused"):
                put(store, "meanwhile")
            with own.running():
                put(store, "after")
                assert names(store) == ["after", "before"]
                # The server of a fail-over that is not the primary yet.
            with own.running("default_transaction_read_only=on"):
                with pytest.raises(ConnectionFailedError, match="takes no writes: .*address of the primary"):
                    put(store, "meanwhile")
                assert names(store) == ["after", "before"]


def test_while_the_database_cannot_be_read_acts_are_denied_at_once_and_later_allowed_again(tmp_path: Path) -> None:
    with postgresql() as own, ExitStack() as running:
        running.enter_context(own.running())
        config = tmp_path / "house.toml"
        config.write_text(f'[common]\nstore_url = "{own.url()}"\n')
        with creto.open_blocking(tmp_path / "state", config=[config]) as layer:
            agent = layer.agent("worker")

            def act() -> str:
                return layer.perform_blocking(agent, "tool:call", "search", lambda: "done")

            assert act() == "done"
            running.close()
            time.sleep(1.1)  # what was known a second ago is not known any more
            with pytest.raises(creto.UnauthorizedError, match="denied: revocations and reloads .* cannot be read"):
                act()

            def again() -> str | None:
                # Where its own look still lasts on a busy machine, the answer is a no and a while to wait.
                with suppress(creto.UnauthorizedError):
                    return act()
                return None

            with own.running():
                assert wait_until(again) == "done"
                # A server that takes what it is told and answers nothing.
                reach: Reach = layer.parts.reach
                with reach._polling:
                    time.sleep(1.1)

                    def denied() -> float:
                        start = time.monotonic()
                        with pytest.raises(creto.UnauthorizedError, match="does not answer"):
                            act()
                        return time.monotonic() - start

                    assert quickest(denied, 9, 3) < 9
                assert wait_until(again) == "done"


def test_a_server_that_takes_words_and_never_answers_is_given_up_on(tmp_path: Path) -> None:
    with postgresql() as own, own.running(), Store(own.url(), timeout=0.2) as store:

        def server_process(tx: Transaction) -> int:
            return int(tx.scalar(text("SELECT pg_backend_pid()")))

        # It hangs in the midst of a transaction: the line stands, and what is said is acknowledged.
        hanging: list[int] = []
        try:
            with pytest.raises(ConnectionFailedError, match=r"has not answered for 1\.2 s"), store.begin() as tx:
                hanging.append(server_process(tx))
                tx.insert(tables.meta, name="half", value="1")
                os.kill(hanging[0], signal.SIGSTOP)
                tx.insert(tables.meta, name="other half", value="2")
            assert names(store) == []
        finally:
            os.kill(hanging[0], signal.SIGCONT)
        wait_until(lambda: put_at_last(store, "whole"))
        # It hangs between two: another connection is made.
        with store.read() as tx:
            hanging.append(server_process(tx))
        try:
            os.kill(hanging[1], signal.SIGSTOP)
            put(store, "after all")
        finally:
            os.kill(hanging[1], signal.SIGCONT)
        assert names(store) == ["after all", "whole"]


def put_at_last(store: Store, name: str) -> bool | None:
    """True once the transaction before is seen to have ended by the server too."""
    with suppress(CretoError):
        put(store, name)
        return True
    return None


def test_who_waits_for_a_message_or_a_human_outlasts_an_outage(tmp_path: Path) -> None:
    read: list[str] = []

    async def main(own: PostgreSQL, running: ExitStack) -> None:
        async with creto.open(tmp_path / "state", config=[config]) as layer:
            writer, reader = layer.agent("writer"), layer.agent("reader")
            desk = layer.parts.desk
            desk.approvers.add("ann")

            async def inbox() -> None:
                async with layer.inbox(reader) as messages:
                    async for message in messages:
                        await message.ack()
                        read.append(message.text)
                        if message.text == "after":
                            return

            async def pay() -> None:
                read.append(await layer.perform(writer, "tool:call", "send_money", lambda: "sent", timeout=120))

            with anyio.fail_after(120):
                async with anyio.create_task_group() as group:
                    group.start_soon(inbox)
                    group.start_soon(pay)
                    await layer.send(writer, "reader", b"before", content_type="text/plain")
                    while not (read and desk.pending()):
                        await anyio.sleep(0.05)
                    running.close()
                    await anyio.sleep(2)
                    await anyio.to_thread.run_sync(running.enter_context, own.running())
                    await anyio.sleep(1)
                    while not await sent(layer, writer):
                        await anyio.sleep(0.05)
                    [request] = desk.pending()
                    await anyio.to_thread.run_sync(desk.approve, request, desk.approvers.named("ann"), "as agreed")
            await layer.parts.audit.verify()

    async def sent(layer: creto.EnablementLayer, writer: Agent) -> bool:
        # Where its own look still lasts on a busy machine, the answer is a no and a while to wait.
        with suppress(creto.UnauthorizedError):
            await layer.send(writer, "reader", b"after", content_type="text/plain")
            return True
        return False

    with postgresql() as own, ExitStack() as running:
        running.enter_context(own.running())
        (tmp_path / "pay.cedar").write_text(
            '@id("all") permit (principal, action, resource);\n@id("pay") @oversight("payments")\n'
            'forbid (principal, action == Action::"tool:call", resource == Tool::"send_money");'
        )
        config = tmp_path / "house.toml"
        config.write_text(f'[common]\nstore_url = "{own.url()}"\n[authz]\npolicies = ["pay.cedar"]\n')
        anyio.run(main, own, running)
    assert sorted(read) == ["after", "before", "sent"]


def test_a_store_that_cannot_be_opened_says_what_to_correct(server: PostgreSQL) -> None:
    file = server.folder / "data" / "pg_hba.conf"
    trusting = file.read_text()

    def refused(url: str, error: type[CretoError], what: str, rule: str = trusting) -> None:
        file.write_text(rule)
        try:
            server_reload(server)
            with pytest.raises(error, match=what):
                Store(url)
        finally:
            file.write_text(trusting)
            server_reload(server)

    refused(server.url("none"), InvalidInputError, r'"none" does not exist; correct `common.store_url`')
    refused(server.url(user="none"), InvalidInputError, r'role "none" does not exist; correct `common.store_url`')
    refused(server.url() + "?wat=1", InvalidInputError, 'invalid connection option "wat"; correct')
    refused(server.url() + "?sslmode=require", InvalidInputError, "does not support SSL, but SSL was required; correct")
    refused(
        server.url().replace("creto@", "creto:hush@"),
        InvalidInputError,
        r"creto:\*\*\*@.*password authentication failed for user .*; correct",
        "host all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n",
    )
    refused(f"postgresql://creto@127.0.0.1:{free_port()}/x", ConnectionFailedError, "could not be reached: .*refused")
    with ExitStack() as held:
        with suppress(psycopg.OperationalError):
            while True:
                held.enter_context(psycopg.connect(server.url()))
        with pytest.raises(ConnectionFailedError, match="has no connection left: .*; a process of creto uses up to 16"):
            Store(server.url())


def server_reload(server: PostgreSQL) -> None:
    """By its own socket, which no rule of these tests shuts."""
    with psycopg.connect(f"postgresql://creto@/postgres?host={server.folder}&port={server.port}") as connection:
        before = connection.execute("SELECT pg_conf_load_time()").fetchone()
        connection.execute("SELECT pg_reload_conf()")

    def reloaded() -> bool | None:
        with (
            suppress(psycopg.OperationalError),  # those that tried before have not all gone yet
            psycopg.connect(f"postgresql://creto@/postgres?host={server.folder}&port={server.port}") as later,
        ):
            # A new process has it from the one that lets connections in, by its rules of then.
            return True if later.execute("SELECT pg_conf_load_time()").fetchone() != before else None
        return None

    wait_until(reloaded)


def certificate(folder: Path, name: str) -> Path:
    """A certificate for `localhost` that vouches for itself, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.crt"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    file.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    owner = folder.stat()
    for each in (file, file.with_suffix(".key")):
        each.chmod(0o600)
        os.chown(each, owner.st_uid, owner.st_gid)
    return file


def test_over_tls_the_server_is_the_one_that_was_named_and_a_line_that_breaks_is_no_wrong_setting() -> None:
    with postgresql("ssl=on") as own:
        ours, others = (certificate(own.folder / "data", name) for name in ("server", "other"))
        place = f"postgresql://creto@localhost:{own.port}/postgres?sslmode=verify-full&sslrootcert="
        with own.running():
            with pytest.raises(InvalidInputError, match=r"certificate verify failed; correct `common.store_url`"):
                Store(f"{place}{others}")
            with pytest.raises(InvalidInputError, match=r'"localhost".* does not match host name "127.0.0.1"; correct'):
                Store(f"{place}{ours}".replace("@localhost", "@127.0.0.1"))
            with Store(f"{place}{ours}") as store:
                with pytest.raises(ConnectionFailedError, match="could not be reached: "), store.begin() as tx:
                    os.kill(int(tx.scalar(text("SELECT pg_backend_pid()"))), signal.SIGKILL)
                    time.sleep(0.2)
                    tx.insert(tables.meta, name="lost", value="x")
                own.say("SELECT 1")  # it starts its processes anew
                assert names(store) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_name_is_refused(server: PostgreSQL, encoding: str) -> None:
    name = server.database(f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(InvalidInputError, match=f"keeps text as {encoding}, .* ENCODING 'UTF8' TEMPLATE template0`"):
        Store(server.url(name))


def test_writers_have_one_order_whatever_isolation_the_server_thinks_of(server: PostgreSQL, database: str) -> None:
    server.say(f"ALTER DATABASE \"{database}\" SET default_transaction_isolation = 'serializable'")
    failed: list[BaseException] = []

    def count() -> None:
        try:
            with Store(server.url(database)) as store:
                for _ in range(40):
                    with store.begin() as tx:
                        tx.number("series")
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with Store(server.url(database)) as store, store.begin() as tx:
        assert tx.number("series") == 121


def test_a_schema_of_its_own_is_made_full_use_of_beside_another_program(server: PostgreSQL, database: str) -> None:
    server.say("CREATE TABLE alembic_version (version_num text)", database)
    server.say("INSERT INTO alembic_version VALUES ('theirs')", database)
    with pytest.raises(InvalidInputError, match=r"schema theirs, .*give creto a schema of its own \(`\?options="):
        Store(server.url(database))
    url = server.url(database) + "?options=-csearch_path%3Dcreto"
    with pytest.raises(InvalidInputError, match="lacks the schema that `search_path` names"):
        Store(url)
    server.say("CREATE SCHEMA creto", database)
    with Store(url) as store:
        put(store, "ours")
        store.scrub()
    with Store(url) as store:
        assert names(store) == ["ours"]


def grants_of_the_guide() -> list[str]:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "guide.md").read_text()
    found = re.search(r"```sql no-run\n(.*?)```", guide, re.DOTALL)
    assert found is not None
    return [line for line in found[1].splitlines() if line.startswith("GRANT")]


def test_a_role_with_the_guides_grants_can_do_all_but_make_the_tables_and_overwrite_what_was_erased(
    server: PostgreSQL, database: str
) -> None:
    server.say(f'DROP ROLE IF EXISTS "app_{database}"')
    server.say(f'CREATE ROLE "app_{database}" LOGIN')
    url = server.url(database, f"app_{database}")
    with pytest.raises(InvalidInputError, match="lacks a right: permission denied for schema public.*has the grants"):
        Store(url)
    with Store(server.url(database)) as owner:
        put(owner, "owner's")
    for grant in grants_of_the_guide():
        server.say(re.sub(r"\bapp\b", f'"app_{database}"', grant), database)
    with Store(url) as store:
        with store.begin() as tx:
            tx.publish("topic", "key")
            tx.bump("epoch")
            tx.number("series")
            tx.swap(tables.meta, tables.meta.c.name == "owner's", value="y")
            tx.outbox({"what": "x:y"})
        assert store.settle(FileLedger(server.folder, "1")) == 1
        with pytest.raises(InvalidInputError, match="what was erased is still in the files .*the role that owns the"):
            store.scrub()


def test_what_was_erased_is_not_called_gone_while_somebody_can_still_read_it(server: PostgreSQL, database: str) -> None:
    with Store(server.url(database), timeout=1.0) as store:
        put(store, "erased")
        with psycopg.connect(server.url(database)) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT 1 FROM pg_class")
            with store.begin() as tx:
                tx.execute(tables.meta.delete())
            with pytest.raises(TimeoutError, match="is being read: what was erased is still in"):
                store.scrub()
        store.scrub()
