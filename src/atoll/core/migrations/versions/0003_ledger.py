"""Budgets: slices, accounts and postings; what usage records carry beyond tokens."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _usage()
    _accounts()
    _money()
    _accelerators()
    op.execute(
        "INSERT INTO sources (source, incarnation, begins_after, entered, is_settled, seen_at) "
        "SELECT source, '', 0, MAX(seq), TRUE, MAX(at) FROM usage GROUP BY source"
    )
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "ledger", "value": 0}, {"name": "slices", "value": 0}])


def downgrade() -> None:
    for table in ("meters", "accelerator_usage", "vouchers", "top_ups", "sources", "slices", "postings", "accounts"):
        op.drop_table(table)
    for table in ("refused_usage", "key_uses"):
        op.drop_table(table)
    op.drop_index("usage_of_request", "usage")
    with op.batch_alter_table("usage") as usage:
        for column in _further():
            usage.drop_column(column.name)
    op.execute("DELETE FROM counters WHERE name IN ('ledger', 'slices')")


def _further() -> list[sa.Column[Any]]:
    """Columns of usage that records carry from now on; a column can be used once, so they are made anew."""
    prices = ("input_per_million", "cached_input_per_million", "output_per_million")
    return [
        *(sa.Column(name, sa.Float(53)) for name in (*prices, "queue_s", "ttft_s")),
        sa.Column("priority", sa.String(16)),
        sa.Column("provider", sa.Boolean),
        sa.Column("end_user", sa.String(128)),
        sa.Column("note", sa.Text),
        sa.Column("slices", sa.Text),
    ]


def _usage() -> None:
    for column in _further():
        op.add_column("usage", column)
    op.create_index("usage_of_request", "usage", ["request_id"])
    op.create_table(
        "key_uses",
        sa.Column("key_id", sa.String(128), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "refused_usage",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("budget", sa.String(40), primary_key=True),
        sa.Column("period", sa.String(16), primary_key=True),
        sa.Column("unit", sa.String(16), primary_key=True),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("funding", "available", "held")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("spent", "overdraft", "allowance")),
        sa.CheckConstraint("funding + available + held + spent + overdraft = 0", name="accounts_balance"),
        sa.CheckConstraint("available >= 0 AND held >= 0 AND spent >= 0 AND overdraft <= 0", name="accounts_in_range"),
    )
    op.create_index("accounts_of", "accounts", ["project", "period"])
    op.create_table(
        "postings",
        sa.Column("entry", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("budget", sa.String(40), nullable=False),
        *(sa.Column(name, sa.String(16), nullable=False) for name in ("period", "unit", "kind", "debit", "credit")),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("slice", sa.BigInteger),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.CheckConstraint("amount > 0", name="postings_amount"),
    )
    op.create_index("postings_of", "postings", ["budget", "period"])
    op.create_table(
        "slices",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("incarnation", sa.String(64), nullable=False),
        sa.Column("budget", sa.String(40), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("granted", "released", "settled", "charged")),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("opened_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.CheckConstraint("granted >= released + settled", name="slices_in_range"),
    )
    op.create_index("slices_of_source", "slices", ["source", "is_open"])
    op.create_index("slices_of_budget", "slices", ["budget", "is_open"])
    op.create_table(
        "sources",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("incarnation", sa.String(64), nullable=False),
        sa.Column("begins_after", sa.BigInteger, nullable=False),
        sa.Column("entered", sa.BigInteger, nullable=False),
        sa.Column("is_settled", sa.Boolean, nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
    )


def _money() -> None:
    op.create_table(
        "top_ups",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("budget", sa.String(40), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("top_ups_of", "top_ups", ["project", "at"])
    op.create_table(
        "vouchers",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(8), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("made_at", sa.Float(53), nullable=False),
        sa.Column("made_by", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("redeemed_at", sa.Float(53)),
        sa.Column("redeemed_by", sa.String(128)),
        sa.Column("project", sa.String(128)),
        sa.Column("budget", sa.String(128)),
    )


def _accelerators() -> None:
    facts: list[tuple[str, Any]] = [
        ("project", sa.String(128)),
        ("name", sa.String(128)),
        ("deployment", sa.String(128)),
        ("model", sa.String(128)),
        ("slots", sa.BigInteger),
    ]
    op.create_table(
        "accelerator_usage",
        sa.Column("workload", sa.String(40), primary_key=True),
        sa.Column("day", sa.String(16), primary_key=True),
        *(sa.Column(name, kind, nullable=False) for name, kind in facts),
        sa.Column("accelerator_ms", sa.BigInteger, nullable=False),
        sa.Column("wall_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("accelerator_usage_of", "accelerator_usage", ["project", "day"])
    op.create_table(
        "meters",
        sa.Column("workload", sa.String(40), primary_key=True),
        *(sa.Column(name, kind, nullable=False) for name, kind in facts),
        sa.Column("accelerators", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
