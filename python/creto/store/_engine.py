"""Engines: SQLite in the state folder by default, PostgreSQL by URL; both give writers one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from creto.errors import InvalidInputError

__all__ = ["WRITE", "XID", "engine_for_file", "engine_for_url", "shown"]

WRITE = "creto_write"  # execution option: this transaction will write
XID = "creto_xid"  # of a connection's `info`: the number of its transaction, which outlives the connection
_POOL = {"pool_size": 8, "max_overflow": 8}
_PATIENCE = (
    6  # times as long as for another's transaction a server may take to answer, which may be about to wait for it
)
# Any fixed number: writers of one database queue on this advisory lock, as those of one SQLite file do on its lock.
_WRITERS = 0x6372_6574_6F00


def engine_for_file(file: Path, timeout: float) -> Engine:
    """An engine over a SQLite file.

    Args:
        file: The database.
        timeout: Seconds to wait for another process's transaction.
    """
    engine = create_engine(
        f"sqlite+pysqlite:///{file}",
        connect_args={"timeout": timeout, "check_same_thread": False},
        hide_parameters=True,  # an error's text goes to logs and terminals, and rows hold what people wrote
        **_POOL,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours to say
        connection.execute("PRAGMA journal_mode=WAL")
        # FULL: a commit that was answered survives power loss.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        # What is deleted or changed is overwritten, not only let go of: see `Store.scrub`.
        connection.execute("PRAGMA secure_delete=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a reader that turns writer midway could only fail.
        writes = connection.get_execution_options().get(WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def engine_for_url(url: str, timeout: float) -> Engine:
    """An engine over a PostgreSQL database.

    Args:
        url: `postgresql://user:password@host:port/database`.
        timeout: Seconds to wait for another process's transaction.

    Raises:
        InvalidInputError: No such URL can be used, or the driver is not installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidInputError("the store's URL cannot be read; it looks like `postgresql://host/database`") from error
    if parsed.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise InvalidInputError(
            f"the store cannot use `{parsed.drivername}`; give a folder for SQLite or a `postgresql://` URL"
        )
    try:
        engine = create_engine(
            _told(parsed.set(drivername="postgresql+psycopg"), timeout),
            connect_args={"client_encoding": "utf8"},
            pool_pre_ping=True,
            hide_parameters=True,
            **_POOL,
        )
    except ModuleNotFoundError as error:
        raise InvalidInputError("PostgreSQL needs an extra: run `pip install 'creto[postgres]'`") from error

    from creto.store._patience import PatientConnection

    @event.listens_for(engine, "do_connect")
    def _do_connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> PatientConnection:
        made = PatientConnection.connect(*arguments, **options)
        made.patience = timeout * _PATIENCE
        return made

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise InvalidInputError(
                f"the database at `{shown(engine)}` keeps text as {encoding}, which cannot hold every name: make one "
                "with `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0`"
            )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITE, False):
            # Said, since the server may have another default: what is read after the wait has to be seen as it is then.
            connection.exec_driver_sql(
                f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {int(timeout * 1000)}; "
                f"SELECT pg_advisory_xact_lock({_WRITERS})"
            )
            connection.info[XID] = connection.exec_driver_sql("SELECT txid_current()").scalar_one()
        else:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))

    return engine


def _told(url: URL, timeout: float) -> URL:
    """The URL with what finds out in time that a server has gone, but for what it says itself."""
    alive = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    wanted = {"connect_timeout": max(2, int(timeout)), "tcp_user_timeout": int(timeout * 1000), **alive}
    wanted["application_name"] = "creto"  # type: ignore[assignment]
    return url.update_query_dict({name: str(value) for name, value in wanted.items() if name not in url.query})


def shown(engine: Engine) -> str:
    """The engine's place, for people: never with a password."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    # A password may stand among the options too.
    return engine.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
