"""Serve a folder of safetensors with vLLM's own server (`vllm serve`), in the Python environment it is installed in.

Flags, metrics and log lines are those of vLLM 0.11 to 0.18 (docs.vllm.ai: "vllm serve" arguments, "Pooling Models",
"LoRA Adapters", production metrics). The key is passed by VLLM_API_KEY. Tool calls with a free choice need a parser
for the model's own notation: it is guessed from the model's type, or set by the option tool-call-parser; without one
the replica does not offer tools. Run as `python -m atoll.serving.engine.vllm`. It has not seen every version's words:
a failure it does not recognise is tried again.
"""

from __future__ import annotations

from typing import Any

from atoll.core import task
from atoll.core.errors import CapacityError, Invalid, Unavailable
from atoll.serving.engine.base import ServeInput
from atoll.serving.engine.command import Place, Recipe, base_model_name, failure, find_program, run, stage
from atoll.serving.engine.placed import config

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be."""

TOOL_PARSERS = {
    "qwen2": "hermes",
    "qwen2_moe": "hermes",
    "qwen3": "hermes",
    "qwen3_moe": "hermes",
    "llama": "llama3_json",
    "llama4": "llama4_pythonic",
    "mistral": "mistral",
    "granite": "granite",
    "deepseek_v3": "deepseek_v3",
    "phi3": "phi4_mini_json",
    "gpt_oss": "openai",
}


class Vllm(Recipe):
    """vLLM's OpenAI-compatible server."""

    name = "vllm"
    counters = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    failures = (
        failure(
            r"Free memory on device .* is less than desired GPU memory utilization",
            Unavailable,
            "other processes use the accelerator; or set gpu-memory-utilization lower",
        ),
        failure(
            r"No available memory for the cache blocks|larger than the (?:maximum number of tokens|available KV cache)",
            CapacityError,
            "lower context, set gpu-memory-utilization higher, or give it more accelerators",
        ),
        failure(r"Model architectures .* (?:failed to be inspected|are not supported)", Invalid, "see vLLM's list"),
        failure(r"must be divisible by tensor parallel size", Invalid, "take a number of accelerators that divides it"),
        failure(r"World size .* is larger than the number of available GPUs", CapacityError, "lower accelerators"),
    )
    stages = (
        stage(r"Starting to load model|Loading weights", "loading the weights"),
        stage(r"Loading weights took|Model loading took", "weights are loaded"),
        stage(r"torch\.compile|Dynamo bytecode transform", "compiling"),
        stage(r"Available KV cache memory|GPU KV cache size", "laying out the context's memory"),
        stage(r"Capturing CUDA graph|Capturing the model for CUDA graphs", "capturing graphs"),
        stage(r"init engine|Graph capturing finished", "the engine is up"),
        stage(r"Starting vLLM API server|Started server process", "opening the door"),
    )
    reserved = frozenset(
        {
            *("host", "port", "uds", "api-key", "model", "served-model-name", "lora-modules", "trust-remote-code"),
            *("max-model-len", "max-num-seqs", "tensor-parallel-size", "tp", "enable-lora", "ssl-keyfile", "root-path"),
            *("ssl-certfile", "middleware", "config", "runner", "task", "headless", "allowed-local-media-path"),
        }
    )

    def program(self, environment: str) -> list[str]:
        return [find_program("vllm", environment, self.name)]

    def arguments(self, spec: ServeInput, place: Place) -> list[str]:
        return [
            *("serve", str(place.model), "--host", "127.0.0.1", "--port", str(place.port)),
            *("--served-model-name", base_model_name(spec)),
            *("--max-model-len", str(spec.context), "--max-num-seqs", str(spec.slots)),
            *("--tensor-parallel-size", str(max(1, spec.accelerators))),
            "--disable-uvicorn-access-log",
            *_task_arguments(spec, place),
            *_adapter_arguments(place),
        ]

    def variables(self, spec: ServeInput, place: Place) -> dict[str, str]:
        cache = str(task.cache_dir() / "vllm")
        return {"VLLM_API_KEY": place.api_key, "VLLM_NO_USAGE_STATS": "1", "VLLM_CACHE_ROOT": cache}

    def calls_tools(self, spec: ServeInput, place: Place) -> bool:
        return bool(_tool_parser(spec, place))


def _task_arguments(spec: ServeInput, place: Place) -> list[str]:
    if spec.task == "rerank":
        return ["--runner", "pooling"]
    if spec.task == "embed":
        is_generator = place.facts.architecture.endswith(("ForCausalLM", "ForConditionalGeneration"))
        return ["--runner", "pooling", *(["--convert", "embed"] if is_generator else [])]
    arguments = ["--enable-prompt-tokens-details"]
    parser = _tool_parser(spec, place)
    if parser:
        arguments.append("--enable-auto-tool-choice")
        arguments += [] if "tool-call-parser" in spec.flags else ["--tool-call-parser", parser]
    return arguments


def _adapter_arguments(place: Place) -> list[str]:
    if not place.adapters:
        return []
    modules = [f"{name}={folder}" for name, folder in place.adapters.items()]
    ranks = [_rank(config(folder, "adapter_config.json").get("r")) for folder in place.adapters.values()]
    count = str(len(modules))
    return ["--enable-lora", "--max-loras", count, "--max-lora-rank", str(max(ranks)), "--lora-modules", *modules]


def _rank(value: object) -> int:
    """The smallest rank vLLM takes that holds `value`."""
    rank = value if isinstance(value, int) and value > 0 else 16
    fitting = [known for known in RANKS if known >= rank]
    if not fitting:
        raise Invalid(f"the adapter's rank is {rank}", field="adapters", hint=f"at most {RANKS[-1]}")
    return fitting[0]


def _tool_parser(spec: ServeInput, place: Place) -> str:
    """The parser asked for, or the one of the model's family; "" when neither is known."""
    named = spec.flags.get("tool-call-parser")
    return str(named) if named is not None else TOOL_PARSERS.get(place.model_type, "")


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop."""
    run(Vllm(), data)


if __name__ == "__main__":
    task.run(serve)
