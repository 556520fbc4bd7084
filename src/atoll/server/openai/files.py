"""Routes of files: uploaded as multipart forms, sealed into the blob store, listed, read, deleted.

The form's file is spooled in TMPDIR while it comes; nothing else of it is written in clear.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Annotated, Literal, get_args

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from atoll.core.blobs import CHUNK_BYTES
from atoll.core.errors import Invalid, TooLarge
from atoll.core.files import disk_full_named
from atoll.core.resources import Resource
from atoll.core.sealed import SealedBlob, SealedBlobs
from atoll.core.store import MarkDeleting
from atoll.data.files import Purpose, create_file, is_sealed, new_file_id
from atoll.server.access import CentreOf
from atoll.server.datasets import part_of
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.pages import After, Order, Page, cut, page
from atoll.server.openai.project import Member, Viewer, find

router = APIRouter(prefix="/v1/files", tags=["files"], responses=RESPONSES)

PART_BYTES = 8 << 20
FORM_BYTES = 1 << 20
"""Allowed beside the file itself: boundaries and fields."""

EXPIRES_S = (3_600, 2_592_000)
UPLOADED: tuple[str, ...] = tuple(p for p in get_args(Purpose) if p != "batch_output")

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The bytes."},
                        "purpose": {"type": "string", "enum": list(UPLOADED), "description": "What it is for."},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": EXPIRES_S[0],
                            "maximum": EXPIRES_S[1],
                        },
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """One file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int = Field(description="Size.")
    created_at: int = Field(description="Unix time.")
    expires_at: int | None = Field(None, description="Unix time at which it goes by itself.")
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: bool = True


@router.post("", openapi_extra=_FORM)
async def create(centre: CentreOf, tenant: Member, request: Request) -> FileObject:
    """Upload a file."""
    form = await read_form(request, centre.settings.file_bytes_max)
    try:
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise Invalid("file is missing, or is not a file", field="file", hint="send multipart/form-data")
        purpose = _purpose(form.get("purpose"))
        expires_in_s = _expires_in_s(form)
        sealed = await run_in_threadpool(centre.sealed_blobs, tenant.project)
        blob = await run_in_threadpool(store_stream, sealed, upload.file, centre.settings.file_bytes_max)
        filename = plain_name(upload.filename)
    finally:
        await form.close()
    expires_at = None if expires_in_s is None else centre.clock.now() + expires_in_s
    name = new_file_id()
    write = create_file(
        tenant.project,
        name,
        filename,
        purpose,
        digest=blob.digest,
        size_bytes=blob.size_bytes,
        sealed=True,
        expires_at=expires_at,
    )
    await run_in_threadpool(tenant.scope.write, [write])
    return file_object(await run_in_threadpool(tenant.scope.get, "File", name))


@router.get("")
def list_files(
    tenant: Viewer,
    purpose: Annotated[str, Query(max_length=64, description="Only files for this.")] = "",
    after: After = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="At most so many.")] = 10_000,
    order: Order = "desc",
) -> Page:
    """The project's files."""
    found = [f for f in tenant.scope.find_all("File") if not f.is_deleting and purpose in ("", f.spec["purpose"])]
    found.sort(key=lambda f: (f.created_at, f.version), reverse=order == "desc")
    shown, has_more = cut(found, lambda f: f.name, after, limit)
    return page([file_object(f).model_dump() for f in shown], has_more)


@router.get("/{name}")
def read(tenant: Viewer, name: str) -> FileObject:
    """One file's facts."""
    return file_object(find(tenant, "File", name, "File object"))


@router.delete("/{name}")
def delete(tenant: Member, name: str) -> Deleted:
    """Delete a file; what uses it goes on with its bytes."""
    tenant.scope.write([MarkDeleting(find(tenant, "File", name, "File object"))])
    return Deleted(id=name, object="file")


@router.get(
    "/{name}/content",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The bytes."},
        206: {"content": {"application/octet-stream": {}}, "description": "The bytes of the range."},
    },
)
def content(
    centre: CentreOf, tenant: Viewer, name: str, range_header: Annotated[str, Header(alias="Range")] = ""
) -> StreamingResponse:
    """The bytes of a file; `Range: bytes=A-B` gives some of them."""
    file = find(tenant, "File", name, "File object")
    size_bytes = file.spec["size_bytes"]
    start, stop = part_of(range_header, size_bytes)
    headers = {"Content-Length": str(stop - start), "Accept-Ranges": "bytes"}
    if range_header:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    stream = centre.uploads(tenant.project).open(file.spec["digest"], is_sealed=is_sealed(file))
    status = 206 if range_header else 200
    return StreamingResponse(_chunks(stream, start, stop), status, headers, media_type="application/octet-stream")


def file_object(file: Resource) -> FileObject:
    """A file on the wire."""
    expires_at = file.spec["expires_at"]
    return FileObject(
        id=file.name,
        bytes=file.spec["size_bytes"],
        created_at=int(file.created_at),
        expires_at=None if expires_at is None else int(expires_at),
        filename=file.spec["filename"],
        purpose=file.spec["purpose"],
    )


async def read_form(request: Request, bytes_max: int, param: str = "file") -> FormData:
    """The form of a request: one file, spooled to disk, and a few fields. TooLarge beyond `bytes_max`."""
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        raise Invalid(f"the body is {content_type[:80]!r}", field=param, hint="send multipart/form-data")
    if int(request.headers.get("content-length") or 0) > bytes_max + FORM_BYTES:
        raise _too_large(bytes_max)
    parser = MultiPartParser(request.headers, _bounded(request.stream(), bytes_max), max_files=1, max_fields=32)
    try:
        with disk_full_named(Path(tempfile.gettempdir())):
            return await parser.parse()
    except (MultiPartException, KeyError) as error:
        words = getattr(error, "message", None) or f"has no {error}"
        raise Invalid(f"the form cannot be read: {words}", field=param, hint="send multipart/form-data") from error


def store_stream(blobs: SealedBlobs, stream: IO[bytes], bytes_max: int) -> SealedBlob:
    """The bytes of `stream` as a sealed blob, little of them in memory at a time; TooLarge beyond `bytes_max`."""
    return blobs.put_stream(iter(lambda: stream.read(PART_BYTES), b""), bytes_max)


async def _bounded(stream: AsyncIterator[bytes], bytes_max: int) -> AsyncGenerator[bytes, None]:
    left = bytes_max + FORM_BYTES
    async for chunk in stream:
        left -= len(chunk)
        if left < 0:
            raise _too_large(bytes_max)
        yield chunk


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"a file may have {bytes_max} bytes", hint="split it, or raise the setting file_bytes_max")


def _purpose(value: object) -> Purpose:
    if not isinstance(value, str) or value not in UPLOADED:
        raise Invalid(f"purpose cannot be {value!r:.60}", field="purpose", hint=f"one of: {', '.join(UPLOADED)}")
    return value  # type: ignore[return-value]


def plain_name(name: str | None) -> str:
    """A name without a path and without what terminals would obey."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "", (name or "").replace("\\", "/").rpartition("/")[2])
    return plain.encode(errors="replace").decode()[:255] or "file"


def _expires_in_s(form: FormData) -> int | None:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise Invalid(f"expires_after.anchor cannot be {anchor!r:.40}", field="expires_after", hint="created_at")
    if not isinstance(seconds, str) or not seconds.isdecimal() or not EXPIRES_S[0] <= int(seconds) <= EXPIRES_S[1]:
        hint = f"{EXPIRES_S[0]} to {EXPIRES_S[1]}"
        raise Invalid(f"expires_after.seconds cannot be {seconds!r:.40}", field="expires_after", hint=hint)
    return int(seconds)


def _chunks(stream: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    with stream:
        stream.seek(start)
        while start < stop and (chunk := stream.read(min(CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk
