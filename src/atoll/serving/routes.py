"""The route table gateways work from: a pure function of deployments and replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoll.core.resources import Resource


def route_table(deployments: Sequence[Resource], replicas: Sequence[Resource]) -> dict[str, dict[str, Any]]:
    """Models by project and name, each with its ready replicas, its price, and why it has none."""
    by_deployment: dict[tuple[str, str], list[Resource]] = {}
    for replica in replicas:
        by_deployment.setdefault((replica.project, replica.spec["deployment"]), []).append(replica)
    table: dict[str, dict[str, Any]] = {}
    for deployment in deployments:
        mine = by_deployment.get((deployment.project, deployment.name), [])
        table.setdefault(deployment.project, {})[deployment.name] = _entry(deployment, mine)
    return table


def _entry(deployment: Resource, replicas: list[Resource]) -> dict[str, Any]:
    spec = deployment.spec
    return {
        "deployment": deployment.uid,
        "version": deployment.status.get("version", ""),
        "created": int(deployment.created_at),
        "kind": "embedding" if spec["embedding"] else "chat",
        "context": spec["context"],
        "replicas": [_replica(r, spec["slots"]) for r in replicas if r.status.get("url")],
        "price": spec["price"],
        "reason": deployment.status.get("reason") or f"deployment is {deployment.phase}",
    }


def _replica(replica: Resource, slots: int) -> dict[str, Any]:
    return {
        "id": replica.name,
        "url": replica.status["url"],
        "api_key": replica.status.get("api_key", ""),
        "weight": 1,
        "slots": slots,
    }
