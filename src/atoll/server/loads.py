"""What gateways report of their load, kept for the autoscaler; a request that is held wakes who sleeps at once."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from atoll.core.store import Note
from atoll.server.access import CentreOf, Operator
from atoll.server.api import Body
from atoll.server.centre import Centre

router = APIRouter(prefix="/api/v1/gateway")

TARGETS_MAX = 10_000
Count = Annotated[int, Field(ge=0, le=1 << 62)]


class TargetLoad(BaseModel):
    """How busy one target is, as one gateway sees it; the totals count from the gateway's start."""

    outstanding: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    queued: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    started_total: Count = 0
    tokens_total: Count = 0
    ttft_p95_s: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


class Report(Body):
    """What one gateway sees of all its targets."""

    source: Annotated[str, Field(min_length=1, max_length=64)]
    host: Annotated[str, Field(max_length=255)] = ""
    at: float = 0.0
    targets: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], TargetLoad], Field(max_length=TARGETS_MAX)
    ]


@router.post("/load")
def load(request: Request, centre: CentreOf, _: Operator, report: Report) -> dict[str, bool]:
    """Enter a report; deployments at which requests began to wait are looked at at once."""
    now = centre.clock.now()
    hosts = centre.demand.hosts(now)
    targets = {name: told.model_dump() for name, told in report.targets.items()}
    waiting = centre.demand.report(report.source, report.host or report.source, targets, now)
    _wake(centre, waiting)
    if centre.demand.hosts(now) != hosts:
        request.app.state.waiter.nudge()
    return {}


def _wake(centre: Centre, targets: list[str]) -> None:
    """Tell the controllers, wherever they run, of requests that wait at autoscaled deployments without a replica."""
    scope = centre.store.everything("gateways")
    found = [resource for target in targets if (resource := scope.by_uid(target)) is not None]
    asleep = [d for d in found if d.kind == "Deployment" and not d.is_deleting and d.phase == "asleep"]
    scope.write(Note(deployment, "Woken", "a gateway holds a request for it") for deployment in asleep)
