"""Labelling: tasks with their counts, items, claims, labellers, groups of waiting items, tallies."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_COUNTS = ("items", "open", "taken", "decided", "disputed", "final", "answers", "skips", "leases", "prelabelled")


def upgrade() -> None:
    op.create_table(
        "label_tasks",
        *_place(),
        sa.Column("uid", sa.String(40), nullable=False),
        sa.Column("labellers", sa.Integer, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        sa.UniqueConstraint("uid", name="label_task_uid"),
    )
    _items()
    _claims()
    _sums()


def downgrade() -> None:
    for table in ("label_tallies", "label_groups", "label_people", "label_claims", "label_items", "label_tasks"):
        op.drop_table(table)


def _items() -> None:
    op.create_table(
        "label_items",
        *_place(),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("people", sa.String(400), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("leased", sa.Integer, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("prelabel", sa.Text),
        sa.Column("prelabel_by", sa.String(260)),
        sa.Column("final", sa.Text),
        sa.Column("agreement", sa.Float(53)),
        sa.Column("decider", sa.Integer),
        sa.UniqueConstraint("project", "task", "key", name="label_item_key"),
    )
    _partial_index("label_item_open", "label_items", ["project", "task", "priority", "people", "seq"], 0)
    _partial_index("label_item_disputed", "label_items", ["project", "task", "seq"], 3)


def _claims() -> None:
    op.create_table(
        "label_claims",
        *_place(),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("labeller", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("answer", sa.Text),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    _partial_index("label_claim_lease", "label_claims", ["project", "task", "expires_at"], 0)
    _partial_index("label_claim_own", "label_claims", ["project", "task", "labeller", "seq"], 0)


def _sums() -> None:
    op.create_table(
        "label_people",
        *_place(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(260), nullable=False),
        sa.Column("answers", sa.BigInteger, nullable=False),
        sa.Column("skips", sa.BigInteger, nullable=False),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.UniqueConstraint("project", "task", "name", name="label_person_name"),
    )
    op.create_table(
        "label_groups",
        *_place(),
        sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("people", sa.String(400), primary_key=True),
        sa.Column("open", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "label_tallies",
        *_place(),
        sa.Column("field", sa.String(64), primary_key=True),
        *(sa.Column(n, sa.Integer, primary_key=True, autoincrement=False) for n in ("first", "second", "raters")),
        *(sa.Column(name, sa.String(800), primary_key=True) for name in ("a", "b")),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def _place() -> tuple[Any, ...]:
    task = sa.Column("task", sa.Integer, primary_key=True, autoincrement=False)
    return sa.Column("project", sa.String(128), primary_key=True), task


def _partial_index(name: str, table: str, columns: list[str], state: int) -> None:
    where = sa.text(f"state = {state}")
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
