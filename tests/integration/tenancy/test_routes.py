"""Every route of the OpenAPI document, asked by those who may not: new routes are covered without being named here."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .conftest import BASE, House

OPEN = {"/healthz", "/api/v1/metrics"}
FOR_ALL = {"/api/v1/kinds", "/api/v1/status", "/api/v1/me"}
OF_THE_KEY_ITSELF = {
    ("DELETE", "/api/v1/projects/{project}/keys/{name}"),
    ("POST", "/api/v1/projects/{project}/keys/{name}/rotate"),
}
"""Reached by everybody who may read: any key may give itself up or be rotated. Of others' keys they refuse inside."""

KNOWN = {"project": "red", "plural": "datasets", "upload_id": "0" * 32, "digest": "sha256:" + "0" * 64}
ROOT = BASE.removesuffix("/api/v1")


def routes(house: House) -> Iterator[tuple[str, str, str]]:
    """(verb, path in the document, path to ask); resource names are those of a thing of project red."""
    house.put("red", "datasets", "reds", {})
    house.make_key("red")
    for path, verbs in house.app.openapi()["paths"].items():
        filled = re.sub(r"{(\w+)}", lambda match: KNOWN.get(match[1], "reds"), path)
        yield from ((verb.upper(), path, filled) for verb in verbs)


def status_of(house: House, verb: str, path: str, key: str, **headers: str) -> int:
    sent = {"Upload-Offset": "0", **headers} | ({"Authorization": f"Bearer {key}"} if key else {})
    body = {} if verb in ("POST", "PUT", "PATCH") else None
    return house.client.request(verb, f"{ROOT}{path}", headers=sent, json=body).status_code


@pytest.mark.parametrize("key", ["", "sk-atoll-nobody"])
def test_every_route_but_two_wants_a_key(house: House, key: str) -> None:
    let_in = {path for verb, path, filled in routes(house) if status_of(house, verb, filled, key) != 401}
    assert let_in == OPEN


def test_no_route_answers_another_tenant(house: House) -> None:
    stranger = house.key("blue", role="owner")
    for verb, path, filled in routes(house):
        if path not in OPEN and ("{project}" in path or "/agent/" in path or "/gateway/" in path):
            assert status_of(house, verb, filled, stranger) in (400, 403), (verb, path)
        elif path.startswith("/v1"):
            meant = {"OpenAI-Project": "red"}
            assert status_of(house, verb, filled, stranger, **meant) in (400, 403), (verb, path)


def test_no_route_answers_a_person_who_is_no_member(house: House) -> None:
    house.put("system", "users", "pat", {})
    house.put("blue", "memberships", "pat", {"role": "owner"})
    key = house.key("red", user="pat", role="owner")
    for verb, path, filled in routes(house):
        if path not in OPEN and "{project}" in path:
            assert status_of(house, verb, filled, key) in (400, 403), (verb, path)


def test_a_viewer_changes_nothing_by_any_route(house: House) -> None:
    viewer = house.key("red", role="viewer")
    for verb, path, filled in routes(house):
        if verb == "GET" or (verb, path) in OF_THE_KEY_ITSELF:
            continue
        assert status_of(house, verb, filled, viewer) in (400, 403), (verb, path)


def test_a_caller_is_answered_by_no_route_of_the_server(house: House) -> None:
    """It is for applications: what they ask goes through the gateway."""
    caller = house.key("red", role="caller")
    for verb, path, filled in routes(house):
        if path not in OPEN | FOR_ALL:
            assert status_of(house, verb, filled, caller) in (400, 403), (verb, path)
    assert house.ask("GET", "/status", key=caller)["counts"] == {}


def test_what_belongs_to_no_project_is_the_administrators_and_the_platforms_own(house: House) -> None:
    owner = house.key("red", role="owner")
    for verb, path, filled in routes(house):
        if path.startswith("/api/v1/") and not path.startswith("/api/v1/projects/") and path not in OPEN | FOR_ALL:
            assert status_of(house, verb, filled, owner) in (400, 403), (verb, path)


def test_the_platforms_own_parts_reach_nobodys_things(house: House) -> None:
    for verb, path, filled in routes(house):
        if path.startswith("/api/v1/projects/"):
            assert status_of(house, verb, filled, house.system) in (400, 403), (verb, path)
