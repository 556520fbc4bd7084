"""Datasets and their immutable versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from atoll.core.errors import Forbidden
from atoll.core.resources import KINDS, Asker, Kind, Model, Spec, Status, is_name
from atoll.data.holding import held, versions_in

TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Names of branches and tags: what may stand behind the `@` of DATASET@NAME."""


def _dataset_name(text: str) -> str:
    if not (is_name(text) and is_name(f"{text}.v{2**31}")):
        words = "1 to 116 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
        raise ValueError(f"a dataset's name is {words}")
    return text


DatasetName = Annotated[str, AfterValidator(_dataset_name)]
"""Name of a dataset that receives versions: what DATASET.vN can be made of."""

Digest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{64}$")]


MATCHED = ("documents", "sources", "texts", "files")
IDENTIFIERS_MAX = 500
TEXT_CHARACTERS_MIN = 4
TEXT_CHARACTERS_MAX = 10_000


class Retention(Model):
    """Which versions are kept. A version goes when no rule keeps it; both rules empty keep all.

    Never goes: the newest version of a branch, a tagged version, one that a training run or a model learned from.
    """

    keep_last: int | None = Field(None, ge=1, description="Keep so many newest versions of each branch.")
    keep_days: float | None = Field(None, gt=0, description="Keep versions younger than this, days.")


class DatasetSpec(Spec):
    """A dataset: a name its versions share, with names for some of them."""

    description: str = Field("", max_length=2000, description="What the dataset is.")
    tags: dict[TagName, str] = Field(default_factory=dict, description="Names of versions: tag to version.")
    retention: Retention = Field(default_factory=Retention, description="Which versions are kept.")


class DatasetStatus(Status):
    """ready once it has a version."""

    versions: list[str] = Field(default_factory=list, description="Names of its ready versions, oldest first.")
    latest: str = Field("", description="The newest version of branch main, else of any branch.")
    branches: dict[str, list[str]] = Field(default_factory=dict, description="Versions of each branch, oldest first.")
    numbered: int = Field(0, description="Highest number a version of it ever had; none is given twice.")
    next_expiry_at: float = Field(0.0, description="Unix time at which retention ends the next version; 0: none.")


class DatasetVersionSpec(Spec):
    """One immutable version: a manifest of Parquet shards. Only an erasure ever replaces its manifest."""

    dataset: str = Field(description="The dataset it is a version of.")
    branch: TagName = Field("main", description="The line of versions it continues.")
    manifest: Digest = Field(description="Blob digest of the manifest.")
    curation_run: str = Field("", description="The curation run that made it.")
    made_by: str = Field("", description="What else made it, as KIND/NAME.")
    parents: list[str] = Field(default_factory=list, description="Versions it was made from.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows by split and documents in and out.")
    erasures: list[str] = Field(default_factory=list, description="Erasures that rewrote it.")


class DatasetVersionStatus(Status):
    """ready when the manifest and every shard are there, failed when one is missing. The rest is the manifest's."""

    columns: dict[str, dict[str, str]] = Field(default_factory=dict, description="Schema: columns of each split.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows by split and documents in and out.")
    size_bytes: int = Field(0, description="Size of all shards, bytes.")
    shards: int = Field(0, description="Number of shards.")
    licence: str = Field("", description="Licence of its documents.")
    recipe: dict[str, Any] = Field(default_factory=dict, description="The recipe it was made by.")
    privacy: dict[str, Any] = Field(default_factory=dict, description="What personal data was found and done to it.")
    sources: list[dict[str, Any]] = Field(default_factory=list, description="Where its documents came from.")


class ErasureMatch(Model):
    """What is to go: documents one of these names, with all that was made from them."""

    documents: list[str] = Field(default_factory=list, description="Ids of documents.")
    sources: list[str] = Field(default_factory=list, description="Sources or URLs; one ending in * means a prefix.")
    texts: list[str] = Field(default_factory=list, description="Texts anywhere in a row, such as an e-mail address.")
    files: list[str] = Field(default_factory=list, description="Files (uploads), by id, with all that came from them.")

    @model_validator(mode="after")
    def _is_bounded(self) -> ErasureMatch:
        values = [value for name in MATCHED for value in getattr(self, name)]
        if len(values) > IDENTIFIERS_MAX:
            raise ValueError(f"{len(values)} identifiers, the limit is {IDENTIFIERS_MAX}: use several erasures")
        if any(len(text.strip()) < TEXT_CHARACTERS_MIN for text in self.texts):
            raise ValueError(f"a text needs {TEXT_CHARACTERS_MIN} characters, or it is in nearly every document")
        if any(len(text) > TEXT_CHARACTERS_MAX for text in self.texts):
            raise ValueError(f"a text has at most {TEXT_CHARACTERS_MAX} characters: give a sentence or two of it")
        if not all(value.strip(" *") for value in values):
            raise ValueError("an identifier is empty")
        return self


class ErasureSpec(Spec):
    """Removes what it names from the project's datasets, uploads, labels, conversations and responses, for good."""

    match: ErasureMatch = Field(description="What is to go. Forgotten once the erasure is done.")
    datasets: list[str] = Field(
        default_factory=list, description="Of datasets only these; empty: all. What is no dataset is always searched."
    )
    reason: str = Field("", max_length=2000, description="Why, for the certificate; name nobody.")
    is_forgotten: bool = Field(False, description="Done, and what was named is no longer known here.")
    cpu: float = Field(0.5, gt=0, description="Processor cores.")
    memory_bytes: int = Field(512 << 20, ge=0, description="Memory, bytes.")

    @model_validator(mode="after")
    def _names_something(self) -> ErasureSpec:
        if not self.is_forgotten and not any(getattr(self.match, name) for name in MATCHED):
            raise ValueError(f"match names nothing; give one of {', '.join(MATCHED)}")
        if any(text.casefold() in self.reason.casefold() for text in self.match.texts):
            raise ValueError("reason holds a text that is to go, and would stay in the certificate; name nobody in it")
        return self


class ErasureStatus(Status):
    """pending, running, succeeded or failed."""

    stage: str = Field("", description="searching, replaced, records, deleting, done or forgotten.")
    versions: list[dict[str, Any]] = Field(default_factory=list, description="What was written anew.")
    searched: dict[str, str] = Field(default_factory=dict, description="Versions searched, with their manifests.")
    identifiers: dict[str, list[str]] = Field(default_factory=dict, description="What was searched for, hashed.")
    files_removed: list[str] = Field(default_factory=list, description="Uploads that were removed.")
    files_not_searched: list[str] = Field(default_factory=list, description="Uploads nobody can search inside.")
    file_digests: list[str] = Field(default_factory=list, description="Their blobs.")
    named_digests: list[str] = Field(default_factory=list, description="Blobs of the files that were named.")
    files: int = Field(0, description="Uploads searched.")
    rows: int = Field(0, description="Rows searched.")
    records: dict[str, Any] = Field(default_factory=dict, description="How far the tables were gone through.")
    runs_removed: list[str] = Field(default_factory=list, description="Runs whose record quoted it, as KIND/NAME.")
    named_elsewhere: list[str] = Field(default_factory=list, description="What people wrote it into, as KIND/NAME.")
    gone: list[str] = Field(default_factory=list, description="Blobs that list the documents that left, until the end.")
    doomed: str = Field("", description="Blob that lists the blobs to delete.")
    certificate: str = Field("", description="Blob digest of the certificate.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where it is.")


def _is_immutable(asker: Asker, _: str, new: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> None:
    """Nobody changes a version; only administrators make one of a digest alone, which proves no right to its bytes."""
    if new is not None and old is not None and new != old:
        raise Forbidden("a dataset version never changes", hint="make another version, or tag this one")
    if new is not None and old is None and not asker.is_admin:
        raise Forbidden("dataset versions are made by runs and imports", hint="atoll data import DIR --name NAME")


def _happens_once(_: Asker, __: str, new: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> None:
    if new is not None and old is not None and new != old:
        raise Forbidden("an erasure never changes", hint="make another one")


DATASET = KINDS.register(
    Kind(
        "Dataset",
        "datasets",
        "A named, versioned collection of texts; deleted with all its versions, unless one is held.",
        DatasetSpec,
        DatasetStatus,
        columns=(("PHASE", "status.phase"), ("LATEST", "status.latest")),
        dependents=versions_in,
        held=held,
    )
)
DATASET_VERSION = KINDS.register(
    Kind(
        "DatasetVersion",
        "datasetversions",
        "An immutable version of a dataset: Parquet shards named by a manifest.",
        DatasetVersionSpec,
        DatasetVersionStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DATASET", "spec.dataset"),
            ("BRANCH", "spec.branch"),
            ("COUNTS", "status.counts"),
            ("REASON", "status.reason"),
        ),
        guard=_is_immutable,
    )
)
ERASURE = KINDS.register(
    Kind(
        "Erasure",
        "erasures",
        "Removes documents from everything the project keeps of them, and proves it by a certificate.",
        ErasureSpec,
        ErasureStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("STAGE", "status.stage"),
            ("WHY", "spec.reason"),
            ("REASON", "status.reason"),
        ),
        private=frozenset({"match"}),
        writers="owner",
        guard=_happens_once,
    )
)
