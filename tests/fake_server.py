"""Stands in for vLLM's and SGLang's servers: their arguments, their log lines, their figures, and how they fail.

Installed as ENV/bin/vllm or ENV/bin/python. ENV/mode says what happens: ready, memory, port, module, architecture,
options, silent, crash (after it was ready). What it was started with is left in ENV/started.json.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VLLM_FAILURES = {
    "memory": "(EngineCore_DP0 pid=9) ERROR 09-28 15:47:24 [core.py:718] ValueError: No available memory for the cache "
    "blocks. Try increasing `gpu_memory_utilization` when initializing the engine.\nRuntimeError: Engine core "
    "initialization failed. See root cause above. Failed core proc(s): {}",
    "busy": "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 3.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    "port": "OSError: [Errno 98] Address already in use",
    "module": "ModuleNotFoundError: No module named 'flash_attn'",
    "architecture": "ValueError: Model architectures ['LlamaForCausalLM'] are not supported for now.",
    "options": "vllm: error: unrecognized arguments: --speed=9",
}
SGLANG_FAILURES = {
    "memory": "[2026-01-30 20:54:54] Scheduler hit an exception: torch.OutOfMemoryError: CUDA out of memory. Tried to "
    "allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
    "port": "ERROR:    [Errno 98] error while attempting to bind on address: address already in use",
    "module": "ModuleNotFoundError: No module named 'sgl_kernel'",
}
VLLM_LOG = (
    "INFO 12-15 11:45:10 [api_server.py:1020] vLLM API server version 0.18.0",
    "(EngineCore_DP0 pid=9) INFO 12-15 11:45:11 [gpu_model_runner.py:2602] Starting to load model /model...",
    "Loading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]",
    "\rLoading safetensors checkpoint shards:  40% Completed | 2/5 [00:00<00:01,  2.75it/s]",
    "\rLoading safetensors checkpoint shards: 100% Completed | 5/5 [00:01<00:00,  2.60it/s]",
    "(EngineCore_DP0 pid=9) INFO 12-15 11:45:14 [default_loader.py:267] Loading weights took 2.03 seconds",
    "(EngineCore_DP0 pid=9) INFO 12-15 11:45:17 [kv_cache_utils.py:1087] GPU KV cache size: 72,448 tokens",
)
SGLANG_LOG = (
    "[2026-01-30 20:54:50] server_args=ServerArgs(model_path='/model', api_key='{key}', port=1)",
    "[2026-01-30 20:54:50 TP0] Load weight begin. avail mem=78.38 GB",
    "Loading safetensors checkpoint shards:  33% Completed | 1/3 [00:02<00:05,  2.50s/it]",
    "[2026-01-30 20:54:56 TP0] Load weight end. elapsed=6.21 s, type=LlamaForCausalLM, avail mem=76.05 GB",
)


def install(environment: Path, mode: str = "ready") -> Path:
    """Make `environment` look like one with both servers in it."""
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    (environment / "mode").write_text(mode)
    for name in ("vllm", "python"):
        program = environment / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {environment} "$@"\n')
        program.chmod(0o755)
    return environment


class Door(BaseHTTPRequestHandler):
    """The HTTP side; `key` and `prefix` are set before it is used."""

    key, prefix, waiting = "", "vllm", threading.Event()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        running, queued = {"vllm": ("num_requests_running", "num_requests_waiting")}.get(
            self.prefix, ("num_running_reqs", "num_queue_reqs")
        )
        text = f'{self.prefix}:{running}{{model_name="m"}} 0.0\n{self.prefix}:{queued}{{model_name="m"}} 0.0\n'
        self._answer(200 if self.path in ("/health", "/metrics") else 404, text.encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            return self._answer(401, b'{"error":"Unauthorized"}')
        if body.get("prompt") == "crash":
            print("(EngineCore_DP0 pid=9) torch.OutOfMemoryError: CUDA out of memory.", flush=True)
            os._exit(1)
        self._answer(200, json.dumps({"model": body["model"], "choices": [{"text": "x"}]}).encode())

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """The access log is off, as it is asked for."""


def main(environment: Path, arguments: list[str]) -> None:
    mode, is_vllm = (environment / "mode").read_text(), arguments[0] == "serve"
    worker = subprocess.Popen(["/bin/sh", "-c", "while :; do sleep 60; done"])
    started = {"arguments": arguments, "pid": os.getpid(), "worker": worker.pid, "environ": dict(os.environ)}
    (environment / "started.json").write_text(json.dumps(started))
    Door.prefix = "vllm" if is_vllm else "sglang"
    Door.key = os.environ.get("VLLM_API_KEY", "") if is_vllm else _configured_key(arguments)
    for line in VLLM_LOG if is_vllm else SGLANG_LOG:
        print(line.replace("{key}", Door.key), flush=True)
    if mode == "silent":
        signal.pause()
    reason = (VLLM_FAILURES if is_vllm else SGLANG_FAILURES).get(mode)
    if reason is not None:
        print(reason, flush=True)
        worker.kill()
        sys.exit(1)
    port = int(arguments[arguments.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Door).serve_forever()


def _configured_key(arguments: list[str]) -> str:
    text = Path(arguments[arguments.index("--config") + 1]).read_text()
    return str(json.loads(text.partition(": ")[2]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
