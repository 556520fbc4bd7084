"""Ends of lives: what is being deleted goes when all that ends with it is gone and nothing in the world holds it."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import KINDS, Key, Resource
from atoll.core.store import Change, MarkDeleting, Remove

LOOK_AGAIN_S = 0.25


class Collector(Controller):
    """Deletes children and dependents first, then the resource itself."""

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
        ending = _ending_with(resource, world)
        world.write(*(MarkDeleting(other) for other in ending if not other.is_deleting))
        if ending or _is_held(resource):
            return LOOK_AGAIN_S
        world.write(Remove(resource))
        return None


def _ending_with(resource: Resource, world: Writer) -> list[Resource]:
    """What the resource owns, and what its kind says depends on it; each once."""
    found = world.scope.children(resource.uid)
    if resource.kind in KINDS:
        found += KINDS.named(resource.kind).dependents(world.scope, resource)
    return list({other.uid: other for other in found}.values())


def _is_held(resource: Resource) -> bool:
    return resource.kind in KINDS and KINDS.named(resource.kind).holds(resource)
