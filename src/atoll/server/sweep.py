"""Keeping house: blobs nothing refers to, and changes older than the history kept.

A blob is living when its digest stands anywhere in a resource's spec or status, or in a dataset manifest that is
living. What is not mentioned for a day goes; the grace covers what an engine has stored and not yet reported.
"""

from __future__ import annotations

import logging
import re

import orjson

from atoll.core.blobs import BlobStore
from atoll.core.errors import NotFound
from atoll.core.resources import KINDS
from atoll.core.store import Store

log = logging.getLogger(__name__)

BLOB_GRACE_S = 86_400.0
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


def living_blobs(store: Store, blobs: BlobStore) -> set[str]:
    """Digests of all blobs something refers to, directly or through a dataset's manifest."""
    living: set[str] = set()
    scope = store.everything()
    for kind in KINDS:
        for resource in scope.find_all(kind.name):
            living |= _mentioned(orjson.dumps([resource.spec, resource.status]))
    for version in scope.find_all("DatasetVersion"):
        try:
            living |= _mentioned(blobs.read(version.spec["manifest"]))
        except NotFound:
            log.warning("the manifest of %s is not in the blob store", version.key)
    return living


def sweep(store: Store, blobs: BlobStore, history: int, grace_s: float = BLOB_GRACE_S) -> list[str]:
    """Drop changes beyond `history` and blobs dead for `grace_s`; returns the digests of those blobs."""
    store.forget_changes(store.head() - history)
    dead = blobs.collect(living_blobs(store, blobs), now=store.clock.now(), grace_s=grace_s)
    if dead:
        log.info("collected %d blobs", len(dead))
    return dead


def _mentioned(data: bytes) -> set[str]:
    return {digest.decode() for digest in _DIGEST.findall(data)}
