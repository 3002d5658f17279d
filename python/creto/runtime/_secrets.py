"""Secrets that sandboxes get by agent: sealed in the store, opened for a claim, never in a file, argument or log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from creto._user import user_id
from creto.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from creto import _core
    from creto.store import Store, Transaction

__all__ = ["EVERY_AGENT", "Secret", "Secrets", "check_secret_name"]

EVERY_AGENT = "*"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Names that change how programs are found or loaded: a secret is a value, not a way to take a program over.
_TAKEN = re.compile(r"PATH|HOME|SHELL|IFS|ENV|BASH_ENV|(LD|DYLD|PYTHON|CRETO)_.*|PYTHON.*")


class Secret(NamedTuple):
    """A secret by name; its value is not told.

    Example:
        >>> import tempfile
        >>> from creto.crypto import Sealer
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     secrets = Secrets(store, Sealer.ephemeral())
        ...     secrets.set("API_TOKEN", "s3cret", agent="spiffe://creto.local/agent/researcher")
        ...     [secret.name for secret in secrets.all()]
        ['API_TOKEN']
    """

    name: str
    agent: str
    created: int
    """When it was set, as a word of the state folder's clock."""


def check_secret_name(name: str) -> None:
    """Does nothing where a secret may have this name.

    Raises:
        InvalidInputError: It is no name of a variable, or one that programs are found or loaded by.

    Example:
        >>> check_secret_name("API_TOKEN")
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"`{name}` is no name of a variable: letters, digits and `_`, no digit first")
    if _TAKEN.fullmatch(name):
        raise InvalidInputError(f"`{name}` decides how programs are found or loaded; choose another name")


class Secrets:
    """The secrets of one store.

    Args:
        store: Where they are, sealed.
        sealer: Seals and opens them.
        who: Recorded as the one who sets and removes them; the user of this process unless said.

    Example:
        >>> import tempfile
        >>> from creto.crypto import Sealer
        >>> from creto.store import Store
        >>> with Store(tempfile.mkdtemp()) as store:
        ...     secrets = Secrets(store, Sealer.ephemeral())
        ...     secrets.set("API_TOKEN", "s3cret", agent="spiffe://creto.local/agent/researcher")
        ...     secrets.of("spiffe://creto.local/agent/researcher"), secrets.of("spiffe://creto.local/agent/writer")
        ({'API_TOKEN': 's3cret'}, {})
    """

    def __init__(self, store: Store, sealer: _core.Sealer, who: str | None = None) -> None:
        self._store = store
        self._who = who or user_id("creto.local")
        self._sealer = sealer

    def set(self, name: str, value: str, *, agent: str = EVERY_AGENT) -> None:
        """Keeps a secret, in place of an earlier one of the same name and agent.

        Args:
            name: The environment variable that it is to be.
            value: Text; no zero bytes.
            agent: The SPIFFE id of who gets it; every agent unless said.

        Raises:
            InvalidInputError: The name is no name of a variable, or one that programs are found or loaded by.
        """
        check_secret_name(name)
        if "\0" in value:
            raise InvalidInputError(f"the value of `{name}` has a zero byte in it, which no variable can hold")
        sealed = self._sealer.seal(value.encode(), _label(name, agent))
        with self._store.begin() as tx:
            self._remove(tx, name, agent)
            from creto.store import tables

            tx.insert(tables.secrets, name=name, agent=agent, sealed=sealed, created=tx.now)
            self._record(tx, "secret:set", name, agent)

    def remove(self, name: str, *, agent: str = EVERY_AGENT) -> None:
        """Forgets a secret.

        Raises:
            NotFoundError: There is none of this name for this agent.
        """
        with self._store.begin() as tx:
            if not self._remove(tx, name, agent):
                raise NotFoundError(f"there is no secret `{name}` for `{agent}`; see `creto secret list`")
            self._record(tx, "secret:remove", name, agent)

    def _record(self, tx: Transaction, what: str, name: str, agent: str) -> None:
        known = {"outcome": "success", "kind": "event", "detail": {"agent": agent}}
        tx.outbox({"who": self._who, "what": what, "resource": name, **known})

    @staticmethod
    def _remove(tx: Transaction, name: str, agent: str) -> bool:
        from creto.store import tables

        secrets = tables.secrets
        gone = tx.execute(secrets.delete().where(secrets.c.name == name, secrets.c.agent == agent))
        return bool(gone.rowcount)

    def all(self) -> list[Secret]:
        """What there is, by name, without values."""
        from creto.store import tables

        secrets = tables.secrets
        with self._store.read() as tx:
            columns = secrets.select().with_only_columns(secrets.c.name, secrets.c.agent, secrets.c.created)
            return [
                Secret(row.name, row.agent, row.created)
                for row in tx.all(columns.order_by(secrets.c.name, secrets.c.agent))
            ]

    def of(self, agent: str) -> dict[str, str]:
        """The secrets that an agent gets: its own, and those of every agent that it has none of its own for.

        Args:
            agent: Its SPIFFE id.
        """
        from creto.store import tables

        secrets = tables.secrets
        with self._store.read() as tx:
            rows = tx.all(secrets.select().where(secrets.c.agent.in_([agent, EVERY_AGENT])))
        found: dict[str, str] = {}
        for row in sorted(rows, key=lambda row: row.agent != EVERY_AGENT):
            found[row.name] = self._sealer.open_sealed(row.sealed, _label(row.name, row.agent)).decode()
        return found


def _label(name: str, agent: str) -> str:
    return f"secret/{agent}/{name}"
