"""Bundles: what one trust domain tells another of its agents, signed by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from creto import _core
from creto._foreign import json_value
from creto.errors import AlreadyExistsError, InvalidInputError, NotFoundError, UnauthorizedError
from creto.nhi._names import name_of
from creto.nhi._trust import der_of, text_of
from creto.store.tables import agent_keys, agents, authorities

if TYPE_CHECKING:
    from creto.store import Transaction

__all__ = ["Bundle", "export_bundle", "read_bundle"]

_KIND = "urn:creto:bundle:1"
_TYPE = "application/vnd.creto.bundle+json"


def export_bundle(tx: Transaction, authority: _core.Authority, suite: str, ids: Sequence[str], now: int) -> str:
    """A bundle of agents, every active one where no ids are given; all revoked ones are named in each bundle.

    Raises:
        NotFoundError: There is no active agent of an id.
    """
    own = select(agents.c.id).where(agents.c.own.is_(True)).order_by(agents.c.id)
    active = [id for (id,) in tx.all(own.where(agents.c.state == "active"))]
    revoked = [id for (id,) in tx.all(own.where(agents.c.state == "revoked"))]
    statements: list[str] = []
    for id in ids or active:
        if id not in active:
            raise NotFoundError(f"no active agent `{id}` is known here")
        rows = tx.all(select(agent_keys).where(agent_keys.c.agent == id).order_by(agent_keys.c.generation))
        statements.extend(row.statement for row in rows if row.retires is None or row.retires > now)
    domain = authority.domain
    payload = {
        "kind": _KIND,
        "trust_domain": domain.name,
        "suite": suite,
        "verifying_key": domain.verifying_key.to_text(),
        "certificates": [text_of(der) for der in domain.certificates()],
        "issued_at": now,
        "identities": statements,
        "revoked": revoked,
    }
    return _core.dsse_sign(authority.key, _TYPE, json.dumps(payload).encode())


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature and content agree; whether its signer is to be believed is asked by `require_known`.

    Args:
        trust_domain: Whose agents.
        suite: Of its keys.
        key: What it was signed with.
        certificates: Of the trust domain, DER in base64.
        identities: Each with the statement that vouches for it.
        revoked: Ids of agents that count no more.
    """

    trust_domain: str
    suite: str
    key: _core.VerifyingKey
    certificates: list[str]
    identities: list[tuple[str, _core.Identity]]
    revoked: list[str]

    def require_known(self, known: _core.VerifyingKey | None, fingerprint: str | None, *, own: bool) -> None:
        """Does nothing where the signer is the trust domain that is known here, or the one whose fingerprint was given.

        Raises:
            UnauthorizedError: It is new and nobody has compared its fingerprint, or is another than the known one.
        """
        if known is None and fingerprint is None:
            raise UnauthorizedError(
                f"trust domain `{self.trust_domain}` is new here; compare its fingerprint {self.key.fingerprint} with "
                "what its owner tells you by another way, and give it with `--fingerprint`"
            )
        if own and known != self.key:
            raise UnauthorizedError(
                f"the bundle comes from another trust domain that is also named `{self.trust_domain}`; one of the two "
                "must take a name of its own (`common.trust_domain`) before they can know each other"
            )
        if (known is not None and known != self.key) or fingerprint not in (None, self.key.fingerprint):
            raise UnauthorizedError(
                f"the bundle was signed by {self.key.fingerprint}, which is not the key known for trust domain "
                f"`{self.trust_domain}`"
            )

    def take_in(self, tx: Transaction) -> None:
        """Stores what is new in it. What was revoked stays so, whatever an older bundle says.

        Raises:
            AlreadyExistsError: Keys in it are known as those of another agent.
        """
        tx.insert_once(
            authorities,
            trust_domain=self.trust_domain,
            suite=self.suite,
            verifying_key=self.key.to_text(),
            certificates=self.certificates,
            sealed_key=None,
            created=tx.now,
        )
        for statement, identity in self.identities:
            _take_in(tx, statement, identity)
        theirs = f"spiffe://{self.trust_domain}/"
        for id in self.revoked:
            if id.startswith(theirs):
                tx.execute(
                    update(agents)
                    .where(agents.c.id == id, agents.c.own.is_(False), agents.c.state == "active")
                    .values(state="revoked", revoked=tx.now)
                )


def read_bundle(text: str) -> Bundle:
    """Reads a bundle, and verifies it under the key that it names.

    Raises:
        InvalidInputError: It is not one.
        SignatureVerificationFailedError: It was changed on its way.
    """
    try:
        unverified = json_value(base64.b64decode(json_value(text)["payload"]))
        key = _core.VerifyingKey.from_text(unverified["verifying_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError("this is not a bundle that `creto agent export` wrote") from error
    signed = _core.dsse_verify(key, _TYPE, text)
    try:
        # Its signer is whoever made the trust domain, and may write what it likes.
        payload = json_value(signed)
        if payload["kind"] != _KIND:
            raise InvalidInputError("this is a signed document of another kind, not a bundle of agents")
        name, certificates, statements = (payload[field] for field in ("trust_domain", "certificates", "identities"))
        revoked = payload.get("revoked", [])
        if payload["suite"] != key.suite or not all(isinstance(id, str) and id.isascii() for id in revoked):
            raise ValueError("not as any trust domain of ours would write it")
        domain = _core.TrustDomain.from_parts(name, key, [der_of(one) for one in certificates])
        identities = [(statement, domain.admit(statement)) for statement in statements]
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            "the bundle is signed, and is not one that `creto agent export` would have written"
        ) from error
    return Bundle(name, key.suite, key, certificates, identities, revoked)


def _take_in(tx: Transaction, statement: str, identity: _core.Identity) -> None:
    tx.insert_once(
        agents,
        id=identity.id,
        name=name_of(identity.id),
        path=[],
        suite=identity.suite,
        state="active",
        own=False,
        created=tx.now,
        revoked=None,
    )
    fingerprint = identity.verifying_key.fingerprint
    owner = tx.scalar(select(agent_keys.c.agent).where(agent_keys.c.fingerprint == fingerprint))
    if owner == identity.id:
        return
    if owner is not None:
        raise AlreadyExistsError(f"the keys of `{identity.id}` are known here as those of `{owner}`")
    last = tx.scalar(
        select(agent_keys.c.generation)
        .where(agent_keys.c.agent == identity.id)
        .order_by(agent_keys.c.generation.desc())
    )
    tx.insert(
        agent_keys,
        agent=identity.id,
        generation=int(last or 0) + 1,
        fingerprint=fingerprint,
        statement=statement,
        sealed_signing_key=None,
        sealed_kem_key=None,
        valid_until=identity.validity[1],
        retires=None,
        created=tx.now,
    )
