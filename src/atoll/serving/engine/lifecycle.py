"""The life every engine has: get ready, say where it serves, be watched, drain, end.

An engine hands over a Backend that is starting. endpoint.json appears once the backend is healthy and warmed up.
SIGTERM lets requests in flight finish within the task's grace and ends with 0; a backend that ended or does not answer
any more ends the process with 1, so that it is started again. It knows no engine and no model.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import orjson

from atoll.core import task
from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.core.files import read_json
from atoll.serving.engine.base import Health, ServeInput

LOOK_EVERY_S = 0.1
PROBE_TIMEOUT_S = 5.0
DRAIN_MARGIN_S = 2.0
"""Kept of the grace for ending itself."""

GRACE_DEFAULT_S = 10.0
WARM_UP_TIMEOUT_S = 600.0
ANSWER_BYTES_MAX = 16 << 20


class Backend(Protocol):
    """A serving process or thread on this machine."""

    @property
    def url(self) -> str:
        """Where it serves, without a trailing path."""

    @property
    def api_key(self) -> str:
        """The key it asks for."""

    def check(self) -> None:
        """Return if it still runs. AtollError when it ended and starting it again would not help, else Unavailable."""

    def probe(self, timeout_s: float) -> None:
        """Return if it answers requests now. Unavailable."""

    def in_flight(self, timeout_s: float) -> int:
        """Requests it has not finished. Unavailable."""


class HttpBackend:
    """A backend that is reached by HTTP; `call` speaks to it as a client would."""

    name = "the engine"

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self.api_key = api_key

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> bytes:
        """The answer to one request; Unavailable unless it is a 200 within the timeout."""
        status, data = self.ask(method, path, body, timeout_s)
        if status != 200:
            raise Unavailable(f"{self.name} answers {path} with {status}: {data[:500]!r}")
        return data

    def ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of the answer to one request; Unavailable when there is none."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
            connection.request(method, path, orjson.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.name} does not answer {path}: {error!r}") from error
        finally:
            connection.close()

    def check(self) -> None:
        """A backend in this process runs as long as the process does."""

    def probe(self, timeout_s: float) -> None:
        self.call("GET", "/health", timeout_s=timeout_s)

    def in_flight(self, timeout_s: float) -> int:
        return sum_of(self.metrics(timeout_s), self.counters)

    def metrics(self, timeout_s: float) -> str:
        """The Prometheus text of its figures."""
        return self.call("GET", "/metrics", timeout_s=timeout_s).decode(errors="replace")

    counters: tuple[str, ...] = ()


def sum_of(metrics: str, names: tuple[str, ...]) -> int:
    """Sum of the samples of the named metrics in a Prometheus text, whatever their labels."""
    total = 0.0
    for line in metrics.splitlines():
        name, _, _ = line.partition("{")
        if name.partition(" ")[0] in names:
            total += float(line.rpartition(" ")[2])
    return int(total)


def wait_until_ready(backend: Backend, limit_s: float, stop: threading.Event | None = None) -> None:
    """Return once the backend answers. Raises what `check` raises, Unavailable after `limit_s` or when told to stop."""
    deadline = time.monotonic() + limit_s
    while True:
        backend.check()
        try:
            return backend.probe(PROBE_TIMEOUT_S)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"not ready within {limit_s:g} s: {error}") from error
        if stop is not None and stop.wait(LOOK_EVERY_S):
            raise Unavailable("told to stop while starting")
        if stop is None:
            time.sleep(LOOK_EVERY_S)


def warm_up(backend: HttpBackend, spec: ServeInput) -> None:
    """Compute the warm-up's prompts, or a token, through the backend's own door.

    Invalid when it refuses a prompt of the deployment, Unavailable when it cannot compute one now.
    """
    if not spec.warm_up.enabled or spec.task == "predict":
        return
    for number, prompt in enumerate(spec.warm_up.prompts or ("a",)):
        task.report_progress("warm-up", number, len(spec.warm_up.prompts) or 1, "prompt", "computing warm-up prompts")
        path, body = _warm_up_request(spec, prompt)
        status, answer = backend.ask("POST", path, body, WARM_UP_TIMEOUT_S)
        if status == 400 and spec.warm_up.prompts:
            raise Invalid(f"warm-up prompt {number} is refused: {answer[:500]!r}", field="warm_up.prompts")
        if status != 200:
            raise Unavailable(f"{backend.name} answers {path} with {status}: {answer[:500]!r}")


def _warm_up_request(spec: ServeInput, prompt: str) -> tuple[str, dict[str, Any]]:
    if spec.task == "embed":
        return "/v1/embeddings", {"model": spec.alias, "input": prompt}
    if spec.task == "rerank":
        return "/v1/rerank", {"model": spec.alias, "query": prompt, "documents": [prompt]}
    return "/v1/completions", {"model": spec.alias, "prompt": prompt, "max_tokens": 1}


def stop_event() -> threading.Event:
    """Set when this process is told to stop. Call it in the main thread."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    return stop


def keep_watch(backend: Backend, stop: threading.Event, grace_s: float, health: Health) -> int:
    """Watch the backend until it is told to stop (0), ended, or does not answer any more (1): the exit code."""
    failed = 0
    while not stop.wait(health.every_s):
        try:
            backend.check()
        except AtollError as error:
            sys.stderr.write(f"{error.code}: {error}\n")
            return 1
        try:
            backend.in_flight(health.timeout_s)
            failed = 0
        except Unavailable as error:
            failed += 1
            sys.stderr.write(f"{error}\n")
        if failed >= health.failures:
            sys.stderr.write(f"no answer {failed} times in a row: giving up\n")
            return 1
    drain(backend.in_flight, max(0.0, grace_s - DRAIN_MARGIN_S))
    return 0


def drain(in_flight: Callable[[float], int], limit_s: float) -> None:
    """Return when no request is in flight, or after `limit_s` seconds; `in_flight` gets the seconds it may take.

    An engine in the middle of a long step answers late. Nothing in flight counts when it is seen twice on end: a
    request may have come and not be counted yet, or be finished and its answer not be sent yet.
    """
    deadline = time.monotonic() + limit_s
    was_quiet = False
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            is_quiet = not in_flight(left_s)
        except Unavailable:
            return
        if is_quiet and was_quiet:
            return
        was_quiet = is_quiet
        time.sleep(LOOK_EVERY_S)


def grace_s() -> float:
    """The task's stop_grace_s."""
    value = (read_json(task.task_dir() / "task.json") or {}).get("stop_grace_s")
    return float(value) if isinstance(value, int | float) else GRACE_DEFAULT_S


def leave(code: int) -> NoReturn:
    """End at once: a library's own shutdown waits for its threads, which may be what does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
