"""No route of the management API crashes, whatever fits or nearly fits its own OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from atoll.server import blobs as blobs_routes
from atoll.server import datasets as dataset_routes
from atoll.server import labels as label_routes
from running import until
from small_datasets import dataset, document

from .conftest import House

EXAMPLES = 20
PROJECT = "/api/v1/projects/{project}/"
EMPTY = {"shards": [], "rows": 0}
SHARD: dict[str, Any] = {"digest": "sha256:" + "0" * 64, "rows": 1, "bytes": 1}
FIELDS = ("counts", "recipe", "funnel", "sources", "parents", "schema", "tables", "privacy", "languages", "licence")
METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
ENDLESS = ("watch", "follow", "wait_s")


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(Path(tmp_path_factory.mktemp("schema")))
    with house.client:
        yield house


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ["admin", "system"])
def test_a_route_never_crashes(method: str, role: str, own_house: House) -> None:
    document: Any = schemathesis.openapi.from_dict(own_house.ask("GET", "/openapi.json"))
    secret = own_house.admin if role == "admin" else own_house.system
    paths = [path for path in document if path.startswith("/api/v1/")]
    asked = [path for path in paths if method.lower() in set(document[path]) and _asks_for(path, role)]
    assert asked or (method, role) in {("PUT", "system"), ("PATCH", "system"), ("DELETE", "system")}
    for path in asked:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=document[path][method].as_strategy())
        def holds(case: Any) -> None:
            _ask(own_house, method, case, secret)

        holds()


NAMED = {"project": "full", "task": "tone", "reference": "papers", "name": "papers", "path": "train/00000.parquet"}
"""What is there, by the name the routes of data give it in their paths."""


@pytest.fixture(scope="module")
def full_house(own_house: House) -> House:
    """A project with a dataset, a labelling task with items, and a broken-off upload."""
    house, blobs = own_house, own_house.centre.blobs
    house.put("system", "projects", "full", {})
    manifest = dataset(blobs, house.home, {"train": [[document("a", "text of it")]]})
    house.put("full", "datasetversions", "papers.v1", {"dataset": "papers", "manifest": manifest})
    house.put("full", "labeltasks", "tone", {"fields": [{"name": "tone", "type": "text"}]})
    items = {"items": [{"key": str(n), "text": f"text {n}"} for n in range(50)]}
    house.ask("POST", "/projects/full/labels/tone/items", items)
    house.ask("PUT", "/projects/full/erasures/papers", {"spec": {"match": {"texts": ["nobody"]}}})
    scope = house.centre.store.scope("full")
    until(lambda: scope.get("Dataset", "papers").status.get("latest"), "the version to be ready")
    return house


def data_routes() -> list[tuple[str, str]]:
    """(method, path) of the routes of data."""
    routers = (blobs_routes, dataset_routes, label_routes)
    found = [(m, route.path) for module in routers for route in module.router.routes for m in sorted(route.methods)]
    return [(method, path.replace(":path}", "}")) for method, path in found]


@pytest.mark.parametrize(("method", "path"), data_routes(), ids=lambda value: value.removeprefix(PROJECT))
def test_a_route_of_data_never_crashes_on_what_is_there(method: str, path: str, full_house: House) -> None:
    document: Any = schemathesis.openapi.from_dict(full_house.ask("GET", "/openapi.json"))
    is_upload = "upload_id" in path
    upload = full_house.ask("POST", "/projects/full/uploads")["id"] if is_upload else ""

    @settings(
        max_examples=3 * EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=document[path][method].as_strategy())
    def holds(case: Any) -> None:
        case.path_parameters |= {n: v for n, v in {**NAMED, "upload_id": upload}.items() if n in case.path_parameters}
        _ask(full_house, method, case, full_house.admin)

    holds()


WRONG_MANIFESTS: tuple[Any, ...] = (
    *("\ud800", "", "null", "[]", "{}", "NaN", "[" * 2000),
    *({"splits": v} for v in (None, [], {"train": None}, {"train": {"shards": [{}], "rows": 0}}, {"../x": EMPTY})),
    *(
        {"splits": {"train": {"shards": [SHARD | {n: v}], "rows": 1}}}
        for n in SHARD
        for v in (None, -1, 2**70, "x", [])
    ),
    *({name: value} for name in FIELDS for value in (None, 7, "x", [7], {"x": 7}, {"x": None})),
)


@pytest.mark.parametrize("wrong", WRONG_MANIFESTS, ids=lambda value: ascii(value)[:60])
def test_a_manifest_that_is_none_is_refused(full_house: House, wrong: Any) -> None:
    whole = {"format": "atoll-dataset/1", "splits": {}, "licence": "MIT"}
    whole |= {"counts": {}, "recipe": {}, "funnel": [], "sources": []}
    text = wrong if isinstance(wrong, str) else json.dumps(whole | wrong)
    body = json.dumps({"manifest": text})
    headers = {"Authorization": f"Bearer {full_house.admin}", "Content-Type": "application/json"}
    where = "/projects/full/datasets/wrong/versions"
    answer = full_house.client.post(where, content=body, headers=headers)
    assert answer.status_code in (200, 400), (wrong, answer.text)
    full_house.ask("POST", where, {"manifest": "{}", "branch": "a b", "parents": ["papers.v1"]}, code=400)


def _asks_for(path: str, role: str) -> bool:
    is_for_parts = path.startswith(("/api/v1/agent/", "/api/v1/gateway/", "/api/v1/blobs"))
    return is_for_parts == (role == "system")


def _ask(house: House, method: str, case: Any, secret: str) -> None:
    sent = case.as_transport_kwargs(base_url="http://door")
    query = {k: v for k, v in (sent.pop("params", None) or {}).items() if k not in ENDLESS}
    headers = dict(sent.pop("headers", None) or {}) | {"Authorization": f"Bearer {secret}"}
    known = {name: sent[name] for name in ("json", "data", "content") if sent.get(name) is not None}
    answer = house.client.request(method, sent["url"], params=query, headers=headers, **known)
    assert answer.status_code < 500 or answer.status_code == 503, (method, sent["url"], known, answer.text)
