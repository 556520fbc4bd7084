"""Logs of tasks, fetched through the agents' own connections when somebody asks.

An agent is behind whatever network it is behind, so the server asks for pieces of a log in the answer to the
agent's sync, and the agent posts them. A demand lives in the memory of this process and ends with its reader.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from atoll.compute.resources import TASK_ENDED
from atoll.core.errors import NotFound, Unavailable
from atoll.core.resources import Resource
from atoll.core.store import Scope
from atoll.server.access import Operator, Reader, Tenant, kind_in, may_still_read
from atoll.server.api import Body, family
from atoll.server.wait import Waiter

router = APIRouter(prefix="/api/v1")

PIECE_BYTES = 256 << 10
ANSWER_S = 15.0
FOLLOW_S = 0.5


class Piece(Body):
    """A piece of a log, as an agent sends it."""

    id: str
    uid: str
    offset: int
    data: str
    size_bytes: int
    ended: bool


@dataclass(slots=True)
class _Demand:
    node: str
    request: dict[str, Any]
    answer: asyncio.Future[Piece] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Demands:
    """Pieces of logs somebody waits for."""

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self._open: dict[str, _Demand] = {}

    def of(self, node: str) -> list[dict[str, Any]]:
        """What the agent of `node` is asked for."""
        return [d.request for d in self._open.values() if d.node == node]

    def answer(self, piece: Piece) -> None:
        """Hand a piece to whoever waits for it."""
        demand = self._open.pop(piece.id, None)
        if demand is not None and not demand.answer.done():
            demand.answer.set_result(piece)

    async def piece(self, task: Resource, offset: int) -> Piece:
        """Ask the task's agent for what stands at `offset` (negative: so many last bytes)."""
        name = uuid.uuid4().hex
        request = {"id": name, "uid": task.uid, "offset": offset, "limit_bytes": PIECE_BYTES}
        demand = self._open[name] = _Demand(task.spec["node"], request)
        self._waiter.nudge()
        try:
            return await asyncio.wait_for(demand.answer, ANSWER_S)
        except TimeoutError:
            raise Unavailable(
                f"the agent of node {task.spec['node']!r} did not send the log within {ANSWER_S:g} s",
                hint="see: atoll get nodes --project system",
            ) from None
        finally:
            self._open.pop(name, None)


@router.get("/projects/{project}/{plural}/{name}/logs", response_model=None)
async def logs(
    request: Request, tenant: Reader, plural: str, name: str, follow: bool = False, tail_bytes: int = 65536
) -> StreamingResponse:
    """The log of a resource's newest task, as plain text; follow=1 goes on until the task has ended."""
    root = await run_in_threadpool(tenant.scope.get, kind_in(plural, tenant.project).name, name)
    task = await run_in_threadpool(_newest_task, tenant.scope, root)
    demands: Demands = request.app.state.demands
    first = await demands.piece(task, -tail_bytes)
    stream = _stream(request, tenant, task, first, follow)
    return StreamingResponse(stream, media_type="text/plain; charset=utf-8")


@router.post("/agent/logs")
async def receive(request: Request, _: Operator, piece: Piece) -> dict[str, Any]:
    """A piece of a log from an agent."""
    request.app.state.demands.answer(piece)
    return {}


def _newest_task(scope: Scope, root: Resource) -> Resource:
    tasks = [r for r in family(scope, root) if r.kind == "Task" and r.phase != "pending"]
    if not tasks:
        raise NotFound(
            f"{root.key} has no task that was started", hint=f"it is {root.phase}: {root.status.get('reason')}"
        )
    return max(tasks, key=lambda t: (t.created_at, t.version))


async def _stream(request: Request, tenant: Tenant, task: Resource, piece: Piece, follow: bool) -> AsyncIterator[bytes]:
    demands: Demands = request.app.state.demands
    while await run_in_threadpool(may_still_read, request, tenant.project):
        data = base64.b64decode(piece.data)
        if data:
            yield data
        offset = piece.offset + len(data)
        if offset >= piece.size_bytes:
            current = await run_in_threadpool(tenant.scope.by_uid, task.uid)
            if not follow or piece.ended or current is None or current.phase in TASK_ENDED:
                return
            await asyncio.sleep(FOLLOW_S)
        piece = await demands.piece(task, offset)
