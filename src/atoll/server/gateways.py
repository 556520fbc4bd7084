"""Routes gateways call: the snapshot they work from, the usage they saw, the slices of budgets they ask for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Body as JsonBody
from starlette.concurrency import run_in_threadpool

from atoll.core.errors import Forbidden
from atoll.governance.slices import read_lease
from atoll.server.access import CentreOf, Operator
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1/gateway")

WAIT_S_MAX = 30.0
GATEWAYS_LOOK_S = 5.0
"""How often a waiting poll looks whether other gateways came or went: that is no change of the store."""


class Usage(Body):
    """Records of one gateway, in order."""

    source: str
    records: list[Any]


@router.get("/snapshot")
async def snapshot(
    request: Request, centre: CentreOf, identity: Operator, seen: int = 0, wait_s: float = 0.0
) -> Response:
    """Keys, projects, budgets and models; waits up to `wait_s` while they are still those of `seen`."""
    if identity.role != "system":  # it holds the keys of engines and providers, which no person is shown
        raise Forbidden("only gateways read the snapshot", hint="ask with the platform's own key")
    waiter = request.app.state.waiter
    deadline = centre.clock.monotonic() + min(wait_s, WAIT_S_MAX)
    while True:
        ticket = waiter.ticket()
        made = await run_in_threadpool(centre.snapshots.current)
        left_s = deadline - centre.clock.monotonic()
        if made.seen != seen or left_s <= 0 or waiter.is_stopping:
            return Response(made.body, media_type="application/json")
        await waiter.wait(ticket, min(left_s, GATEWAYS_LOOK_S))


@router.post("/usage")
def usage(centre: CentreOf, _: Operator, wanted: Usage) -> dict[str, Any]:
    """Enter records; durable when this answers. Records entered before, and those that cannot be, are passed over."""
    return {"acknowledged": centre.ledger.enter(wanted.source, wanted.records)}


@router.post("/slices")
def slices(centre: CentreOf, _: Operator, asked: Annotated[dict[str, Any], JsonBody()]) -> dict[str, Any]:
    """Lend parts of budgets, see governance.slices; a repeated ask changes nothing. 409 (fenced): begin anew."""
    return {"slices": [asdict(granted) for granted in centre.ledger.lease(read_lease(asked))]}
