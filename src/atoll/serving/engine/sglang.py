"""Serve a folder of safetensors with SGLang's own server (`python -m sglang.launch_server`), in its own environment.

Flags, metrics and log lines are those of SGLang 0.5 (docs.sglang.io: "Server Arguments", "LoRA Serving", "Production
Metrics"; --config since 0.5.3). The key goes into a configuration file only this user can read, and is blotted out of
the log, which repeats all arguments. An adapter is asked for as "BASE:ADAPTER". Run as
`python -m atoll.serving.engine.sglang`. It has not seen every version's words: a failure it does not recognise is
tried again.
"""

from __future__ import annotations

from typing import Any

import orjson

from atoll.core import task
from atoll.core.errors import CapacityError, Invalid
from atoll.core.files import write_bytes
from atoll.serving.engine.base import ServeInput
from atoll.serving.engine.command import Place, Recipe, base_model_name, failure, find_program, run, stage

TOOL_PARSERS = {
    "qwen2": "qwen25",
    "qwen3": "qwen25",
    "qwen3_moe": "qwen25",
    "llama": "llama3",
    "mistral": "mistral",
    "deepseek_v3": "deepseekv3",
    "glm4_moe": "glm45",
    "gpt_oss": "gpt-oss",
}
CONFIG_NAME = "sglang.yaml"


class Sglang(Recipe):
    """SGLang's OpenAI-compatible server."""

    name = "sglang"
    counters = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
    failures = (
        failure(
            r"Not enough memory\. Please try to increase --mem-fraction-static",
            CapacityError,
            "lower context, set mem-fraction-static higher, or give it more accelerators",
        ),
        failure(r"Capture cuda graph failed", CapacityError, "set mem-fraction-static or cuda-graph-max-bs lower"),
        failure(r"Model architectures .* are not supported", Invalid, "see SGLang's list of models"),
        failure(r"must be divisible by|is not divisible by", Invalid, "take a number of accelerators that divides it"),
    )
    stages = (
        stage(r"Init torch distributed begin", "connecting the accelerators"),
        stage(r"Load weight begin", "loading the weights"),
        stage(r"Load weight end", "weights are loaded"),
        stage(r"KV Cache is allocated|Memory pool end", "laying out the context's memory"),
        stage(r"Capture (?:cuda|piecewise CUDA) graph begin", "capturing graphs"),
        stage(r"Capture (?:cuda|piecewise CUDA) graph end", "the engine is up"),
        stage(r"Uvicorn running on|Application startup complete", "opening the door"),
    )
    reserved = frozenset(
        {
            *("host", "port", "api-key", "admin-api-key", "config", "model", "model-path", "served-model-name"),
            *("lora-paths", "context-length", "max-running-requests", "tp", "tp-size", "tensor-parallel-size"),
            *("is-embedding", "enable-metrics", "trust-remote-code", "enable-lora", "ssl-keyfile", "ssl-certfile"),
            *("file-storage-path", "fastapi-root-path", "crash-dump-folder"),
        }
    )

    def program(self, environment: str) -> list[str]:
        return [find_program("python", environment, self.name), "-m", "sglang.launch_server"]

    def arguments(self, spec: ServeInput, place: Place) -> list[str]:
        secret = place.scratch / CONFIG_NAME
        write_bytes(secret, b"api-key: " + orjson.dumps(place.api_key) + b"\n", mode=0o600)
        return [
            *("--config", str(secret), "--model-path", str(place.model), "--served-model-name", base_model_name(spec)),
            *("--host", "127.0.0.1", "--port", str(place.port)),
            *("--context-length", str(spec.context), "--max-running-requests", str(spec.slots)),
            *("--tp-size", str(max(1, spec.accelerators))),
            *("--enable-metrics", "--enable-cache-report", "--log-level-http", "warning"),
            *_task_arguments(spec, place),
            *_adapter_arguments(place),
        ]

    def calls_tools(self, spec: ServeInput, place: Place) -> bool:
        return "tool-call-parser" in spec.flags or place.model_type in TOOL_PARSERS


def _task_arguments(spec: ServeInput, place: Place) -> list[str]:
    if not spec.is_generating:
        return ["--is-embedding"]
    if "tool-call-parser" in spec.flags or place.model_type not in TOOL_PARSERS:
        return []
    return ["--tool-call-parser", TOOL_PARSERS[place.model_type]]


def _adapter_arguments(place: Place) -> list[str]:
    if not place.adapters:
        return []
    paths = [f"{name}={folder}" for name, folder in place.adapters.items()]
    return ["--enable-lora", "--max-loras-per-batch", str(len(paths) + 1), "--lora-paths", *paths]


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop."""
    run(Sglang(), data)


if __name__ == "__main__":
    task.run(serve)
