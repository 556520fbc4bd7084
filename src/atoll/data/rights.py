"""Which stored bytes a project may name by a digest.

Blobs are shared by all projects, and a digest is no secret: it stands in manifests, logs and exports. So it gives a
project only what the project has already: the bytes of a file of its own, those of its dataset versions, or what it
sent itself lately. Whatever takes a digest from people asks here.
It does not know what stands in the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, NotFound
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.store import Scope
from atoll.data.files import find_file
from atoll.data.layout import members
from atoll.data.manifest import read_manifest


class Rights:
    """What one project may name. `scope` sees everything."""

    def __init__(self, scope: Scope, blobs: BlobStore, project: str) -> None:
        self._scope = scope
        self._blobs = blobs
        self._project = project
        self._holder = holder_of(scope, project)

    def file(self, digest: str, where: str) -> Resource | None:
        """The project's file with these bytes, None where it has them otherwise; NotFound where it has them not."""
        file = find_file(self._scope, self._project, digest)
        if file is None and self.lacking([digest]):
            hint = "upload it: POST /v1/files"
            raise NotFound(f"{where}: project {self._project!r} has no file {digest}", hint=hint, field=where)
        return file

    def lacking(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` the project has not; whether others have them is not told."""
        wanted = {d for d in digests if not (self._blobs.is_held(d, self._holder) and self._blobs.exists(d))}
        for version in reversed(self._scope.find_all("DatasetVersion")) if wanted else ():
            if version.project == self._project and not version.is_deleting:
                wanted -= self._digests(version.spec["manifest"])
            if not wanted:
                break
        return wanted

    def _digests(self, manifest: str) -> set[str]:
        """The blobs of a version that are there; none when its manifest cannot be read."""
        try:
            shards = {shard.digest for _, shard in members(read_manifest(self._blobs, manifest))}
        except AtollError:
            return set()
        return {digest for digest in (manifest, *shards) if self._blobs.exists(digest)}


def holder_of(scope: Scope, project: str) -> str:
    """What a project is called where it is noted who has which bytes: one made anew under a name is another."""
    return project if project == SYSTEM_PROJECT else scope.get("Project", project, SYSTEM_PROJECT).uid
