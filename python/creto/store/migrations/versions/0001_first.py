"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

import creto.store.tables

revision = "0001_0558f4f9"
down_revision = None


def upgrade() -> None:
    """Makes every table."""
    op.create_table(
        "agents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.JSON(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.Column("revoked", creto.store.tables.Word(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
    )
    op.create_index(op.f("ix_agents_name"), "agents", ["name"], unique=False)
    op.create_table(
        "approvers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("public_keys", sa.JSON(), nullable=False),
        sa.Column("sealed_keys", sa.LargeBinary(), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("policies", sa.JSON(), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvers")),
        sa.UniqueConstraint("name", name=op.f("uq_approvers_name")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_approvers_token_digest")),
    )
    op.create_table(
        "attachment_pieces",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("piece", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "number", name=op.f("pk_attachment_pieces")),
    )
    op.create_table(
        "attachments",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_attachments")),
    )
    op.create_table(
        "authorities",
        sa.Column("trust_domain", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("verifying_key", sa.Text(), nullable=False),
        sa.Column("certificates", sa.JSON(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=True),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("trust_domain", name=op.f("pk_authorities")),
    )
    op.create_table(
        "credits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("granted", sa.Text(), nullable=False),
        sa.Column("left", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("set_at", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credits")),
    )
    op.create_index(op.f("ix_credits_customer"), "credits", ["customer"], unique=False)
    op.create_table(
        "epochs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_epochs")),
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("period_start", sa.BigInteger(), nullable=False),
        sa.Column("period_end", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("total", sa.Text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("changed", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("number", name=op.f("uq_invoices_number")),
    )
    op.create_index(
        op.f("ix_invoices_customer_period_start_period_end"),
        "invoices",
        ["customer", "period_start", "period_end"],
        unique=False,
    )
    op.create_table(
        "leases",
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.Text(), nullable=False),
        sa.Column("began", creto.store.tables.Word(), nullable=False),
        sa.Column("relaxed", sa.Boolean(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("holder", "key", "end", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_key_end"), "leases", ["key", "end"], unique=False)
    op.create_table(
        "mailbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("in_reply_to", sa.Text(), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("held_until", sa.BigInteger(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("arrived", creto.store.tables.Word(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_mailbox")),
        sa.UniqueConstraint("recipient", "sender", "message_id", name=op.f("uq_mailbox_recipient_sender_message_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_mailbox_recipient_sender_state_priority_turn"),
        "mailbox",
        ["recipient", "sender", "state", "priority", "turn"],
        unique=False,
    )
    op.create_index(
        op.f("ix_mailbox_recipient_state_priority_turn_seq"),
        "mailbox",
        ["recipient", "state", "priority", "turn", "seq"],
        unique=False,
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "notices",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_notices")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "numbers",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_numbers")),
    )
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("shard", sa.Text(), nullable=True),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("record_id", name=op.f("uq_outbox_record_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_shard"), "outbox", ["shard"], unique=False)
    op.create_table(
        "outgoing",
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("attachments", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt", sa.BigInteger(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sender", "message_id", "recipient", name=op.f("pk_outgoing")),
    )
    op.create_index(op.f("ix_outgoing_state_next_attempt"), "outgoing", ["state", "next_attempt"], unique=False)
    op.create_table(
        "oversight_requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("core", sa.LargeBinary(), nullable=False),
        sa.Column("core_digest", sa.LargeBinary(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("chain", sa.JSON(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("policies", sa.JSON(), nullable=False),
        sa.Column("policy_version", sa.Text(), nullable=True),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("expiry", sa.BigInteger(), nullable=False),
        sa.Column("preview", sa.Text(), nullable=True),
        sa.Column("cost", sa.Text(), nullable=True),
        sa.Column("sandbox", sa.Text(), nullable=True),
        sa.Column("attached", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=True),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.Column("decided", creto.store.tables.Word(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended", creto.store.tables.Word(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oversight_requests")),
    )
    op.create_index(op.f("ix_oversight_requests_core_digest"), "oversight_requests", ["core_digest"], unique=False)
    op.create_index(op.f("ix_oversight_requests_state"), "oversight_requests", ["state"], unique=False)
    op.create_table(
        "questions",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_questions")),
    )
    op.create_table(
        "quota_boosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_boosts")),
    )
    op.create_table(
        "quota_rules",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_quota_rules")),
    )
    op.create_table(
        "quota_windows",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        sa.Column("quota_limit", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "end", name=op.f("pk_quota_windows")),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.PrimaryKeyConstraint("name", "agent", name=op.f("pk_secrets")),
    )
    op.create_table(
        "agent_keys",
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("sealed_signing_key", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_kem_key", sa.LargeBinary(), nullable=True),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("retires", sa.BigInteger(), nullable=True),
        sa.Column("created", creto.store.tables.Word(), nullable=False),
        sa.ForeignKeyConstraint(["agent"], ["agents.id"], name=op.f("fk_agent_keys_agent")),
        sa.PrimaryKeyConstraint("agent", "generation", name=op.f("pk_agent_keys")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_agent_keys_fingerprint")),
    )
    op.create_table(
        "announcements",
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("updated", creto.store.tables.Word(), nullable=False),
        sa.ForeignKeyConstraint(["request"], ["oversight_requests.id"], name=op.f("fk_announcements_request")),
        sa.PrimaryKeyConstraint("request", "channel", name=op.f("pk_announcements")),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("approver", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("expiry", sa.BigInteger(), nullable=False),
        sa.Column("given", creto.store.tables.Word(), nullable=False),
        sa.Column("consumed", creto.store.tables.Word(), nullable=True),
        sa.ForeignKeyConstraint(["request"], ["oversight_requests.id"], name=op.f("fk_grants_request")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("request", "policy_id", name=op.f("uq_grants_request_policy_id")),
    )
    op.create_index(op.f("ix_grants_digest"), "grants", ["digest"], unique=False)
