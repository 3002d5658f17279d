"""Which records are looked for, and whether one is among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from creto.audit._record import AuditRecord
from creto.errors import InvalidInputError

__all__ = ["Filter", "Kind", "Outcome", "is_id", "word"]

Kind = Literal["intent", "outcome", "refusal", "event"]
Outcome = Literal["success", "failure", "refused"]
_KINDS = ("intent", "outcome", "refusal", "event")
_OUTCOMES = ("success", "failure", "refused")


def word(moment: datetime | int | None) -> int | None:
    """A moment as a word of the clock; a naive datetime is local time.

    Args:
        moment: A datetime, or a word already.
    """
    if moment is None or isinstance(moment, int):
        return moment
    if not isinstance(moment, datetime):
        raise InvalidInputError(f"`{moment!r}` is no time: give a `datetime`, such as `now - timedelta(days=1)`")
    return int(moment.timestamp() * 1e6) << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is looked for; what is left open matches all.

    Args:
        agent: SPIFFE id of the acting agent, or of a member of its delegation chain.
        action: `http:get`, or `http:*` for all that begin so.
        resource: Likewise with a `*` at the end.
        act: 32 hexadecimal digits.
        id: Likewise, of one record.
        kind: `intent`, `outcome`, `refusal` or `event`.
        outcome: How it ended: `success`, `failure` or `refused`.
        subject: The pseudonym of the person whom it is about.
        since: Not before this word of the clock.
        until: Before this word of the clock.

    Raises:
        InvalidInputError: A kind or an outcome is none of these.
    """

    agent: str | None = None
    action: str | None = None
    resource: str | None = None
    act: str | None = None
    id: str | None = None
    kind: str | None = None
    outcome: str | None = None
    subject: str | None = None
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in _KINDS:
            raise InvalidInputError(f"a kind is intent, outcome, refusal or event, not `{self.kind}`")
        if self.outcome is not None and self.outcome not in _OUTCOMES:
            raise InvalidInputError(f"an outcome is looked for as success, failure or refused, not `{self.outcome}`")
        for name in ("act", "id"):
            value = getattr(self, name)
            if value is not None and not is_id(value):
                raise InvalidInputError(f"`{name}` is not 16 bytes, nor 32 hexadecimal digits")

    @classmethod
    def of(
        cls, *, since: datetime | int | None = None, until: datetime | int | None = None, **fields: str | None
    ) -> Self:
        """The filter with moments as people say them."""
        return cls(since=word(since), until=word(until), **fields)

    def fits(self, record: AuditRecord) -> bool:
        """True where the record is one that is looked for."""
        return (
            (self.agent is None or self.agent == record.who or self.agent in record.delegation_chain)
            and _like(self.action, record.what)
            and _like(self.resource, record.resource)
            and (self.act is None or self.act.lower() == record.act)
            and (self.id is None or self.id.lower() == record.id)
            and (self.kind is None or self.kind == record.kind)
            and (self.outcome is None or self.outcome == record.ended)
            and (self.subject is None or self.subject == record.detail.get("subject"))
            and (self.since is None or record.timestamp >= self.since)
            and (self.until is None or record.timestamp < self.until)
        )


def _like(pattern: str | None, text: str) -> bool:
    return pattern is None or (text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern)


def is_id(text: str) -> bool:
    """Whether a text can be the id of an act or a record."""
    return len(text) == 32 and all(digit in "0123456789abcdefABCDEF" for digit in text)
