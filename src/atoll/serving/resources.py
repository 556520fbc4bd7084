"""Serving: deployments and their replicas."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from atoll.core.resources import KINDS, Kind, Model, Spec, Status


class Price(Model):
    """What tokens of a deployment cost."""

    input_per_million: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    output_per_million: float = Field(0.0, ge=0, description="Price of a million generated tokens.")
    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="ISO 4217 code.")


class DeploymentSpec(Spec):
    """A model served under this resource's name."""

    model: str = Field(description="name, name@latest, name@production or the name of a version.")
    replicas: int = Field(1, ge=0, le=64, description="How many replicas.")
    engine: str = Field("auto", description="Serving engine; auto chooses by the model's format.")
    context: int = Field(2048, ge=128, description="Context of each slot, tokens.")
    slots: int = Field(4, ge=1, le=256, description="Requests one replica serves at a time.")
    cpu: float = Field(0.5, gt=0, description="Processor cores each replica is counted with.")
    threads: int = Field(0, ge=0, description="Threads of the engine; 0 takes the node's cores.")
    embedding: bool = Field(False, description="Serve embeddings instead of text.")
    price: Price | None = Field(None, description="What its tokens cost.")


class DeploymentStatus(Status):
    """pending, starting, ready, degraded or failed."""

    version: str = Field("", description="The model version being served.")
    ready: int = Field(0, description="Replicas that serve.")
    memory_bytes: int = Field(0, description="Memory each replica was estimated to need, bytes.")


class ReplicaSpec(Spec):
    """One running copy of a deployment's model."""

    deployment: str = Field(description="Name of the deployment.")
    index: int = Field(description="Number within the deployment.")
    version: str = Field(description="The model version.")
    engine: str = Field(description="The engine.")
    input: dict[str, Any] = Field(description="The engine's input.")
    cpu: float = Field(1.0, description="Processor cores it is counted with.")
    memory_bytes: int = Field(0, description="Memory it is counted with, bytes.")


class ReplicaStatus(Status):
    """pending, starting, ready, failed."""

    url: str = Field("", description="Where it serves.")
    api_key: str = Field("", description="The engine's own key.")
    capabilities: list[str] = Field(default_factory=list, description="What it can do.")
    restarts: int = Field(0, description="Times it was started again.")
    log_tail: list[str] = Field(default_factory=list, description="Last lines of its last failure.")


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
            ("REPLICAS", "spec.replicas"),
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
