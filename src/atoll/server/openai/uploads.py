"""Routes of uploads: a file comes in parts, side by side and in any order, that are joined at the end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from atoll.core.errors import Conflict, Invalid, NotFound, TooLarge
from atoll.core.resources import Resource
from atoll.core.sealed import SealedBlob
from atoll.core.store import Create, SetSpec, Write
from atoll.data.files import UPLOAD, Purpose, UploadStatus, create_file, new_file_id
from atoll.governance.uploads import Uploads
from atoll.server.access import CentreOf, Tenant
from atoll.server.centre import Centre
from atoll.server.openai.batches import ExpiresAfter
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.files import FileObject, file_object, plain_name, read_form, store_stream
from atoll.server.openai.project import Member, find

router = APIRouter(prefix="/v1/uploads", tags=["files"], responses=RESPONSES)

LIFETIME_S = 3_600.0
PART_BYTES_MAX = 64 << 20
PARTS_MAX = 1_000
READ_BYTES = 4 << 20

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary", "description": "The bytes."}},
                }
            }
        },
    }
}


class NewUpload(BaseModel):
    """The file to be."""

    model_config = ConfigDict(extra="forbid")

    filename: str = Field(min_length=1, max_length=255)
    purpose: Purpose
    bytes: int = Field(ge=1, description="Size all parts have together.")
    mime_type: str = Field(max_length=200)
    expires_after: ExpiresAfter | None = None


class Completion(BaseModel):
    """How the parts are joined."""

    model_config = ConfigDict(extra="forbid")

    part_ids: list[str] = Field(min_length=1, max_length=PARTS_MAX, description="The parts, in order.")
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$", description="Checksum the file must have.")


class UploadObject(BaseModel):
    """One upload."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled"]
    file: FileObject | None = None


class PartObject(BaseModel):
    """One part."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


@router.post("")
def begin(centre: CentreOf, tenant: Member, wanted: NewUpload) -> UploadObject:
    """Begin an upload; it lasts an hour."""
    if wanted.bytes > centre.settings.file_bytes_max:
        raise TooLarge(f"a file may have {centre.settings.file_bytes_max} bytes", field="bytes")
    if wanted.purpose == "batch_output":
        raise Invalid("purpose batch_output is the platform's own", field="purpose")
    spec = UPLOAD.parse_spec(
        {
            "filename": plain_name(wanted.filename),
            "purpose": wanted.purpose,
            "size_bytes": wanted.bytes,
            "expires_at": centre.clock.now() + LIFETIME_S,
            "file_expires_s": wanted.expires_after.seconds if wanted.expires_after else None,
        }
    )
    name = f"upload-{secrets.token_hex(12)}"
    status = UploadStatus(phase="ready").model_dump(mode="json")
    tenant.scope.write([Create("Upload", tenant.project, name, spec, status)])
    return _object(tenant, tenant.scope.get("Upload", name))


@router.post("/{name}/parts", openapi_extra=_FORM)
async def add_part(centre: CentreOf, tenant: Member, request: Request, name: str) -> PartObject:
    """Add a part of up to 64 MiB; the order is said at the end."""
    await run_in_threadpool(_pending, tenant, name)
    form = await read_form(request, PART_BYTES_MAX, "data")
    try:
        data = form.get("data")
        if not isinstance(data, UploadFile):
            raise Invalid("data is missing, or is not a file", field="data", hint="send multipart/form-data")
        sealed = await run_in_threadpool(centre.sealed_blobs, tenant.project)
        blob = await run_in_threadpool(store_stream, sealed, data.file, PART_BYTES_MAX)
    finally:
        await form.close()
    name_of_part = f"part-{secrets.token_hex(12)}"
    part = {"id": name_of_part, "digest": blob.digest, "sealed": True, "size_bytes": blob.size_bytes}
    await run_in_threadpool(_note_part, tenant, name, part)
    return PartObject(id=name_of_part, created_at=int(centre.clock.now()), upload_id=name)


@router.post("/{name}/complete")
def complete(centre: CentreOf, tenant: Member, name: str, wanted: Completion) -> UploadObject:
    """Join the parts to a file."""
    upload = _pending(tenant, name)
    blob = _joined(centre, upload, wanted)
    file = new_file_id()
    kept_s = upload.spec["file_expires_s"]
    writes: list[Write] = [
        create_file(
            tenant.project,
            file,
            upload.spec["filename"],
            upload.spec["purpose"],
            digest=blob.digest,
            size_bytes=blob.size_bytes,
            sealed=True,
            expires_at=None if kept_s is None else centre.clock.now() + kept_s,
        ),
        SetSpec(upload, upload.spec | {"state": "completed", "file": file, "parts": []}, reason="Completed"),
    ]
    tenant.scope.write(writes)
    return _object(tenant, tenant.scope.get("Upload", name))


@router.post("/{name}/cancel")
def cancel(tenant: Member, name: str) -> UploadObject:
    """Drop an upload."""
    upload = _pending(tenant, name)
    tenant.scope.write([SetSpec(upload, upload.spec | {"state": "cancelled", "parts": []}, reason="Cancelled")])
    return _object(tenant, tenant.scope.get("Upload", name))


def _pending(tenant: Tenant, name: str) -> Resource:
    upload = find(tenant, "Upload", name, "upload")
    if upload.spec["state"] != "pending":
        raise Conflict(f"upload {name} is {upload.spec['state']}", hint="begin another")
    return upload


def _note_part(tenant: Tenant, name: str, part: dict[str, Any]) -> None:
    """Add the part, whoever else adds one at the same time."""
    while True:
        upload = _pending(tenant, name)
        if len(upload.spec["parts"]) == PARTS_MAX:
            raise TooLarge(f"an upload may have {PARTS_MAX} parts", hint="send larger parts")
        try:
            changed = upload.spec | {"parts": [*upload.spec["parts"], part]}
            tenant.scope.write([SetSpec(upload, changed, reason="")])
        except Conflict:
            continue
        return


def _joined(centre: Centre, upload: Resource, wanted: Completion) -> SealedBlob:
    known = {part["id"]: part for part in upload.spec["parts"]}
    for part_id in wanted.part_ids:
        if part_id not in known:
            raise NotFound(f"upload {upload.name} has no part {part_id[:100]!r}", field="part_ids")
    parts = [known[part_id] for part_id in wanted.part_ids]
    size_bytes = sum(part["size_bytes"] for part in parts)
    if size_bytes != upload.spec["size_bytes"]:
        words = f"the parts have {size_bytes} bytes together, the upload was to have {upload.spec['size_bytes']}"
        raise Invalid(words, field="part_ids", hint="name every part once, in order")
    checksum = hashlib.md5(usedforsecurity=False)
    plain = _bytes(centre.uploads(upload.project), parts, checksum)
    blob = centre.sealed_blobs(upload.project).put_stream(plain, centre.settings.file_bytes_max)
    if wanted.md5 is not None and checksum.hexdigest() != wanted.md5.lower():
        raise Invalid(f"the file's MD5 is {checksum.hexdigest()}, not {wanted.md5}", field="md5", hint="send it again")
    return blob


def _bytes(uploads: Uploads, parts: list[dict[str, Any]], checksum: Any) -> Iterator[bytes]:
    for part in parts:
        with uploads.open(part["digest"], is_sealed=part.get("sealed", False)) as stream:
            while chunk := stream.read(READ_BYTES):
                checksum.update(chunk)
                yield chunk


def _object(tenant: Tenant, upload: Resource) -> UploadObject:
    spec = upload.spec
    file = tenant.scope.find("File", spec["file"]) if spec["file"] else None
    return UploadObject(
        id=upload.name,
        bytes=spec["size_bytes"],
        created_at=int(upload.created_at),
        expires_at=int(spec["expires_at"]),
        filename=spec["filename"],
        purpose=spec["purpose"],
        status=spec["state"],
        file=file_object(file) if file else None,
    )
