"""The model library: models and their immutable versions."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from atoll.core.resources import KINDS, Kind, Model, Spec, Status


class ModelFile(Model):
    """One file of a version."""

    name: str = Field(description="File name.")
    digest: str = Field(description="Blob digest.")
    size_bytes: int = Field(description="Size, bytes.")


class ModelSpec(Spec):
    """A model: a name its versions share."""

    description: str = Field("", max_length=2000, description="What the model is.")


class ModelStatus(Status):
    """ready once it has a ready version."""

    versions: list[str] = Field(default_factory=list, description="Names of its ready versions, oldest first.")
    latest: str = Field("", description="The newest ready version.")
    production: str = Field("", description="The version promoted by the last passed gate.")


class ModelVersionSpec(Spec):
    """One immutable version, from a source or from a training run."""

    model: str = Field(description="The model it is a version of.")
    source: str = Field("", description="pypi:name==version, hf:owner/name[@revision] or file:/path.")
    files: list[str] | None = Field(
        None, description="Patterns of the files wanted from the source; empty means the model's own."
    )
    sha256: dict[str, str] | None = Field(None, description="Checksums (hex) the files must have, by file name.")
    licence: str | None = Field(None, description="Licence (SPDX), where the source does not say.")
    training_run: str = Field("", description="The training run whose adapter this is; instead of a source.")
    base: str = Field("", description="The model version an adapter belongs to.")

    @model_validator(mode="after")
    def _one_origin(self) -> ModelVersionSpec:
        if bool(self.source) == bool(self.training_run):
            raise ValueError("name either a source or a training_run")
        return self


class ModelVersionStatus(Status):
    """pending, running (importing), ready or failed."""

    files: list[ModelFile] = Field(default_factory=list, description="The files, as blobs.")
    format: str = Field("", description="gguf, safetensors or adapter-gguf.")
    architecture: str = Field("", description="Architecture family.")
    parameters: int = Field(0, description="Number of parameters.")
    context_length: int = Field(0, description="Longest context it was trained for, tokens.")
    quantization: str | None = Field(None, description="Quantisation of the weights.")
    licence: str | None = Field(None, description="Licence as recorded.")
    origin: dict[str, Any] = Field(default_factory=dict, description="Where it came from, resolved, with checksums.")
    chat_template: bool = Field(False, description="Whether it has a chat template.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Facts from the file's header.")
    scan: dict[str, Any] = Field(default_factory=dict, description="Findings of the safety scan.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Progress of the import.")


MODEL = KINDS.register(
    Kind(
        "Model",
        "models",
        "A model of the library; its versions are imported or trained.",
        ModelSpec,
        ModelStatus,
        columns=(("PHASE", "status.phase"), ("LATEST", "status.latest"), ("PRODUCTION", "status.production")),
    )
)
MODEL_VERSION = KINDS.register(
    Kind(
        "ModelVersion",
        "modelversions",
        "An immutable version of a model with origin, licence and checksums.",
        ModelVersionSpec,
        ModelVersionStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("MODEL", "spec.model"),
            ("FORMAT", "status.format"),
            ("PARAMETERS", "status.parameters"),
            ("LICENCE", "status.licence"),
            ("REASON", "status.reason"),
        ),
    )
)
