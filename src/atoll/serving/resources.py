"""Serving: deployments and their replicas, external providers, routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from atoll.core.resources import KINDS, Kind, Model, Spec, Status
from atoll.governance.resources import PriceFields

Task = Literal["generate", "embed", "rerank", "predict"]


class Price(PriceFields):
    """What use of a deployment costs; goes before the prices of its model."""


class Autoscale(Model):
    """How many replicas, by load. Any target that is exceeded asks for more; all must allow fewer."""

    min: int = Field(0, ge=0, le=64, description="Fewest replicas; 0 lets an idle deployment sleep.")
    max: int = Field(1, ge=1, le=64, description="Most replicas.")
    concurrency: float | None = Field(
        None, gt=0, description="Requests in flight per replica aimed at; empty: 0.8 of its slots."
    )
    queue: float | None = Field(1.0, ge=0, description="Waiting requests per replica tolerated.")
    ttft_s: float | None = Field(None, gt=0, description="Time to first token aimed at, 95th percentile, seconds.")
    idle_s: float = Field(300.0, gt=0, description="Without any request for this long, go to sleep (min 0), seconds.")
    scale_down_s: float = Field(60.0, gt=0, description="Load must have been lower for this long, seconds.")

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Adapter(Model):
    """A LoRA adapter served beside its base under a name of its own."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9.:-]{0,126}$", description="Name requests carry.")
    model: str = Field(description="The adapter's model version.")


class Canary(Model):
    """Another version under the same name, for a part of the requests."""

    model: str = Field(description="name, name@latest or the name of a version.")
    weight: float = Field(0.1, ge=0, le=1, description="Part of the requests it gets.")
    replicas: int = Field(1, ge=1, le=64, description="How many replicas.")


class Rollout(Model):
    """How a new version replaces the present one."""

    surge: int = Field(
        1,
        ge=0,
        le=64,
        description="Replicas started beyond the wanted number while it lasts; 0, where there is no room for more, "
        "ends an old one before its successor starts.",
    )
    keep_previous_s: float = Field(
        0.0, ge=0, description="Keep the previous version's replicas running, unused, for instant rollback; seconds."
    )


class Hold(Model):
    """What happens to requests while no replica can take them."""

    queue_max: int = Field(256, ge=0, le=100_000, description="Requests a gateway keeps waiting at most.")
    wait_s: float = Field(120.0, ge=0, le=3600, description="Longest wait, seconds.")


class Health(Model):
    """When a replica that runs counts as failed."""

    every_s: float = Field(5.0, gt=0, description="Between two probes, seconds.")
    timeout_s: float = Field(30.0, gt=0, description="A probe not answered within this failed, seconds.")
    failures: int = Field(3, ge=1, description="Failed probes in a row after which the replica is started anew.")


class WarmUp(Model):
    """What a replica computes before it takes requests."""

    enabled: bool = Field(True, description="Compute something before being ready.")
    prompts: list[str] = Field(
        default_factory=list, max_length=32, description="Prompts to compute, kept in its cache."
    )


class DeploymentSpec(Spec):
    """A model served under this resource's name."""

    model: str = Field(description="name, name@latest, name@production or the name of a version.")
    task: Task = Field("generate", description="What it does: generate text, embed, rerank, or predict.")
    replicas: int = Field(1, ge=0, le=64, description="How many replicas, unless autoscale decides.")
    autoscale: Autoscale | None = Field(None, description="Let the load decide how many replicas.")
    engine: str = Field("auto", description="Serving engine; auto chooses by the model's format and the hardware.")
    engine_options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Further options of the engine, by its own names."
    )
    environment: str = Field(
        "", description="Python environment (a folder) the engine's command is in; for vllm, sglang and predictor."
    )
    predictor: str = Field("", description="module:Class of the Python class that predicts; for engine predictor.")
    context: int = Field(2048, ge=128, description="Context of each slot, tokens.")
    slots: int = Field(4, ge=1, le=256, description="Requests one replica serves at a time.")
    adapters: list[Adapter] = Field(default_factory=list, max_length=16, description="LoRA adapters served beside it.")
    cpu: float = Field(0.5, gt=0, description="Processor cores each replica is counted with.")
    accelerators: int = Field(0, ge=0, le=64, description="Accelerators of each replica.")
    threads: int = Field(0, ge=0, description="Threads of the engine; 0 takes the node's cores.")
    warm_up: WarmUp = Field(default_factory=WarmUp, description="What a replica computes before it is ready.")
    health: Health = Field(default_factory=Health, description="When a replica counts as failed.")
    rollout: Rollout = Field(default_factory=Rollout, description="How a new version replaces the present one.")
    canary: Canary | None = Field(None, description="Another version for a part of the requests.")
    hold: Hold = Field(default_factory=Hold, description="What happens to requests no replica can take yet.")
    affinity: Literal["prefix", "session", "none"] = Field(
        "prefix", description="Send requests that begin alike (prefix) or name a session to the same replica."
    )
    fallback: list[str] = Field(
        default_factory=list, max_length=8, description="Models of the project asked when this one cannot answer."
    )
    hedge_s: float | None = Field(
        None, gt=0, description="Ask a second replica when no token came within this, seconds; empty never."
    )
    share: list[str] = Field(default_factory=list, description='Projects that may call it too; "*" means all.')
    price: Price | None = Field(None, description="What its use costs; empty: the Price of its model.")


class DeploymentStatus(Status):
    """pending, starting, ready, degraded, asleep (no replica, waits for a request) or failed."""

    version: str = Field("", description="The model version being served.")
    ready: int = Field(0, description="Replicas that serve.")
    wanted: int = Field(0, description="Replicas wanted now.")
    memory_bytes: int = Field(0, description="Memory each replica was estimated to need, bytes.")
    fit: str = Field("", description="Where it fits, in words.")
    revision: str = Field("", description="The present revision: version and engine input as one short hash.")
    revisions: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Revisions so far, newest first: revision, version, since, ready_at (0: never was) and the spec.",
    )
    serving: list[str] = Field(default_factory=list, description="Revisions whose replicas take requests.")
    rollout: str = Field("", description="Of the present revision: progressing, failed or done.")
    engine: str = Field("", description="The engine of the present revision.")
    canary_version: str = Field("", description="The canary's model version.")
    canary_revision: str = Field("", description="The canary's revision.")
    canary_ready: int = Field(0, description="Replicas of the canary that serve.")
    scaled_at: float = Field(0.0, description="Unix time of the last change of `wanted`.")
    scale_reason: str = Field("", description="Why it has as many replicas as it has.")
    scaler: dict[str, Any] = Field(default_factory=dict, description="What the autoscaler remembers.")


class ReplicaSpec(Spec):
    """One running copy of a deployment's model."""

    deployment: str = Field(description="Name of the deployment.")
    index: int = Field(description="Number within the deployment and revision.")
    revision: str = Field("", description="Revision of the deployment it belongs to.")
    version: str = Field(description="The model version.")
    engine: str = Field(description="The engine.")
    input: dict[str, Any] = Field(description="The engine's input.")
    cpu: float = Field(1.0, description="Processor cores it is counted with.")
    memory_bytes: int = Field(0, description="Memory it is counted with, bytes.")
    accelerators: int = Field(0, description="Accelerators it is counted with.")


class ReplicaStatus(Status):
    """pending, starting, ready, failed."""

    url: str = Field("", description="Where it serves.")
    api_key: str = Field("", description="The engine's own key.")
    capabilities: list[str] = Field(default_factory=list, description="What it can do.")
    restarts: int = Field(0, description="Times it was started again.")
    ready_at: float = Field(0.0, description="Unix time it last became ready; 0 if it never was.")
    progress: dict[str, Any] = Field(default_factory=dict, description="How far its start is.")
    log_tail: list[str] = Field(default_factory=list, description="Last lines of its last failure.")


class ProvidedModel(Model):
    """One model of a provider, under the name this project gives it."""

    name: str = Field(description="Name requests carry here.")
    model: str = Field("", description="The provider's own name of it; empty: the same.")
    task: Task = Field("generate", description="What it does.")
    context: int = Field(0, ge=0, description="Context, tokens; 0 is unknown.")
    price: Price | None = Field(None, description="What its use costs here.")


class ProviderSpec(Spec):
    """An OpenAI-compatible service elsewhere whose models are routes beside our own."""

    url: str = Field(pattern="^https?://", description="Address of its API, with /v1 where it has one.")
    secret: str = Field("", description="Secret NAME/VALUE with its API key; empty sends none.")
    models: list[ProvidedModel] = Field(min_length=1, description="Its models served here.")
    parallel: int = Field(64, ge=1, description="Requests in flight at a time, per gateway.")


class ProviderStatus(Status):
    """ready, or failed when its secret cannot be read."""


class Target(Model):
    """A deployment or a provider's model that answers a route."""

    model: str = Field(description="Name of a deployment or of a provider's model in this project.")
    weight: float = Field(1.0, ge=0, description="Part of the requests, relative to the other targets.")


class RouteSpec(Spec):
    """A name requests may carry, answered by other models of the project."""

    targets: list[Target] = Field(min_length=1, max_length=32, description="Who answers, by weight.")
    fallback: list[str] = Field(default_factory=list, max_length=8, description="Asked when no target can answer.")
    affinity: Literal["prefix", "session", "none"] = Field("prefix", description="What stays on one replica.")
    hedge_s: float | None = Field(None, gt=0, description="Ask a second replica after this without a token, seconds.")


class RouteStatus(Status):
    """ready, or failed naming the target that does not exist."""


DEPLOYMENT = KINDS.register(
    Kind(
        "Deployment",
        "deployments",
        "A model version served under a name, with replicas and a price.",
        DeploymentSpec,
        DeploymentStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("VERSION", "status.version"),
            ("READY", "status.ready"),
            ("REPLICAS", "status.wanted"),
            ("REASON", "status.reason"),
        ),
    )
)
REPLICA = KINDS.register(
    Kind(
        "Replica",
        "replicas",
        "One running copy of a deployment; made by the deployment's controller.",
        ReplicaSpec,
        ReplicaStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DEPLOYMENT", "spec.deployment"),
            ("VERSION", "spec.version"),
            ("RESTARTS", "status.restarts"),
            ("REASON", "status.reason"),
        ),
        private=frozenset({"api_key"}),
        is_internal=True,
    )
)
PROVIDER = KINDS.register(
    Kind(
        "Provider",
        "providers",
        "An OpenAI-compatible service elsewhere whose models are served beside our own.",
        ProviderSpec,
        ProviderStatus,
        columns=(("PHASE", "status.phase"), ("URL", "spec.url"), ("REASON", "status.reason")),
        writers="owner",
    )
)
ROUTE = KINDS.register(
    Kind(
        "Route",
        "routes",
        "A model name answered by several deployments or providers, by weight, with fallbacks.",
        RouteSpec,
        RouteStatus,
        columns=(("PHASE", "status.phase"), ("REASON", "status.reason")),
    )
)
