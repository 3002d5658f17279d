"""Approvers: configured people with keys of their own, and a token each for the inbox."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Row, select

from creto import _core
from creto._user import user, user_id
from creto.config._patterns import APPROVER
from creto.errors import (
    AlreadyExistsError,
    EncryptionFailedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from creto.store import Store, Transaction
from creto.store.tables import approvers as table

__all__ = ["Approver", "Approvers", "covers"]

_NAME = re.compile(APPROVER)


def covers(policies: Collection[str], policy: str) -> bool:
    """True where whoever may answer for `policies` may for this one; `*` is every one."""
    return "*" in policies or policy in policies


@dataclass(frozen=True, slots=True)
class Approver:
    """Someone who may answer.

    Args:
        id: `spiffe://<trust domain>/approver/<name>`.
        policies: Oversight policies that this approver may answer for; `*` is every one.
        channels: Where to announce, by channel: `{"email": "release-desk@example.org"}`.

    Example:
        >>> ann = Approver("spiffe://creto.local/approver/ann", "ann", True, frozenset({"payments"}), "")
        >>> ann.may_answer("payments"), ann.may_answer("deploys")
        (True, False)
    """

    id: str
    name: str
    active: bool
    policies: frozenset[str]
    public_keys: str
    channels: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row[Any]) -> Approver:
        """Reads a row of `approvers`."""
        return cls(
            id=row.id,
            name=row.name,
            active=row.state == "active",
            policies=frozenset(row.policies),
            public_keys=row.public_keys,
            channels=dict(row.channels),
        )

    @property
    def verifying_key(self) -> _core.VerifyingKey:
        """The keys that this approver's answers are checked with."""
        return _core.VerifyingKey.from_text(self.public_keys)

    def may_answer(self, policy: str) -> bool:
        """True where this approver may answer for `policy`."""
        return self.active and covers(self.policies, policy)


class Wanted(Protocol):
    """An approver as the configuration names it."""

    @property
    def name(self) -> str: ...
    @property
    def policies(self) -> Sequence[str]: ...
    @property
    def email(self) -> str | None: ...


class Approvers:
    """The approvers of one state folder.

    Args:
        store: Where they are kept.
        sealer: Seals their keys at rest.
        trust_domain: First part of their ids.
        suite: `standard` or `cnsa2`; fixes the algorithms of new keys.

    Example:
        >>> import tempfile
        >>> from creto import _core
        >>> from creto.store import Store
        >>> store = Store(tempfile.mkdtemp())
        >>> people = Approvers(store, _core.Sealer.open(str(store.folder / "keys")))
        >>> desk, token = people.add("release-desk", policies=["payments"])
        >>> people.by_token(token).id, desk.may_answer("payments"), desk.may_answer("deploys")
        ('spiffe://creto.local/approver/release-desk', True, False)
    """

    def __init__(
        self, store: Store, sealer: _core.Sealer, *, trust_domain: str = "creto.local", suite: str = "standard"
    ) -> None:
        self.store = store
        self._sealer = sealer
        self._domain = trust_domain
        self._suite = suite

    def add(
        self, name: str, *, policies: Sequence[str] = ("*",), channels: Mapping[str, Any] | None = None
    ) -> tuple[Approver, str]:
        """Makes an approver with new keys.

        Args:
            name: Letters, digits, `.`, `_`, `-`; at most 64.
            policies: Which oversight policies the approver may answer for.
            channels: Where to announce to this approver.

        Returns:
            The approver, and the inbox token, which is shown this once and kept nowhere.

        Raises:
            InvalidInputError: The name cannot be used.
            AlreadyExistsError: There is such an approver.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                f"`{name}` cannot name an approver: use letters, digits, `.`, `_` and `-`, at most 64 of them"
            )
        token, may = _token(), sorted(set(policies))
        id_ = f"spiffe://{self._domain}/approver/{name}"
        key = _core.SigningKey.generate(self._suite)
        with self.store.begin() as tx:
            made = tx.insert_once(
                table,
                id=id_,
                name=name,
                state="active",
                public_keys=key.verifying_key.to_text(),
                sealed_keys=key.seal(self._sealer, _label(id_, _digest(token), may)),
                token_digest=_digest(token),
                policies=may,
                channels=dict(channels or {}),
                created=tx.now,
            )
            if not made:
                raise AlreadyExistsError(f"there is an approver `{name}` already")
            self._record(tx, id_, "oversight:approver-added", {"policies": ",".join(may)})
            return self._find(tx, name), token

    def configure(self, wanted: Sequence[Wanted]) -> None:
        """Makes the approvers that the configuration names, and gives those there are its policies and addresses.

        Args:
            wanted: Each with `name`, `policies` (none: every one) and `email`.
        """
        for one in wanted:
            policies = sorted(set(one.policies)) or ["*"]
            channels = {"email": one.email} if one.email else {}
            try:
                known = self.named(one.name)
            except NotFoundError:
                self.add(one.name, policies=policies, channels=channels)
                continue
            if known.policies == frozenset(policies) and dict(known.channels) == channels:
                continue
            # One that was tampered with stays as it is, and useless: whoever answers as it is told, and can revoke it.
            with suppress(IntegrityError), self.store.begin() as tx:
                self._change(tx, known.id, policies=policies)
                tx.swap(table, table.c.id == known.id, policies=policies, channels=channels)
                self._record(tx, known.id, "oversight:approver-changed", {"policies": ",".join(policies)})
                tx.publish("approvers", known.id)

    def operator(self) -> Approver:
        """The person at this terminal: the approver named like the user, made at first use where there is none at all.

        Raises:
            UnauthorizedError: There are approvers, and this user is none of them.
        """
        name = re.sub(r"[^A-Za-z0-9._-]", "-", user()).lstrip("._-") or "operator"
        with self.store.read() as tx:
            names = [row.name for row in tx.all(select(table.c.name).where(table.c.state == "active"))]
        if name in names:
            return self.named(name)
        if names:
            raise UnauthorizedError(
                f"the user `{name}` is not an approver; there are {', '.join(f'`{one}`' for one in sorted(names))}: "
                "answer as one of them by `--as NAME`"
            )
        try:
            return self.add(name)[0]
        except AlreadyExistsError:
            return self.named(name)

    def named(self, name: str) -> Approver:
        """The approver of that name or id.

        Raises:
            NotFoundError: There is none.
        """
        with self.store.read() as tx:
            return self._find(tx, name)

    def all(self) -> list[Approver]:
        """Every approver, by name; those revoked among them."""
        with self.store.read() as tx:
            return [Approver.of(row) for row in tx.all(select(table).order_by(table.c.name))]

    def by_token(self, token: str) -> Approver | None:
        """The active approver whose inbox token this is, or None."""
        with self.store.read() as tx:
            # Looked up by digest: how long it takes says nothing about the token.
            row = tx.first(select(table).where(table.c.token_digest == _digest(token), table.c.state == "active"))
            return None if row is None else Approver.of(row)

    def renew_token(self, name: str) -> str:
        """Gives a new inbox token; the old one is worth nothing from now on.

        Raises:
            NotFoundError: There is no such active approver.
        """
        token = _token()
        with self.store.begin() as tx:
            approver = self._find(tx, name)
            if not self._change(tx, approver.id, token_digest=_digest(token)):
                raise NotFoundError(f"there is no active approver `{name}`")
            self._record(tx, approver.id, "oversight:token-renewed", {})
            tx.publish("approvers", approver.id)
        return token

    def revoke(self, name: str) -> None:
        """Takes an approver's say away: answers, also unused ones, count no more.

        Raises:
            NotFoundError: There is no such approver.
        """
        with self.store.begin() as tx:
            approver = self._find(tx, name)
            tx.swap(table, table.c.id == approver.id, state="revoked", sealed_keys=None, token_digest=None)
            self._record(tx, approver.id, "oversight:approver-revoked", {})
            tx.bump("revocation")
            tx.publish("approvers", approver.id)

    def key(self, approver: Approver) -> _core.SigningKey:
        """The approver's signing keys.

        Raises:
            UnauthorizedError: The approver was revoked.
        """
        with self.store.read() as tx:
            row = tx.first(select(table).where(table.c.id == approver.id, table.c.state == "active"))
        if row is None:
            raise UnauthorizedError(f"`{approver.name}` may no longer answer: the approver was revoked")
        return self.vouched(row.id, row)

    def vouched(self, approver: str, row: Row[Any]) -> _core.SigningKey:
        """The keys in an approver's row: they open only where it is as creto wrote it.

        Whoever can write to the store, and holds no key of the state folder, cannot thereby make an approver, or change
        whose token opens the inbox, or for what.

        Args:
            approver: The id.
            row: With `sealed_keys`, `public_keys`, `token_digest` and `policies`.

        Raises:
            IntegrityError: It is not.
        """
        try:
            label = _label(approver, row.token_digest or b"", row.policies)
            key = _core.SigningKey.unseal(row.sealed_keys, self._sealer, label)
        except (EncryptionFailedError, TypeError) as error:
            raise _changed(approver) from error
        if key.verifying_key.to_text() != row.public_keys:
            raise _changed(approver)
        return key

    def _change(self, tx: Transaction, approver: str, **values: Any) -> bool:
        """Changes what an active approver's keys are sealed with, and seals them anew; False where there is none."""
        active = (table.c.id == approver) & (table.c.state == "active")
        row = tx.first(select(table).where(active))
        if row is None:
            return False
        now = {"token_digest": row.token_digest, "policies": row.policies, **values}
        sealed = self.vouched(approver, row).seal(self._sealer, _label(approver, now["token_digest"], now["policies"]))
        return tx.swap(table, active & (table.c.sealed_keys == row.sealed_keys), sealed_keys=sealed, **values)

    @staticmethod
    def _find(tx: Transaction, name: str) -> Approver:
        row = tx.first(select(table).where((table.c.name == name) | (table.c.id == name)))
        if row is None:
            raise NotFoundError(f"there is no approver `{name}`; `creto approver list` shows who there is")
        return Approver.of(row)

    def _record(self, tx: Transaction, approver: str, what: str, detail: dict[str, str]) -> None:
        tx.outbox(
            {"who": user_id(self._domain), "what": what, "resource": approver, "why": "configuration", "detail": detail}
        )


def _label(approver: str, token_digest: bytes, policies: Sequence[str]) -> str:
    rest = hashlib.sha256(json.dumps([token_digest.hex(), sorted(policies)]).encode()).hexdigest()
    return f"approver-key:{approver}:{rest}"


def _changed(approver: str) -> IntegrityError:
    return IntegrityError(
        f"`{approver}` is not in the store as creto wrote it: its keys, its token or its policies were changed; "
        "`creto approver revoke` ends it, and `creto approver add` makes another"
    )


def _token() -> str:
    return "creto_" + secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    # 256 random bits need no slow hash.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
