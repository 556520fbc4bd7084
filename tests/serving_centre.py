"""The controllers of serving over a real store; nodes are there, and engines say what a test lets them say."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from atoll.compute.controllers import TaskController, WorkloadController
from atoll.compute.resources import NODE
from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.errors import NotFound
from atoll.core.reconcile import Loop
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.store import Create, MarkDeleting, SetSpec, SetStatus, Store
from atoll.models.resources import MODEL, MODEL_VERSION
from atoll.serving.controllers import DeploymentController, ReplicaController
from atoll.serving.demand import Demand
from atoll.serving.providers import ProviderController, RouteController
from atoll.serving.resources import DEPLOYMENT, PROVIDER, ROUTE
from atoll.serving.routes import Entry, Facts, model_table

SHAPE = {
    "weights_bytes": 96 << 20,
    "blocks": 30,
    "embedding": 576,
    "feed_forward": 1536,
    "kv_heads": 90,
    "key_length": 64,
    "value_length": 64,
    "vocabulary": 49_152,
}
GIB = 1 << 30


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")[:64]


class Serving:
    """A small centre with one large node, and verbs for what people, engines and gateways do."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store, self.clock = store, clock
        self.scope = store.everything("test")
        self.demand = Demand(store.database)
        self.secrets: dict[tuple[str, str], str] = {}
        self.broken: set[str] = set()
        self.after_step: Callable[[], None] = lambda: None
        self.restart()

    def restart(self) -> None:
        """New controllers that remember nothing."""
        controllers = [
            DeploymentController(self.demand),
            ReplicaController(),
            ProviderController(self.secret_of),
            RouteController(),
            WorkloadController(),
            TaskController(),
            Collector(),
        ]
        self.loop = Loop(self.store, self.clock, controllers, random.Random(1))

    def secret_of(self, project: str, reference: str) -> str:
        if (project, reference) not in self.secrets:
            raise NotFound(f"there is no secret {reference!r} in project {project!r}")
        return self.secrets[project, reference]

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and the controllers work all the while."""
        end = self.clock.monotonic() + seconds
        while True:
            self.loop.take_changes()
            while self.loop.step():
                self.after_step()
                self.loop.take_changes()
            wait_s = max(self.loop.next_due_s(), 0.01)
            if self.clock.monotonic() + wait_s > end:
                self.clock.advance(end - self.clock.monotonic())
                return
            self.clock.advance(wait_s)

    # what there is

    def join(self, name: str, cpu: float = 64.0, memory_bytes: int = 64 * GIB, devices: int = 0) -> None:
        found = [{"kind": "nvidia", "index": i, "memory_bytes": 80 * GIB} for i in range(devices)]
        inventory = {"cpu": cpu, "memory_bytes": memory_bytes, "accelerators": found}
        self.scope.write(
            [Create("Node", SYSTEM_PROJECT, name, NODE.parse_spec({"inventory": inventory}), {"phase": "schedulable"})]
        )

    def add_version(self, name: str, *, base: str = "", project: str = "p", phase: str = "ready") -> None:
        """A version of a model that is there; the newest of its model is the latest."""
        model = name.rpartition(".v")[0]
        spec = MODEL_VERSION.parse_spec({"model": model, "source": "file:/x", "base": base})
        status = {
            "phase": phase,
            "files": [{"name": f"{name}.gguf", "digest": digest(name), "size_bytes": 96 << 20}],
            "format": "adapter-gguf" if base else "gguf",
            "metadata": {"shape": SHAPE},
        }
        self.scope.write([Create("ModelVersion", project, name, spec, status)])
        known = self.scope.find("Model", model, project)
        if known is None:
            self.scope.write([Create("Model", project, model, MODEL.parse_spec({}), {"latest": name})])
        else:
            self.scope.write([SetStatus(known, known.status | {"latest": name})])

    def deploy(self, name: str = "m", **spec: Any) -> None:
        """Create the deployment, or change the fields given."""
        known = self.scope.find("Deployment", name, "p")
        if known is None:
            made = DEPLOYMENT.parse_spec({"model": "m", "cpu": 0.5, **spec})
            self.scope.write([Create("Deployment", "p", name, made, {"phase": "pending"})])
        else:
            self.scope.write([SetSpec(known, DEPLOYMENT.parse_spec(known.spec | spec))])
        self.run()

    def provide(self, name: str, **spec: Any) -> None:
        self.scope.write([Create("Provider", "p", name, PROVIDER.parse_spec(spec), {"phase": "pending"})])
        self.run()

    def route(self, name: str, *targets: tuple[str, float], **spec: Any) -> None:
        told = {"targets": [{"model": m, "weight": w} for m, w in targets], **spec}
        self.scope.write([Create("Route", "p", name, ROUTE.parse_spec(told), {"phase": "pending"})])
        self.run()

    def delete(self, kind: str, name: str) -> None:
        self.scope.write([MarkDeleting(self.scope.get(kind, name, "p"))])
        self.run()

    # what engines and gateways say

    def report(self, task: Resource, phase: str, **status: Any) -> None:
        current = self.scope.by_uid(task.uid)
        assert current is not None
        self.scope.write([SetStatus(current, current.status | {"phase": phase, **status})])
        self.run()

    def tasks(self, version: str = "") -> list[Resource]:
        """Tasks that have not ended, of one model version when given."""
        living = [t for t in self.scope.find_all("Task") if t.phase not in ("succeeded", "failed", "lost")]
        return [t for t in living if not version or version in str(t.spec["input"]["files"])]

    def settle(self, rounds: int = 40) -> None:
        """Engines start and stop as they are told until nothing changes; those of broken versions fail."""
        for _ in range(rounds):
            pending = [t for t in self.tasks() if t.spec["stop"] or t.phase in ("pending", "starting")]
            if not pending:
                return
            for task in pending:
                self._obey(task)

    def _obey(self, task: Resource) -> None:
        if task.spec["stop"]:
            self.report(task, "failed", signal=15)
        elif any(version in str(task.spec["input"]["files"]) for version in self.broken):
            self.report(task, "failed", exit_code=1, log_tail=["cannot load it"])
        else:
            self.ready(task)

    def ready(self, task: Resource) -> None:
        endpoint = {"url": f"http://{task.uid[:8]}", "api_key": "k", "capabilities": ["chat", "completion"]}
        self.report(task, "running", endpoint=endpoint, started_at=self.clock.now())

    def load(self, target: str = "", source: str = "gw", **told: Any) -> list[str]:
        """A gateway's report; deployments that it wakes are told as the server does."""
        uid = target or self.deployment().uid
        return self.demand.report(source, "host", {uid: told} if told else {}, self.clock.now())

    # what is

    def deployment(self, name: str = "m") -> Resource:
        return self.scope.get("Deployment", name, "p")

    def replicas(self, name: str = "m") -> list[Resource]:
        return [r for r in self.scope.children(self.deployment(name).uid) if not r.is_deleting]

    def versions(self, name: str = "m") -> list[str]:
        return sorted(r.spec["version"] for r in self.replicas(name))

    def table(self, project: str = "p") -> dict[str, Entry]:
        kinds = ("Deployment", "Replica", "Provider", "Route", "Price")
        found = [self.scope.find_all(kind) for kind in kinds]
        return model_table(Facts(*found, ["p", "q"], self.secret_of)).get(project, {})

    def served(self, name: str = "m") -> dict[str, int]:
        """Replicas requests may go to, by version."""
        return {t["version"]: len(t["replicas"]) for t in self.table()[name]["targets"]}

    def events(self, name: str = "m") -> list[str]:
        found = self.scope.events(uids=[self.deployment(name).uid])
        return [f"{e.reason}: {e.message}" if e.message else e.reason for e in found]
