"""What a model reference means: "name", "name@latest", "name@production" or the name of a version."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import Resource
from atoll.core.store import Scope


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version and, for an adapter, the version of its base."""

    version: Resource
    base: Resource | None

    @property
    def is_adapter(self) -> bool:
        return self.base is not None


def resolve(scope: Scope, project: str, reference: str) -> Resolved | None:
    """The version `reference` stands for now; None while it is still being made.

    NotFound names the nearest when there is no such model; Invalid when the version failed.
    """
    version = _version(scope, project, reference)
    if version is None or version.phase in ("pending", "running"):
        return None
    if version.phase == "failed":
        raise Invalid(f"model version {version.name!r} failed: {version.status.get('reason')}", field="model")
    base_name = version.spec["base"]
    if not base_name:
        return Resolved(version, None)
    base = scope.find("ModelVersion", base_name, project)
    if base is None:
        raise NotFound(f"base {base_name!r} of model version {version.name!r} is gone", hint="import it again")
    return Resolved(version, base)


def next_version(scope: Scope, project: str, model: str) -> str:
    """A free version name, MODEL.vN."""
    versions = (v.name for v in scope.find_all("ModelVersion") if v.project == project and v.spec["model"] == model)
    numbers = [int(n) for v in versions if (n := v.rpartition(".v")[2]).isdigit()]
    return f"{model}.v{max(numbers, default=0) + 1}"


def _version(scope: Scope, project: str, reference: str) -> Resource | None:
    name, _, alias = reference.partition("@")
    if not alias and (version := scope.find("ModelVersion", name, project)) is not None:
        return version
    model = scope.find("Model", name, project)
    if model is None:
        known = [m.name for m in scope.find_all("Model") if m.project == project]
        nearest = difflib.get_close_matches(name, known, 3, 0.5) or known[:5]
        raise NotFound(
            f"there is no model {name!r} in project {project!r}",
            hint=f"nearest: {', '.join(nearest)}" if nearest else "import one: atoll models pull SOURCE",
        )
    if alias not in ("", "latest", "production"):
        raise Invalid(f"{reference!r}: {alias!r} is not an alias", field="model", hint="latest or production")
    production, latest = model.status.get("production", ""), model.status.get("latest", "")
    if alias == "production" and not production:
        raise Invalid(f"model {name!r} has no production version", field="model", hint="promote one by an evaluation")
    wanted = {"latest": latest, "production": production, "": production or latest}[alias]
    return scope.find("ModelVersion", wanted, project) if wanted else None
