"""Routes of blobs: resumable upload of content-addressed bytes; download for administrators alone.

A digest gives nobody a right to the bytes: tenants read what they may through what refers to it, as files of /v1/files
and of dataset versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from atoll.core.blobs import CHUNK_BYTES
from atoll.core.errors import Forbidden, IntegrityError, Invalid, TooLarge
from atoll.data.rights import holder_of
from atoll.server.access import CentreOf, Reader, Writer
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1/projects/{project}")

PART_BYTES_MAX = 64 << 20


class Finished(Body):
    """The name the uploaded bytes must have."""

    digest: str


@router.post("/uploads")
def begin_upload(centre: CentreOf, _: Writer) -> dict[str, Any]:
    """A new upload; send parts with PATCH, then POST its digest."""
    return {"id": centre.blobs.upload().id, "size_bytes": 0}


@router.get("/uploads/{upload_id}")
def resume_upload(centre: CentreOf, _: Writer, upload_id: str) -> dict[str, Any]:
    """How far the upload has come: go on from `size_bytes`."""
    upload = centre.blobs.upload(upload_id)
    return {"id": upload.id, "size_bytes": upload.size_bytes}


@router.patch("/uploads/{upload_id}")
async def append_upload(
    centre: CentreOf, _: Writer, request: Request, upload_id: str, upload_offset: Annotated[int, Header(ge=0)]
) -> dict[str, Any]:
    """Add the body at `Upload-Offset`; 409 tells the right offset when it is another."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > PART_BYTES_MAX:
            raise TooLarge(f"a part may have {PART_BYTES_MAX} bytes", hint="send smaller parts")
    upload = centre.blobs.upload(upload_id)
    size_bytes = await run_in_threadpool(upload.append, upload_offset, bytes(data))
    return {"id": upload.id, "size_bytes": size_bytes}


@router.post("/uploads/{upload_id}")
def finish_upload(centre: CentreOf, tenant: Writer, upload_id: str, finished: Finished) -> dict[str, Any]:
    """Make the blob; refused when the bytes are not those of `digest`. The project may name them by it from then on."""
    try:
        blob = centre.blobs.upload(upload_id).commit(finished.digest)
    except IntegrityError as error:  # of the sender's own making
        raise Invalid(error.message, field="digest", hint=error.hint, **error.details) from error
    centre.blobs.note_holder(blob.digest, holder_of(centre.store.everything(), tenant.project))
    return {"digest": blob.digest, "size_bytes": blob.size_bytes}


@router.get("/blobs/{digest}", response_model=None)
def download(
    centre: CentreOf, tenant: Reader, digest: str, range_header: Annotated[str, Header(alias="Range")] = ""
) -> StreamingResponse:
    """The bytes of a blob as they are stored, for administrators; `Range: bytes=N-` goes on from N."""
    if not tenant.identity.is_admin:
        raise Forbidden("blobs are read by their digests by administrators only", hint="read the file or the version")
    size_bytes = centre.blobs.size_bytes(digest)
    start = _start_of(range_header, size_bytes)
    headers = {"Content-Length": str(size_bytes - start), "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
    if range_header:
        headers["Content-Range"] = f"bytes {start}-{size_bytes - 1}/{size_bytes}"
    stream = centre.blobs.open(digest)
    return StreamingResponse(
        _chunks(stream, start), 206 if range_header else 200, headers, media_type="application/octet-stream"
    )


def _start_of(text: str, size_bytes: int) -> int:
    if not text:
        return 0
    match = re.fullmatch(r"bytes=(\d+)-", text)
    if not match or int(match[1]) > size_bytes:
        raise Invalid(f"Range {text!r} cannot be served of {size_bytes} bytes", field="Range", hint="bytes=N-")
    return int(match[1])


def _chunks(stream: IO[bytes], start: int) -> Iterator[bytes]:
    with stream:
        stream.seek(start)
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
