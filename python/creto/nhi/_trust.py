"""Trust domains: this store's own with its sealed keys, and what is known of others."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from sqlalchemy import select

from creto import _core
from creto._user import user_id
from creto.errors import EncryptionFailedError, InvalidInputError, NotFoundError
from creto.store.tables import authorities

if TYPE_CHECKING:
    from creto.store import Store

__all__ = ["der_of", "open_authority", "read_domain", "text_of"]


def open_authority(
    store: Store, sealer: _core.Sealer, trust_domain: str, suite: str, now: int, seconds: int
) -> _core.Authority:
    """The authority of a store's own trust domain, made on first use; of two that make it at once, one wins.

    Args:
        store: Where it is kept.
        sealer: Seals its keys.
        trust_domain: Its name.
        suite: Of its keys.
        now: Seconds since the epoch.
        seconds: How long its certificates hold, where it is made.

    Raises:
        InvalidInputError: It was made with another suite, or was imported.
        EncryptionFailedError: Its keys were sealed by another sealer.
    """
    with store.read() as tx:
        row = tx.first(select(authorities).where(authorities.c.trust_domain == trust_domain))
    if row is None:
        made = _core.Authority.generate(trust_domain, suite, now, seconds)
        with store.begin() as tx:
            if tx.insert_once(
                authorities,
                trust_domain=trust_domain,
                suite=suite,
                verifying_key=made.domain.verifying_key.to_text(),
                certificates=[text_of(der) for der in made.domain.certificates()],
                sealed_key=made.seal(sealer, _label(trust_domain)),
                created=tx.now,
            ):
                tx.outbox(
                    {
                        "who": user_id(trust_domain),
                        "what": "identity:found",
                        "resource": trust_domain,
                        "detail": {"fingerprint": made.domain.verifying_key.fingerprint, "suite": suite},
                    }
                )
            row = tx.first(select(authorities).where(authorities.c.trust_domain == trust_domain))
    assert row is not None  # inserted by us, or by whoever was first
    if row.suite != suite:
        raise InvalidInputError(
            f"trust domain `{trust_domain}` was made with suite `{row.suite}`, and `{suite}` is "
            "configured; use another trust domain for another suite"
        )
    if row.sealed_key is None:
        raise InvalidInputError(f"trust domain `{trust_domain}` was imported, and its keys are elsewhere")
    certificates = [der_of(text) for text in row.certificates]
    try:
        return _core.Authority.unseal(trust_domain, row.sealed_key, certificates, sealer, _label(trust_domain))
    except EncryptionFailedError as error:
        raise EncryptionFailedError(
            f"the keys in the store `{store.place}` were sealed by another sealing key than this state folder's; copy "
            "`keys/sealing.*` of the folder that made the store into `keys/` of this one, before its first use"
        ) from error


def read_domain(store: Store, name: str) -> _core.TrustDomain:
    """A trust domain that is known in a store.

    Raises:
        NotFoundError: It was never imported.
    """
    with store.read() as tx:
        row = tx.first(select(authorities).where(authorities.c.trust_domain == name))
    if row is None:
        raise NotFoundError(f"trust domain `{name}` is not known here; run `creto agent import` with its bundle")
    key = _core.VerifyingKey.from_text(row.verifying_key)
    return _core.TrustDomain.from_parts(name, key, [der_of(text) for text in row.certificates])


def text_of(der: bytes) -> str:
    """DER in base64."""
    return base64.b64encode(der).decode()


def der_of(text: str) -> bytes:
    """What `text_of` wrote."""
    return base64.b64decode(text, validate=True)


def _label(trust_domain: str) -> str:
    return f"authority {trust_domain}"
