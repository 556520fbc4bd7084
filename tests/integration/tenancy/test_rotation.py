"""The key of a project's uploads is rotated: by owners, visibly, without losing a byte to `kill -9`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

import pytest

from atoll.core.blobs import BlobStore
from running import Platform, platform, until

from .conftest import House, opened
from .test_uploads import PRIVATE, send, stored, upload

FILES = 24


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of our own: runs begin here, and their workloads would be handed to others' nodes."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house


def test_owners_rotate_and_files_stay_as_they_are(house: House) -> None:
    owner, member = house.key("blue", role="owner"), house.key("blue")
    name = upload(house, member, PRIVATE)
    before = stored(house, name, "blue").spec["digest"]
    house.ask("POST", "/projects/blue/datakeys/rotate", key=member, code=403)
    house.ask("POST", "/projects/system/datakeys/rotate", code=404)
    made = house.ask("POST", "/projects/blue/datakeys/rotate", key=owner)
    assert made["kind"] == "DataKey" and "sealed" not in made["spec"]
    until(lambda: stored(house, name, "blue").spec["digest"] != before, "the file to be sealed anew")
    assert send(house, "GET", f"files/{name}/content", member).content == PRIVATE
    later = stored(house, upload(house, member, PRIVATE), "blue").spec["digest"]
    assert house.centre.uploads("blue").is_current(later)
    told = house.ask("GET", f"/projects/blue/events?kind=datakeys&name={made['name']}")["events"]
    assert told[0]["reason"] == "Rotated" and told[0]["actor"].startswith("key-")
    body = {"spec": {"number": 9, "sealed": "x"}}
    house.ask("PUT", "/projects/blue/datakeys/mine", body, key=owner, code=403)
    house.ask("DELETE", f"/projects/blue/datakeys/{made['name']}", key=owner, code=403)


def test_an_import_named_by_the_digest_a_file_had_takes_the_file(house: House) -> None:
    key = house.key("red", role="owner")
    name = upload(house, key, b'{"prompt": "p", "completion": "c"}')
    before = stored(house, name).spec["digest"]
    house.ask("POST", "/projects/red/datakeys/rotate", key=key)
    until(lambda: stored(house, name).spec["digest"] != before, "the file to be sealed anew")
    house.put("red", "datasetimports", "by-former", {"dataset": "by-former", "train": before}, key=key)
    scope = house.centre.store.scope("red")
    until(lambda: scope.get("DatasetImport", "by-former").status.get("reason"), "the import to begin")
    (workload,) = scope.children(scope.get("DatasetImport", "by-former").uid)
    told = workload.spec["roles"][0]["input"]
    assert (told["train"], told["sealed"]) == (stored(house, name).spec["digest"], ["train"])


@pytest.fixture
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("rotation") / "home") as made:
        yield made


def test_kill_9_in_the_middle_of_a_rotation(up: Platform) -> None:
    door = up.openai(retries=20)
    sent = {}
    for number in range(FILES):
        data = os.urandom(3 << 20) + f"file {number}".encode()
        sent[door.files.create(file=(f"{number}.bin", data), purpose="user_data").id] = hashlib.sha256(data).hexdigest()
    with up.client() as client:
        before = {name: client.get("File", name).spec["digest"] for name in sent}
        assert up.cli("keys", "rotate-uploads").returncode == 0

    def resealed() -> int:
        with contextlib.suppress(Exception), up.client() as client:
            return sum(file.spec["digest"] != before[file.name] for file in client.find_all("File").items)
        return 0

    for share in (1, FILES // 3, 2 * FILES // 3):
        until(lambda share=share: resealed() >= share, "some files to be sealed anew", 120)
        up.kill("server")
    until(lambda: resealed() == FILES, "all files to be sealed anew", 120)
    with up.client() as client:
        for name, checksum in sent.items():
            assert hashlib.sha256(door.files.content(name).read()).hexdigest() == checksum
            assert len(client.get("File", name).spec["formerly"]) == 1
        living = {client.get("File", name).spec["digest"] for name in sent}
    assert {*BlobStore(str(up.home / "blobs")).digests()} == living | {*before.values()}
