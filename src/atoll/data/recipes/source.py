"""Sources: where documents come from. Whether a path exists is found out by the engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atoll.core.errors import Invalid
from atoll.core.origins.source import parse
from atoll.data.recipes.parts import Name, Part

SourceKind = Literal["stdlib", "folder", "files", "upload", "dataset", "package", "hub"]
_NEEDS = {
    "folder": "path",
    "files": "paths",
    "upload": "digest",
    "dataset": "reference",
    "package": "reference",
    "hub": "reference",
}
_ORIGINS = {"package": "pypi", "hub": "hf"}
"""How references to what lies outside the platform begin."""


class FieldsSpec(Part):
    """What the fields of records (JSON lines, Parquet, CSV) are called. Dots reach into objects."""

    text: str = Field(default="text", description="The text.")
    id: str = Field(default="id", description="The id; a record without one gets FILE:LINE.")
    url: str = Field(default="url", description="Where it was found.")
    title: str = Field(default="title", description="What it is called.")


class Source(Part):
    """Where documents come from."""

    kind: SourceKind = Field(
        description="`stdlib`: the documentation of this Python's standard library; `folder`: files under a path; "
        "`files`: files by name; `upload`: a File; `dataset`: a DatasetVersion; `package`: files inside a package; "
        "`hub`: a dataset of a hub."
    )
    name: Name | None = Field(default=None, description="What mixing and ids call it; by default sN, its place.")
    path: str = Field(default="", description="Folder on the node the run is placed on.")
    paths: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list, description="Files on the node.")
    digest: str = Field(default="", description="Blob digest of an uploaded file.")
    reference: str = Field(
        default="",
        description="A dataset version, `pypi:NAME==VERSION` of a package, `hf:OWNER/NAME[@REVISION]` of a hub.",
    )
    patterns: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, description="File names to read, such as `*.md`; null reads every format that is known."
    )
    fields: FieldsSpec = Field(default=FieldsSpec(), description="What the fields of records are called.")
    licence: str = Field(default="", description="SPDX name of the documents' licence, if known.")

    @model_validator(mode="after")
    def _fits_kind(self) -> Source:
        needed = _NEEDS.get(self.kind, "")
        given = [name for name in ("path", "paths", "digest", "reference") if getattr(self, name)]
        if needed and needed not in given:
            raise ValueError(f"a source of kind {self.kind} needs a {needed}")
        if strange := [name for name in given if name != needed]:
            raise ValueError(f"a source of kind {self.kind} has no {strange[0]}")
        if self.kind == "stdlib" and self.patterns:
            raise ValueError("a source of kind stdlib has neither path nor patterns")
        self._check_origin()
        return self

    def _check_origin(self) -> None:
        wanted = _ORIGINS.get(self.kind)
        if wanted is None:
            return
        try:
            found = parse(self.reference)
        except Invalid as error:
            raise ValueError(f"{error.message}; a {self.kind} is {wanted}:…") from error
        if found.kind != wanted:
            raise ValueError(f"{self.reference!r} is no {self.kind}: its reference begins with {wanted}:")
