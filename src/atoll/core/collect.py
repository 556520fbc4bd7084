"""Ends of lives: what is being deleted goes when its children are gone and nothing in the world holds it."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import KINDS, Key, Resource
from atoll.core.store import Change, MarkDeleting, Remove

LOOK_AGAIN_S = 0.25


class Collector(Controller):
    """Deletes children first, then the resource itself."""

    name = "collector"
    owns = "*nothing"
    watches = ("*",)

    def all_keys(self, world: Writer) -> Iterable[Key]:
        return [r.key for r in world.scope.find_deleting()]

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        return [change.key] if change.action == "deleting" else []

    def reconcile(self, key: Key, world: Writer) -> float | None:
        resource = world.read(key)
        if resource is None or not resource.is_deleting:
            return None
        children = world.scope.children(resource.uid)
        world.write(*(MarkDeleting(child) for child in children if not child.is_deleting))
        if children or _is_held(resource):
            return LOOK_AGAIN_S
        world.write(Remove(resource))
        return None


def _is_held(resource: Resource) -> bool:
    return resource.kind in KINDS and KINDS.named(resource.kind).holds(resource)
