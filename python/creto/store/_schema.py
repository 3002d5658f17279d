"""The schema of a store: brought up to this version's when opened, refused where an unknown version made it."""

from __future__ import annotations

import threading

from sqlalchemy import Connection, Engine, inspect, text

from creto.errors import InvalidInputError
from creto.store._engine import WRITE

__all__ = ["HEAD", "migrate"]

HEAD = "0001_0558f4f9"
# Alembic's state is one for the process: of two that migrate at once, one would make its tables in the other's store.
_ALONE = threading.Lock()


def migrate(engine: Engine, place: str) -> None:
    """Brings the database to the schema of this version, in one transaction.

    Raises:
        InvalidInputError: A version that this one does not know wrote it.
    """
    with engine.connect() as connection, connection.begin():
        if _version(connection) == HEAD:
            return
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        # Again, now alone: another process may just have done it.
        found = _version(connection)
        if found != HEAD:
            _upgrade(connection, found, place)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection, found: str | None, place: str) -> None:
    # Imported only where there is something to do: it costs more than opening the store.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "creto.store:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise InvalidInputError(
            f"the store `{place}` was written by another creto (schema {found}, this one knows up to {HEAD}); "
            "use the version that wrote it, or move the state folder away; in a database that other programs use too, "
            "give creto a schema of its own (`?options=-csearch_path%3Dcreto`)"
        )
    config.attributes["connection"] = connection
    with _ALONE:
        command.upgrade(config, "head")
