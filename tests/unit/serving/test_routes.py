"""The model table: what gateways know of deployments, adapters, providers and routes."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import NotFound
from atoll.core.resources import Resource
from atoll.governance.resources import PRICE
from atoll.serving.resources import DEPLOYMENT, PROVIDER, REPLICA, ROUTE
from atoll.serving.routes import Entry, Facts, model_table

KINDS = {kind.name: kind for kind in (DEPLOYMENT, REPLICA, PROVIDER, ROUTE, PRICE)}


def resource(kind: str, name: str, spec: dict[str, Any], status: dict[str, Any], project: str = "p") -> Resource:
    times: dict[str, Any] = {"created_at": 12.7, "updated_at": 0.0, "deleting_at": None}
    return Resource(kind, project, name, f"uid-{name}", 1, 1, {}, None, spec, status, **times)


def of(kind: str, name: str, spec: dict[str, Any], project: str = "p", **status: Any) -> Resource:
    return resource(kind, name, KINDS[kind].parse_spec(spec), status, project)


def deployment(name: str, project: str = "p", status: dict[str, Any] | None = None, **spec: Any) -> Resource:
    told = {"phase": "ready", "version": "m.v1", "engine": "llamacpp", "serving": ["r1"], "revision": "r1"}
    return of("Deployment", name, {"model": "m", **spec}, project, **(told | (status or {})))


def replica(deployed: str, index: int = 0, url: str = "http://x", **fields: Any) -> Resource:
    spec = {
        "deployment": deployed,
        "index": index,
        "revision": fields.pop("revision", "r1"),
        "version": "m.v1",
        "engine": fields.pop("engine", "llamacpp"),
        "input": {"slots": 4, "adapters": [{"name": name} for name in fields.pop("adapters", [])]},
    }
    project = fields.pop("project", "p")
    status = {"url": url, "api_key": "secret", "capabilities": ["chat", "tools"], **fields}
    return of("Replica", f"{deployed}-{spec['revision']}-{index}", spec, project, **status)


def table(*found: Resource, projects: tuple[str, ...] = ("p", "q", "system"), **secrets: str) -> dict[str, Any]:
    def secret_of(project: str, reference: str) -> str:
        if reference.replace("/", "_") not in secrets:
            raise NotFound(f"there is no secret {reference!r} in project {project!r}")
        return secrets[reference.replace("/", "_")]

    kinds = ("Deployment", "Replica", "Provider", "Route", "Price")
    return model_table(Facts(*([r for r in found if r.kind == k] for k in kinds), projects, secret_of))  # type: ignore[arg-type]


def entry(name: str, *found: Resource, **secrets: str) -> Entry:
    made: Entry = table(*found, **secrets)["p"][name]
    return made


def test_a_deployment_is_routed_to_its_ready_replicas_only() -> None:
    a = deployment("a")
    assert entry("a", a, replica("a"), replica("a", 1, url=""), replica("b", url="http://2")) == {
        "kind": "chat",
        "created": 12,
        "version": "m.v1",
        "context": 2048,
        "reason": "",
        "affinity": "prefix",
        "hold": {"queue_max": 256, "wait_s": 120.0},
        "fallback": [],
        "hedge_s": None,
        "owner": "p",
        "targets": [
            {
                "id": "uid-a",
                "name": "a",
                "weight": 1.0,
                "engine": "llamacpp",
                "model": None,
                "adapter": None,
                "version": "m.v1",
                "context": 2048,
                "capabilities": ["chat", "tools"],
                "price": None,
                "progress": None,
                "parallel": None,
                "replicas": [{"id": "a-r1-0", "url": "http://x", "api_key": "secret", "slots": 4, "weight": 1.0}],
            }
        ],
    }


def test_only_revisions_that_serve_take_requests() -> None:
    found = [replica("a"), replica("a", revision="r2", url="http://new")]
    assert [r["url"] for r in entry("a", deployment("a"), *found)["targets"][0]["replicas"]] == ["http://x"]
    both = deployment("a", status={"serving": ["r2", "r1"], "revision": "r2"})
    assert len(entry("a", both, *found)["targets"][0]["replicas"]) == 2


def test_replicas_can_what_all_of_them_can() -> None:
    found = [replica("a"), replica("a", 1, capabilities=["chat", "fim"])]
    assert entry("a", deployment("a"), *found)["targets"][0]["capabilities"] == ["chat"]
    before = entry("a", deployment("a"))["targets"][0]["capabilities"]
    assert {"chat", "completion"} <= set(before)
    assert "embedding" not in before
    vectors = entry("a", deployment("a", task="embed"))
    assert (vectors["kind"], vectors["targets"][0]["capabilities"]) == ("embedding", ["embedding", "lora"])


def test_what_will_not_come_by_waiting_is_not_held_for() -> None:
    assert entry("a", deployment("a", status={"phase": "asleep"}, autoscale={}))["hold"] is not None
    assert entry("a", deployment("a", replicas=0))["hold"] is None
    failed = entry("a", deployment("a", status={"phase": "failed", "reason": "does not fit"}))
    assert (failed["hold"], failed["reason"]) == (None, "does not fit")


def test_a_deployment_of_the_same_name_in_another_project_is_another() -> None:
    found = table(deployment("a"), deployment("a", "q"), replica("a", url="http://q", project="q"))
    assert found["p"]["a"]["targets"][0]["replicas"] == []
    assert found["p"]["a"]["reason"] == "deployment is ready"
    assert [r["url"] for r in found["q"]["a"]["targets"][0]["replicas"]] == ["http://q"]


def price(model: str, amount: float) -> Resource:
    return of("Price", f"price-{amount:g}", {"model": model, "input_per_million": amount, "output_per_million": amount})


@pytest.mark.parametrize(
    ("spec", "prices", "paid"),
    [
        ({"price": {"input_per_million": 1}}, [("m", 3), ("m.v1", 2)], 1.0),
        ({}, [("m", 3), ("m.v1", 2)], 2.0),
        ({}, [("m", 3), ("m.v2", 2)], 3.0),
        ({}, [("other", 3)], None),
    ],
)
def test_the_price_is_the_nearest(spec: dict[str, Any], prices: list[tuple[str, float]], paid: float | None) -> None:
    found = entry("a", deployment("a", **spec), *(price(*p) for p in prices))["targets"][0]["price"]
    assert (found and found["input_per_million"]) == paid
    if found:
        assert set(found) == {"input_per_million", "cached_input_per_million", "output_per_million", "currency"}


def test_a_shared_deployment_is_in_the_tables_of_others_and_stays_its_owners() -> None:
    shared = deployment("a", share=["q", "nowhere"], fallback=["b"])
    found = table(shared, deployment("own", "q"), replica("a"))
    assert (found["q"]["a"]["owner"], found["q"]["a"]["fallback"]) == ("p", [])
    assert found["q"]["a"]["targets"] == found["p"]["a"]["targets"]
    assert "nowhere" not in found
    everyone = table(deployment("a", share=["*"]), deployment("a", "q"))
    assert everyone["q"]["a"]["owner"] == "q", "a project's own goes first"
    assert "system" not in everyone


def test_an_adapter_is_used_where_it_is_at_one_and_the_same_place() -> None:
    adapters = [{"name": "tutor", "model": "tuned"}]
    told = {"serving": ["r2", "r1"], "revision": "r2", "revisions": [{"spec": {"adapters": [
        {"name": "tutor", "model": "tuned.v3"}]}}]}  # fmt: skip
    deployed = deployment("a", adapters=adapters, status=told)
    old = replica("a", adapters=["tutor"])
    new = replica("a", revision="r2", adapters=["a", "tutor"], url="http://new")
    target = entry("tutor", deployed, old, new)["targets"][0]
    assert (target["adapter"], target["version"], [r["url"] for r in target["replicas"]]) == (
        1,
        "tuned.v3",
        ["http://new"],
    )
    during = entry("tutor", deployed, old)["targets"][0]
    assert (during["adapter"], len(during["replicas"])) == (0, 1)
    assert entry("tutor", deployed)["targets"][0]["replicas"] == []


def test_an_engine_that_knows_adapters_by_name_is_sent_the_name() -> None:
    deployed = deployment("a", adapters=[{"name": "tutor", "model": "tuned"}], status={"engine": "vllm"})
    target = entry("tutor", deployed, replica("a", engine="vllm", adapters=["tutor"]))["targets"][0]
    assert (target["adapter"], target["model"]) == (None, "tutor")


VENDOR = {
    "url": "https://api.example.com/v1/",
    "secret": "vendor/key",
    "models": [{"name": "big", "model": "vendor/big-1", "context": 9000}, {"name": "vec", "task": "embed"}],
    "parallel": 7,
}


def test_a_providers_models_are_reached_with_its_secret() -> None:
    found = entry("big", of("Provider", "vendor", VENDOR), vendor_key="sk-1")
    (target,) = found["targets"]
    assert target["replicas"] == [
        {"id": "vendor", "url": "https://api.example.com/v1", "api_key": "sk-1", "slots": 7, "weight": 1.0}
    ]
    assert (target["engine"], target["model"], target["parallel"]) == ("openai", "vendor/big-1", 7)
    assert (found["context"], found["hold"], found["reason"]) == (9000, None, "")
    assert entry("vec", of("Provider", "vendor", VENDOR), vendor_key="sk-1")["kind"] == "embedding"


def test_a_provider_without_its_secret_says_so_and_is_not_asked() -> None:
    found = entry("big", of("Provider", "vendor", VENDOR))
    assert (found["targets"][0]["replicas"], "'vendor/key'" in found["reason"]) == ([], True)


def test_a_deployment_goes_before_a_providers_model_of_the_same_name() -> None:
    found = entry("big", of("Provider", "vendor", VENDOR), deployment("big"), vendor_key="sk-1")
    assert found["targets"][0]["id"] == "uid-big"


def route(*targets: tuple[str, float], **spec: Any) -> Resource:
    return of("Route", "best", {"targets": [{"model": m, "weight": w} for m, w in targets], **spec})


def test_a_route_joins_its_targets_by_weight() -> None:
    status = {"canary_revision": "r2", "canary_version": "m.v2"}
    local = deployment("a", canary={"model": "m.v2", "weight": 0.25}, status=status)
    parts = [local, replica("a"), replica("a", revision="r2"), of("Provider", "vendor", VENDOR)]
    found = entry("best", *parts, route(("a", 3.0), ("big", 1.0), fallback=["vec"], hedge_s=2.0), vendor_key="k")
    assert [(t["id"], t["weight"]) for t in found["targets"]] == [
        ("uid-a", 2.25),
        ("uid-a-canary", 0.75),
        ("uid-vendor", 1.0),
    ]
    assert (found["context"], found["fallback"], found["hedge_s"], found["kind"]) == (2048, ["vec"], 2.0, "chat")
    assert found["hold"] == {"queue_max": 256, "wait_s": 120.0}


def test_a_route_tells_other_engines_their_own_name_for_the_model() -> None:
    deployed = deployment("a", status={"engine": "vllm"})
    assert entry("best", deployed, replica("a", engine="vllm"), route(("a", 1.0)))["targets"][0]["model"] == "a"


def test_a_route_goes_before_what_it_is_named_like_and_may_name_it() -> None:
    best = deployment("best")
    found = entry("best", best, replica("best"), deployment("a"), replica("a"), route(("best", 1.0), ("a", 1.0)))
    assert [t["name"] for t in found["targets"]] == ["best", "a"]


def test_a_route_to_nothing_says_which() -> None:
    found = entry("best", route(("gone", 1.0)))
    assert (found["targets"], found["reason"]) == ([], "there is no model 'gone'")


def test_of_nothing_there_is_nothing() -> None:
    assert table() == {}
