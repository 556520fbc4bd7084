"""The model table gateways work from: a pure function of deployments, replicas, providers, routes and prices.

    {project: {name a request may carry: entry}}

An entry says what kind of model it is, who answers (targets with their ready replicas, by weight), what to do while
nobody can (hold, fallback) and why nobody can. Where names meet, a Route goes before a Deployment, that before an
adapter, that before a provider's model, and all of a project's own before what others share with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import AtollError, NotFound
from atoll.core.resources import Resource
from atoll.serving.engine.base import ENGINES

Entry = dict[str, Any]
KINDS_OF_TASKS = {"generate": "chat", "embed": "embedding", "rerank": "rerank", "predict": "predict"}
PROGRESS_PARTS = 20
"""A starting replica's progress is told in twentieths, so that it does not make a new table every moment."""

PROVIDED = {
    "generate": ("chat", "completion", "tools", "json_schema", "logprobs"),
    "embed": ("embedding",),
    "rerank": ("rerank",),
    "predict": ("predict",),
}
"""What an OpenAI-compatible service is taken to do."""

_CAPABILITIES_OF_TASKS = {
    "generate": frozenset({"embedding", "rerank", "predict"}),
    "embed": frozenset({"embedding", "lora"}),
    "rerank": frozenset({"rerank", "lora"}),
    "predict": frozenset({"predict"}),
}
_PRICED = ("input_per_million", "cached_input_per_million", "output_per_million", "currency")


def no_secrets(project: str, reference: str) -> str:
    """For centres without a secret store."""
    raise NotFound(f"secret {reference!r} is not in project {project!r}", hint="atoll secrets set")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the table is made of. `secret_of(project, "NAME/VALUE")` raises an AtollError when it cannot."""

    deployments: Sequence[Resource]
    replicas: Sequence[Resource]
    providers: Sequence[Resource] = ()
    routes: Sequence[Resource] = ()
    prices: Sequence[Resource] = ()
    projects: Sequence[str] = ()
    secret_of: Callable[[str, str], str] = no_secrets


def model_table(facts: Facts) -> dict[str, dict[str, Entry]]:
    """Models by project and name."""
    table: dict[str, dict[str, Entry]] = {}
    prices = {(p.project, p.spec["model"]): p.spec for p in facts.prices if not p.is_deleting}
    living = [d for d in facts.deployments if not d.is_deleting]
    by_owner = _by_owner(facts.replicas)
    for deployment in living:
        replicas = by_owner.get((deployment.project, deployment.name), [])
        table.setdefault(deployment.project, {})[deployment.name] = _served(deployment, replicas, prices)
    for deployment in living:
        replicas = by_owner.get((deployment.project, deployment.name), [])
        for adapter in deployment.spec["adapters"]:
            entry = _adapter(deployment, adapter, replicas, prices)
            table[deployment.project].setdefault(adapter["name"], entry)
    for provider in facts.providers:
        for name, entry in _provided(provider, prices, facts.secret_of):
            table.setdefault(provider.project, {}).setdefault(name, entry)
    for project, name, entry in [_route(route, table.get(route.project, {})) for route in facts.routes]:
        table.setdefault(project, {})[name] = entry
    _share(living, table, facts.projects)
    return table


def _by_owner(replicas: Iterable[Resource]) -> dict[tuple[str, str], list[Resource]]:
    found: dict[tuple[str, str], list[Resource]] = {}
    for replica in replicas:
        if not replica.is_deleting:
            found.setdefault((replica.project, replica.spec["deployment"]), []).append(replica)
    return found


# deployments


def _served(deployment: Resource, replicas: list[Resource], prices: Mapping[tuple[str, str], Any]) -> Entry:
    status, canary = deployment.status, deployment.spec["canary"]
    canary_revision = status.get("canary_revision") or ""
    main = _of_revisions(replicas, status.get("serving") or (), canary_revision)
    targets = [_target(deployment, deployment.uid, 1.0, status.get("version", ""), main, prices)]
    fresh = [r for r in replicas if canary_revision and r.spec.get("revision") == canary_revision]
    if canary and any(_is_up(r) for r in fresh):
        weight = float(canary["weight"])
        targets[0]["weight"] = 1.0 - weight
        uid = canary_target(deployment.uid)
        targets.append(_target(deployment, uid, weight, status.get("canary_version", ""), fresh, prices))
    return _entry(deployment, targets)


def canary_target(deployment_uid: str) -> str:
    """The id under which gateways report the load of a deployment's canary."""
    return f"{deployment_uid}-canary"


def _adapter(
    deployment: Resource, adapter: Mapping[str, Any], replicas: list[Resource], prices: Mapping[tuple[str, str], Any]
) -> Entry:
    """A model name of its own on the deployment's replicas: those that have the adapter, at one and the same place."""
    status = deployment.status
    serving = _of_revisions(replicas, status.get("serving") or (), status.get("canary_revision") or "")
    places = {r.name: _place(r, adapter["name"]) for r in serving}
    having = [r for r in serving if places[r.name] is not None]
    having.sort(key=lambda r: r.spec.get("revision") != status.get("revision"))
    able = [r for r in having if places[r.name] == places[having[0].name]]
    revisions = status.get("revisions") or [{"spec": {"adapters": []}}]
    pinned = {pin["name"]: pin["model"] for pin in revisions[0]["spec"]["adapters"]}
    version = pinned.get(adapter["name"], adapter["model"])
    target = _target(deployment, deployment.uid, 1.0, version, able, prices)
    engine = ENGINES.get(target["engine"])
    if engine is not None and engine.adapters == "index":
        target["adapter"] = places[having[0].name] if having else None
    else:
        target["model"] = _upstream_name(target["engine"], deployment.name, having, adapter["name"])
    return _entry(deployment, [target])


def _place(replica: Resource, adapter: str) -> int | None:
    """Where among the engine's adapters one is; the deployment's own comes first."""
    names = [a.get("name") for a in replica.spec["input"].get("adapters", [])]
    return names.index(adapter) if adapter in names else None


def _upstream_name(engine_name: str, alias: str, replicas: list[Resource], adapter: str = "") -> str | None:
    """The model name a request must carry to these replicas; None where the engine serves one model by any name."""
    engine = ENGINES.get(engine_name)
    if engine is None or engine.adapters == "index":
        return adapter or None
    has_own = any(_place(replica, alias) is not None for replica in replicas)
    return engine.upstream_model(alias, adapter, has_own=has_own)


def _of_revisions(replicas: list[Resource], serving: Iterable[str], canary: str) -> list[Resource]:
    """Replicas of the revisions that take requests; of all but the canary's before that was decided."""
    named = set(serving)
    if named:
        return [r for r in replicas if r.spec.get("revision", "") in named]
    return [r for r in replicas if not canary or r.spec.get("revision") != canary]


def _is_up(replica: Resource) -> bool:
    return bool(replica.status.get("url"))


def _target(
    deployment: Resource,
    uid: str,
    weight: float,
    version: str,
    replicas: list[Resource],
    prices: Mapping[tuple[str, str], Any],
) -> Entry:
    spec = deployment.spec
    up = [r for r in replicas if _is_up(r)]
    engine = str(up[0].spec["engine"]) if up else str(deployment.status.get("engine", ""))
    return {
        "id": uid,
        "name": deployment.name,
        "weight": weight,
        "engine": engine,
        "model": _upstream_name(engine, deployment.name, up),
        "adapter": None,
        "version": version,
        "context": spec["context"],
        "capabilities": _capabilities(engine, spec["task"], up),
        "price": _price(spec["price"], deployment.project, version, prices),
        "progress": None if up else _progress(replicas),
        "parallel": None,
        "replicas": [
            {
                "id": r.name,
                "url": r.status["url"],
                "api_key": r.status.get("api_key", ""),
                "slots": r.spec["input"].get("slots", spec["slots"]),
                "weight": 1.0,
            }
            for r in up
        ],
    }


def _capabilities(engine: str, task: str, up: list[Resource]) -> list[str]:
    """What every ready replica can do; before there is one, what the engine may be able to do for the task."""
    told = [set(r.status.get("capabilities") or ()) for r in up]
    if told:
        return sorted(set.intersection(*told))
    named = set(ENGINES[engine].capabilities) if engine in ENGINES else {KINDS_OF_TASKS[task]}
    other = _CAPABILITIES_OF_TASKS[task]
    return sorted(named - other if task == "generate" else named & other)


def _progress(replicas: list[Resource]) -> Entry | None:
    """How far the furthest starting replica is."""
    starting = [r.status["progress"] for r in replicas if r.status.get("progress")]
    if not starting:
        return None
    best = max(starting, key=_share_done)
    total = best.get("total")
    told = {"stage": best.get("stage", ""), "unit": best.get("unit", ""), "message": best.get("message", "")}
    done = int(_share_done(best) * PROGRESS_PARTS) / PROGRESS_PARTS * (total or 0)
    return told | {"done": round(done), "total": total}


def _share_done(progress: Mapping[str, Any]) -> float:
    done, total = progress.get("done") or 0, progress.get("total") or 0
    return min(1.0, done / total) if total else 0.0


def _entry(deployment: Resource, targets: list[Entry]) -> Entry:
    spec, status = deployment.spec, deployment.status
    return {
        "kind": KINDS_OF_TASKS[spec["task"]],
        "created": int(deployment.created_at),
        "version": targets[0]["version"],
        "context": spec["context"],
        "reason": "" if targets[0]["replicas"] else status.get("reason") or f"deployment is {deployment.phase}",
        "affinity": spec["affinity"],
        "hold": spec["hold"] if _may_come(deployment) else None,
        "fallback": spec["fallback"],
        "hedge_s": spec["hedge_s"],
        "owner": deployment.project,
        "targets": targets,
    }


def _may_come(deployment: Resource) -> bool:
    """Whether a replica may come without anybody changing anything."""
    return deployment.phase != "failed" and bool(deployment.spec["autoscale"] or deployment.spec["replicas"])


def _price(
    own: Mapping[str, Any] | None, project: str, version: str, prices: Mapping[tuple[str, str], Any]
) -> Entry | None:
    """The deployment's own price, else that of the version, else that of its model."""
    model = re.sub(r"\.v\d+$", "", version)
    found = own or prices.get((project, version)) or prices.get((project, model))
    return {name: found.get(name) for name in _PRICED} if found else None


# providers


def _provided(
    provider: Resource, prices: Mapping[tuple[str, str], Any], secret_of: Callable[[str, str], str]
) -> list[tuple[str, Entry]]:
    if provider.is_deleting:
        return []
    spec = provider.spec
    api_key, reason = "", ""
    try:
        api_key = secret_of(provider.project, spec["secret"]) if spec["secret"] else ""
    except AtollError as error:
        reason = error.message
    return [(m["name"], _provided_entry(provider, m, prices, api_key, reason)) for m in spec["models"]]


def _provided_entry(
    provider: Resource, model: Mapping[str, Any], prices: Mapping[tuple[str, str], Any], api_key: str, reason: str
) -> Entry:
    spec = provider.spec
    url = spec["url"].rstrip("/")
    replica = {"id": provider.name, "url": url, "api_key": api_key, "slots": spec["parallel"], "weight": 1.0}
    target = {
        "id": provider.uid,
        "name": provider.name,
        "weight": 1.0,
        "engine": "openai",
        "model": model["model"] or model["name"],
        "adapter": None,
        "version": model["model"] or model["name"],
        "context": model["context"],
        "capabilities": list(PROVIDED[model["task"]]),
        "price": _price(model["price"], provider.project, model["name"], prices),
        "progress": None,
        "parallel": spec["parallel"],
        "replicas": [] if reason else [replica],
    }
    return {
        "kind": KINDS_OF_TASKS[model["task"]],
        "created": int(provider.created_at),
        "version": target["version"],
        "context": model["context"],
        "reason": reason,
        "affinity": "none",
        "hold": None,
        "fallback": [],
        "hedge_s": None,
        "owner": provider.project,
        "targets": [target],
    }


# routes and sharing


def _route(route: Resource, models: Mapping[str, Entry]) -> tuple[str, str, Entry]:
    spec = route.spec
    found = [(models[t["model"]], float(t["weight"])) for t in spec["targets"] if t["model"] in models]
    targets = [target for entry, weight in found for target in _weighed(entry, weight)]
    contexts = [entry["context"] for entry, _ in found if entry["context"]]
    first: Entry = found[0][0] if found else {}
    reasons = [entry["reason"] for entry, _ in found if entry["reason"]]
    missing = [t["model"] for t in spec["targets"] if t["model"] not in models]
    reason = f"there is no model {missing[0]!r}" if missing and not found else next(iter(reasons), "")
    entry = {
        "kind": first.get("kind", "chat"),
        "created": int(route.created_at),
        "version": first.get("version", ""),
        "context": min(contexts, default=0),
        "reason": "" if any(t["replicas"] for t in targets) else reason,
        "affinity": spec["affinity"],
        "hold": next((e["hold"] for e, _ in found if e["hold"]), None),
        "fallback": spec["fallback"],
        "hedge_s": spec["hedge_s"],
        "owner": route.project,
        "targets": targets,
    }
    return route.project, route.name, entry


def _weighed(entry: Entry, weight: float) -> list[Entry]:
    """An entry's targets, sharing `weight`; engines that look at the model's name are sent their own."""
    total = sum(target["weight"] for target in entry["targets"]) or 1.0
    return [
        target
        | {"weight": weight * target["weight"] / total}
        | ({"model": target["name"]} if target["model"] is None and target["engine"] != "llamacpp" else {})
        for target in entry["targets"]
    ]


def _share(deployments: Iterable[Resource], table: dict[str, dict[str, Entry]], projects: Iterable[str]) -> None:
    """Add what deployments share to the tables of other projects."""
    every = [project for project in projects if project != "system"]
    for deployment in deployments:
        wanted = every if "*" in deployment.spec["share"] else [p for p in deployment.spec["share"] if p in every]
        names = [deployment.name, *(adapter["name"] for adapter in deployment.spec["adapters"])]
        for project in wanted:
            for name in names if project != deployment.project else ():
                entry = table[deployment.project].get(name)
                if entry is not None and entry["owner"] == deployment.project:
                    table.setdefault(project, {}).setdefault(name, entry | {"fallback": []})
