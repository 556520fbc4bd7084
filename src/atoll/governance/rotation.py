"""Rotated data keys: random ones, each sealed in a DataKey; taken out of the store, one is gone for good.

People can neither write nor read a DataKey, so that nobody puts a key of their own in its place.
What is sealed under which key is not known here.
"""

from __future__ import annotations

from pydantic import Field

from atoll.core.resources import KINDS, Kind, Resource, Spec, Status
from atoll.core.store import Scope

KEY_VALUE = "KEY"
"""What the random bytes are called among the sealed values of a DataKey."""


class DataKeySpec(Spec):
    """One random key of a project's uploads."""

    number: int = Field(ge=1, description="The higher, the newer.")
    sealed: str = Field(description="The key, sealed with the centre's key.")
    is_alone: bool = Field(False, description="Nothing is sealed under an older key any more; those are refused.")


class DataKeyStatus(Status):
    """pending, running while uploads are sealed anew, ready once older keys are gone."""

    resealed: int = Field(0, description="Uploads that were sealed anew.")
    after: str = Field("", description="How far this pass over the files has come.")
    found: bool = Field(False, description="Whether this pass found a file under an older key.")
    passed: bool = Field(False, description="Whether a whole pass found none: what is waited for then is awaited.")
    lost: list[str] = Field(default_factory=list, description="Files that do not open: damaged, or their key is lost.")


DATA_KEY = KINDS.register(
    Kind(
        "DataKey",
        "datakeys",
        "A key that seals a project's uploads; made with `atoll keys rotate-uploads`.",
        DataKeySpec,
        DataKeyStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("NUMBER", "spec.number"),
            ("RESEALED", "status.resealed"),
            ("REASON", "status.reason"),
        ),
        private=frozenset({"sealed"}),
        is_internal=True,
    )
)


def rotated(scope: Scope, project: str) -> list[Resource]:
    """The rotated keys of a project that still open something, newest first."""
    found = [key for key in scope.find_all("DataKey") if key.project == project]
    found.sort(key=lambda key: -int(key.spec["number"]))
    alone = next((place for place, key in enumerate(found) if key.spec["is_alone"]), len(found))
    return found[: alone + 1]
