"""Routes of datasets: versions are read shard by shard, made of what was uploaded, and traced.

A version is reached only through the project that holds it: a digest of another project's shard opens nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Annotated, Any

import orjson
from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from atoll.core.blobs import CHUNK_BYTES, BlobStore
from atoll.core.errors import Conflict, Invalid, NotFound
from atoll.core.resources import KINDS, Resource
from atoll.data.layout import members, shard_at
from atoll.data.lineage import UNTOLD, Lineage
from atoll.data.manifest import Manifest, Shard, decode_manifest, read_manifest
from atoll.data.rights import Rights
from atoll.data.versions import MAIN, make_version, parents_of, resolve
from atoll.server.access import CentreOf, Reader, Tenant, Writer, kind_in
from atoll.server.api import Body

router = APIRouter(prefix="/api/v1/projects/{project}")

ATTEMPTS = 5
MISSING_SHOWN = 50
MANIFESTS_KEPT = 4
VERSION_HEADER = "Atoll-Version"


class NewVersion(Body):
    """A version to be: its manifest as text; the shards it names have been uploaded."""

    manifest: str = Field(max_length=256 << 20)
    branch: str = Field(MAIN, max_length=64)
    parents: list[str] = Field(default_factory=list, max_length=1_000)


@router.get("/datasetversions/{reference}/manifest")
def read_version(centre: CentreOf, tenant: Reader, reference: str) -> Response:
    """The manifest of a version, by its name, its dataset's, DATASET@BRANCH or DATASET@TAG."""
    version = version_of(tenant, reference)
    data = centre.blobs.read(version.spec["manifest"])
    headers = {VERSION_HEADER: version.name, "ETag": f'"{version.spec["manifest"]}"'}
    return Response(data, headers=headers, media_type="application/json")


@router.get("/datasetversions/{reference}/files/{path:path}", response_model=None)
def read_shard(
    centre: CentreOf,
    tenant: Reader,
    reference: str,
    path: str,
    range_header: Annotated[str, Header(alias="Range")] = "",
) -> StreamingResponse:
    """One shard, SPLIT/00000.parquet; `Range: bytes=A-B` or `bytes=A-` gives a part."""
    version = version_of(tenant, reference)
    shard = _shard(centre.blobs, version.spec["manifest"], path)
    size_bytes = centre.blobs.size_bytes(shard.digest)
    start, stop = part_of(range_header, size_bytes)
    headers = {"Content-Length": str(stop - start), "Accept-Ranges": "bytes", "ETag": f'"{shard.digest}"'}
    if range_header:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    stream = centre.blobs.open(shard.digest)
    return StreamingResponse(
        _chunks(stream, start, stop), 206 if range_header else 200, headers, media_type="application/octet-stream"
    )


@router.post("/datasets/{name}/versions")
def add_version(centre: CentreOf, tenant: Writer, name: str, wanted: NewVersion) -> dict[str, Any]:
    """Make a version of shards the project sent, or has in a version; 400 lists those that are missing.

    The branch's newest is not made twice.
    """
    data = _bytes_of(wanted.manifest)
    manifest = decode_manifest(data)
    _require_shards(Rights(centre.store.everything(), centre.blobs, tenant.project), centre.blobs, manifest)
    digest = centre.blobs.put_bytes(data).digest
    for _ in range(ATTEMPTS):
        parents = parents_of(tenant.scope, tenant.project, wanted.parents)
        made = make_version(
            tenant.scope, tenant.project, name, digest, branch=wanted.branch, parents=parents, counts=manifest.counts
        )
        try:
            tenant.scope.write(made.writes)
        except Conflict:
            continue
        return {"version": made.version, "created": bool(made.writes), "manifest": digest}
    raise Conflict(f"dataset {name!r} gets many versions at once", hint="try again")


@router.get("/lineage/{kind}/{name}")
def read_lineage(tenant: Reader, kind: str, name: str) -> dict[str, Any]:
    """What a thing came from (`up`) and what came from it (`down`); kind `any` finds it by name alone."""
    lineage = Lineage(r for k in KINDS if k.name not in UNTOLD for r in tenant.scope.find_all(k.name))
    named = "" if kind == "any" else kind_in(kind, tenant.project).name
    id_ = _meant(tenant, lineage, named, name) if named in ("", "Dataset") else (named, name)
    return {"up": lineage.up(*id_).to_dict(), "down": lineage.down(*id_).to_dict()}


def _shard(blobs: BlobStore, manifest: str, path: str) -> Shard:
    """The shard at `path`; NotFound says what there is."""
    found = shards_of(blobs, manifest).get(path)
    return shard_at(read_manifest(blobs, manifest), path) if found is None else found


@lru_cache(maxsize=MANIFESTS_KEPT)
def shards_of(blobs: BlobStore, manifest: str) -> dict[str, Shard]:
    """The shards of a manifest by path. Kept for the next shard of a transfer: one of many is slow to read."""
    return dict(members(read_manifest(blobs, manifest)))


def version_of(tenant: Tenant, reference: str) -> Resource:
    """The version of the tenant's own project that `reference` stands for; NotFound when there is none."""
    version = resolve(tenant.scope, tenant.project, reference)
    if version is None:
        raise NotFound(f"dataset {reference!r} has no ready version", hint="wait until it has one")
    return version


def part_of(text: str, size_bytes: int) -> tuple[int, int]:
    """(start, stop) of a Range header; the whole without one."""
    if not text:
        return 0, size_bytes
    match = re.fullmatch(r"bytes=(\d{1,18})-(\d{1,18})?", text)
    start, last = (int(match[1]), int(match[2] or size_bytes)) if match else (1, 0)
    if start > last or start > size_bytes:
        raise Invalid(f"Range {text!r:.80} cannot be served of {size_bytes} bytes", field="Range", hint="bytes=A-B")
    return start, min(last + 1, size_bytes)


def _meant(tenant: Tenant, lineage: Lineage, kind: str, name: str) -> tuple[str, str]:
    """A dataset with a version goes before all else of its name: runs are often called like what they make."""
    is_dataset = tenant.scope.find("Dataset", name) is not None
    if is_dataset and (version := resolve(tenant.scope, tenant.project, name)) is not None:
        return "DatasetVersion", version.name
    found = lineage.find(name) if not kind else None
    return found if found is not None else ("DatasetVersion", version_of(tenant, name).name)


def _bytes_of(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            f"the manifest is no text: {error}", field="manifest", hint="send it as it was exported"
        ) from error


def _require_shards(rights: Rights, blobs: BlobStore, manifest: Manifest) -> None:
    """Invalid lists what the project has not sent, alike whether somebody else has, or names a wrong size."""
    shards = list(members(manifest))
    lacking = rights.lacking(shard.digest for _, shard in shards)
    missing = [path for path, shard in shards if shard.digest in lacking]
    for path, shard in shards:
        if shard.digest not in lacking and (size_bytes := blobs.size_bytes(shard.digest)) != shard.bytes:
            words = f"{path} has {size_bytes} bytes, the manifest says {shard.bytes}"
            raise Invalid(words, field="manifest", hint="export it again")
    if missing:
        words = f"{len(missing)} files of the manifest were not uploaded, first {missing[0]}"
        raise Invalid(words, field="manifest", hint="upload them, then try again", missing=missing[:MISSING_SHOWN])


def _chunks(stream: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    with stream:
        stream.seek(start)
        left = stop - start
        while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def certificate_of(blobs: BlobStore, erasure: Resource) -> dict[str, Any]:
    """The certificate of an erasure that is done; NotFound while it is not."""
    digest = erasure.status.get("certificate")
    if not digest:
        why = erasure.status.get("reason") or erasure.phase
        raise NotFound(f"erasure {erasure.name!r} has no certificate yet: {why}", hint="wait until it has succeeded")
    found: dict[str, Any] = orjson.loads(blobs.read(digest))
    return found


@router.get("/erasures/{name}/certificate")
def read_certificate(centre: CentreOf, tenant: Reader, name: str) -> dict[str, Any]:
    """What an erasure did, as a document to keep."""
    return certificate_of(centre.blobs, tenant.scope.get("Erasure", name))
