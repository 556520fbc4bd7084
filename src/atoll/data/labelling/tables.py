"""The rows of labelling: one of counts a task; its items, labellers, claims, groups of waiting items and tallies.

A task is known by the number it has in its project. Every count that is ever shown is a column here, changed in the
transaction that changes what is counted.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint, literal_column

from atoll.core.tables import metadata

COUNTS = ("items", "open", "taken", "decided", "disputed", "final", "answers", "skips", "leases", "prelabelled")
"""Items and where they stand (they sum up to `items`); answers, skips and leases there are; items with a pre-label."""

label_tasks = Table(
    "label_tasks",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("uid", String(40), nullable=False),
    Column("labellers", Integer, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in COUNTS),
    UniqueConstraint("uid", name="label_task_uid"),
)

label_items = Table(
    "label_items",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(200), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("people", String(400), nullable=False),
    Column("state", Integer, nullable=False),
    Column("leased", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("item", Text, nullable=False),
    Column("prelabel", Text),
    Column("prelabel_by", String(260)),
    Column("final", Text),
    Column("agreement", Float(53)),
    Column("decider", Integer),
    UniqueConstraint("project", "task", "key", name="label_item_key"),
    Index(
        "label_item_open",
        *("project", "task", "priority", "people", "seq"),
        sqlite_where=literal_column("state = 0"),
        postgresql_where=literal_column("state = 0"),
    ),
    Index(
        "label_item_disputed",
        *("project", "task", "seq"),
        sqlite_where=literal_column("state = 3"),
        postgresql_where=literal_column("state = 3"),
    ),
)

label_claims = Table(
    "label_claims",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("labeller", Integer, primary_key=True, autoincrement=False),
    Column("state", Integer, nullable=False),
    Column("expires_at", Float(53)),
    Column("answer", Text),
    Column("comment", Text, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("at", Float(53), nullable=False),
    Index(
        "label_claim_lease",
        *("project", "task", "expires_at"),
        sqlite_where=literal_column("state = 0"),
        postgresql_where=literal_column("state = 0"),
    ),
    Index(
        "label_claim_own",
        *("project", "task", "labeller", "seq"),
        sqlite_where=literal_column("state = 0"),
        postgresql_where=literal_column("state = 0"),
    ),
)

label_people = Table(
    "label_people",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(260), nullable=False),
    Column("answers", BigInteger, nullable=False),
    Column("skips", BigInteger, nullable=False),
    Column("decisions", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),
    UniqueConstraint("project", "task", "name", name="label_person_name"),
)

label_groups = Table(
    "label_groups",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("people", String(400), primary_key=True),
    Column("open", BigInteger, nullable=False),
)

label_tallies = Table(
    "label_tallies",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("task", Integer, primary_key=True, autoincrement=False),
    Column("field", String(64), primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False),
    Column("second", Integer, primary_key=True, autoincrement=False),
    Column("raters", Integer, primary_key=True, autoincrement=False),
    Column("a", String(800), primary_key=True),
    Column("b", String(800), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

TABLES = (label_tallies, label_groups, label_claims, label_items, label_people, label_tasks)
"""All of them, the one that says a task is there last."""
