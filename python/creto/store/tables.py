"""The tables of every part: what must be unique, or change in place, and is decided here.

History is not kept in them; that is the ledger's. After a change, run `python tests/renew_migration.py`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import UserDefinedType

__all__ = [
    "Word",
    "Written",
    "agent_keys",
    "agents",
    "announcements",
    "approvers",
    "attachment_pieces",
    "attachments",
    "authorities",
    "credits",
    "epochs",
    "grants",
    "invoices",
    "leases",
    "mailbox",
    "meta",
    "metadata",
    "notices",
    "numbers",
    "outbox",
    "outgoing",
    "oversight_requests",
    "questions",
    "quota_boosts",
    "quota_rules",
    "quota_windows",
    "secrets",
]


class Written(UserDefinedType[str]):
    """JSON that is written already, for a parameter of a JSON column.

    Example:
        >>> Written().get_col_spec()
        'JSON'
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """As a column of it would be declared."""
        return "JSON"


class Word(TypeDecorator[int]):
    """A hybrid logical timestamp, an unsigned 64-bit word, in a signed column of the same order.

    Example:
        >>> Word().process_result_value(Word().process_bind_param(2**63 + 5, None), None) == 2**63 + 5
        True
    """

    impl = BigInteger
    cache_ok = True
    _SHIFT = 1 << 63

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        """Moves the word into the signed range."""
        return None if value is None else value - self._SHIFT

    def process_result_value(self, value: Any, dialect: Any) -> int | None:
        """Moves it back."""
        return None if value is None else int(value) + self._SHIFT

    process_literal_param = None  # type: ignore[assignment]  # words are always bound, never spelt into SQL


# SQLite hands out row ids for INTEGER keys only.
_Serial = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# --- the house -------------------------------------------------------------------------------------------------------

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("record_id", Text, nullable=False, unique=True),  # 32 hex digits; fixed before the first append
    Column("shard", Text, index=True),  # origin of the ledger's shard that appends it; none until one has claimed it
    Column("record", JSON, nullable=False),
    sqlite_autoincrement=True,
)

notices = Table(
    "notices",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),  # the folder's epoch is the largest
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    sqlite_autoincrement=True,
)

epochs = Table(
    "epochs",
    metadata,
    Column("name", Text, primary_key=True),  # `revocation`, `policy`, `quota`, ...
    Column("value", BigInteger, nullable=False),
)

numbers = Table(
    "numbers",
    metadata,
    Column("series", Text, primary_key=True),  # `invoice/2026`
    Column("last", BigInteger, nullable=False),
)

# --- identities -----------------------------------------------------------------------------------------------------

authorities = Table(
    "authorities",
    metadata,
    Column("trust_domain", Text, primary_key=True),
    Column("suite", Text, nullable=False),
    Column("verifying_key", Text, nullable=False),
    Column("certificates", JSON, nullable=False),  # self-signed, DER in base64, one for each algorithm
    Column("sealed_key", LargeBinary),  # none for the trust domains of others
    Column("created", Word, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),  # spiffe://<trust domain>/agent/<name>
    Column("name", Text, nullable=False),
    Column("path", JSON, nullable=False),  # [organisation, team, ...] above it
    Column("suite", Text, nullable=False),
    Column("state", Text, nullable=False),  # active, revoked
    Column("own", Boolean, nullable=False),  # False: imported, its secret keys are elsewhere
    Column("created", Word, nullable=False),
    Column("revoked", Word),
    Index(None, "name"),
)

agent_keys = Table(
    "agent_keys",
    metadata,
    Column("agent", Text, ForeignKey("agents.id"), primary_key=True),
    Column("generation", Integer, primary_key=True),  # 1, 2, ... with each rotation
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("statement", Text, nullable=False),  # by which the trust domain vouches for it: DSSE with its certificates
    Column("sealed_signing_key", LargeBinary),
    Column("sealed_kem_key", LargeBinary),
    Column("valid_until", BigInteger, nullable=False),  # seconds since the epoch
    Column("retires", BigInteger),  # seconds since the epoch; what it signed counts until then, and it signs no more
    Column("created", Word, nullable=False),
)

approvers = Table(
    "approvers",
    metadata,
    Column("id", Text, primary_key=True),  # spiffe://<trust domain>/approver/<name>
    Column("name", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),  # active, revoked
    Column("public_keys", JSON, nullable=False),
    Column("sealed_keys", LargeBinary),
    Column("token_digest", LargeBinary, unique=True),  # SHA-256 of the inbox token
    Column("policies", JSON, nullable=False),  # ids that this approver may answer for; `*` for every one
    Column("channels", JSON, nullable=False),
    Column("created", Word, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("agent", Text, primary_key=True),  # the NHI that may have it; `*` for every one
    Column("sealed", LargeBinary, nullable=False),
    Column("created", Word, nullable=False),
)

# --- oversight ------------------------------------------------------------------------------------------------------

oversight_requests = Table(
    "oversight_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False, index=True),  # as creto-oversight names them
    Column("core", LargeBinary, nullable=False),  # the act's document without terms, RFC 8785
    Column("core_digest", LargeBinary, nullable=False, index=True),  # two requests for one act share it
    Column("agent", Text, nullable=False),
    Column("chain", JSON, nullable=False),  # names along the delegation chain: none of them may approve
    Column("action", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("policies", JSON, nullable=False),  # ids, sorted; each needs a grant
    Column("policy_version", Text),  # recorded, not agreed to
    Column("suite", Text, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("expiry", BigInteger, nullable=False),  # microseconds since the epoch
    Column("preview", Text),  # what would change, as a diff
    Column("cost", Text),
    Column("sandbox", Text),  # that the act came from; recorded, not agreed to
    Column("attached", Integer, nullable=False),  # how many callers have waited for it
    Column("holder", Text, nullable=False),  # process that asks, later the one that executes
    Column("act", Text),  # id that the act's records in the ledger share
    Column("created", Word, nullable=False),
    Column("decided", Word),
    Column("decided_by", Text),
    Column("reason", Text),
    Column("ended", Word),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request", Text, ForeignKey("oversight_requests.id"), nullable=False),
    Column("policy_id", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, index=True),  # of the exact act under this policy
    Column("approver", Text, nullable=False),
    Column("answer", Text, nullable=False),  # approved, denied
    Column("statement", LargeBinary, nullable=False),  # DSSE
    Column("expiry", BigInteger, nullable=False),  # microseconds since the epoch
    Column("given", Word, nullable=False),
    Column("consumed", Word),  # once: set in the transaction that marks the act executing
    UniqueConstraint("request", "policy_id"),
)

announcements = Table(
    "announcements",
    metadata,
    Column("request", Text, ForeignKey("oversight_requests.id"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("state", Text, nullable=False),  # waiting, until `updated`; sending, sent, failed
    Column("attempts", Integer, nullable=False),
    Column("detail", Text),
    Column("updated", Word, nullable=False),
)

# --- messaging ------------------------------------------------------------------------------------------------------

mailbox = Table(
    "mailbox",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("recipient", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("in_reply_to", Text),
    Column("envelope", LargeBinary, nullable=False),  # emptied with the last use of it
    Column("state", Text, nullable=False),  # waiting, taken, acked, refused, denied
    Column("reason", Text),  # of refused and denied
    Column("attempts", Integer, nullable=False, default=0),
    Column("holder", Text),  # process that has taken it
    Column("held_until", BigInteger),  # seconds since the epoch
    Column("priority", Integer, nullable=False, default=0),
    Column("turn", BigInteger, nullable=False),  # grows with its sender's backlog: who floods waits behind itself
    Column("receipt", Text),  # DSSE, signed by the recipient with the acknowledgement
    Column("arrived", Word, nullable=False),
    Column("expires", BigInteger, nullable=False),  # seconds since the epoch
    UniqueConstraint("recipient", "sender", "message_id"),
    Index(None, "recipient", "state", "priority", "turn", "seq"),
    Index(None, "recipient", "sender", "state", "priority", "turn"),
    sqlite_autoincrement=True,
)

questions = Table(
    "questions",
    metadata,
    Column("message_id", Text, primary_key=True),  # a request whose reply goes to whoever waits for it, not to an inbox
    Column("sender", Text, nullable=False),
    Column("asked", Text, nullable=False),  # whose reply it is: anybody else's goes to the inbox
    Column("until", BigInteger, nullable=False),  # seconds since the epoch
)

attachments = Table(
    "attachments",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # SHA-512 of the sealed blob
    Column("blob", LargeBinary, nullable=False),
    Column("expires", BigInteger, nullable=False),  # seconds since the epoch
)

attachment_pieces = Table(
    "attachment_pieces",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of the sealed blob that they make up
    Column("number", Integer, primary_key=True),
    Column("piece", LargeBinary, nullable=False),  # checked against the key in the message
    Column("expires", BigInteger, nullable=False),  # seconds since the epoch
)

outgoing = Table(
    "outgoing",
    metadata,
    Column("sender", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("recipient", Text, primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("attachments", JSON, nullable=False),  # digests of the blobs that go ahead of it, hexadecimal
    Column("state", Text, nullable=False),  # waiting, received, refused, expired
    Column("reason", Text),  # of refused
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt", BigInteger, nullable=False),  # seconds since the epoch
    Column("receipt", Text),  # DSSE, signed by the recipient
    Column("created", Word, nullable=False),
    Column("expires", BigInteger, nullable=False),  # seconds since the epoch
    Index(None, "state", "next_attempt"),
)

# --- metering -------------------------------------------------------------------------------------------------------

quota_windows = Table(
    "quota_windows",
    metadata,
    Column("key", Text, primary_key=True),  # organisation, level, name, meter, window as written
    Column("end", BigInteger, primary_key=True),  # microseconds since the epoch; 2^63-1 where it has none
    Column("granted", BigInteger, nullable=False, default=0),  # units that holders have or had, never above the limit
    Column("quota_limit", BigInteger, nullable=False, default=0),  # as of the last grant, boosts included
)

leases = Table(
    "leases",
    metadata,
    Column("holder", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("end", BigInteger, primary_key=True),
    Column("units", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("shard", Text, nullable=False, default=""),  # origin of the ledger's shard with the holder's acts
    Column("began", Word, nullable=False, default=0),  # no act of it was recorded before
    Column("relaxed", Boolean, nullable=False, default=False),  # its records may be lost in a crash
    Column("expires", BigInteger, nullable=False),  # microseconds since the epoch
    Index(None, "key", "end"),
)

quota_rules = Table(
    "quota_rules",
    metadata,
    Column("key", Text, primary_key=True),
    Column("rule", JSON, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", Word, nullable=False),
)

quota_boosts = Table(
    "quota_boosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),  # microseconds since the epoch
    Column("set_by", Text, nullable=False),
    Column("set_at", Word, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Text, unique=True),  # given at finalizing, without gaps
    Column("kind", Text, nullable=False),  # invoice, credit_note
    Column("state", Text, nullable=False),  # draft, finalized, paid, void
    Column("customer", Text, nullable=False),
    Column("period_start", BigInteger, nullable=False),  # microseconds since the epoch
    Column("period_end", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total", Text, nullable=False),  # decimal, as text
    Column("document", JSON, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("changed", Word, nullable=False),
    Index(None, "customer", "period_start", "period_end"),
)

credits = Table(
    "credits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False, index=True),
    Column("currency", Text, nullable=False),
    Column("granted", Text, nullable=False),  # decimal, as text
    Column("left", Text, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("expires", BigInteger),  # microseconds since the epoch
    Column("set_at", Word, nullable=False),
)
