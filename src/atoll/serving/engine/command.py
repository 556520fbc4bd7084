"""Engines that are somebody else's server: its command, run in its own Python environment, kept by this process.

A Recipe says how the command is built, what its log lines mean and which figures it shows. The server listens on a
free loopback port with a key of its own, sees only verified files, and is started offline. A start that fails is told
by the reason found in its log: a permanent failure where another try would end alike (does not fit, architecture not
supported, package missing), else one to be tried again. It cannot know about failures whose words have changed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, CapacityError, Invalid, Unavailable
from atoll.models.formats import ModelFacts, read_safetensors
from atoll.serving.engine import placed
from atoll.serving.engine.base import Adapter, Option, ServeInput, base_name
from atoll.serving.engine.child import Child
from atoll.serving.engine.lifecycle import (
    DRAIN_MARGIN_S,
    HttpBackend,
    grace_s,
    keep_watch,
    stop_event,
    wait_until_ready,
    warm_up,
)

READY_TIMEOUT_S = 3600.0
"""Hundreds of gigabytes over a network take their time; a start that fails is seen by the command's end."""

LINE_SHOWN_CHARS = 400
_SHARDS = re.compile(r"Loading \w* ?checkpoint shards:\s+(\d+)%.*?(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """What a command is built from besides its input: verified folders, the port, the key."""

    model: Path
    adapters: Mapping[str, Path]
    port: int
    api_key: str
    facts: ModelFacts
    model_type: str
    scratch: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """A log line that says why a start failed: `error` is raised with the line in it."""

    pattern: re.Pattern[str]
    error: type[AtollError]
    hint: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A log line that says how far a start is."""

    pattern: re.Pattern[str]
    message: str


def failure(pattern: str, error: type[AtollError], hint: str) -> Failure:
    return Failure(re.compile(pattern), error, hint)


def stage(pattern: str, message: str) -> Stage:
    return Stage(re.compile(pattern), message)


FAILURES = (
    failure(r"No module named '?([\w.]+)", Invalid, "install the missing package into the deployment's environment"),
    failure(r"unrecognized arguments?:|invalid choice:", Invalid, "see the engine's own --help for its options"),
    failure(r"[Aa]ddress already in use", Unavailable, "another process took the port meanwhile"),
    failure(
        r"CUDA out of memory|torch\.OutOfMemoryError|HIP out of memory|NPU out of memory",
        CapacityError,
        "lower context or slots, give it more accelerators, or take a smaller quantisation",
    ),
    failure(r"architectures? .* (?:is|are) not supported", Invalid, "take engine: transformers, or a newer engine"),
    failure(r"trust_remote_code=True", Invalid, "the model needs code of its own, which is never run"),
    failure(r"No CUDA GPUs are available|Found no NVIDIA driver", Invalid, "set accelerators, on a node that has some"),
    failure(r"CUDA (?:error|driver)|NCCL error", Unavailable, "the accelerator or its driver has a problem"),
)
"""Failures that look alike in every engine built on PyTorch; an engine's own come before them."""


class Recipe(ABC):
    """One kind of server."""

    name: str
    counters: tuple[str, ...]
    failures: tuple[Failure, ...] = ()
    stages: tuple[Stage, ...] = ()
    reserved: frozenset[str] = frozenset()
    """Options the platform sets itself, or that open a door it does not guard."""

    @abstractmethod
    def program(self, environment: str) -> list[str]:
        """The beginning of the command, found in the environment. Invalid when it is not there."""

    @abstractmethod
    def arguments(self, spec: ServeInput, place: Place) -> list[str]:
        """The rest of it, without the deployment's own options."""

    @abstractmethod
    def calls_tools(self, spec: ServeInput, place: Place) -> bool:
        """Whether it understands the model's notation of tool calls."""

    def capabilities(self, spec: ServeInput, place: Place) -> tuple[str, ...]:
        """What clients may ask of it."""
        if not spec.is_generating:
            return ("embedding",) if spec.task == "embed" else ("rerank",)
        able = ["completion", "json_schema", "logprobs", "continuous_usage"]
        if place.facts.chat_templates or "chat-template" in spec.flags:
            able = ["chat", *able, *(["tools"] if self.calls_tools(spec, place) else [])]
        return (*able, "lora") if place.adapters else tuple(able)

    def variables(self, spec: ServeInput, place: Place) -> dict[str, str]:
        """What it needs in its environment."""
        return {}

    def command(self, spec: ServeInput, place: Place) -> list[str]:
        """The whole command."""
        options = option_flags(spec.engine_options, self.reserved, self.name)
        return [*self.program(spec.environment), *self.arguments(spec, place), *options]


@dataclass
class Starting:
    """Turns the log of a start into progress.json; each stage is told once."""

    recipe: Recipe
    is_ready: bool = False
    _told: tuple[float, str] = field(default=(-1.0, ""))

    def read(self, line: str) -> None:
        """Take one line of the log."""
        if self.is_ready:
            return
        if shards := _SHARDS.search(line):
            percent, done, total = (int(number) for number in shards.groups())
            self._tell(done, total, "shard", f"loading the weights {percent} %")
            return
        for known in self.recipe.stages:
            if known.pattern.search(line):
                self._tell(0, None, "", known.message)
                return

    def _tell(self, done: float, total: float | None, unit: str, message: str) -> None:
        if self._told != (done, message):
            self._told = (done, message)
            task.report_progress("load", done, total, unit, message)


class CommandBackend(HttpBackend):
    """A server that is a child of this process."""

    def __init__(self, recipe: Recipe, child: Child, url: str, api_key: str) -> None:
        super().__init__(url, api_key)
        self.name, self.counters = recipe.name, recipe.counters
        self._recipe, self._child = recipe, child

    def check(self) -> None:
        code = self._child.exit_code()
        if code is not None:
            raise reason(self._recipe, self._child.lines, code)


def run(recipe: Recipe, data: dict[str, Any]) -> None:
    """Serve what the input names with `recipe` until told to stop; ends the process unless it raises why it cannot."""
    spec = ServeInput.from_dict(data)
    recipe.program(spec.environment)
    place = prepare(spec, BlobStore(task.blobs_url()), task.cache_dir(), task.task_dir())
    command = recipe.command(spec, place)
    stop = stop_event()
    starting = Starting(recipe)
    started = time.monotonic()
    task.report_progress("load", 0, None, "", f"starting {recipe.name}")
    variables = environment(spec.environment, recipe.variables(spec, place))
    with Child(command, variables, starting.read, [place.api_key]) as child:
        backend = CommandBackend(recipe, child, f"http://127.0.0.1:{place.port}", place.api_key)
        wait_until_ready(backend, READY_TIMEOUT_S, stop)
        warm_up(backend, spec)
        starting.is_ready = True
        load_s = round(time.monotonic() - started, 3)
        task.report_progress("load", 1, 1, "", "serving", load_s=load_s)
        task.write_endpoint(backend.url, place.api_key, recipe.capabilities(spec, place))
        code = keep_watch(backend, stop, grace_s(), spec.health)
        child.close(DRAIN_MARGIN_S / 2)
    sys.exit(code)


def prepare(spec: ServeInput, store: BlobStore, cache: Path, folder: Path) -> Place:
    """Verified folders of the model and its adapters, and a free port.

    Raises IntegrityError for damaged bytes, Invalid for files or a context the server could not serve.
    """
    model = placed.folder(spec.files, folder / "model", store, cache)
    facts = read_safetensors(model)
    if facts.context_length and spec.context > facts.context_length:
        raise Invalid(
            f"context is {spec.context}, {spec.alias} was made for {facts.context_length} tokens",
            field="context",
            hint=f"at most {facts.context_length}",
        )
    adapters = {
        adapter.name: _adapter_folder(adapter, folder / "adapters" / str(number), store, cache)
        for number, adapter in enumerate(spec.adapters)
    }
    key = secrets.token_urlsafe(32)
    return Place(model, adapters, free_port(), key, facts, _model_type(model), folder)


def reason(recipe: Recipe, lines: Iterable[str], code: int) -> AtollError:
    """Why the command ended, from the last lines of its log; Unavailable when they do not say."""
    said = list(lines)
    for known in (*recipe.failures, *FAILURES):
        for line in reversed(said):
            if known.pattern.search(line):
                return known.error(f"{recipe.name}: {_plain(line)}", hint=known.hint)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    hint = "the system may have run out of memory" if code == -9 else "the task's log says more"
    last = next((_plain(line) for line in reversed(said) if line.strip()), "it said nothing")
    return Unavailable(f"{recipe.name} ended with {how}: {last}", hint=hint)


def option_flags(options: Mapping[str, Option], reserved: frozenset[str], engine: str) -> list[str]:
    """Options as flags: true is `--name`, false `--no-name`. Invalid for what the platform sets itself."""
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-").lower()
        if flag.removeprefix("no-") in reserved:
            raise Invalid(f"{engine}: option {name!r} is set by the platform", field=f"engine_options.{name}")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags.append(f"--{flag}={value}")
    return flags


def environment(folder: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The variables the command gets: this process's without the platform's own, offline, its environment first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ATOLL_", "AWS_", "FSSPEC_", "PYTHON"))}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if folder:
        kept["PATH"] = f"{Path(folder) / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
        kept["VIRTUAL_ENV"] = folder
    return kept | offline | dict(extra)


def find_program(name: str, folder: str, engine: str) -> str:
    """The program in `folder`/bin, or where the node's own are; Invalid says where it was looked for."""
    places = [Path(folder) / "bin"] if folder else [Path(sys.executable).parent]
    for place in places:
        if (place / name).is_file() and os.access(place / name, os.X_OK):
            return str(place / name)
    found = None if folder else shutil.which(name)
    if found is None:
        raise Invalid(
            f"{engine} needs {name}, which is not in {places[0]}",
            field="environment",
            hint=f"install {engine} into an environment of its own and name it in spec.environment",
        )
    return found


def free_port() -> int:
    """A port of the loopback interface nobody listens on now; somebody may before it is used."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def base_model_name(spec: ServeInput) -> str:
    """The name the base model is served under."""
    return base_name(spec.alias, has_own=any(adapter.name == spec.alias for adapter in spec.adapters))


def _plain(line: str) -> str:
    return line.strip()[-LINE_SHOWN_CHARS:]


def _model_type(model: Path) -> str:
    config = placed.config(model)
    return str(config.get("model_type") or "")


def _adapter_folder(adapter: Adapter, into: Path, store: BlobStore, cache: Path) -> Path:
    names: Sequence[str] = [file.name for file in adapter.files]
    if "adapter_config.json" not in names:
        raise Invalid(
            f"adapter {adapter.name!r} has no adapter_config.json",
            field="adapters",
            hint="this engine takes PEFT adapters, not GGUF ones",
        )
    return placed.folder(adapter.files, into, store, cache)
