"""Commands of vLLM and SGLang: what they are started with, what their log means, what they say they can."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import AtollError, CapacityError, Invalid, Unavailable
from atoll.models.formats import ModelFacts
from atoll.serving.engine.base import ENGINES, Adapter, ModelFile, ServeInput
from atoll.serving.engine.command import Place, Recipe, Starting, environment, option_flags, reason
from atoll.serving.engine.sglang import Sglang
from atoll.serving.engine.vllm import Vllm

FILE = ModelFile("model.safetensors", "sha256:" + "a" * 64)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
VLLM, SGLANG = Vllm(), Sglang()


@pytest.fixture(autouse=True)
def _task_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return _place(tmp_path)


def _place(folder: Path, model_type: str = "qwen2", architecture: str = "LlamaForCausalLM", **ranks: int) -> Place:
    facts = ModelFacts("model", "safetensors", architecture, 1, 4096, None, None, (TEMPLATE,), {}, None)
    adapters = {name: folder / name for name in ranks}
    for name, rank in ranks.items():
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return Place(folder / "model", adapters, 4711, "secret", facts, model_type, folder)


def _spec(**change: Any) -> ServeInput:
    return ServeInput(**({"model": FILE, "alias": "demo/llama", "context": 4096, "slots": 16} | change))


def _after(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def _adapters(*names: str) -> tuple[Adapter, ...]:
    return tuple(Adapter(name, FILE, (FILE,)) for name in names)


# -- commands ------------------------------------------------------------------------------------------------------


def test_vllm_is_told_all_it_must_keep_to(place: Place) -> None:
    arguments = VLLM.arguments(_spec(accelerators=2), place)
    assert arguments[:2] == ["serve", str(place.model)]
    wanted = {"--host": "127.0.0.1", "--port": "4711", "--served-model-name": "demo/llama"}
    wanted |= {"--max-model-len": "4096", "--max-num-seqs": "16", "--tensor-parallel-size": "2"}
    wanted |= {"--tool-call-parser": "hermes"}
    assert {flag: _after(arguments, flag) for flag in wanted} == wanted
    assert "--enable-auto-tool-choice" in arguments and "secret" not in " ".join(arguments)
    assert VLLM.variables(_spec(), place)["VLLM_API_KEY"] == "secret"


def test_sglang_is_told_all_it_must_keep_to(place: Place) -> None:
    arguments = SGLANG.arguments(_spec(accelerators=4), place)
    wanted = {"--model-path": str(place.model), "--host": "127.0.0.1", "--port": "4711", "--tp-size": "4"}
    wanted |= {"--context-length": "4096", "--max-running-requests": "16", "--served-model-name": "demo/llama"}
    wanted |= {"--tool-call-parser": "qwen25"}
    assert {flag: _after(arguments, flag) for flag in wanted} == wanted
    assert "--enable-metrics" in arguments and "secret" not in " ".join(arguments)
    config = Path(_after(arguments, "--config"))
    assert config.read_text() == 'api-key: "secret"\n' and stat.S_IMODE(config.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("task", "architecture", "vllm", "sglang"),
    [
        ("embed", "LlamaForCausalLM", ["--runner", "pooling", "--convert", "embed"], ["--is-embedding"]),
        ("embed", "BertModel", ["--runner", "pooling"], ["--is-embedding"]),
        ("rerank", "BertForSequenceClassification", ["--runner", "pooling"], ["--is-embedding"]),
    ],
)
def test_vectors_and_ranks_have_flags_of_their_own(
    task: Any, architecture: str, vllm: list[str], sglang: list[str], tmp_path: Path
) -> None:
    place, spec = _place(tmp_path, architecture=architecture), _spec(task=task)
    assert VLLM.arguments(spec, place)[-len(vllm) :] == vllm
    assert SGLANG.arguments(spec, place)[-len(sglang) :] == sglang
    able = ("embedding",) if task == "embed" else ("rerank",)
    assert VLLM.capabilities(spec, place) == SGLANG.capabilities(spec, place) == able


def test_adapters_are_served_by_name_with_a_rank_that_holds_all(tmp_path: Path) -> None:
    place, spec = _place(tmp_path, legal=8, long=48), _spec(adapters=_adapters("legal", "long"))
    arguments = VLLM.arguments(spec, place)
    assert _after(arguments, "--max-lora-rank") == "64" and _after(arguments, "--max-loras") == "2"
    assert arguments[-2:] == [f"legal={tmp_path / 'legal'}", f"long={tmp_path / 'long'}"]
    assert SGLANG.arguments(spec, place)[-2:] == arguments[-2:]
    assert "lora" in VLLM.capabilities(spec, place) and "lora" in SGLANG.capabilities(spec, place)
    (tmp_path / "more").mkdir()
    with pytest.raises(Invalid, match="rank is 1024"):
        VLLM.arguments(_spec(adapters=_adapters("huge")), _place(tmp_path / "more", huge=1024))


def test_the_name_a_request_must_carry_is_the_one_served(tmp_path: Path) -> None:
    place, spec = _place(tmp_path, **{"demo": 8}), _spec(adapters=_adapters("demo/llama"))
    assert _after(VLLM.arguments(spec, place), "--served-model-name") == "demo/llama--base"
    name = ENGINES["vllm"].upstream_model
    assert (name("demo/llama"), name("demo/llama", "legal")) == ("demo/llama", "legal")
    name = ENGINES["sglang"].upstream_model
    assert (name("base"), name("base", "legal")) == ("base", "base:legal")
    assert name("demo/llama", has_own=True) == "demo/llama--base:demo/llama"
    assert ENGINES["llamacpp"].upstream_model("base", "legal") == "base"


def test_tools_are_offered_only_with_a_parser(tmp_path: Path) -> None:
    unknown = _place(tmp_path, "strange")
    assert "tools" not in VLLM.capabilities(_spec(), unknown)
    assert "--enable-auto-tool-choice" not in VLLM.arguments(_spec(), unknown)
    asked = _spec(engine_options={"tool_call_parser": "hermes"})
    assert "tools" in VLLM.capabilities(asked, unknown) and "tools" in SGLANG.capabilities(asked, unknown)
    assert VLLM.arguments(asked, unknown).count("--enable-auto-tool-choice") == 1


def test_options_become_flags_and_the_platforms_own_are_refused() -> None:
    options = {"gpu_memory_utilization": 0.8, "enforce-eager": True, "async_scheduling": False, "dtype": "half"}
    flags = ["--gpu-memory-utilization=0.8", "--enforce-eager", "--no-async-scheduling", "--dtype=half"]
    assert option_flags(options, VLLM.reserved, "vllm") == flags
    for name in ("port", "API_KEY", "trust_remote_code", "no-trust-remote-code", "config", "served-model-name"):
        for recipe in (VLLM, SGLANG):
            with pytest.raises(Invalid, match="set by the platform"):
                option_flags({name: "x"}, recipe.reserved, recipe.name)


def test_the_environments_programs_come_first_and_secrets_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_BLOBS", "s3://x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("PYTHONPATH", "/x")
    made = environment("/opt/vllm", {"A": "b"})
    assert made["PATH"].startswith("/opt/vllm/bin:") and made["VIRTUAL_ENV"] == "/opt/vllm" and made["A"] == "b"
    assert not {"ATOLL_BLOBS", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & made.keys()


# -- logs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "line", "kind"),
    [
        (VLLM, "ValueError: No available memory for the cache blocks.", CapacityError),
        (
            VLLM,
            "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory",
            Unavailable,
        ),
        (
            VLLM,
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (9.35 GiB).",
            CapacityError,
        ),
        (VLLM, "pydantic: Value error, Model architectures ['X'] failed to be inspected.", Invalid),
        (VLLM, "Total number of attention heads (14) must be divisible by tensor parallel size (4).", Invalid),
        (SGLANG, "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", CapacityError),
        (SGLANG, "ValueError: Model architectures ['X'] are not supported for now.", Invalid),
        (SGLANG, "launch_server.py: error: unrecognized arguments: --x", Invalid),
        (VLLM, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.", CapacityError),
        (VLLM, "ModuleNotFoundError: No module named 'vllm.x'", Invalid),
        (VLLM, "OSError: [Errno 98] Address already in use", Unavailable),
        (VLLM, "RuntimeError: CUDA error: uncorrectable ECC error encountered", Unavailable),
        (SGLANG, "something nobody has seen before", Unavailable),
    ],
)
def test_a_log_line_tells_why(recipe: Recipe, line: str, kind: type[AtollError]) -> None:
    found = reason(recipe, ["INFO starting", line, "Traceback (most recent call last):"], 1)
    assert type(found) is kind and recipe.name in str(found)


def test_a_killed_server_may_have_run_out_of_memory() -> None:
    assert "signal 9" in str(reason(VLLM, [], -9)) and "out of memory" in str(reason(VLLM, [], -9))


def test_a_log_line_tells_how_far_a_start_is(tmp_path: Path) -> None:
    def told() -> Any:
        return json.loads((tmp_path / "progress.json").read_bytes())

    starting = Starting(VLLM)
    starting.read("INFO [gpu_model_runner.py:2602] Starting to load model /model...")
    assert told()["message"] == "loading the weights"
    starting.read("Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:01,  2.75it/s]")
    assert (told()["done"], told()["total"], told()["message"]) == (2, 5, "loading the weights 40 %")
    starting.read("INFO [gpu_model_runner.py] Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|")
    assert told()["message"] == "capturing graphs"
    starting.is_ready = True
    starting.read("Loading safetensors checkpoint shards:  60% Completed | 3/5")
    assert told()["message"] == "capturing graphs"
