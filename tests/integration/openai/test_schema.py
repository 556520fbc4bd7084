"""The OpenAPI document of the /v1 routes holds: whatever is sent, no crash, and only answers that are declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from atoll.server.openai.routes import ROUTERS
from running import Platform

from .conftest import server_of

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 20


@pytest.fixture(scope="module")
def session(door: openai.OpenAI) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.headers["Authorization"] = f"Bearer {door.api_key}"
        yield made


@pytest.fixture(scope="module")
def document(up: Platform, session: requests.Session) -> Any:
    loaded = session.get(f"{server_of(up)}/api/v1/openapi.json", timeout=60).json()
    return schemathesis.openapi.from_dict(loaded)


def routes() -> list[tuple[str, str]]:
    """(method, path) of every route that is to hold."""
    found = [(m, route.path) for router in ROUTERS for route in router.routes for m in sorted(route.methods)]
    return [(method, path) for method, path in found if path.startswith("/v1/")]


@pytest.mark.parametrize(("method", "path"), routes(), ids=lambda value: value.strip("/").replace("/", "."))
def test_a_route_answers_as_declared(
    method: str, path: str, document: Any, up: Platform, session: requests.Session
) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(case=document[path][method].as_strategy())
    def holds(case: Any) -> None:
        case.validate_response(case.call(base_url=server_of(up), session=session, timeout=60), checks=CHECKS)

    holds()
