"""Signed policy sets: an in-toto statement in DSSE over the digests of every file, by keys that are trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from creto import _core
from creto.errors import CretoError, SignatureVerificationFailedError

__all__ = ["PREDICATE", "moment", "read_keys", "sign_files", "signed_at", "verify_files"]

PREDICATE = "urn:creto:policy-set:1"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

File = tuple[Path, bytes]


def sign_files(files: Iterable[File], key: _core.SigningKey) -> str:
    """Signs a policy set: policies in their order, then the schema, then entities.

    Args:
        files: Every file with what is in it, in the order in which the configuration names them.
        key: Who signs.

    Returns:
        The statement, as DSSE JSON.

    Example:
        >>> from pathlib import Path
        >>> from creto import _core
        >>> files = [(Path("pay.cedar"), b"permit (principal, action, resource);")]
        >>> key = _core.SigningKey.generate()
        >>> verify_files(files, sign_files(files, key), [key.verifying_key]) is not None
        True
    """
    statement = {
        "_type": _STATEMENT,
        "subject": _subjects(files),
        "predicateType": PREDICATE,
        # What the order of sets goes by (`_order`): fine enough that a set signed right after another is newer.
        "predicate": {"signed": datetime.now(UTC).isoformat(timespec="microseconds")},
    }
    return _core.dsse_sign(key, _PAYLOAD, json.dumps(statement, separators=(",", ":")).encode())


def verify_files(files: Sequence[File], signature: str, keys: Sequence[_core.VerifyingKey]) -> dict[str, Any]:
    """Checks that one of the keys signed exactly these files in exactly this order.

    Args:
        files: Every file with what is in it.
        signature: What `sign_files` gave.
        keys: Keys that are trusted.

    Returns:
        The statement.

    Raises:
        SignatureVerificationFailedError: None of the keys signed it, or it speaks of other files.
    """
    for key in keys:
        try:
            payload = _core.dsse_verify(key, _PAYLOAD, signature)
        except CretoError:
            continue
        statement: dict[str, Any] = json.loads(payload)
        if statement.get("_type") != _STATEMENT or statement.get("predicateType") != PREDICATE:
            raise SignatureVerificationFailedError("the signature is of something else, and not of a policy set")
        _same(statement.get("subject", []), _subjects(files))
        return statement
    raise SignatureVerificationFailedError(
        "no key of `authz.trusted_keys` signed this policy set; sign it with `creto policy sign`, "
        "or add its signer's key"
    )


def signed_at(statement: dict[str, Any]) -> int:
    """When a set was signed, as its signer says: microseconds since the epoch.

    Args:
        statement: What `verify_files` gave.

    Raises:
        SignatureVerificationFailedError: It does not say, so nobody can tell whether the set is the newer one.

    Example:
        >>> signed_at({"predicate": {"signed": "1970-01-01T00:00:01.000002+00:00"}})
        1000002
    """
    try:
        said = datetime.fromisoformat(statement["predicate"]["signed"])
        return (said - _EPOCH) // timedelta(microseconds=1)
    except (KeyError, TypeError, ValueError):
        raise SignatureVerificationFailedError(
            "the policy set's signature does not say when it was made, so it cannot be told from an older one; "
            "sign it anew with `creto policy sign`"
        ) from None


def moment(micros: int) -> str:
    """A time of `signed_at`, for people."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(sep=" ", timespec="microseconds")


def read_keys(texts: Iterable[str]) -> list[_core.VerifyingKey]:
    """Public keys, one a line, as `creto policy keys` prints them.

    Raises:
        InvalidInputError: A line is no key.
    """
    return [_core.VerifyingKey.from_text(line) for text in texts for line in text.split()]


def _subjects(files: Iterable[File]) -> list[dict[str, Any]]:
    return [{"name": path.name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}} for path, content in files]


def _same(signed: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
    if signed == given:
        return
    before, now = ([each["name"] for each in files] for files in (signed, given))
    if before == now:
        # Place by place: two folders can have a file of one name each.
        changed = [name for name, was, each in zip(now, signed, given, strict=True) if was != each]
    else:
        digests = {each["name"]: each["digest"] for each in signed}
        changed = [each["name"] for each in given if digests.get(each["name"], each["digest"]) != each["digest"]]
    added = [name for name in now if name not in before]
    gone = [name for name in before if name not in now]
    parts = [
        f"{word} {', '.join(f'`{each}`' for each in names)}"
        for word, names in (("changed:", changed), ("not signed:", added), ("missing:", gone))
        if names
    ]
    raise SignatureVerificationFailedError(
        f"the policy set is not as it was signed ({'; '.join(parts) or 'its files are in another order'}); "
        "sign it anew with `creto policy sign`"
    )
