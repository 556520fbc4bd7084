"""Importing a model as a task: a real child process, real pip, real files; nothing is stored unless all is well."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny_gguf
from atoll.core.blobs import digest_of_file
from task_folder import TaskFolder

PERMANENT = 3
RETRIABLE = 1


@pytest.fixture
def task(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path, "atoll.models.engine.fetch")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tiny_gguf.write_model(tmp_path / "source" / "tiny.gguf")


@pytest.fixture
def shelf(tmp_path: Path, model: Path) -> dict[str, str]:
    """pip's configuration for a folder of wheels that holds tiny-model 1.0."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    data = model.read_bytes()
    checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", data)
        wheel.writestr("tiny_model/__init__.py", "raise SystemExit('must never run')")
        metadata = (
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nLicense: BSD-3-Clause\nRequires-Dist: absent\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", metadata + "Requires-Dist: absent\n")
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", f"tiny_model/tiny.gguf,sha256={checksum},{len(data)}\n")
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


def _stored(task: TaskFolder) -> list[str]:
    return list(task.store.digests())


def test_a_file_is_imported_with_facts_origin_and_licence(task: TaskFolder, model: Path) -> None:
    code, result = task.run({"source": f"file:{model}"})
    assert code == 0, task.log
    digest = digest_of_file(model)
    assert result["files"] == [{"name": "tiny.gguf", "digest": digest, "size_bytes": model.stat().st_size}]
    assert result["origin"] == {"source": f"file:{model}", "resolved": str(model), "sha256": digest}
    assert (result["format"], result["architecture"], result["quantization"]) == ("gguf", "llama", "F32")
    assert (result["licence"], result["chat_template"]) == ("MIT", True)
    assert result["scan"] == {"ok": True, "findings": []}
    assert task.store.read(digest) == model.read_bytes()
    progress = task.read("progress.json")
    assert progress is not None and progress["stage"] == "store" and progress["done"] == progress["total"]


def test_a_predictors_folder_is_imported_as_it_is(task: TaskFolder, tmp_path: Path) -> None:
    folder = tmp_path / "prices"
    (folder / "data").mkdir(parents=True)
    (folder / "atoll-predictor.yaml").write_text("predictor: prices:Prices\n")
    (folder / "data" / "weights.csv").write_text("1,2\n")
    code, result = task.run({"source": f"file:{folder}"})
    assert code == 0, task.log
    assert result["format"] == "predictor"
    assert [file["name"] for file in result["files"]] == ["atoll-predictor.yaml", "data/weights.csv"]


def test_the_licence_given_wins_over_the_file(task: TaskFolder, model: Path) -> None:
    _, result = task.run({"source": f"file:{model}", "licence": "CC0-1.0"})
    assert result["licence"] == "CC0-1.0"


def test_a_wrong_checksum_names_file_and_both_sums_and_stores_nothing(task: TaskFolder, model: Path) -> None:
    expected = "0" * 64
    code, result = task.run({"source": f"file:{model}", "sha256": {"tiny.gguf": expected}})
    assert code == PERMANENT
    got = digest_of_file(model).removeprefix("sha256:")
    assert result["error"]["code"] == "integrity"
    assert result["error"]["details"] == {"file": "tiny.gguf", "expected": expected, "got": got}
    assert _stored(task) == []


def test_a_checksum_for_a_file_that_is_not_there_is_refused(task: TaskFolder, model: Path) -> None:
    code, result = task.run({"source": f"file:{model}", "sha256": {"other.gguf": "0" * 64}})
    assert code == PERMANENT
    assert "other.gguf" in result["error"]["message"] and "tiny.gguf" in result["error"]["hint"]


def test_a_truncated_model_is_refused_and_nothing_stored(task: TaskFolder, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-100])
    code, result = task.run({"source": f"file:{model}"})
    assert (code, result["error"]["code"]) == (PERMANENT, "integrity")
    assert "truncated" in result["error"]["message"]
    assert _stored(task) == []


def test_a_pickle_is_refused_under_any_name(task: TaskFolder, model: Path) -> None:
    (model.parent / "notes.txt").write_bytes(pickle.dumps(print))
    code, result = task.run({"source": f"file:{model.parent}", "files": ["*"]})
    assert (code, result["error"]["code"]) == (PERMANENT, "invalid")
    assert "notes.txt" in result["error"]["message"]
    assert _stored(task) == []


def test_a_template_that_reaches_for_internals_is_refused(task: TaskFolder, tmp_path: Path) -> None:
    path = tiny_gguf.write_model(tmp_path / "bad.gguf", template="{{ ''.__class__ }}")
    code, result = task.run({"source": f"file:{path}"})
    assert code == PERMANENT and "__class__" in result["error"]["message"]
    assert _stored(task) == []


def test_an_adapter_is_not_a_model(task: TaskFolder, tmp_path: Path) -> None:
    code, result = task.run({"source": f"file:{tiny_gguf.write_adapter(tmp_path / 'a.gguf')}"})
    assert code == PERMANENT and "adapter" in result["error"]["message"]


def test_a_safetensors_folder_is_imported_without_its_pickles_and_code(task: TaskFolder, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"a": np.zeros((4, 8), np.float32)}, folder / "model.safetensors")
    config = {"architectures": ["X"], "max_position_embeddings": 64, "auto_map": {"AutoModel": "x.Y"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (folder / "x.py").write_text("import os")
    code, result = task.run({"source": f"file:{folder}"})
    assert code == 0, task.log
    assert [file["name"] for file in result["files"]] == ["config.json", "model.safetensors"]
    assert (result["format"], result["parameters"], result["context_length"]) == ("safetensors", 32, 64)
    assert [finding["rule"] for finding in result["scan"]["findings"]] == ["auto-map"]
    lines = "".join(f"{f['digest'].removeprefix('sha256:')}  {f['name']}\n" for f in result["files"])
    assert result["origin"]["sha256"] == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_a_wheel_is_fetched_by_pip_and_the_second_time_needs_no_index(task: TaskFolder, shelf: dict[str, str]) -> None:
    wanted = {"source": "pypi:tiny-model==1.0"}
    code, result = task.run(wanted, **shelf)
    assert code == 0, task.log
    assert [file["name"] for file in result["files"]] == ["tiny.gguf"]
    assert result["licence"] == "BSD-3-Clause"
    assert result["origin"]["resolved"] == "tiny_model-1.0-py3-none-any.whl"
    wheel = Path(shelf["PIP_FIND_LINKS"]) / "tiny_model-1.0-py3-none-any.whl"
    assert result["origin"]["sha256"] == digest_of_file(wheel)
    assert [path.name for path in task.path.iterdir() if path.is_dir()] == []
    wheel.unlink()
    code, again = task.run(wanted, **shelf)
    assert (code, again["files"]) == (0, result["files"])


def test_a_wheel_damaged_in_the_cache_is_fetched_again(task: TaskFolder, shelf: dict[str, str]) -> None:
    task.run({"source": "pypi:tiny-model==1.0"}, **shelf)
    (kept,) = (task.root / "cache" / "pypi").rglob("*.whl")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    code, _ = task.run({"source": "pypi:tiny-model==1.0"}, **shelf)
    assert code == 0, task.log


def test_a_wheel_that_does_not_exist_is_a_permanent_failure(task: TaskFolder, shelf: dict[str, str]) -> None:
    code, result = task.run({"source": "pypi:tiny-model==9.9"}, **shelf)
    assert (code, result["error"]["code"]) == (PERMANENT, "not_found")
    assert "tiny-model==9.9" in result["error"]["message"]


def test_an_index_out_of_reach_is_worth_another_try(task: TaskFolder) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    code, result = task.run({"source": "pypi:tiny-model==1.0"}, PIP_FIND_LINKS="", **nowhere)
    assert (code, result) == (RETRIABLE, {})
    assert "cannot fetch pypi:tiny-model==1.0" in task.log


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"source": 1},
        {"source": "file:/nowhere/at/all.gguf"},
        {"source": "file:/etc", "files": "*.gguf"},
        {"source": "file:/etc", "sha256": {"a": "b"}},
        {"source": "file:/etc", "licence": 7},
    ],
)
def test_a_bad_input_is_a_permanent_failure_that_says_why(task: TaskFolder, wanted: dict[str, object]) -> None:
    code, result = task.run(wanted)
    assert code == PERMANENT
    assert result["error"]["code"] in ("invalid", "not_found") and result["error"]["message"]
