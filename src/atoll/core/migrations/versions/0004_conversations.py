"""Stored responses and conversations."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "conversation_items",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("conversation", sa.String(128), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("item", sa.Text, nullable=False),
    )
    op.create_index("conversation_item", "conversation_items", ["project", "conversation", "id"])
    op.create_table(
        "responses",
        sa.Column("project", sa.String(128), primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("previous", sa.String(128)),
        sa.Column("conversation", sa.String(128)),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
    )
    op.create_index("response_age", "responses", ["created_at"])


def downgrade() -> None:
    for table in ("responses", "conversation_items", "conversations"):
        op.drop_table(table)
