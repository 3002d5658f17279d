"""Personal data in records, readable until the person it is about is erased."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from creto import _core
from creto.audit._record import AuditRecord, written
from creto.errors import InvalidInputError

__all__ = ["Subjects"]

SUBJECT, PERSONAL = "subject", "personal"


class Subjects:
    """Encrypts what records say about people, each under a key of its own that can be erased.

    Records are kept for as long as the ledger is, and never deleted; what the law gives a person the right to have
    deleted goes here. Erasing the key makes it unreadable in every copy, and leaves hashes and proofs as they are.

    Args:
        folder: The state folder.
        sealer: Seals the keys.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto import _core
        >>> from creto.audit import AuditRecord, Subjects
        >>> subjects = Subjects(Path(tempfile.mkdtemp()), _core.Sealer.ephemeral())
        >>> record = subjects.sealed(AuditRecord(who="w", what="crm:read"), "ann@example.org", {"born": "1970"})
        >>> "1970" in str(record), subjects.personal(record, "ann@example.org")
        (False, {'born': '1970'})
        >>> subjects.erase("ann@example.org")
        True
    """

    def __init__(self, folder: Path, sealer: _core.Sealer) -> None:
        self._keys = _core.LedgerSubjects(folder / "keys" / "subjects", sealer)

    def pseudonym(self, subject: str) -> str:
        """The name that stands in records for a subject: a keyed hash, 32 hexadecimal digits."""
        return self._keys.pseudonym(subject)

    def sealed(
        self, record: AuditRecord | Mapping[str, Any], subject: str, personal: Mapping[str, str]
    ) -> dict[str, Any]:
        """The record, ready to be logged, with what it says about a subject encrypted in its detail.

        Args:
            record: The record.
            subject: Whom it is about, by whatever name is the same each time.
            personal: What it says about them.

        Raises:
            NotFoundError: The subject was erased: nothing new is kept of it.
            InvalidInputError: The record's detail has these names already.
        """
        fields = dict(written(record))
        detail = dict(fields.get("detail") or {})
        if SUBJECT in detail or PERSONAL in detail:
            raise InvalidInputError(f"`{SUBJECT}` and `{PERSONAL}` are names that encryption gives; choose others")
        fields["id"] = fields.get("id") or secrets.token_hex(16)
        plain = json.dumps(dict(personal), ensure_ascii=False).encode()
        detail[SUBJECT], detail[PERSONAL] = self._keys.seal(subject, fields["id"], plain)
        return {**fields, "detail": detail}

    def personal(self, record: Mapping[str, Any], subject: str) -> dict[str, str]:
        """What a record says about a subject; empty where it says nothing.

        Args:
            record: A record as it was read.
            subject: Whom it may be about.

        Raises:
            NotFoundError: The subject was erased.
            EncryptionFailedError: The text is not this record's, or damaged.
        """
        detail = record["detail"]
        if detail.get(SUBJECT) != self.pseudonym(subject):
            return {}
        found: dict[str, str] = json.loads(self._keys.open(subject, record["id"], detail[PERSONAL]))
        return found

    def erase(self, subject: str) -> bool:
        """Erases a subject's key: what records say about it is unreadable from now on, in every copy.

        Args:
            subject: Whom to erase.

        Returns:
            False where it was erased before, or never known.
        """
        return self._keys.erase(subject)

    def kept(self) -> list[tuple[str, datetime]]:
        """The pseudonyms of all whose keys are there, each with when its key was made.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from creto import _core
            >>> subjects = Subjects(Path(tempfile.mkdtemp()), _core.Sealer.ephemeral())
            >>> _ = subjects.sealed({"who": "w", "what": "crm:read"}, "ann@example.org", {"born": "1970"})
            >>> [pseudonym for pseudonym, _made in subjects.kept()] == [subjects.pseudonym("ann@example.org")]
            True
        """
        return [(pseudonym, datetime.fromtimestamp(made, UTC)) for pseudonym, made in self._keys.kept()]

    def erase_pseudonym(self, pseudonym: str) -> bool:
        """As `erase`, for whoever knows no more of a subject than the name that stands in records.

        Args:
            pseudonym: 32 hexadecimal digits.

        Returns:
            False where it was erased before, or never known.

        Raises:
            InvalidInputError: It is no pseudonym.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from creto import _core
            >>> subjects = Subjects(Path(tempfile.mkdtemp()), _core.Sealer.ephemeral())
            >>> subjects.erase_pseudonym("ab" * 16)
            False
        """
        return self._keys.erase_pseudonym(pseudonym)
