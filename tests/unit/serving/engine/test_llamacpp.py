"""The llama.cpp engine without llama.cpp: what it checks before the library may see a file."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_gguf
from atoll.core.blobs import BlobStore
from atoll.core.errors import CapacityError, IntegrityError, Invalid, NotFound, Unavailable
from atoll.models.formats import read_gguf
from atoll.serving.engine.base import Adapter, ModelFile, ServeInput, Task
from atoll.serving.engine.llamacpp import (
    capabilities,
    check_fits,
    estimate,
    local_files,
    memory_free_bytes,
)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture(autouse=True)
def _task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))


def _put(store: BlobStore, path: Path) -> ModelFile:
    return ModelFile(path.name, store.put_file(path).digest)


def _spec(model: ModelFile, *adapters: ModelFile, context: int = 128, task: Task = "generate") -> ServeInput:
    return ServeInput(model, "tiny", context, 2, tuple(Adapter("tiny", file) for file in adapters), task=task)


def test_files_are_served_from_where_the_store_has_them(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    adapter = _put(store, tiny_gguf.write_adapter(tmp_path / "adapter.gguf"))
    files = local_files(_spec(model, adapter), store, tmp_path / "cache")
    assert files.model == store.local_path(model.digest)
    assert files.adapters == (store.local_path(adapter.digest),)
    assert files.facts.architecture == "llama"


def test_a_blob_that_is_not_there_is_named(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="sha256:aaaa"):
        local_files(_spec(ModelFile("m", "sha256:" + "a" * 64)), store, tmp_path / "cache")


def test_a_model_that_is_an_adapter_is_refused(store: BlobStore, tmp_path: Path) -> None:
    adapter = _put(store, tiny_gguf.write_adapter(tmp_path / "adapter.gguf"))
    with pytest.raises(Invalid, match=r"adapter\.gguf is an adapter"):
        local_files(_spec(adapter), store, tmp_path / "cache")


def test_an_adapter_must_be_one_and_of_the_same_architecture(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    with pytest.raises(Invalid, match=r"tiny\.gguf is not an adapter"):
        local_files(_spec(model, model), store, tmp_path / "cache")
    other = _put(store, tiny_gguf.write_adapter(tmp_path / "other.gguf", architecture="qwen2"))
    with pytest.raises(Invalid, match="adapts 'qwen2', the model is 'llama'"):
        local_files(_spec(model, other), store, tmp_path / "cache")


def test_a_context_longer_than_the_model_was_made_for_is_refused(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    with pytest.raises(Invalid, match="context is 2000") as caught:
        local_files(_spec(model, context=2000), store, tmp_path / "cache")
    assert caught.value.hint == f"at most {tiny_gguf.CONTEXT}"


def test_a_damaged_blob_is_refused_before_its_header_is_read(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    path = store.local_path(model.digest)
    assert path is not None
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(IntegrityError, match=f"expected {model.digest}"):
        local_files(_spec(model), store, tmp_path / "cache")


def test_what_does_not_fit_is_refused_with_both_numbers(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    spec = _spec(model)
    needed = estimate(spec, local_files(spec, store, tmp_path / "cache"))
    check_fits(needed, needed.total_bytes, needed.total_bytes)
    with pytest.raises(CapacityError, match=r"needs .* MiB .* and 1\.0 MiB are available") as caught:
        check_fits(needed, 1 << 20, 1 << 20)
    assert caught.value.details == {"needed_bytes": needed.total_bytes, "available_bytes": 1 << 20}
    with pytest.raises(Unavailable, match="free now"):
        check_fits(needed, needed.total_bytes, 1 << 20)
    check_fits(needed)


def test_free_memory_is_what_the_system_says_and_no_more_than_is_usable(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable: 4000 kB\n")
    assert memory_free_bytes(1 << 40, tmp_path / "meminfo") == 4000 << 10
    assert memory_free_bytes(1 << 10, tmp_path / "meminfo") == 1 << 10
    assert memory_free_bytes(1 << 10, tmp_path / "absent") == 1 << 10


def test_capabilities_follow_the_model_and_the_task(tmp_path: Path) -> None:
    chat = read_gguf(tiny_gguf.write_model(tmp_path / "chat.gguf"))
    plain = read_gguf(tiny_gguf.write_model(tmp_path / "plain.gguf", template=None))
    file = ModelFile("m", "sha256:" + "a" * 64)
    assert {"chat", "prefill", "completion", "grammar"} <= set(capabilities(_spec(file), chat))
    assert "tools" in capabilities(_spec(file), chat, can_call=True)
    assert "tools" not in capabilities(_spec(file), chat), "the template has no place for them"
    assert not {"chat", "tools", "prefill", "fim", "lora"} & set(capabilities(_spec(file), plain))
    assert "fim" in capabilities(_spec(file), plain, can_infill=True)
    assert "lora" in capabilities(_spec(file, file), plain)
    assert capabilities(_spec(file, task="embed"), chat) == ("embedding",)
    assert capabilities(_spec(file, task="rerank"), chat) == ("rerank",)


def test_a_model_that_cannot_rank_is_refused(store: BlobStore, tmp_path: Path) -> None:
    model = _put(store, tiny_gguf.write_model(tmp_path / "tiny.gguf"))
    with pytest.raises(Invalid, match=r"tiny\.gguf has no head that ranks"):
        local_files(_spec(model, task="rerank"), store, tmp_path / "cache")
