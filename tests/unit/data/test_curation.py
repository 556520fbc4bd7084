"""The controller of curation runs: names are resolved within the project, keys are made when they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from atoll.compute.jobs import NotYet
from atoll.core.clock import SystemClock
from atoll.core.database import Database
from atoll.core.errors import Forbidden, Invalid, NotFound
from atoll.core.resources import Key, Resource
from atoll.core.store import Create, SetStatus, Store
from atoll.data.curation import CURATION_RUN, KEY_SECRET, CurationRunController, is_keyed
from atoll.data.files import FILE, create_file
from atoll.data.resources import DATASET, DATASET_VERSION
from atoll.governance.resources import API_KEY
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

    def read(self, key: Key) -> Resource | None:
        return self.scope.find(key.kind, key.name, key.project)


@pytest.fixture
def world() -> Iterator[World]:
    database = Database("sqlite://")
    database.migrate()
    yield World(Store(database, SystemClock()))
    database.close()


def _run(world: World, name: str = "clean", **spec: Any) -> Resource:
    wanted = {"dataset": "docs", "sources": [{"kind": "stdlib"}], **spec}
    world.write(Create("CurationRun", "default", name, CURATION_RUN.parse_spec(wanted), {"phase": "pending"}))
    return world.scope.get("CurationRun", name, "default")


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


def _version(world: World, name: str, number: int, phase: str = "ready", branch: str = "main") -> str:
    manifest = "sha256:" + f"{number:064x}"
    spec = DATASET_VERSION.parse_spec({"dataset": name.partition(".")[0], "manifest": manifest, "branch": branch})
    world.write(Create("DatasetVersion", "default", name, spec, {"phase": phase}))
    return manifest


def _dataset(world: World, name: str, **tags: str) -> None:
    world.write(Create("Dataset", "default", name, DATASET.parse_spec({"tags": tags}), {"phase": "ready"}))


def test_a_dataset_is_known_with_all_its_versions_a_branch_with_its_own_a_tag_and_a_version_alone(world: World) -> None:
    _dataset(world, "web", good="web.v1")
    first, second = _version(world, "web.v1", 1), _version(world, "web.v2", 2)
    branched = _version(world, "web.v3", 3, branch="zh")
    _version(world, "web.v4", 4, phase="failed")
    every = {"web.v1": first, "web.v2": second, "web.v3": branched}
    wanted = {"web": every, "web@zh": {"web.v3": branched}, "web@good": {"web.v1": first}, "web.v2": {"web.v2": second}}
    for number, (reference, known) in enumerate(wanted.items()):
        run = _run(world, f"run-{number}", recipe={"dedup": {"known": [reference]}})
        workload, remembered = CurationRunController().workload_for(run, world)
        assert workload["roles"][0]["input"]["known"] == known
        assert remembered["known"] == list(known)
        assert workload["roles"][0]["input"]["recipe"]["dedup"]["known"] == [reference]


def test_the_dataset_a_run_is_for_may_have_no_version_yet_another_must(world: World) -> None:
    assert _role(world, recipe={"dedup": {"known": ["docs"]}})["input"]["known"] == {}
    run = _run(world, "other", recipe={"dedup": {"known": ["web"]}})
    with pytest.raises(NotFound, match="there is no dataset 'web'"):
        CurationRunController().workload_for(run, world)
    _dataset(world, "web")
    with pytest.raises(NotYet, match="waiting for dataset 'web'"):
        CurationRunController().workload_for(run, world)
    _version(world, "web.v1", 1, phase="pending")
    with pytest.raises(NotYet, match="waiting for dataset 'web'"):
        CurationRunController().workload_for(run, world)
    with pytest.raises(NotFound, match="no branch or tag 'zh'"):
        CurationRunController().workload_for(_run(world, "third", recipe={"dedup": {"known": ["web@zh"]}}), world)


def test_a_quality_model_that_is_not_there_is_named_with_the_way_out(world: World) -> None:
    with pytest.raises(NotFound, match="there is no quality model 'edu' in project 'default'") as refused:
        _role(world, recipe={"quality": [{"name": "edu", "model": "edu"}]})
    assert "apply a QualityModel" in refused.value.hint


def test_a_path_is_no_dataset_that_is_known(world: World) -> None:
    with pytest.raises(Invalid, match="'/data/web' names no dataset"):
        _role(world, recipe={"dedup": {"known": ["/data/web"]}})


@dataclass
class Found:
    """What the library finds."""

    version: Resource
    base: Resource | None = None


def _model(world: World, name: str, *files: str) -> Resource:
    spec = {"model": name.partition(".")[0], "source": "file:/models/x"}
    told = [{"name": file, "digest": "sha256:" + f"{number:064x}"} for number, file in enumerate(files)]
    world.write(Create("ModelVersion", "default", name, spec, {"phase": "ready", "files": told}))
    return world.scope.get("ModelVersion", name, "default")


def test_a_models_tokenizer_packs_and_the_version_is_remembered(world: World) -> None:
    version = _model(world, "small.v1", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    run = _run(world, recipe={"pack": {"model": "small@latest"}})
    asked: list[str] = []

    def find(scope: object, project: str, reference: str) -> Found:
        asked.append(f"{project}/{reference}")
        return Found(version)

    workload, remembered = CurationRunController(find_model=find).workload_for(run, world)
    told = workload["roles"][0]["input"]
    assert set(told["tokenizer"]) == {"tokenizer.json", "tokenizer_config.json"}
    assert told["recipe"]["pack"]["model"] == remembered["model_version"] == "small.v1"
    assert asked == ["default/small@latest"]


def test_an_adapter_packs_with_the_tokenizer_of_its_base(world: World) -> None:
    base, adapter = _model(world, "small.v1", "tokenizer.json"), _model(world, "tuned.v1", "adapter.gguf")
    run = _run(world, recipe={"pack": {"model": "tuned"}})
    workload, told = CurationRunController(find_model=lambda *_: Found(adapter, base)).workload_for(run, world)
    assert list(workload["roles"][0]["input"]["tokenizer"]) == ["tokenizer.json"]
    assert told["model_version"] == "tuned.v1"


def test_a_model_without_a_tokenizer_json_is_refused_by_name(world: World) -> None:
    version = _model(world, "small.v1", "model.gguf")
    run = _run(world, recipe={"pack": {"model": "small"}})
    with pytest.raises(Invalid, match=r"'small\.v1' has no tokenizer\.json; it has model\.gguf") as refused:
        CurationRunController(find_model=lambda *_: Found(version)).workload_for(run, world)
    assert refused.value.field == "recipe.pack.model"
    with pytest.raises(NotYet, match="waiting for model 'small'"):
        CurationRunController(find_model=lambda *_: None).workload_for(run, world)
    with pytest.raises(Invalid, match="no library of models"):
        CurationRunController().workload_for(run, world)


def test_a_deployment_is_asked_with_a_key_of_the_run_that_ends_with_it(world: World) -> None:
    payer = {"role": "member", "sha256": "0" * 64, "models": ["words"]}
    world.write(Create("ApiKey", "default", "asker", API_KEY.parse_spec(payer), {"phase": "ready"}))
    secrets = Secrets([bytes(32)])
    recipe = {"dedup": {"semantic": {"deployment": "words"}}}
    controller = CurationRunController(secrets, "http://door")
    run = _run(world, recipe=recipe, creator="default/asker")
    workload, _ = controller.workload_for(run, world)
    role = workload["roles"][0]
    assert role["input"]["door"] == "http://door" and role["input"]["project"] == "default"
    assert role["secrets"] == {"ATOLL_CURATION_KEY": "key-curationrun-clean/KEY"}
    key = world.scope.get("ApiKey", "key-curationrun-clean", "default")
    assert key.spec["models"] == ["words"] and key.spec["charged_to"] == "default/asker"
    assert secrets.value(world.scope, "default", "key-curationrun-clean/KEY", [run.uid]) not in str(role["input"])
    world.write(SetStatus(run, {"phase": "succeeded", "observed_generation": run.generation}))
    controller.reconcile(run.key, world)
    assert world.scope.get("ApiKey", "key-curationrun-clean", "default").spec["revoked"]
    denied = _run(world, "denied", recipe={"dedup": {"semantic": {"deployment": "other"}}}, creator="default/asker")
    with pytest.raises(Forbidden, match="may not call"):
        controller.workload_for(denied, world)
