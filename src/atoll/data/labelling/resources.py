"""Kinds of labelling: the task people label for, and the runs that bring items in, pre-label them and export them.

The items themselves are rows; see `store`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from atoll.core.errors import Forbidden, Invalid
from atoll.core.resources import KINDS, Asker, Fields, Kind, Model, Resource, Spec, Status
from atoll.data.labelling.assignment import Terms
from atoll.data.labelling.schema import FIELDS_MAX, AnyField, check_fields, check_growth

LABELLERS_MAX = 1000


class ItemSource(Model):
    """Where items come from: a split of a dataset version, or a file of JSON lines."""

    dataset: str = Field("", description="A dataset version, a dataset, DATASET@BRANCH or DATASET@TAG.")
    split: str = Field("train", description="Its split.")
    file: str = Field("", description="A file of JSON lines, by its id.")
    columns: dict[Literal["key", "text", "prompt", "a", "b"], str] = Field(
        default_factory=dict, description="Which column is what of an item; key is by default `id`, others themselves."
    )
    limit: int | None = Field(None, ge=1, description="Take so many from the beginning; empty: all.")

    @model_validator(mode="after")
    def _one_origin(self) -> ItemSource:
        if bool(self.dataset) == bool(self.file):
            raise ValueError("give either dataset or file")
        return self


class LabelTaskSpec(Spec):
    """What people are asked about which items, how many of them, and who decides where they disagree."""

    fields: list[AnyField] = Field(min_length=1, max_length=FIELDS_MAX, description="What is asked about each item.")
    instructions: str = Field("", max_length=20_000, description="What labellers and models are told.")
    source: ItemSource | None = Field(None, description="Where items come from; more may be added through the API.")
    labels_per_item: int = Field(1, ge=1, le=10, description="How many people answer each item.")
    labellers: list[str] = Field(
        default_factory=list, max_length=LABELLERS_MAX, description="Users or ids of keys; empty: every member."
    )
    adjudicators: list[str] = Field(
        default_factory=list, max_length=LABELLERS_MAX, description="Users or ids of keys, beside the owners."
    )
    lease_s: float = Field(900.0, ge=10, le=86_400, description="How long a labeller keeps an item, seconds.")
    agreement_min: float = Field(0.3, ge=0, le=1, description="Answers that agree less are disputed.")
    skips_max: int = Field(3, ge=1, le=10, description="An item that so many skipped is disputed.")
    licence: str = Field("", max_length=200, description="Licence (SPDX) of exported labels.")

    @model_validator(mode="after")
    def _different_names(self) -> LabelTaskSpec:
        check_fields(self.fields)
        return self


class LabelTaskStatus(Status):
    """pending while items of its source come in, then ready; failed when they could not."""

    counts: dict[str, int] = Field(default_factory=dict, description="Items by state, answers; a few seconds old.")
    is_empty: bool = Field(False, description="Whether its rows are gone, at its end.")


class LabelRunSpec(Spec):
    """One errand of a labelling task: items in, a model's pre-labels, or labels out."""

    task: str = Field(description="The labelling task.")
    action: Literal["import", "prelabel", "export"] = Field(description="What is done.")
    source: ItemSource | None = Field(None, description="Where items come from (import).")
    model: str = Field("", description="The model asked (prelabel).")
    again: bool = Field(False, description="Ask about decided items too (prelabel).")
    parallel: int = Field(4, ge=1, le=64, description="Requests in flight at most (prelabel).")
    dataset: str = Field("", description="Dataset that receives the labels (export).")
    decided_only: bool = Field(True, description="Leave out items that are not decided (export).")
    creator: str = Field("", description="PROJECT/KEY it is charged to.")
    cpu: float = Field(0.1, gt=0, description="Processor cores.")
    memory_bytes: int = Field(256 << 20, ge=0, description="Memory, bytes.")


class LabelRunStatus(Status):
    """pending, running, succeeded or failed."""

    dataset_version: str = Field("", description="The version it made (export).")
    parents: list[str] = Field(
        default_factory=list, description="Versions the items came from (import), or had come from (export)."
    )
    model_version: str = Field("", description="The version of the model asked (prelabel).")
    counts: dict[str, int] = Field(default_factory=dict, description="What it did, in items.")
    errors: list[dict[str, Any]] = Field(default_factory=list, description="Items that could not be: item, message.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")


def _guard(asker: Asker, project: str, spec: Fields | None, before: Fields | None) -> None:
    """Nobody below owner names adjudicators; what was asked stays understandable."""
    wanted = [] if spec is None else spec["adjudicators"]
    are_new = spec is not None and wanted != ([] if before is None else before["adjudicators"])
    if are_new and asker.role_in(project) not in ("owner", "admin"):
        raise Forbidden("only owners name adjudicators", hint="ask an owner of the project")
    if spec is None or before is None:
        return
    if spec["labels_per_item"] != before["labels_per_item"]:
        words = f"labels_per_item is {before['labels_per_item']} and stays so: items are decided by it"
        raise Invalid(words, field="spec.labels_per_item", hint="make another task")
    check_growth(_FIELDS.validate_python(before["fields"]), _FIELDS.validate_python(spec["fields"]))


def _holds(task: Resource) -> bool:
    return not task.status.get("is_empty")


_FIELDS: TypeAdapter[list[Any]] = TypeAdapter(list[AnyField])

LABEL_TASK = KINDS.register(
    Kind(
        "LabelTask",
        "labeltasks",
        "A question to people about many items, with who answers and who decides.",
        LabelTaskSpec,
        LabelTaskStatus,
        columns=(("PHASE", "status.phase"), ("COUNTS", "status.counts"), ("REASON", "status.reason")),
        holds=_holds,
        guard=_guard,
    )
)
LABEL_RUN = KINDS.register(
    Kind(
        "LabelRun",
        "labelruns",
        "An errand of a labelling task: import, prelabel or export; made through its routes.",
        LabelRunSpec,
        LabelRunStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("TASK", "spec.task"),
            ("ACTION", "spec.action"),
            ("COUNTS", "status.counts"),
            ("VERSION", "status.dataset_version"),
            ("REASON", "status.reason"),
        ),
        is_internal=True,
    )
)


def terms_of(spec: Mapping[str, Any]) -> Terms:
    """How items are labelled, from a task's spec."""
    fields = _FIELDS.validate_python(spec["fields"])
    return Terms(fields, int(spec["labels_per_item"]), float(spec["agreement_min"]), int(spec["skips_max"]))
