"""Engines as the rest of Atoll sees them: chosen by format, given a checked input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.base import ENGINES, ModelFile, ServeInput, choose_engine

DIGEST = "sha256:" + "a" * 64
WHOLE: dict[str, Any] = {
    "model": {"name": "m.gguf", "digest": DIGEST, "size_bytes": 1},
    "adapters": [{"name": "a.gguf", "digest": DIGEST}],
    "alias": "demo/smol",
    "context": 2048,
    "slots": 4,
    "threads": 2,
    "warm_up": False,
    "embedding": True,
}


def test_an_input_survives_its_wire_form() -> None:
    spec = ServeInput.from_dict(WHOLE)
    assert spec.model == ModelFile("m.gguf", DIGEST)
    assert (spec.context, spec.slots, spec.threads, spec.warm_up, spec.embedding) == (2048, 4, 2, False, True)
    assert ServeInput.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_what_may_be_left_out_has_a_default() -> None:
    least = {key: WHOLE[key] for key in ("model", "alias", "context", "slots")}
    spec = ServeInput.from_dict(least)
    assert (spec.adapters, spec.threads, spec.warm_up, spec.embedding) == ((), 0, True, False)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model.name"),
        ({"model": {"name": "", "digest": DIGEST}}, "model.name"),
        ({"model": {"name": "m", "digest": "sha256:../../etc"}}, "model.digest"),
        ({"adapters": "x"}, "adapters"),
        ({"adapters": [{"name": "a"}]}, "adapters.0.digest"),
        ({"adapters": [{}] * 17}, "adapters"),
        ({"alias": ""}, "alias"),
        ({"alias": "a b"}, "alias"),
        ({"context": 0}, "context"),
        ({"context": True}, "context"),
        ({"context": "2048"}, "context"),
        ({"slots": 257}, "slots"),
        ({"threads": -1}, "threads"),
        ({"warm_up": 1}, "warm_up"),
        ({"embedding": "no"}, "embedding"),
        ({"prompt_cache_bytes": -1}, "prompt_cache_bytes"),
    ],
)
def test_a_bad_value_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        ServeInput.from_dict(WHOLE | change)
    assert caught.value.field == field


def test_an_engine_is_chosen_by_the_format() -> None:
    assert choose_engine("auto", "gguf").name == "llamacpp"
    assert choose_engine("llamacpp", "") is ENGINES["llamacpp"]
    with pytest.raises(Invalid, match=r"no engine serves 'onnx' models \(there are llamacpp for gguf"):
        choose_engine("auto", "onnx")
    with pytest.raises(Invalid, match="no engine 'x'"):
        choose_engine("x", "gguf")
    with pytest.raises(Invalid, match="does not serve 'safetensors'"):
        choose_engine("llamacpp", "safetensors")


def test_an_engine_tells_command_and_input() -> None:
    engine, spec = ENGINES["llamacpp"], ServeInput.from_dict(WHOLE)
    assert engine.command(spec) == ["{python}", "-m", "atoll.serving.engine.llamacpp"]
    assert ServeInput.from_dict(engine.input(spec)) == spec
