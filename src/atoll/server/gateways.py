"""Routes gateways call: the snapshot they work from, and the usage they saw."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from atoll.governance.keys import is_valid
from atoll.server.access import CentreOf, Operator
from atoll.server.api import Body
from atoll.server.centre import Centre
from atoll.serving.routes import route_table

router = APIRouter(prefix="/api/v1/gateway")

WAIT_S_MAX = 30.0


class Usage(Body):
    """Records of one gateway, in order."""

    source: str
    records: list[dict[str, Any]]


@router.get("/snapshot")
async def snapshot(
    request: Request, centre: CentreOf, _: Operator, seen: int = 0, wait_s: float = 0.0
) -> dict[str, Any]:
    """Keys and routes; waits up to `wait_s` while they are still those of `seen`."""
    waiter = request.app.state.waiter
    deadline = centre.clock.monotonic() + min(wait_s, WAIT_S_MAX)
    while True:
        ticket = waiter.ticket()
        made = await run_in_threadpool(_snapshot, centre)
        number = zlib.crc32(orjson.dumps(made)) or 1
        left_s = deadline - centre.clock.monotonic()
        if number != seen or left_s <= 0 or waiter.is_stopping:
            return {"seen": number, **made}
        await waiter.wait(ticket, left_s)


@router.post("/usage")
def usage(centre: CentreOf, _: Operator, wanted: Usage) -> dict[str, Any]:
    """Enter records; durable when this answers. Records entered before are passed over."""
    return {"acknowledged": centre.ledger.enter(wanted.source, wanted.records)}


def _snapshot(centre: Centre) -> dict[str, Any]:
    scope = centre.store.everything()
    now = centre.clock.now()
    keys = {
        key.spec["sha256"]: {
            "id": key.name,
            "project": key.project,
            "name": key.spec["description"],
            "role": key.spec["role"],
            "expires_at": key.spec["expires_at"],
            "models": key.spec["models"],
        }
        for key in scope.find_all("ApiKey")
        if is_valid(key, now)
    }
    limits = {
        "body_bytes_max": centre.settings.body_bytes_max,
        "requests_per_key_max": centre.settings.requests_per_key_max,
    }
    models = route_table(scope.find_all("Deployment"), scope.find_all("Replica"))
    return {"keys": keys, "models": models, "limits": limits}
