"""The controller of curation runs: names are resolved within the project, keys are made when they are needed."""

from collections.abc import Iterator
from typing import Any

import pytest

from atoll.core.clock import SystemClock
from atoll.core.database import Database
from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import Resource
from atoll.core.store import Create, Store
from atoll.data.curation import CURATION_RUN, KEY_SECRET, CurationRunController, is_keyed
from atoll.data.files import FILE, create_file
from atoll.governance.secrets import Secrets

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64

assert FILE


class World:
    """What a controller sees of a store."""

    def __init__(self, store: Store) -> None:
        self.scope = store.everything("test")
        self.clock = SystemClock()

    def write(self, *batch: Any) -> None:
        self.scope.write(list(batch))


@pytest.fixture
def world() -> Iterator[World]:
    database = Database("sqlite://")
    database.migrate()
    yield World(Store(database, SystemClock()))
    database.close()


def _run(world: World, **spec: Any) -> Resource:
    wanted = {"dataset": "docs", "sources": [{"kind": "stdlib"}], **spec}
    world.write(Create("CurationRun", "default", "clean", CURATION_RUN.parse_spec(wanted), {"phase": "pending"}))
    return world.scope.get("CurationRun", "clean", "default")


def _role(world: World, secrets: Secrets | None = None, **spec: Any) -> dict[str, Any]:
    workload, _ = CurationRunController(secrets).workload_for(_run(world, **spec), world)
    role: dict[str, Any] = workload["roles"][0]
    return role


def test_workers_decide_what_a_run_asks_for(world: World) -> None:
    role = _role(world, workers=3, runtime="ray")
    assert role["resources"] == {"cpu": 3.0, "memory_bytes": 4 * (384 << 20)}
    assert role["input"]["workers"] == 3 and role["input"]["runtime"] == "ray"
    assert "secrets" not in role


def test_an_upload_must_be_the_projects_own_and_keeps_its_name(world: World) -> None:
    world.write(create_file("default", "file-1", "notes.md", "user_data", digest=DIGEST, size_bytes=3))
    world.write(create_file("other", "file-2", "theirs.md", "user_data", digest=OTHER, size_bytes=3))
    role = _role(world, sources=[{"kind": "upload", "digest": DIGEST}])
    assert role["input"]["names"] == {DIGEST: "notes.md"}


def test_a_sealed_upload_is_named_and_its_task_gets_the_key(world: World) -> None:
    told = {"size_bytes": 3, "sealed": True}
    world.write(create_file("default", "file-1", "notes.md", "user_data", digest=DIGEST, **told))
    world.write(create_file("default", "file-2", "old.txt", "user_data", digest=OTHER, size_bytes=3))
    sources = [{"kind": "upload", "digest": OTHER}]
    role = _role(world, sources=sources, recipe={"words": [{"name": "rude", "digest": DIGEST}]})
    assert role["input"]["sealed"] == [DIGEST]
    assert role["secrets"] == {"ATOLL_UPLOADS_KEY": "atoll-uploads/KEY"}


def test_another_projects_bytes_are_not_found(world: World) -> None:
    world.write(create_file("other", "file-2", "theirs.md", "user_data", digest=OTHER, size_bytes=3))
    with pytest.raises(NotFound, match=r"sources\[0\].digest"):
        _role(world, sources=[{"kind": "upload", "digest": OTHER}])


def test_another_projects_word_list_is_not_found(world: World) -> None:
    world.write(create_file("other", "file-2", "words.txt", "user_data", digest=OTHER, size_bytes=3))
    with pytest.raises(NotFound, match=r"recipe\.words"):
        _role(world, recipe={"words": [{"name": "rude", "digest": OTHER}]})


def test_a_key_is_made_once_when_personal_data_is_to_be_hashed(world: World) -> None:
    secrets = Secrets([bytes(32)])
    role = _role(world, secrets, recipe={"privacy": {"actions": {"email": "hash"}}})
    assert role["secrets"] == {"ATOLL_PRIVACY_KEY": f"{KEY_SECRET}/key"}
    first = secrets.value(world.scope, "default", f"{KEY_SECRET}/key")
    run = world.scope.get("CurationRun", "clean", "default")
    CurationRunController(secrets).workload_for(run, world)
    assert secrets.value(world.scope, "default", f"{KEY_SECRET}/key") == first
    assert len(bytes.fromhex(first)) == 32


def test_without_secrets_such_a_recipe_is_refused(world: World) -> None:
    with pytest.raises(Invalid, match="no key can be made here"):
        _role(world, None, recipe={"privacy": {"default": "pseudonymise"}})


def test_masks_need_no_key() -> None:
    assert not is_keyed(None)
    assert not is_keyed({"default": "mask", "actions": {"ip": "drop"}})
    assert is_keyed({"default": "keep", "actions": {"ip": "hash"}})


def test_an_index_is_a_folder_with_an_absolute_path(world: World) -> None:
    with pytest.raises(Invalid, match="an index cannot be kept at 'docs'") as caught:
        _role(world, recipe={"dedup": {"index": "docs"}})
    assert caught.value.field == "recipe.dedup.index"


def test_packages_and_hubs_are_left_to_the_run(world: World) -> None:
    sources = [{"kind": "package", "reference": "pypi:texts==1.0"}, {"kind": "hub", "reference": "hf:me/texts"}]
    found = _role(world, sources=sources)["input"]["sources"]
    assert [source["reference"] for source in found] == ["pypi:texts==1.0", "hf:me/texts"]
