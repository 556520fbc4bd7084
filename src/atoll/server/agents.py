"""Routes agents call: register a node, then sync what shall run with what does."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from atoll.compute.controllers import node_lease
from atoll.compute.resources import NODE, TASK_ENDED
from atoll.core.errors import Conflict, Fenced, IntegrityError, Invalid, NotFound
from atoll.core.leases import Lease
from atoll.core.resources import SYSTEM_PROJECT, Resource, check_name
from atoll.core.store import Create, Scope, SetSpec, SetStatus, Write
from atoll.governance.secrets import Secrets
from atoll.server.access import CentreOf, Operator
from atoll.server.api import Body
from atoll.server.centre import Centre

router = APIRouter(prefix="/api/v1/agent")

WAIT_S_MAX = 30.0
_REPORTED = ("pid", "started_at", "exit_code", "signal", "log_tail", "progress", "endpoint", "result")
_SAID_ONCE = {"running": "Running", "succeeded": "Succeeded", "failed": "Failed", "lost": "Lost"}


class Registration(Body):
    """An agent introduces its node."""

    node: str
    site: str = "centre"
    boot_id: str = ""
    agent_id: str
    inventory: dict[str, Any]


class Sync(Body):
    """An agent reports what is, and asks what shall be."""

    node: str
    agent_id: str
    seen: int = 0
    wait_s: float = Field(10.0, ge=0)
    observed: list[dict[str, Any]] = Field(default_factory=list)
    works: list[str] = Field(default_factory=list)


@router.post("/register")
def register(centre: CentreOf, _: Operator, wanted: Registration) -> dict[str, Any]:
    """Make or refresh the node; an agent registered earlier under the same name is fenced."""
    scope = centre.store.everything(f"agent/{wanted.node}")
    spec = {"site": wanted.site, "inventory": wanted.inventory}
    node = scope.find("Node", check_name(wanted.node), SYSTEM_PROJECT)
    if node is None:
        parsed = NODE.parse_spec(spec)
        scope.write([Create("Node", SYSTEM_PROJECT, wanted.node, parsed, {"phase": "pending"}, reason="Registered")])
    else:
        parsed = NODE.parse_spec(node.spec | spec)
        scope.write([SetSpec(node, parsed, reason="Registered", message=f"agent {wanted.agent_id}")])
    centre.leases.take(node_lease(wanted.node), wanted.agent_id)
    made = scope.get("Node", wanted.node, SYSTEM_PROJECT)
    return {"node_uid": made.uid, "lease_ttl_s": centre.settings.lease_ttl_s, "blobs": centre.settings.blobs_url}


@router.post("/sync")
async def sync(request: Request, centre: CentreOf, _: Operator, wanted: Sync) -> dict[str, Any]:
    """Take the agent's reports; answer with all that shall run on its node, at once if that is new to it."""
    waiter = request.app.state.waiter
    demands = request.app.state.demands
    await run_in_threadpool(_renew, centre, wanted)
    scope = centre.store.everything(f"agent/{wanted.node}")
    forget, forget_workloads = await run_in_threadpool(_take_reports, scope, wanted.observed, wanted.works)
    deadline = centre.clock.monotonic() + min(wanted.wait_s, WAIT_S_MAX)
    while True:
        ticket = waiter.ticket()
        tasks = await run_in_threadpool(_wanted_on, scope, centre.secrets, wanted.node)
        seen = zlib.crc32(orjson.dumps(tasks)) or 1
        logs = demands.of(wanted.node)
        left_s = deadline - centre.clock.monotonic()
        if seen != wanted.seen or wanted.observed or logs or forget or left_s <= 0 or waiter.is_stopping:
            answer = {"seen": seen, "tasks": tasks, "logs": logs, "lease_ttl_s": centre.settings.lease_ttl_s}
            return answer | {"forget": forget, "forget_workloads": forget_workloads}
        await waiter.wait(ticket, left_s)


def _renew(centre: Centre, wanted: Sync) -> None:
    lease = centre.leases.read(node_lease(wanted.node))
    if lease is None:
        raise NotFound(f"node {wanted.node!r} is not registered", hint="register again")
    if lease.holder != wanted.agent_id:
        raise Fenced(f"another agent ({lease.holder}) registered node {wanted.node!r}", hint="stop this one")
    centre.leases.renew(Lease(lease.name, lease.holder, lease.epoch, lease.renewals))


def _take_reports(
    scope: Scope, observed: list[dict[str, Any]], works: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Write the reports into the tasks; returns the uids of tasks, and of workloads, that nobody knows any more.

    `works` are workloads the agent has a folder of, whether or not it has a task of them.
    """
    forget: list[str] = []
    forget_workloads = set(works)
    for report in observed:
        task = scope.by_uid(str(report["uid"]))
        if task is None:
            forget.append(str(report["uid"]))
            forget_workloads.add(str(report.get("workload_uid") or ""))
        elif task.phase not in TASK_ENDED and task.spec["epoch"] == report["epoch"]:
            _take_report(scope, task, report)
    return forget, sorted(uid for uid in forget_workloads if uid and scope.by_uid(uid) is None)


def _take_report(scope: Scope, task: Resource, report: dict[str, Any]) -> None:
    phase = str(report["state"])
    status = {"phase": phase, "reason": report.get("reason") or "", "observed_generation": task.generation}
    status |= {name: report.get(name) for name in _REPORTED}
    if status == task.status:
        return
    said = _SAID_ONCE.get(phase, "") if phase != task.phase else ""
    write: Write = SetStatus(task, status, said, _message(status))
    try:
        scope.write([write])
    except Conflict:
        current = scope.by_uid(task.uid)
        if current is not None and current.phase not in TASK_ENDED:
            scope.write([SetStatus(current, status, said, _message(status))])


def _message(status: dict[str, Any]) -> str:
    tail = status.get("log_tail") or []
    said = f": {tail[-1]}" if tail and status["phase"] == "failed" else ""
    return f"{status['reason']}{said}"


def _wanted_on(scope: Scope, secrets: Secrets, node: str) -> list[dict[str, Any]]:
    """Everything that shall exist on `node`; tasks that ended stay known until they are removed."""
    tasks = [t for t in scope.find_all("Task") if t.spec["node"] == node and t.phase not in TASK_ENDED]
    return [_task(task) | _revealed(scope, secrets, task) for task in tasks]


def _task(task: Resource) -> dict[str, Any]:
    names = ("epoch", "workload", "workload_uid", "role", "index", "rank", "world_size", "command", "env", "input")
    wanted = {name: task.spec[name] for name in (*names, "resources", "stop_grace_s", "on_partition")}
    return {"uid": task.uid, "project": task.project, "stop": task.spec["stop"] or task.is_deleting, **wanted}


def _revealed(scope: Scope, secrets: Secrets, task: Resource) -> dict[str, Any]:
    """The environment of a task that is to start, with the values of its secrets; what runs is not sent them again.

    When one cannot be had, `problem` says so: the agent then uses up the task, which reports it as failed. Only the
    agent may end it: it may have started it already, from an earlier answer.
    """
    references = task.spec.get("secrets") or {}
    if not references or task.phase != "pending":
        return {}
    try:
        workload = scope.by_uid(task.owner) if task.owner else None
        owners = [workload.uid, workload.owner or ""] if workload else []
        values = {name: secrets.value(scope, task.project, said, owners) for name, said in references.items()}
    except (NotFound, Invalid, IntegrityError) as error:
        return {"problem": str(error)}
    return {"env": task.spec["env"] | values}
