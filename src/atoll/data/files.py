"""Files: bytes a project uploaded under an id, or that the platform made for it.

A file is a name for a blob; while the file lives, so does the blob. The blob is sealed with the project's key, but for
files made before that was so: the digest is that of the bytes as stored, the size that of the file. What stands in a
file is judged by whoever uses it, not here.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field

from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import KINDS, Key, Kind, Model, Resource, Spec, Status
from atoll.core.store import Create, MarkDeleting, Scope
from atoll.governance.data_keys import REFERENCE, VARIABLE

DIGEST = "^sha256:[0-9a-f]{64}$"
Purpose = Literal["batch", "fine-tune", "user_data", "assistants", "vision", "evals", "batch_output"]


class FileSpec(Spec):
    """One immutable file."""

    filename: str = Field(max_length=255, description="Name it was uploaded by.")
    purpose: Purpose = Field(description="What it is for.")
    digest: str = Field(description="Blob digest.", pattern=DIGEST)
    sealed: bool = Field(False, description="Whether the blob is sealed with the project's key.")
    size_bytes: int = Field(ge=0, description="Size, bytes.")
    formerly: list[str] = Field(default_factory=list, description="Digests it had under older keys, in hex.")
    expires_at: float | None = Field(None, description="Unix time at which it goes by itself.")


class FileStatus(Status):
    """Files are ready as soon as they exist."""


FILE = KINDS.register(
    Kind(
        "File",
        "files",
        "A file uploaded through /v1/files, or made by a batch.",
        FileSpec,
        FileStatus,
        columns=(("FILENAME", "spec.filename"), ("PURPOSE", "spec.purpose"), ("BYTES", "spec.size_bytes")),
        is_internal=True,
    )
)


class UploadPart(Model):
    """One part of an upload."""

    id: str = Field(description="Its name.")
    digest: str = Field(description="Blob digest.", pattern=DIGEST)
    sealed: bool = Field(False, description="Whether the blob is sealed with the project's key.")
    size_bytes: int = Field(ge=0, description="Size, bytes.")


class UploadSpec(Spec):
    """A file that comes in parts, in any order and side by side."""

    filename: str = Field(max_length=255, description="Name of the file to be.")
    purpose: Purpose = Field(description="What it is for.")
    size_bytes: int = Field(ge=1, description="Size all parts have together, bytes.")
    expires_at: float = Field(description="Unix time at which it goes by itself.")
    file_expires_s: float | None = Field(None, gt=0, description="Lifetime of the file; empty keeps it.")
    parts: list[UploadPart] = Field(default_factory=list, description="Parts that have come.")
    state: Literal["pending", "completed", "cancelled"] = Field("pending", description="Where it stands.")
    file: str = Field("", description="The file that was made of it.")


class UploadStatus(Status):
    """Uploads are ready as soon as they exist."""


UPLOAD = KINDS.register(
    Kind(
        "Upload",
        "uploads",
        "A file that comes in parts through /v1/uploads.",
        UploadSpec,
        UploadStatus,
        columns=(("FILENAME", "spec.filename"), ("BYTES", "spec.size_bytes"), ("STATE", "spec.state")),
        is_internal=True,
    )
)


class FileController(Controller):
    """Ends files when their time has come."""

    name = "files"
    owns = "File"

    def reconcile(self, key: Key, world: Writer) -> float | None:
        file = world.read(key)
        if file is None or file.is_deleting or file.spec["expires_at"] is None:
            return None
        left_s = float(file.spec["expires_at"]) - world.clock.now()
        if left_s > 0:
            return left_s
        world.write(MarkDeleting(file, "Expired"))
        return None


class UploadController(FileController):
    """Ends uploads when their time has come, whether or not a file was made of them."""

    name = "uploads"
    owns = "Upload"


def new_file_id() -> str:
    """A fresh name of a file."""
    return f"file-{secrets.token_hex(12)}"


def create_file(
    project: str,
    name: str,
    filename: str,
    purpose: Purpose,
    *,
    digest: str,
    size_bytes: int,
    sealed: bool = False,
    expires_at: float | None = None,
) -> Create:
    """The write that makes a file of a stored blob."""
    wanted = {"filename": filename, "purpose": purpose, "digest": digest, "size_bytes": size_bytes}
    spec = FILE.parse_spec(wanted | {"sealed": sealed, "expires_at": expires_at})
    return Create("File", project, name, spec, FileStatus(phase="ready").model_dump(mode="json"))


def is_sealed(file: Resource) -> bool:
    """Whether the blob of a file, of this version of the platform or an older one, is sealed."""
    return bool(file.spec.get("sealed"))


def digests_of(file: Resource) -> list[str]:
    """The digest of a file, and those it had before it was sealed anew."""
    return [file.spec["digest"], *(f"sha256:{name}" for name in file.spec.get("formerly", ()))]


def find_file(scope: Scope, project: str, digest: str) -> Resource | None:
    """A living file of the project that has, or had under an older key, this blob: its own digest says where it is."""
    for file in scope.find_all("File"):
        if file.project == project and digest in digests_of(file) and not file.is_deleting:
            return file
    return None


def give_key(workload: dict[str, Any]) -> None:
    """Let the tasks of an engine's workload open the sealed uploads of its project."""
    role = workload["roles"][0]
    role["secrets"] = {**role.get("secrets", {}), VARIABLE: REFERENCE}
