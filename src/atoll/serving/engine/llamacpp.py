"""Serve a GGUF model with llama.cpp's own server, inside this process, on a loopback port with a key of its own.

Run as `python -m atoll.serving.engine.llamacpp` in a task directory. Reads a ServeInput; the model's bytes are checked
against their digest and its header is read before llama.cpp sees the file. endpoint.json appears once the server
answers. SIGTERM waits for requests in flight within the task's grace, then ends with 0; a server that stops answering
ends the process with 1. It does not know who may use the model: the gateway in front does.
"""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from atoll.compute.agent import probes
from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import CapacityError, Invalid, Unavailable
from atoll.core.files import read_json
from atoll.models.engine.local import verified_file
from atoll.models.formats import ModelFacts, ModelShape, read_gguf
from atoll.serving.engine.base import ModelFile, ServeInput
from atoll.serving.fit import FitEstimate, batch_tokens, explain, memory_needed

SPIN_COUNT = "1000"
"""Spins of an idle OpenMP thread before it sleeps: long spins starve the neighbours, none costs speed when alone."""

READY_TIMEOUT_S = 60.0
WARM_UP_TIMEOUT_S = 120.0
WATCH_EVERY_S = 5.0
PROBE_TIMEOUT_S = 30.0
FAILED_PROBES_MAX = 3
DRAIN_EVERY_S = 0.1
DRAIN_MARGIN_S = 2.0
GRACE_DEFAULT_S = 10.0
LOG_ERRORS = 1
_ANSWER_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Files:
    """The verified files of a model on this node, and what the model says of itself."""

    model: Path
    adapters: tuple[Path, ...]
    facts: ModelFacts
    shape: ModelShape


class Server:
    """The running llama.cpp server; `call` speaks to it as a client would."""

    def __init__(self, handle: object, address: str, api_key: str) -> None:
        self._handle = handle
        self.url = address
        self.api_key = api_key

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> bytes:
        """The answer to one request; Unavailable unless it is a 200 within the timeout."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
            connection.request(method, path, orjson.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"llama.cpp does not answer {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise Unavailable(f"llama.cpp answers {path} with {answer.status}: {data[:500]!r}")
        return data

    def requests_in_flight(self, timeout_s: float = 5.0) -> int:
        """Requests being computed or waiting for a slot; asks the computing thread itself, so it proves that alive."""
        text = self.call("GET", "/metrics", timeout_s=timeout_s).decode(errors="replace")
        wanted = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
        return sum(int(float(line.rpartition(" ")[2])) for line in text.splitlines() if line.startswith(wanted))


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop; leaves the process, never returns normally."""
    spec = ServeInput.from_dict(data)
    files = local_files(spec, BlobStore(task.blobs_url()), task.cache_dir())
    check_fits(estimate(spec, files))
    started = time.monotonic()
    task.report_progress("load", 0, files.shape.weights_bytes, "byte", "loading the weights")
    server = start(spec, files)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        wait_until_ready(server, spec)
    except Unavailable as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        _leave(1)
    load_s = round(time.monotonic() - started, 3)
    weights_bytes = files.shape.weights_bytes
    task.report_progress("load", weights_bytes, weights_bytes, "byte", "serving", load_s=load_s)
    task.write_endpoint(server.url, server.api_key, capabilities(spec, files.facts))
    _leave(keep_watch(server, stop, _grace_s()))


def local_files(spec: ServeInput, store: BlobStore, cache: Path) -> Files:
    """The model's files on this node, checked by digest and by header.

    Raises IntegrityError for damaged bytes, Invalid for a file or a context llama.cpp could not serve.
    """
    model = _verified(spec.model, store, cache)
    adapters = tuple(_verified(adapter, store, cache) for adapter in spec.adapters)
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
        _check_adapter(named, read_gguf(path, named.name), facts)
    return Files(model, adapters, facts, facts.shape)


def estimate(spec: ServeInput, files: Files) -> FitEstimate:
    """The memory this process will need."""
    sizes = [path.stat().st_size for path in files.adapters]
    cache_bytes = spec.prompt_cache_bytes
    return memory_needed(
        files.shape, spec.context, spec.slots, sizes, embedding=spec.embedding, prompt_cache_bytes=cache_bytes
    )


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
            hint=f"the task's log says why; architecture {files.facts.architecture!r} may be unknown to it",
        ) from error
    return Server(handle, handle.listening_address, api_key)


def parameters(xllamacpp: Any, spec: ServeInput, files: Files, api_key: str) -> Any:
    """llama.cpp's own parameters (common_params) for this input."""
    p = xllamacpp.CommonParams()
    p.verbosity = LOG_ERRORS
    p.model.path = str(files.model)
    p.model_alias = {spec.alias}
    p.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in files.adapters]
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
    p.n_batch = p.n_ubatch = batch_tokens(files.shape, spec.context, embedding=spec.embedding)
    p.cache_ram_mib = spec.prompt_cache_bytes >> 20
    p.cache_idle_slots = False
    p.fit_params = has_accelerator(xllamacpp.get_device_info(), xllamacpp.ggml_backend_dev_type)
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = spec.threads or max(1, int(probes.cpu_count()))
    if spec.embedding:
        _ask_for_embeddings(p, xllamacpp, files.facts)
    return p


def has_accelerator(devices: list[dict[str, Any]], kinds: Any) -> bool:
    """Whether the library can reach more than the processor."""
    return any(device["type"] != kinds.GGML_BACKEND_DEVICE_TYPE_CPU for device in devices)


def capabilities(spec: ServeInput, facts: ModelFacts) -> tuple[str, ...]:
    """What clients may ask of this replica."""
    if spec.embedding:
        return ("embedding",)
    return ("chat", "completion") if facts.chat_templates else ("completion",)


def wait_until_ready(server: Server, spec: ServeInput) -> None:
    """Return once the server is healthy and has computed something. Raises Unavailable."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            server.call("GET", "/health")
            break
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(DRAIN_EVERY_S)
    if not spec.warm_up:
        return
    if spec.embedding:
        server.call("POST", "/v1/embeddings", {"input": "a"}, WARM_UP_TIMEOUT_S)
    else:
        server.call("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, WARM_UP_TIMEOUT_S)


def keep_watch(server: Server, stop: threading.Event, grace_s: float, every_s: float = WATCH_EVERY_S) -> int:
    """Watch the server until it is told to stop (0) or does not answer any more (1): the exit code."""
    failed = 0
    while not stop.wait(every_s):
        try:
            server.requests_in_flight(PROBE_TIMEOUT_S)
            failed = 0
        except Unavailable as error:
            failed += 1
            sys.stderr.write(f"{error}\n")
        if failed >= FAILED_PROBES_MAX:
            sys.stderr.write(f"llama.cpp has not answered {failed} times in a row: giving up\n")
            return 1
    drain(server.requests_in_flight, max(0.0, grace_s - DRAIN_MARGIN_S))
    return 0


def drain(in_flight: Callable[[], int], limit_s: float) -> None:
    """Return when no request is in flight, or after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if not in_flight():
                return
        except Unavailable:
            return
        time.sleep(DRAIN_EVERY_S)


def _ask_for_embeddings(p: Any, xllamacpp: Any, facts: ModelFacts) -> None:
    p.embedding = True
    if f"{facts.architecture}.pooling_type" not in facts.metadata:
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN


def _verified(file: ModelFile, store: BlobStore, cache: Path) -> Path:
    def report(done_bytes: int, total_bytes: int) -> None:
        task.report_progress("load", done_bytes, total_bytes, "byte", f"checking {file.name}")

    return verified_file(store, file.digest, cache, report)


def _check_adapter(file: ModelFile, adapter: ModelFacts, model: ModelFacts) -> None:
    if adapter.kind != "adapter":
        raise Invalid(f"{file.name} is not an adapter", field="adapters", hint="it must be a LoRA adapter in GGUF")
    if adapter.architecture != model.architecture:
        raise Invalid(
            f"{file.name} adapts {adapter.architecture!r}, the model is {model.architecture!r}", field="adapters"
        )


def _grace_s() -> float:
    """The task's stop_grace_s."""
    grace_s = (read_json(task.task_dir() / "task.json") or {}).get("stop_grace_s")
    return float(grace_s) if isinstance(grace_s, int | float) else GRACE_DEFAULT_S


def _leave(code: int) -> NoReturn:
    """End at once: the library's own shutdown waits for its threads, which may be what does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    task.run(serve)
