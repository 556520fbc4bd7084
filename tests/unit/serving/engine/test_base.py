"""Engines as the rest of Atoll sees them: chosen by format, given a checked input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.base import ENGINES, Adapter, Health, ModelFile, ServeInput, WarmUp, choose_engine

DIGEST = "sha256:" + "a" * 64
FILE = {"name": "m.gguf", "digest": DIGEST}
WHOLE: dict[str, Any] = {
    "model": FILE | {"size_bytes": 1},
    "files": [FILE, {"name": "config.json", "digest": DIGEST}],
    "format": "gguf",
    "adapters": [{"name": "legal", "file": {"name": "a.gguf", "digest": DIGEST}}],
    "alias": "demo/smol",
    "task": "embed",
    "context": 2048,
    "slots": 4,
    "threads": 2,
    "warm_up": {"enabled": True, "prompts": ["You are"]},
    "health": {"every_s": 1, "timeout_s": 2.5, "failures": 4},
    "engine_options": {"n_batch": 256, "cache_type_k": "q8_0", "check_tensors": True},
    "environment": "/opt/vllm",
    "predictor": "shop.prices:Model",
    "accelerators": 2,
    "prompt_cache_bytes": 0,
}


def test_an_input_survives_its_wire_form() -> None:
    spec = ServeInput.from_dict(WHOLE)
    assert spec.model == ModelFile("m.gguf", DIGEST)
    assert (spec.context, spec.slots, spec.threads, spec.task, spec.accelerators) == (2048, 4, 2, "embed", 2)
    assert (spec.warm_up, spec.health) == (WarmUp(True, ("You are",)), Health(1.0, 2.5, 4))
    adapter = ModelFile("a.gguf", DIGEST)
    assert spec.adapters == (Adapter("legal", adapter, (adapter,)),)
    assert ServeInput.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_what_may_be_left_out_has_a_default() -> None:
    least = {key: WHOLE[key] for key in ("model", "alias", "context", "slots")}
    spec = ServeInput.from_dict(least)
    assert (spec.adapters, spec.threads, spec.warm_up, spec.task, spec.format) == ((), 0, WarmUp(), "generate", "gguf")
    assert spec.files == (spec.model,)


def test_a_bare_adapter_is_the_deployments_own() -> None:
    spec = ServeInput.from_dict(WHOLE | {"adapters": [FILE], "warm_up": False})
    assert (spec.adapters[0].name, spec.warm_up) == ("demo/smol", WarmUp(False))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model.name"),
        ({"model": {"name": "", "digest": DIGEST}}, "model.name"),
        ({"model": {"name": "m", "digest": "sha256:../../etc"}}, "model.digest"),
        ({"adapters": "x"}, "adapters"),
        ({"adapters": [{"name": "a"}]}, "adapters.0.digest"),
        ({"adapters": [{}] * 18}, "adapters"),
        ({"alias": ""}, "alias"),
        ({"alias": "a b"}, "alias"),
        ({"context": 0}, "context"),
        ({"context": True}, "context"),
        ({"context": "2048"}, "context"),
        ({"slots": 257}, "slots"),
        ({"threads": -1}, "threads"),
        ({"warm_up": 1}, "warm_up"),
        ({"task": "sing"}, "task"),
        ({"files": {}}, "files"),
        ({"files": [{"name": "x"}]}, "files.0.digest"),
        ({"format": 3}, "format"),
        ({"adapters": [{"name": "a b", "file": FILE}]}, "adapters.0.name"),
        ({"adapters": [{"name": "a", "file": FILE, "files": [1]}]}, "adapters.0.files.0.name"),
        ({"warm_up": {"enabled": 1}}, "warm_up.enabled"),
        ({"warm_up": {"prompts": ["a"] * 33}}, "warm_up.prompts"),
        ({"warm_up": {"prompts": [1]}}, "warm_up.prompts"),
        ({"health": []}, "health"),
        ({"health": {"every_s": 0}}, "health.every_s"),
        ({"health": {"timeout_s": "1"}}, "health.timeout_s"),
        ({"health": {"failures": 0}}, "health.failures"),
        ({"engine_options": {"a": []}}, "engine_options.a"),
        ({"engine_options": {"a b": 1}}, "engine_options"),
        ({"engine_options": {str(i): i for i in range(65)}}, "engine_options"),
        ({"environment": 3}, "environment"),
        ({"predictor": "no-module"}, "predictor"),
        ({"accelerators": -1}, "accelerators"),
        ({"prompt_cache_bytes": -1}, "prompt_cache_bytes"),
    ],
)
def test_a_bad_value_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        ServeInput.from_dict(WHOLE | change)
    assert caught.value.field == field


def test_an_engine_is_chosen_by_format_task_and_hardware() -> None:
    assert choose_engine("auto", "gguf").name == "llamacpp"
    assert choose_engine("auto", "gguf", "rerank", 1).name == "llamacpp"
    assert choose_engine("auto", "safetensors").name == "transformers"
    assert choose_engine("auto", "safetensors", "embed").name == "transformers"
    assert choose_engine("auto", "safetensors", "generate", 1).name == "vllm"
    assert choose_engine("auto", "safetensors", "predict").name == "predictor"
    assert choose_engine("auto", "predictor", "predict").name == "predictor"
    assert choose_engine("sglang", "safetensors", "generate", 1).name == "sglang"
    assert choose_engine("llamacpp", "") is ENGINES["llamacpp"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("auto", "onnx"), r"no engine serves 'onnx' models to generate \(there are llamacpp for gguf"),
        (("auto", "safetensors", "rerank"), "no engine serves 'safetensors' models to rerank"),
        (("x", "gguf"), "no engine 'x'"),
        (("llamacpp", "safetensors"), "does not serve 'safetensors'"),
        (("llamacpp", "gguf", "predict"), "'llamacpp' does not predict"),
    ],
)
def test_an_engine_that_cannot_is_refused_naming_those_there_are(asked: tuple[str, ...], why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        choose_engine(*asked)
    assert "transformers for safetensors (generate/embed)" in caught.value.hint


def test_an_engine_tells_command_and_input() -> None:
    engine, spec = ENGINES["llamacpp"], ServeInput.from_dict(WHOLE)
    assert engine.command(spec) == ["{python}", "-m", "atoll.serving.engine.llamacpp"]
    assert ServeInput.from_dict(engine.input(spec)) == spec
