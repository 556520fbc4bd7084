"""Uploads lie sealed under a key of their project: stored nowhere in clear, opened for nobody else."""

from __future__ import annotations

import os
from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.blobs import digest_of
from atoll.core.errors import IntegrityError
from atoll.core.resources import Resource
from atoll.core.store import Create
from atoll.data.files import create_file
from atoll.data.imports import DATASET_IMPORT
from running import files_of

from .conftest import House

V1 = "http://door/v1"
PRIVATE = b"nobody else may read this; " * 12_000


def send(house: House, method: str, path: str, key: str, code: int = 200, **request: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}", **request.pop("headers", {})}
    answer = house.client.request(method, f"{V1}/{path}", headers=headers, **request)
    assert answer.status_code == code, answer.text
    return answer


def upload(house: House, key: str, data: bytes) -> str:
    form = {"files": {"file": ("a.jsonl", data)}, "data": {"purpose": "user_data"}}
    return str(send(house, "POST", "files", key, **form).json()["id"])


def stored(house: House, name: str, project: str = "red") -> Resource:
    return house.centre.store.scope(project).get("File", name)


def is_in_clear(house: House, data: bytes) -> bool:
    return any(data in found for _, found in files_of(house.home / "blobs"))


@pytest.fixture(scope="module")
def red(house: House) -> str:
    return house.key("red")


@pytest.fixture(scope="module")
def blue(house: House) -> str:
    return house.key("blue")


def test_an_upload_lies_nowhere_in_clear_and_comes_back(house: House, red: str) -> None:
    name = upload(house, red, PRIVATE)
    file = stored(house, name)
    assert file.spec["sealed"] and file.spec["size_bytes"] == len(PRIVATE) and file.spec["digest"] != digest_of(PRIVATE)
    assert not is_in_clear(house, PRIVATE[:40])
    assert send(house, "GET", f"files/{name}/content", red).content == PRIVATE
    house.centre.blobs.verify(file.spec["digest"])


def test_an_upload_in_parts_lies_nowhere_in_clear(house: House, red: str) -> None:
    halves = (b"first half of it; " * 9_000, b"second half of it; " * 20)
    size = sum(map(len, halves))
    wanted = {"filename": "b", "purpose": "user_data", "bytes": size, "mime_type": "text/plain"}
    begun = send(house, "POST", "uploads", red, json=wanted).json()["id"]
    parts = [send(house, "POST", f"uploads/{begun}/parts", red, files={"data": ("p", half)}) for half in halves]
    assert not any(is_in_clear(house, half[:40]) for half in halves)
    order = {"part_ids": [part.json()["id"] for part in parts]}
    done = send(house, "POST", f"uploads/{begun}/complete", red, json=order).json()
    assert not any(is_in_clear(house, half[:40]) for half in halves)
    assert done["file"]["bytes"] == size and stored(house, done["file"]["id"]).spec["sealed"]
    assert send(house, "GET", f"files/{done['file']['id']}/content", red).content == b"".join(halves)


@pytest.mark.parametrize(
    ("wanted", "start", "stop"), [("bytes=100000-", 100_000, None), ("bytes=65530-65600", 65_530, 65_601)]
)
def test_a_range_of_a_sealed_file_is_served(house: House, red: str, wanted: str, start: int, stop: int | None) -> None:
    name = upload(house, red, PRIVATE)
    part = send(house, "GET", f"files/{name}/content", red, 206, headers={"Range": wanted})
    assert part.content == PRIVATE[start:stop]
    assert part.headers["content-range"].startswith(f"bytes {start}-")
    send(house, "GET", f"files/{name}/content", red, 400, headers={"Range": f"bytes={len(PRIVATE) + 1}-"})


def test_another_projects_key_does_not_open_it(house: House, red: str, blue: str) -> None:
    name = upload(house, red, PRIVATE)
    digest = stored(house, name).spec["digest"]
    send(house, "GET", f"files/{name}/content", blue, 404)
    with pytest.raises(IntegrityError, match="under another key"):
        house.centre.sealed_blobs("blue").open(digest)
    stolen = create_file("blue", "file-stolen", "a", "user_data", digest=digest, size_bytes=9, sealed=True)
    house.centre.store.everything("test").write([stolen])
    assert send(house, "GET", "files/file-stolen/content", blue, 500).json()["error"]["code"] == "integrity"


def test_a_file_made_before_is_still_read(house: House, red: str) -> None:
    blob = house.centre.blobs.put_bytes(b"made before")
    write = create_file("red", "file-old", "a", "user_data", digest=blob.digest, size_bytes=blob.size_bytes)
    del write.spec["sealed"]
    house.centre.store.everything("test").write([write])
    assert send(house, "GET", "files/file-old/content", red).content == b"made before"


def test_equal_files_are_told_apart_by_nobody(house: House, red: str) -> None:
    one, two = (stored(house, upload(house, red, PRIVATE)).spec["digest"] for _ in range(2))
    assert one != two


def test_a_digest_gives_a_tenant_no_right_to_bytes(house: House, red: str) -> None:
    owner = house.key("red", role="owner")
    blob = house.centre.blobs.put_bytes(os.urandom(40))
    for key in (red, owner):
        house.ask("GET", f"/projects/red/blobs/{blob.digest}", key=key, code=403)
    begun = house.ask("POST", "/projects/red/uploads", key=red)["id"]
    said = house.ask("POST", f"/projects/red/uploads/{begun}", {"digest": blob.digest}, key=red, code=400)["error"]
    assert blob.digest in said["message"] and digest_of(b"") in said["message"] and "again" in said["hint"]
    assert said["details"]["found"] == digest_of(b"")


def test_what_the_platform_runs_cannot_be_made_to_run_something_else(house: House, red: str) -> None:
    everything = house.centre.store.everything("test")
    spec = DATASET_IMPORT.parse_spec({"dataset": "d", "uploads": ["file-1"]})
    everything.write([Create("DatasetImport", "red", "take", spec, {"phase": "failed"})])
    owner = everything.get("DatasetImport", "take", "red")
    made = Create("Workload", "red", "theirs", WORKLOAD.parse_spec({"roles": [{"command": ["true"]}]}), owner=owner.uid)
    everything.write([made])
    role = {"command": ["printenv"], "secrets": {"KEY": "atoll-uploads/KEY"}}
    house.put("red", "workloads", "theirs", {"roles": [role]}, key=red, code=403)
    assert everything.get("Workload", "theirs", "red").spec["roles"][0]["command"] == ["true"]


def test_no_secret_takes_the_place_of_the_platforms_own(house: House) -> None:
    body = {"name": "atoll-uploads", "values": {"KEY": "mine"}}
    said = house.ask("POST", "/projects/red/secrets", body, code=400)["error"]["message"]
    assert "names with atoll- are the platform's own" in said
