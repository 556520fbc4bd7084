"""Keys of runs: a run whose task asks the door does so with a key of its own, which ends with it.

The key may call the run's models only, at priority batch; its value lies in a secret the task reads. What is asked with
it is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from atoll.compute.jobs import NotYet
from atoll.core.errors import Conflict, Forbidden
from atoll.core.reconcile import Writer
from atoll.core.resources import Resource
from atoll.core.store import Create, MarkDeleting, SetSpec, Write
from atoll.governance.keys import hash_of, is_valid, new_key
from atoll.governance.resources import API_KEY, SECRET
from atoll.governance.secrets import Secrets

KEY_VALUE = "KEY"
"""What the value is called in the run's secret."""

NO_MODEL = "-"
"""Stands in a key's models where it may call none; nothing can have this name."""

RunRole = Literal["caller", "member"]
NAME_MAX = 128


def key_name(run: Resource) -> str:
    """The name of the run's ApiKey and Secret; of the names that are too long, each has its own still."""
    name = f"key-{run.kind.lower()}-{run.name}"
    if len(name) <= NAME_MAX:
        return name
    return f"{name[: NAME_MAX - 17].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def key_reference(run: Resource) -> str:
    """SECRET/VALUE, by which a workload's role is given the key."""
    return f"{key_name(run)}/{KEY_VALUE}"


def payer_of(run: Resource, models: Sequence[str], world: Writer) -> Resource:
    """The key that asked for the run (`creator` of its spec); Forbidden when it ended, or may not call all `models`."""
    project, _, name = str(run.spec.get("creator") or "").partition("/")
    if not name:
        raise Forbidden(f"{run.key} does not say which key asked for it", hint="apply it again with your own")
    payer = world.scope.find("ApiKey", name, project)
    if payer is None or not is_valid(payer, world.clock.now()):
        raise Forbidden(f"key {run.spec['creator']} asked for {run.key} and is no longer valid", hint="use another key")
    allowed = payer.spec["models"]
    for model in models:
        if allowed is not None and model not in allowed:
            raise Forbidden(f"key {name} may not call model {model!r}", hint="use a key that may")
    return payer


def open_charged_key(
    run: Resource,
    models: Sequence[str],
    secrets: Secrets,
    world: Writer,
    *,
    expires_at: float,
    role: RunRole = "caller",
) -> list[Write]:
    """As `open_key`, charged to the key that asked for the run and within its bounds; raises also as `payer_of`.

    What the key may not call, the run may not; what limits it limits both together, for the gateway counts by payer.
    """
    limits = payer_of(run, models, world).spec["limits"]
    payer = {"charged_to": run.spec["creator"], "limits": limits}
    return open_key(run, models, secrets, world, expires_at=expires_at, role=role, **payer)


def open_key(
    run: Resource,
    models: Sequence[str],
    secrets: Secrets,
    world: Writer,
    *,
    expires_at: float,
    role: RunRole = "caller",
    charged_to: str = "",
    limits: Mapping[str, Any] | None = None,
) -> list[Write]:
    """The writes of a fresh key that may call `models`, and of its secret; they renew what an earlier try left.

    NotYet while what an earlier one left is still being removed; Conflict when the name is somebody else's.
    expires_at: Unix time. role: a member's for runs that also read or write at the centre.
    charged_to: PROJECT/KEY that pays; without it the project pays, and the key is named.
    limits: how fast it may ask, as an ApiKey's spec says it.
    """
    value, name = new_key(), key_name(run)
    description = f"works for {run.kind} {run.name}"[:200]
    key = {
        "description": description,
        "role": role,
        "models": list(models) or [NO_MODEL],
        "limits": limits,
        "priority": "batch",
        "expires_at": expires_at,
        "charged_to": charged_to,
        "sha256": hash_of(value),
    }
    sealed = secrets.seal(run.project, name, {KEY_VALUE: value})
    secret = {"description": description, "names": [KEY_VALUE], "sealed": sealed}
    return [_put(run, "ApiKey", API_KEY.parse_spec(key), world), _put(run, "Secret", SECRET.parse_spec(secret), world)]


def close_key(run: Resource, world: Writer) -> list[Write]:
    """The writes by which every key of the run is refused and its secrets go; none once that is so."""
    writes: list[Write] = []
    for owned in world.scope.children(run.uid):
        if owned.kind == "ApiKey" and not owned.spec["revoked"] and not owned.is_deleting:
            writes.append(SetSpec(owned, owned.spec | {"revoked": True}, reason="Revoked"))
        elif owned.kind == "Secret" and not owned.is_deleting:
            writes.append(MarkDeleting(owned))
    return writes


def _put(run: Resource, kind: str, spec: dict[str, Any], world: Writer) -> Write:
    existing = world.scope.find(kind, key_name(run), run.project)
    if existing is None:
        return Create(kind, run.project, key_name(run), spec, {"phase": "ready"}, owner=run.uid)
    if existing.is_deleting:
        raise NotYet(f"waiting for the end of {existing.key}")
    if existing.owner != run.uid:
        raise Conflict(f"{existing.key} is not of {run.key}", hint="give one of them another name")
    return SetSpec(existing, spec, reason="Renewed")
