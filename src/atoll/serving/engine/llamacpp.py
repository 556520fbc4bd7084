"""Serve a GGUF model with llama.cpp's own server, inside this process, on a loopback port with a key of its own.

Run as `python -m atoll.serving.engine.llamacpp` in a task directory. Reads a ServeInput; the model's bytes are checked
against their digest and its header is read before llama.cpp sees the file. Adapters are loaded at the start: the
deployment's own (its name is the alias) is on, the others are off until a request switches one on by its place in the
list: `lora: [{"id": 1, "scale": 1.0}]`; one not named in the list is off for that request. Where there are such,
prompts are not cached (see `is_switched`). endpoint.json appears once the server answers. It does not know who may use
the model: the gateway in front does.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.compute.agent import probes
from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import CapacityError, Invalid, Unavailable
from atoll.models.formats import ModelFacts, ModelShape, read_gguf
from atoll.models.gguf import read_header
from atoll.serving.engine.base import ModelFile, ServeInput
from atoll.serving.engine.lifecycle import (
    HttpBackend,
    grace_s,
    keep_watch,
    leave,
    stop_event,
    wait_until_ready,
    warm_up,
)
from atoll.serving.engine.llamacpp_options import apply_options, check_options
from atoll.serving.engine.placed import verified
from atoll.serving.fit import FitEstimate, batch_tokens, explain, memory_needed

SPIN_COUNT = "1000"
"""Spins of an idle OpenMP thread before it sleeps: long spins starve the neighbours, none costs speed when alone."""

READY_TIMEOUT_S = 60.0
LOG_ERRORS = 1
_RANK = 4


@dataclass(frozen=True, slots=True)
class Files:
    """The verified files of a model on this node, and what the model says of itself."""

    model: Path
    adapters: tuple[Path, ...]
    facts: ModelFacts
    shape: ModelShape


class Server(HttpBackend):
    """The running llama.cpp server. Its figures come from the computing thread itself, so they prove that alive."""

    name = "llama.cpp"
    counters = ("llamacpp:requests_processing", "llamacpp:requests_deferred")

    def __init__(self, handle: object, address: str, api_key: str) -> None:
        super().__init__(address, api_key)
        self._handle = handle

    def can_infill(self) -> bool:
        """Whether the model's vocabulary has the tokens to fill a gap with."""
        body = {"input_prefix": "a", "input_suffix": "b", "n_predict": 1}
        return self.ask("POST", "/infill", body, 60.0)[0] == 200

    def can_call_tools(self) -> bool:
        """Whether the model's chat template has a place for tools and their calls."""
        status, data = self.ask("GET", "/props", None, 10.0)
        able = orjson.loads(data).get("chat_template_caps") or {} if status == 200 else {}
        return bool(able.get("supports_tools") and able.get("supports_tool_calls"))


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop; leaves the process, never returns normally."""
    spec = ServeInput.from_dict(data)
    check_options(spec.engine_options)
    files = local_files(spec, BlobStore(task.blobs_url()), task.cache_dir())
    check_fits(estimate(spec, files))
    started = time.monotonic()
    weights_bytes = files.shape.weights_bytes
    task.report_progress("load", 0, weights_bytes, "byte", "loading the weights")
    server = start(spec, files)
    stop = stop_event()
    try:
        wait_until_ready(server, READY_TIMEOUT_S)
        warm_up(server, spec)
        able = capabilities(
            spec,
            files.facts,
            can_infill=spec.is_generating and server.can_infill(),
            can_call=spec.is_generating and server.can_call_tools(),
        )
    except Unavailable as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        leave(1)
    load_s = round(time.monotonic() - started, 3)
    task.report_progress("load", weights_bytes, weights_bytes, "byte", "serving", load_s=load_s)
    task.write_endpoint(server.url, server.api_key, able)
    leave(keep_watch(server, stop, grace_s(), spec.health))


def local_files(spec: ServeInput, store: BlobStore, cache: Path) -> Files:
    """The model's files on this node, checked by digest and by header.

    Raises IntegrityError for damaged bytes, Invalid for a file or a context llama.cpp could not serve.
    """
    model = verified(spec.model, store, cache)
    adapters = tuple(verified(adapter.file, store, cache) for adapter in spec.adapters)
    facts = read_gguf(model, spec.model.name)
    if facts.shape is None:
        raise Invalid(f"{spec.model.name} is an adapter, not a model", field="model")
    if spec.context > facts.context_length:
        raise Invalid(
            f"context is {spec.context}, {spec.model.name} was made for {facts.context_length} tokens",
            field="context",
            hint=f"at most {facts.context_length}",
        )
    for named, path in zip(spec.adapters, adapters, strict=True):
        _check_adapter(named.file, read_gguf(path, named.file.name), facts)
    if spec.task == "rerank" and not is_reranker(model, facts):
        raise Invalid(f"{spec.model.name} has no head that ranks", field="task", hint="take a reranker, or task: embed")
    return Files(model, adapters, facts, facts.shape)


def estimate(spec: ServeInput, files: Files) -> FitEstimate:
    """The memory this process will need."""
    sizes = [path.stat().st_size for path in files.adapters]
    cache_bytes = spec.prompt_cache_bytes
    return memory_needed(
        files.shape, spec.context, spec.slots, sizes, embedding=not spec.is_generating, prompt_cache_bytes=cache_bytes
    )


def is_reranker(model: Path, facts: ModelFacts) -> bool:
    """Whether the model was made to rank (llama.cpp: pooling type rank, and a classification head)."""
    if facts.metadata.get(f"{facts.architecture}.pooling_type") == _RANK:
        return True
    return any(tensor.name.startswith("cls.") for tensor in read_header(model).tensors)


def check_fits(needed: FitEstimate, usable_bytes: int | None = None, free_bytes: int | None = None) -> None:
    """Raise CapacityError when the machine is too small, Unavailable when it is only too full now.

    `usable_bytes` and `free_bytes` are this machine's where not given.
    """
    usable_bytes = probes.memory_bytes() if usable_bytes is None else usable_bytes
    free_bytes = memory_free_bytes(usable_bytes) if free_bytes is None else free_bytes
    hint = "lower context or slots, choose a smaller quantisation, or a larger node"
    if needed.total_bytes > usable_bytes:
        raise CapacityError(
            f"the model {explain(needed, usable_bytes)}",
            hint=hint,
            needed_bytes=needed.total_bytes,
            available_bytes=usable_bytes,
        )
    if needed.total_bytes > free_bytes:
        raise Unavailable(
            f"too little memory is free now: the model {explain(needed, free_bytes)}", hint=hint, retry_after_s=10.0
        )


def memory_free_bytes(usable_bytes: int, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that can be taken now without swapping; `usable_bytes` where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return usable_bytes
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return usable_bytes if kib is None else min(usable_bytes, kib << 10)


def start(spec: ServeInput, files: Files) -> Server:
    """llama.cpp's server with the model loaded. Invalid when llama.cpp refuses the model."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read once, when the library below is loaded
    import xllamacpp

    api_key = secrets.token_urlsafe(32)
    try:
        handle = xllamacpp.Server(parameters(xllamacpp, spec, files, api_key))
    except (RuntimeError, ValueError) as error:
        raise Invalid(
            f"llama.cpp cannot serve {spec.model.name}: {error}",
            field="model",
            hint=f"the task's log says why; it may not know {files.facts.architecture!r}, or an option may be wrong",
        ) from error
    return Server(handle, handle.listening_address, api_key)


def parameters(xllamacpp: Any, spec: ServeInput, files: Files, api_key: str) -> Any:
    """llama.cpp's own parameters (common_params) for this input."""
    p = xllamacpp.CommonParams()
    p.verbosity = LOG_ERRORS
    p.model.path = str(files.model)
    p.model_alias = {spec.alias}
    own = [float(adapter.name == spec.alias) for adapter in spec.adapters]
    p.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path, scale in zip(files.adapters, own, strict=True)
    ]
    p.hostnames = ["127.0.0.1"]
    p.port = 0
    p.api_keys = [api_key]
    p.ui = False
    p.offline = True
    p.use_jinja = True
    p.endpoint_metrics = True
    p.n_parallel = spec.slots
    p.n_ctx = spec.context * spec.slots
    p.kv_unified = False
    p.n_batch = p.n_ubatch = batch_tokens(files.shape, spec.context, embedding=not spec.is_generating)
    p.cache_ram_mib = spec.prompt_cache_bytes >> 20
    p.cache_idle_slots = False
    p.cache_prompt = not is_switched(spec)
    p.fit_params = has_accelerator(xllamacpp.get_device_info(), xllamacpp.ggml_backend_dev_type)
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = spec.threads or max(1, int(probes.cpu_count()))
    if not spec.is_generating:
        _ask_for_vectors(p, xllamacpp, spec, files.facts)
    apply_options(p, spec.engine_options, xllamacpp)
    return p


def is_switched(spec: ServeInput) -> bool:
    """Whether requests choose among adapters. Then nothing of a prompt may be used again: llama.cpp takes what was
    computed with one adapter for a request with another (ggml-org/llama.cpp issue 26207)."""
    return any(adapter.name != spec.alias for adapter in spec.adapters)


def has_accelerator(devices: list[dict[str, Any]], kinds: Any) -> bool:
    """Whether the library can reach more than the processor."""
    return any(device["type"] != kinds.GGML_BACKEND_DEVICE_TYPE_CPU for device in devices)


def capabilities(
    spec: ServeInput, facts: ModelFacts, *, can_infill: bool = False, can_call: bool = False
) -> tuple[str, ...]:
    """What clients may ask of this replica."""
    if not spec.is_generating:
        return ("embedding",) if spec.task == "embed" else ("rerank",)
    able = ["completion", "json_schema", "grammar", "logprobs", "timings"]
    if facts.chat_templates or spec.engine_options.get("chat_template"):
        able = ["chat", *able, "prefill"]
    if can_call:
        able.append("tools")
    if can_infill:
        able.append("fim")
    if spec.adapters:
        able.append("lora")
    return tuple(able)


def _ask_for_vectors(p: Any, xllamacpp: Any, spec: ServeInput, facts: ModelFacts) -> None:
    p.embedding = True
    if spec.task == "rerank":
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif f"{facts.architecture}.pooling_type" not in facts.metadata:
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN


def _check_adapter(file: ModelFile, adapter: ModelFacts, model: ModelFacts) -> None:
    if adapter.kind != "adapter":
        raise Invalid(f"{file.name} is not an adapter", field="adapters", hint="it must be a LoRA adapter in GGUF")
    if adapter.architecture != model.architecture:
        raise Invalid(
            f"{file.name} adapts {adapter.architecture!r}, the model is {model.architecture!r}", field="adapters"
        )


if __name__ == "__main__":
    task.run(serve)
