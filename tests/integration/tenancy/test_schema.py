"""No route of the management API crashes, whatever fits or nearly fits its own OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from .conftest import House

EXAMPLES = 20
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
