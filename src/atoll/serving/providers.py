"""Controllers of what gateways reach by configuration alone: external providers and routes.

They start nothing; they say in the status whether a request could be answered, and what is missing when not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from atoll.core.errors import AtollError, Unavailable
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, SetStatus
from atoll.serving.routes import KINDS_OF_TASKS, no_secrets


class ProviderController(Controller):
    """A provider is ready when its secret can be read."""

    name = "providers"
    owns = "Provider"
    watches = ("Secret",)

    def __init__(self, secret_of: Callable[[str, str], str] = no_secrets) -> None:
        self._secret_of = secret_of

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        return [p.key for p in world.scope.find_all("Provider") if p.project == change.project]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        provider = world.read(key)
        if provider is None or provider.is_deleting:
            return None
        reason = ""
        try:
            if provider.spec["secret"]:
                self._secret_of(provider.project, provider.spec["secret"])
        except Unavailable:
            raise
        except AtollError as error:
            reason = str(error)
        _say(provider, reason, world)
        return None


class RouteController(Controller):
    """A route is ready when every model it names exists and all are of one kind."""

    name = "routes"
    owns = "Route"
    watches = ("Deployment", "Provider")

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.action == "status":
            return []  # what a deployment is called does not change with how it fares
        return [r.key for r in world.scope.find_all("Route") if r.project == change.project]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        route = world.read(key)
        if route is None or route.is_deleting:
            return None
        _say(route, _missing(route, _kinds(world, route.project)), world)
        return None


def _kinds(world: Writer, project: str) -> dict[str, str]:
    """The kind of every model a route of `project` may name."""
    kinds: dict[str, str] = {}
    for provider in world.scope.find_all("Provider"):
        if provider.project == project and not provider.is_deleting:
            kinds |= {m["name"]: KINDS_OF_TASKS[m["task"]] for m in provider.spec["models"]}
    for deployment in world.scope.find_all("Deployment"):
        if deployment.project == project and not deployment.is_deleting:
            kind = KINDS_OF_TASKS[deployment.spec["task"]]
            kinds |= {a["name"]: kind for a in deployment.spec["adapters"]} | {deployment.name: kind}
    return kinds


def _missing(route: Resource, kinds: dict[str, str]) -> str:
    names = [target["model"] for target in route.spec["targets"]]
    for name in names:
        if name not in kinds:
            known = ", ".join(sorted(kinds)[:5]) or "none"
            return (
                f"there is no deployment or provider's model {name!r} in project {route.project!r} (there are: {known})"
            )
    if len({kinds[name] for name in names}) > 1:
        return "its targets are of different kinds: " + ", ".join(f"{n} is {kinds[n]}" for n in names)
    return ""


def _say(resource: Resource, reason: str, world: Writer) -> None:
    phase = "failed" if reason else "ready"
    told: dict[str, Any] = {"phase": phase, "reason": reason, "observed_generation": resource.generation}
    status = resource.status | told
    if status != resource.status:
        event = phase.capitalize() if phase != resource.phase else ""
        world.write(SetStatus(resource, status, event, reason))
