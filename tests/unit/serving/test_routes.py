"""The route table: what gateways know of deployments."""

from __future__ import annotations

from typing import Any

from atoll.core.resources import Resource
from atoll.serving.resources import DEPLOYMENT
from atoll.serving.routes import route_table


def resource(kind: str, name: str, spec: dict[str, Any], status: dict[str, Any], project: str = "p") -> Resource:
    times: dict[str, Any] = {"created_at": 12.7, "updated_at": 0.0, "deleting_at": None}
    return Resource(kind, project, name, f"uid-{name}", 1, 1, {}, None, spec, status, **times)


def deployment(name: str, project: str = "p", status: dict[str, Any] | None = None, **spec: Any) -> Resource:
    return resource("Deployment", name, DEPLOYMENT.parse_spec({"model": "m", **spec}), status or {}, project)


def replica(name: str, of: str, url: str = "", project: str = "p") -> Resource:
    return resource("Replica", name, {"deployment": of}, {"url": url, "api_key": "secret"}, project)


def test_a_deployment_is_routed_to_its_ready_replicas_only() -> None:
    replicas = [replica("a-0", "a", "http://1"), replica("a-1", "a"), replica("b-0", "b", "http://2")]
    table = route_table([deployment("a", status={"version": "m.v1"})], replicas)
    assert table == {
        "p": {
            "a": {
                "deployment": "uid-a",
                "version": "m.v1",
                "created": 12,
                "kind": "chat",
                "context": 2048,
                "replicas": [{"id": "a-0", "url": "http://1", "api_key": "secret", "weight": 1, "slots": 4}],
                "price": None,
                "reason": "deployment is pending",
            }
        }
    }


def test_a_deployment_of_the_same_name_in_another_project_is_another() -> None:
    table = route_table([deployment("a"), deployment("a", "q")], [replica("a-0", "a", "http://q", "q")])
    assert table["p"]["a"]["replicas"] == []
    assert [r["url"] for r in table["q"]["a"]["replicas"]] == ["http://q"]


def test_kind_price_and_reason_come_along() -> None:
    price = {"input_per_million": 1, "output_per_million": 2}
    status = {"phase": "failed", "reason": "does not fit"}
    entry = route_table([deployment("e", status=status, embedding=True, price=price)], [])["p"]["e"]
    assert (entry["kind"], entry["reason"]) == ("embedding", "does not fit")
    assert entry["price"] == {"input_per_million": 1.0, "output_per_million": 2.0, "currency": "EUR"}
    assert route_table([], []) == {}
