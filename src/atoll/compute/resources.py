"""The fleet and the work on it: nodes, workloads (gangs of roles), tasks (one process each)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from atoll.core.resources import KINDS, Kind, Model, Resource, Spec, Status

TASK_ENDED = frozenset({"succeeded", "failed", "lost"})
WORKLOAD_ENDED = frozenset({"succeeded", "failed"})


EnvironmentName = Annotated[str, StringConstraints(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
SecretReference = Annotated[
    str, StringConstraints(pattern="^[a-z0-9][a-z0-9.-]{0,127}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
]
"""NAME/VALUE: one value of a secret of the same project."""


class AcceleratorFacts(Model):
    """One accelerator as a probe saw it."""

    kind: str = Field(description="Vendor family: nvidia, amd, ascend.")
    index: int = Field(description="Index on its machine.")
    name: str = Field("", description="Product name.")
    memory_bytes: int = Field(0, description="Memory, bytes.")


class Inventory(Model):
    """What a node has."""

    cpu: float = Field(0.0, description="Processor cores usable by tasks.")
    memory_bytes: int = Field(0, description="Memory, bytes.")
    accelerators: list[AcceleratorFacts] = Field(default_factory=list, description="Accelerators found by the probes.")
    disk_free_bytes: int = Field(0, description="Free bytes on the disk of the agent's home.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels the agent reports.")
    os: str = Field("", description="Operating system.")
    arch: str = Field("", description="Processor architecture.")
    atoll: str = Field("", description="Version of the agent.")


class NodeSpec(Spec):
    """A machine of the fleet; agents register themselves."""

    cordoned: bool = Field(False, description="Take no new tasks; running ones go on.")
    site: str = Field("centre", description="The site the machine belongs to.")
    inventory: Inventory = Field(
        default_factory=Inventory, description="What the agent found; rewritten when it registers."
    )


class NodeStatus(Status):
    """schedulable, cordoned, lost; being deleted: draining, drained."""

    silent_s: float = Field(0.0, description="Seconds without a sign of life when it was declared lost.")


class Resources(Model):
    """What one task needs."""

    cpu: float = Field(1.0, ge=0, description="Processor cores.")
    memory_bytes: int = Field(0, ge=0, description="Memory, bytes.")
    accelerators: int = Field(0, ge=0, description="Whole accelerators.")


class Restart(Model):
    """What happens when a task ends by itself."""

    policy: Literal["never", "on_failure", "always"] = Field(
        "on_failure", description="When the gang is started again."
    )
    limit: int = Field(10, ge=0, description="Restarts before the workload fails; 0 with `always` means without end.")
    backoff_min_s: float = Field(0.5, gt=0, description="First delay before a restart, seconds.")
    backoff_max_s: float = Field(30.0, gt=0, description="Longest delay, seconds.")
    stable_s: float = Field(60.0, gt=0, description="Having run this long, a task's earlier failures are forgotten.")


class RoleSpec(Model):
    """A role of a gang: `count` equal tasks."""

    name: str = Field("main", description="Name of the role.")
    count: int = Field(1, ge=1, le=4096, description="How many tasks.")
    command: list[str] = Field(
        min_length=1, description='Program and arguments; "{python}" stands for the node\'s own interpreter.'
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the tasks.")
    secrets: dict[EnvironmentName, SecretReference] = Field(
        default_factory=dict,
        description="Environment filled from secrets of the project when a task starts: name to SECRET/VALUE.",
    )
    input: dict[str, Any] = Field(default_factory=dict, description="The engine's input, written to input.json.")
    resources: Resources = Field(default_factory=Resources, description="What each task needs.")


class WorkloadSpec(Spec):
    """A gang of roles that is started whole or not at all."""

    roles: list[RoleSpec] = Field(min_length=1, description="The roles; ranks are numbered through in this order.")
    restart: Restart = Field(default_factory=Restart, description="What happens when a task ends by itself.")
    priority: int = Field(0, description="Higher goes first in the queue.")
    stop_grace_s: float = Field(10.0, ge=0, description="Seconds between the polite and the hard stop.")
    on_partition: Literal["stop", "continue"] = Field(
        "stop", description="What a node cut off from the centre does with the tasks."
    )
    suspended: bool = Field(False, description="Stop the tasks and keep the workload.")


class WorkloadStatus(Status):
    """pending, starting, running, stopping, succeeded or failed."""

    epoch: int = Field(0, description="How many times the gang was started.")
    restarts: int = Field(0, description="Restarts after a failure since it last ran stably.")
    restarts_total: int = Field(0, description="All restarts after a failure.")
    nodes: list[str] = Field(default_factory=list, description="Nodes its tasks were placed on, by rank.")
    progress: dict[str, Any] = Field(default_factory=dict, description="What rank 0 last reported.")
    result: dict[str, Any] = Field(default_factory=dict, description="What rank 0 left at its successful end.")
    endpoint: dict[str, Any] = Field(default_factory=dict, description="Where rank 0 serves, when it does.")
    error: dict[str, Any] = Field(default_factory=dict, description="The typed error of a permanent failure.")
    log_tail: list[str] = Field(default_factory=list, description="Last lines of the task that failed last.")
    retry_at: float = Field(0.0, description="Unix time of the next start after a failure.")
    started_at: float = Field(0.0, description="Unix time of the first start.")
    ended_at: float = Field(0.0, description="Unix time of the end.")


class TaskSpec(Spec):
    """One process of a gang, placed on a node, started at most once."""

    node: str = Field(description="The node it belongs to.")
    epoch: int = Field(description="The gang's epoch it was made for.")
    workload: str = Field(description="Name of the workload.")
    workload_uid: str = Field(description="Uid of the workload.")
    role: str = Field(description="Role in the gang.")
    index: int = Field(description="Number within the role.")
    rank: int = Field(description="Number within the gang.")
    world_size: int = Field(description="Size of the gang.")
    command: list[str] = Field(description="Program and arguments.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment.")
    secrets: dict[str, str] = Field(default_factory=dict, description="Environment from secrets: name to SECRET/VALUE.")
    input: dict[str, Any] = Field(default_factory=dict, description="The engine's input.")
    resources: Resources = Field(default_factory=Resources, description="What it needs.")
    stop_grace_s: float = Field(10.0, description="Seconds between the polite and the hard stop.")
    on_partition: Literal["stop", "continue"] = Field("stop", description="What a cut-off node does with it.")
    stop: bool = Field(False, description="It shall end.")


class TaskStatus(Status):
    """pending, starting, running, stopping, succeeded, failed or lost, as the agent reports."""

    pid: int | None = Field(None, description="Process id on its node.")
    started_at: float | None = Field(None, description="Unix time of the start.")
    exit_code: int | None = Field(None, description="Exit code.")
    signal: int | None = Field(None, description="Signal that ended it.")
    log_tail: list[str] = Field(default_factory=list, description="Last lines of its log, at its end.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Last progress it reported.")
    endpoint: dict[str, Any] = Field(default_factory=dict, description="Where it serves, once ready.")
    result: dict[str, Any] = Field(default_factory=dict, description="What it left at its end.")


def _is_on_a_node(task: Resource) -> bool:
    return task.phase not in TASK_ENDED


def _may_have_tasks(node: Resource) -> bool:
    return node.phase not in ("lost", "drained")


NODE = KINDS.register(
    Kind(
        "Node",
        "nodes",
        "A machine of the fleet, registered by its agent.",
        NodeSpec,
        NodeStatus,
        scope="system",
        columns=(
            ("PHASE", "status.phase"),
            ("SITE", "spec.site"),
            ("CPU", "spec.inventory.cpu"),
            ("MEMORY", "spec.inventory.memory_bytes"),
        ),
        holds=_may_have_tasks,
    )
)
WORKLOAD = KINDS.register(
    Kind(
        "Workload",
        "workloads",
        "A gang of tasks with roles; admitted, placed and started as a whole.",
        WorkloadSpec,
        WorkloadStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("EPOCH", "status.epoch"),
            ("NODES", "status.nodes"),
            ("REASON", "status.reason"),
        ),
        private=frozenset({"endpoint"}),
    )
)
TASK = KINDS.register(
    Kind(
        "Task",
        "tasks",
        "One process of a workload on one node; made by the workload's controller.",
        TaskSpec,
        TaskStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("NODE", "spec.node"),
            ("PID", "status.pid"),
            ("REASON", "status.reason"),
        ),
        private=frozenset({"endpoint"}),
        is_internal=True,
        holds=_is_on_a_node,
    )
)
