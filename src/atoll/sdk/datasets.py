"""Datasets of the platform from outside: read by ranges, exported, imported, tagged, traced, erased from.

Transfers resume: an export goes on where it broke off, an import sends no shard twice. Every file is checked against
its digest on its way in and out. What stands in the shards is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from atoll.core.blobs import digest_of_file
from atoll.core.errors import Conflict, IntegrityError, Invalid, NotFound
from atoll.core.files import disk_full_named, read_json, write_bytes, write_json
from atoll.core.resources import Resource, check_name
from atoll.data.archive import Folder, Opened, Tar, check_shard
from atoll.data.layout import MANIFEST, members
from atoll.data.manifest import Manifest, Shard, decode_manifest
from atoll.sdk.errors import Unreachable

if TYPE_CHECKING:
    from atoll.sdk.client import Client

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

PART_BYTES = 8 << 20
READ_AHEAD_BYTES = 1 << 20
ATTEMPTS = 5
STATE_SUFFIX = ".upload.json"


class Datasets:
    """The datasets of one project."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connection = client.connection

    def open(self, reference: str) -> Remote:
        """The version `reference` stands for, to be read where it lies."""
        return Remote(self, reference)

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """(name of the version, its manifest) for DATASET.vN, DATASET, DATASET@BRANCH or DATASET@TAG."""
        answer = self._connection.fetch(f"{self._version(reference)}/manifest")
        return answer.headers["Atoll-Version"], answer.content

    def read(self, version: str, path: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a shard."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        return self._connection.fetch(self._file(version, path), headers=headers).content

    def lineage(self, name: str, kind: str = "any") -> dict[str, Any]:
        """{"up", "down"}: what the thing called `name` came from, and what came from it."""
        found: dict[str, Any] = self._connection.call("GET", self._path(f"lineage/{quote(kind)}/{quote(name)}"))
        return found

    def tag(self, dataset: str, tag: str, reference: str | None) -> Resource:
        """Let DATASET@TAG stand for what `reference` stands for now; None takes the tag away."""
        version = None if reference is None else self.manifest(reference)[0]
        for _ in range(ATTEMPTS):
            found = self._client.get("Dataset", dataset)
            if version is not None and version not in found.status.get("versions", []):
                raise Invalid(f"{version} is no version of {dataset!r}", field="version", hint=f"{dataset}.vN")
            tags = {name: value for name, value in found.spec.get("tags", {}).items() if name != tag}
            if version is None and len(tags) == len(found.spec.get("tags", {})):
                raise NotFound(f"dataset {dataset!r} has no tag {tag!r}", hint=f"it has: {', '.join(tags) or 'none'}")
            wanted = found.spec | {"tags": tags | ({tag: version} if version else {})}
            try:
                return self._client.put("Dataset", dataset, wanted, labels=found.labels, version=found.version)
            except Conflict:
                continue
        raise Conflict(f"dataset {dataset!r} changes all the time", hint="try again")

    def certificate(self, erasure: str) -> dict[str, Any]:
        """The certificate of an erasure that is done."""
        found: dict[str, Any] = self._connection.call("GET", self._path(f"erasures/{quote(erasure)}/certificate"))
        return found

    def verify(self, certificate: Mapping[str, Any]) -> list[str]:
        """What of a certificate the platform does not bear out, in words; nothing when all holds."""
        name = certificate["erasure"]
        found = []
        if certificate["project"] != self._client.project:
            return [f"it is of project {certificate['project']!r}, this is {self._client.project!r}"]
        try:
            if self.certificate(name)["digest"] != certificate["digest"]:
                found.append(f"the platform's own certificate of {name} is another")
        except NotFound:
            found.append(f"the platform knows no erasure {name}")
        for version in certificate["versions"]:
            present = self._client.find("DatasetVersion", version["name"])
            if present is None or present.spec["manifest"] == version["after"]:
                continue
            later = present.spec.get("erasures", [])
            if name not in later or later[-1] == name:
                found.append(f"{version['name']} has manifest {present.spec['manifest']}, not {version['after']}")
        return found

    # out

    def export(self, reference: str, target: Path, progress: Progress = lambda done, total: None) -> str:
        """Write a version into a folder, or into TARGET.tar; the version's name. A broken export goes on."""
        version, data = self.manifest(reference)
        manifest = decode_manifest(data)
        total_bytes = sum(shard.bytes for _, shard in members(manifest))
        if target.suffix == ".tar":
            self._export_tar(version, data, manifest, target, _Sum(progress, total_bytes))
        else:
            self._export_folder(version, data, manifest, target, _Sum(progress, total_bytes))
        return version

    def _export_folder(self, version: str, data: bytes, manifest: Manifest, target: Path, told: _Sum) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if not _is_ours(target, data):
            hint = "choose an empty folder, or the one of the export that broke off"
            raise Invalid(f"{target} holds something else", field="target", hint=hint)
        write_bytes(target / f".{MANIFEST}", data)
        for path, shard in members(manifest):
            file = target / path
            file.parent.mkdir(exist_ok=True)
            if not (file.exists() and digest_of_file(file) == shard.digest):
                self._download(version, path, shard, file)
            told.add(shard.bytes)
        os.replace(target / f".{MANIFEST}", target / MANIFEST)

    def _export_tar(self, version: str, data: bytes, manifest: Manifest, target: Path, told: _Sum) -> None:
        part = target.with_name(target.name + ".part")
        with disk_full_named(part), tarfile.open(part, "w") as tar:
            tar.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))
            for path, shard in members(manifest):
                with self._checked(version, path, shard) as stream:
                    tar.addfile(_member(path, shard.bytes), stream)
                told.add(shard.bytes)
        os.replace(part, target)

    def _download(self, version: str, path: str, shard: Shard, file: Path) -> None:
        """Fetch a shard to `file`, on from what is in FILE.part."""
        part = file.with_name(file.name + ".part")
        for attempt in range(ATTEMPTS):
            start = part.stat().st_size if part.exists() else 0
            try:
                if start < shard.bytes:
                    self._append(version, path, start, part)
            except Unreachable:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            if digest_of_file(part) == shard.digest:
                os.replace(part, file)
                return
            part.unlink()
        raise _damaged(path)

    def _append(self, version: str, path: str, start: int, part: Path) -> None:
        headers = {"Range": f"bytes={start}-"}
        with (
            self._connection.stream("GET", self._file(version, path), headers=headers) as answer,
            disk_full_named(part),
            part.open("ab") as file,
        ):
            for chunk in answer.iter_bytes():
                file.write(chunk)

    @contextmanager
    def _checked(self, version: str, path: str, shard: Shard) -> Iterator[_Checked]:
        with self._connection.stream("GET", self._file(version, path)) as answer:
            stream = _Checked(answer.iter_bytes())
            yield stream
        if stream.digest != shard.digest:
            raise _damaged(path)

    # in

    def import_from(
        self,
        archive: Folder | Tar,
        dataset: str,
        *,
        branch: str = "main",
        parents: Sequence[str] = (),
        progress: Progress = lambda done, total: None,
    ) -> dict[str, Any]:
        """Make a version of an export; {"version", "created"}. Every file is checked before it is sent.

        IntegrityError names a damaged file, Invalid a name no dataset can have; nothing is made then, nor sent. What
        was sent is remembered beside the archive.
        """
        check_name(dataset)
        shards = list(members(archive.manifest))
        told = _Sum(progress, sum(shard.bytes for _, shard in shards))
        sent = _Sent(Path(archive.name.rstrip("/") + STATE_SUFFIX), self._client)
        body = {"manifest": archive.data.decode(), "branch": branch, "parents": list(parents)}
        for path, shard in shards:
            check_shard(archive, path, shard)
        for path, shard in shards:
            if shard.digest not in sent.done:
                self._upload(archive, path, shard, sent)
            told.add(shard.bytes)
        made = self._make(dataset, body, archive, shards, sent)
        sent.forget()
        return made

    def _make(
        self, dataset: str, body: Mapping[str, Any], archive: Opened, shards: list[tuple[str, Shard]], sent: _Sent
    ) -> dict[str, Any]:
        path = self._path(f"datasets/{quote(dataset, safe='')}/versions")
        while True:
            try:
                made: dict[str, Any] = self._connection.call("POST", path, body=body)
                return made
            except Invalid as error:
                missing = set(error.details.get("missing") or ()) & {p for p, s in shards if s.digest in sent.done}
                if not missing:  # else: sent by an earlier try, and collected since
                    raise
            for name, shard in shards:
                if name in missing:
                    self._upload(archive, name, shard, sent)

    def _upload(self, archive: Opened, path: str, shard: Shard, sent: _Sent) -> None:
        upload = sent.begun(shard.digest) or str(self._connection.call("POST", self._path("uploads"))["id"])
        sent.begin(shard.digest, upload)
        where = self._path(f"uploads/{upload}")
        start = int(self._connection.call("GET", where)["size_bytes"])
        with archive.open(path, shard) as stream:
            stream.seek(start)
            while data := stream.read(PART_BYTES):
                start = self._connection.send("PATCH", where, data, {"Upload-Offset": str(start)})["size_bytes"]
        self._connection.call("POST", where, body={"digest": shard.digest})
        sent.finish(shard.digest)

    def _path(self, rest: str) -> str:
        return f"/api/v1/projects/{quote(self._client.project, safe='')}/{rest}"

    def _version(self, reference: str) -> str:
        return self._path(f"datasetversions/{quote(reference, safe='@')}")

    def _file(self, version: str, path: str) -> str:
        return f"{self._version(version)}/files/{quote(path)}"


class Remote:
    """A version of the platform, its shards read by ranges as they are needed."""

    def __init__(self, datasets: Datasets, reference: str) -> None:
        self.name, data = datasets.manifest(reference)
        self.manifest = decode_manifest(data)
        self._datasets = datasets

    def open(self, path: str, shard: Shard) -> IO[bytes]:
        raw = _Ranged(lambda start, stop: self._datasets.read(self.name, path, start, stop), shard.bytes)
        return io.BufferedReader(raw, READ_AHEAD_BYTES)


class _Ranged(io.RawIOBase):
    """A file whose bytes are asked for one range at a time."""

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size_bytes}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size_bytes, self._place + len(buffer))
        if stop <= self._place:
            return 0
        data = self._read(self._place, stop)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


class _Checked(io.RawIOBase):
    """A stream that knows the digest of what was read from it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""
        self._checksum = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._checksum.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._left += chunk
        data, self._left = (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        self._checksum.update(data)
        return data


class _Sum:
    """Bytes done so far, told on."""

    def __init__(self, progress: Progress, total_bytes: int) -> None:
        self._progress, self._total_bytes, self._done_bytes = progress, total_bytes, 0

    def add(self, count_bytes: int) -> None:
        self._done_bytes += count_bytes
        self._progress(self._done_bytes, self._total_bytes)


class _Sent:
    """What an import has sent to which platform, remembered beside the archive until the version is made."""

    def __init__(self, path: Path, client: Client) -> None:
        self._path = path
        self._to = f"{client.connection.address} {client.project}"
        kept = read_json(path) or {}
        is_ours = kept.get("to") == self._to
        self.done: set[str] = set(kept["done"]) if is_ours else set()  # type: ignore[call-overload]
        self._open: dict[str, str] = dict(kept["open"]) if is_ours else {}  # type: ignore[call-overload]

    def begun(self, digest: str) -> str | None:
        return self._open.get(digest)

    def begin(self, digest: str, upload: str) -> None:
        self._open[digest] = upload
        self._keep()

    def finish(self, digest: str) -> None:
        self._open.pop(digest, None)
        self.done.add(digest)
        self._keep()

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _keep(self) -> None:
        with contextlib.suppress(PermissionError):  # beside an archive nobody may write, it is sent anew
            write_json(self._path, {"to": self._to, "done": sorted(self.done), "open": self._open}, durable=False)


def _is_ours(target: Path, data: bytes) -> bool:
    """Whether the folder is empty, or has the manifest being exported."""
    found = [target / name for name in (MANIFEST, f".{MANIFEST}") if (target / name).exists()]
    return all(path.read_bytes() == data for path in found) if found else not any(target.iterdir())


def _member(path: str, size_bytes: int) -> tarfile.TarInfo:
    """A member that is the same whoever writes it, whenever."""
    info = tarfile.TarInfo(path)
    info.size = size_bytes
    return info


def _damaged(path: str) -> IntegrityError:
    return IntegrityError(f"{path} did not arrive whole", hint="try again; if it stays, the platform's copy is damaged")


def canonical(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys: equal values, equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
