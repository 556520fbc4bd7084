"""What gateways last said of their load; deployments say `task` instead of `embedding`."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_NEW_FIELDS: dict[str, Any] = {
    "autoscale": None,
    "engine_options": {},
    "environment": "",
    "predictor": "",
    "adapters": [],
    "accelerators": 0,
    "warm_up": {"enabled": True, "prompts": []},
    "health": {"every_s": 5.0, "timeout_s": 30.0, "failures": 3},
    "rollout": {"surge": 1, "keep_previous_s": 0.0},
    "canary": None,
    "hold": {"queue_max": 256, "wait_s": 120.0},
    "affinity": "prefix",
    "fallback": [],
    "hedge_s": None,
    "share": [],
}
_ADDED_BY_TASK = frozenset({*_NEW_FIELDS, "task"})


def upgrade() -> None:
    op.create_table(
        "gateway_loads",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("outstanding", sa.Integer, nullable=False),
        sa.Column("queued", sa.Integer, nullable=False),
        sa.Column("average", sa.Float(53), nullable=False),
        sa.Column("started_total", sa.BigInteger, nullable=False),
        sa.Column("tokens_total", sa.BigInteger, nullable=False),
        sa.Column("ttft_p95_s", sa.Float(53)),
        sa.Column("active_at", sa.Float(53)),
    )
    op.create_index("gateway_load_of", "gateway_loads", ["target"])
    _rewrite(_with_task)


def downgrade() -> None:
    _rewrite(_with_embedding)
    op.drop_table("gateway_loads")


def _rewrite(change: Any) -> None:
    """Change the spec of every deployment."""
    resources = sa.table("resources", sa.column("uid"), sa.column("kind"), sa.column("spec"))
    connection = op.get_bind()
    found = connection.execute(sa.select(resources.c.uid, resources.c.spec).where(resources.c.kind == "Deployment"))
    for uid, spec in found.all():
        text = json.dumps(change(json.loads(spec)))
        connection.execute(sa.update(resources).where(resources.c.uid == uid).values(spec=text))


def _with_task(spec: dict[str, Any]) -> dict[str, Any]:
    task = "embed" if spec.pop("embedding", False) else "generate"
    price = spec.get("price")
    if price is not None:
        spec["price"] = {"cached_input_per_million": None, "per_accelerator_hour": 0.0, **price}
    return {**_NEW_FIELDS, "task": task, **spec}


def _with_embedding(spec: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in spec.items() if name not in _ADDED_BY_TASK}
    if kept.get("price") is not None:
        names = ("input_per_million", "output_per_million", "currency")
        kept["price"] = {name: kept["price"][name] for name in names}
    return kept | {"embedding": spec["task"] == "embed"}
