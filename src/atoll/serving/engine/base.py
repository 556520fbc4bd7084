"""What a serving engine is to the rest of Atoll: a module to run, and the input it reads.

Engines are child processes; this module only describes them and imports none. Adding one is a module that reads a
ServeInput, writes endpoint.json when it is ready to serve (see `lifecycle`), and a line in ENGINES.

A ServeInput on the wire (input.json), only `model`, `alias`, `context` and `slots` are required:
    {"model": {"name", "digest"}, "files": [{"name", "digest"}...]  (all files of the version; default: the model),
     "format": "gguf|safetensors|predictor", "alias": str, "task": "generate|embed|rerank|predict",
     "context": tokens of a slot, "slots": int, "threads": int (0: the node's cores),
     "adapters": [{"name": served name, "file": {"name", "digest"}, "files": [...] (a folder's, for PEFT)}],
     "warm_up": {"enabled": bool, "prompts": [str]}, "health": {"every_s", "timeout_s", "failures"},
     "engine_options": {name: str|int|float|bool}, "environment": folder, "predictor": "module:Class",
     "accelerators": int, "version": name of the model version, "prompt_cache_bytes": int}
An adapter whose name is the alias is the deployment's own: it is always on unless a request names others. How a
request chooses another one is the engine's `adapters`: "index" (llama.cpp: `lora: [{"id": its place in the list,
"scale": 1.0}]`), "name" or "base:name" (by `model`, see Engine.upstream_model), or "none".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

from atoll.core.errors import Invalid
from atoll.serving.fit import PROMPT_CACHE_BYTES

Task = Literal["generate", "embed", "rerank", "predict"]
Option = str | int | float | bool

CONTEXT_MAX = 1 << 24
SLOTS_MAX = 256
THREADS_MAX = 1024
ADAPTERS_MAX = 17
FILES_MAX = 10_000
ACCELERATORS_MAX = 1024
OPTIONS_MAX = 64
PROMPTS_MAX = 32
PROMPT_CACHE_BYTES_MAX = 1 << 40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ALIAS = re.compile(r"[^\x00-\x20\x7f]{1,200}")
_PREDICTOR = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_OPTION = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A blob and the name it has in the model."""

    name: str
    digest: str

    @classmethod
    def from_dict(cls, data: object, field: str) -> ModelFile:
        """The checked file; Invalid names the field at fault."""
        name = data.get("name") if isinstance(data, Mapping) else None
        digest = data.get("digest") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not name:
            raise Invalid(f"{field}.name is {name!r}", field=f"{field}.name")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise Invalid(f"{field}.digest is {digest!r}", field=f"{field}.digest", hint="sha256: and 64 hex digits")
        return cls(name, digest)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter and the name it is served under; `files` are all of it where it is a folder."""

    name: str
    file: ModelFile
    files: tuple[ModelFile, ...] = ()

    @classmethod
    def from_dict(cls, data: object, field: str, alias: str) -> Adapter:
        """The checked adapter; a bare file is one served under `alias`. Invalid names the field at fault."""
        if not isinstance(data, Mapping) or "file" not in data:
            file = ModelFile.from_dict(data, field)
            return cls(alias, file, (file,))
        file = ModelFile.from_dict(data["file"], f"{field}.file")
        files = _files(data.get("files"), f"{field}.files") or (file,)
        return cls(_named(data.get("name"), f"{field}.name"), file, files)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What is computed before the replica is ready."""

    enabled: bool = True
    prompts: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: object) -> WarmUp:
        """The checked warm-up; a bare flag says only whether. Invalid names the field at fault."""
        if isinstance(data, bool):
            return cls(data)
        fields = _object(data, "warm_up")
        prompts = fields.get("prompts") or []
        if not isinstance(prompts, list) or len(prompts) > PROMPTS_MAX or not all(isinstance(p, str) for p in prompts):
            raise Invalid(f"warm_up.prompts is not a list of at most {PROMPTS_MAX} texts", field="warm_up.prompts")
        return cls(_flag(fields, "enabled", True, "warm_up."), tuple(prompts))


@dataclass(frozen=True, slots=True)
class Health:
    """When a replica that runs counts as failed; times in seconds."""

    every_s: float = 5.0
    timeout_s: float = 30.0
    failures: int = 3

    @classmethod
    def from_dict(cls, data: object) -> Health:
        """The checked settings; Invalid names the field at fault."""
        fields = _object(data, "health")
        return cls(
            _seconds(fields, "every_s", cls().every_s),
            _seconds(fields, "timeout_s", cls().timeout_s),
            _whole(fields, "failures", 1, 1000, cls().failures, "health."),
        )


@dataclass(frozen=True, slots=True)
class ServeInput:
    """What an engine is to serve. `context` is in tokens of each slot; `threads` 0 takes the node's cores.

    `files` are all files of the version, `model` the one that matters most of them. `prompt_cache_bytes` bounds what
    is kept of finished prompts.
    """

    model: ModelFile
    alias: str
    context: int
    slots: int
    adapters: tuple[Adapter, ...] = ()
    files: tuple[ModelFile, ...] = ()
    format: str = "gguf"
    task: Task = "generate"
    threads: int = 0
    warm_up: WarmUp = WarmUp()
    health: Health = Health()
    engine_options: Mapping[str, Option] = field(default_factory=dict)
    environment: str = ""
    predictor: str = ""
    accelerators: int = 0
    version: str = ""
    prompt_cache_bytes: int = PROMPT_CACHE_BYTES

    @property
    def is_generating(self) -> bool:
        return self.task == "generate"

    @property
    def flags(self) -> dict[str, Option]:
        """The deployment's own options under the names of flags."""
        return {name.replace("_", "-"): value for name, value in self.engine_options.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServeInput:
        """The checked input; Invalid names the field at fault."""
        alias = _named(data.get("alias"), "alias")
        model = ModelFile.from_dict(data.get("model"), "model")
        return cls(
            model=model,
            alias=alias,
            context=_whole(data, "context", 1, CONTEXT_MAX),
            slots=_whole(data, "slots", 1, SLOTS_MAX),
            adapters=_adapters(data.get("adapters") or [], alias),
            files=_files(data.get("files"), "files") or (model,),
            format=_text(data, "format", "gguf"),
            task=_task(data),
            threads=_whole(data, "threads", 0, THREADS_MAX, 0),
            warm_up=WarmUp.from_dict(data.get("warm_up", True)),
            health=Health.from_dict(data.get("health", {})),
            engine_options=_options(data.get("engine_options", {})),
            environment=_text(data, "environment", ""),
            predictor=_predictor(data),
            accelerators=_whole(data, "accelerators", 0, ACCELERATORS_MAX, 0),
            version=_text(data, "version", ""),
            prompt_cache_bytes=_whole(data, "prompt_cache_bytes", 0, PROMPT_CACHE_BYTES_MAX, PROMPT_CACHE_BYTES),
        )

    def to_dict(self) -> dict[str, Any]:
        """The wire form, as in input.json."""
        lists = {"adapters": [_plain(adapter) for adapter in self.adapters], "files": [asdict(f) for f in self.files]}
        warm_up = {"enabled": self.warm_up.enabled, "prompts": list(self.warm_up.prompts)}
        return asdict(self) | lists | {"warm_up": warm_up, "engine_options": dict(self.engine_options)}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: what it reads (`formats`) and does (`tasks`), the most its replicas can (`capabilities`), how a
    request chooses an adapter (`adapters`, see the module), and the `module` that runs it.

    What a replica really can is in its endpoint.json; `capabilities` is for plans made before there is one.
    """

    name: str
    module: str
    formats: tuple[str, ...]
    tasks: tuple[Task, ...]
    capabilities: tuple[str, ...]
    adapters: Literal["index", "name", "base:name", "none"] = "none"
    needs_accelerator: bool = False

    def command(self, spec: ServeInput) -> list[str]:
        """The command of a task; {python} is the node's interpreter."""
        return ["{python}", "-m", self.module]

    def input(self, spec: ServeInput) -> dict[str, Any]:
        """The input of a task."""
        return spec.to_dict()

    def upstream_model(self, alias: str, adapter: str = "", *, has_own: bool = False) -> str:
        """The `model` a request for `adapter` (or for the deployment itself) must carry to a replica.

        `has_own`: the deployment's model is itself an adapter.
        """
        if self.adapters == "name":
            return adapter or alias
        if self.adapters == "base:name" and (adapter or has_own):
            return f"{base_name(alias, has_own=has_own)}:{adapter or alias}"
        return alias


_TEXT = ("chat", "completion", "tools", "json_schema", "logprobs")
_LISTED = (
    Engine(
        "llamacpp",
        "atoll.serving.engine.llamacpp",
        ("gguf",),
        ("generate", "embed", "rerank"),
        (*_TEXT, "grammar", "prefill", "fim", "timings", "lora", "embedding", "rerank"),
        "index",
    ),
    Engine(
        "vllm",
        "atoll.serving.engine.vllm",
        ("safetensors",),
        ("generate", "embed", "rerank"),
        (*_TEXT, "continuous_usage", "lora", "embedding", "rerank"),
        "name",
        needs_accelerator=True,
    ),
    Engine(
        "sglang",
        "atoll.serving.engine.sglang",
        ("safetensors",),
        ("generate", "embed", "rerank"),
        (*_TEXT, "continuous_usage", "lora", "embedding", "rerank"),
        "base:name",
        needs_accelerator=True,
    ),
    Engine(
        "transformers",
        "atoll.serving.engine.transformers_server",
        ("safetensors",),
        ("generate", "embed"),
        (*_TEXT, "grammar", "prefill", "continuous_usage", "embedding"),
    ),
    Engine(
        "predictor",
        "atoll.serving.engine.predictor",
        ("predictor", "safetensors", "gguf"),
        ("predict",),
        ("predict",),
    ),
)
ENGINES = {engine.name: engine for engine in _LISTED}
"""In the order in which "auto" looks; those that need an accelerator come before those that do not."""


def base_name(alias: str, *, has_own: bool) -> str:
    """The name an engine that chooses adapters by name serves the base model under."""
    return f"{alias}--base" if has_own else alias


def choose_engine(name: str, model_format: str, task: str = "generate", accelerators: int = 0) -> Engine:
    """The engine called `name`, or for "auto" the first for `task` that reads `model_format` and has the accelerators
    it needs; a format of "" takes the name's word.

    Invalid names the engines there are.
    """
    if name == "auto":
        able = [engine for engine in ENGINES.values() if model_format in engine.formats and task in engine.tasks]
        able = [engine for engine in able if accelerators or not engine.needs_accelerator]
        if not able:
            raise Invalid(f"no engine serves {model_format!r} models to {task}", field="engine", hint=_known())
        return able[0]
    if name not in ENGINES:
        raise Invalid(f"there is no engine {name!r}", field="engine", hint=_known())
    engine = ENGINES[name]
    if not model_format:
        return engine
    if model_format not in engine.formats:
        raise Invalid(f"engine {name!r} does not serve {model_format!r} models", field="engine", hint=_known())
    if task not in engine.tasks:
        raise Invalid(f"engine {name!r} does not {task}", field="engine", hint=_known())
    return engine


def _known() -> str:
    return "there are " + ", ".join(
        f"{engine.name} for {'/'.join(engine.formats)} ({'/'.join(engine.tasks)})" for engine in ENGINES.values()
    )


def _plain(adapter: Adapter) -> dict[str, Any]:
    return {"name": adapter.name, "file": asdict(adapter.file), "files": [asdict(file) for file in adapter.files]}


def _adapters(data: object, alias: str) -> tuple[Adapter, ...]:
    if not isinstance(data, list) or len(data) > ADAPTERS_MAX:
        raise Invalid(f"adapters is not a list of at most {ADAPTERS_MAX}", field="adapters")
    return tuple(Adapter.from_dict(item, f"adapters.{i}", alias) for i, item in enumerate(data))


def _files(data: object, field: str) -> tuple[ModelFile, ...]:
    if data is not None and (not isinstance(data, list) or len(data) > FILES_MAX):
        raise Invalid(f"{field} is not a list of at most {FILES_MAX}", field=field)
    return tuple(ModelFile.from_dict(item, f"{field}.{i}") for i, item in enumerate(data or []))


def _task(data: Mapping[str, Any]) -> Task:
    task = data.get("task", "embed" if _flag(data, "embedding", False) else "generate")
    if task not in get_args(Task):
        raise Invalid(f"task is {task!r}", field="task", hint="one of " + ", ".join(get_args(Task)))
    return cast(Task, task)


def _options(data: object) -> dict[str, Option]:
    fields = _object(data, "engine_options")
    if len(fields) > OPTIONS_MAX:
        raise Invalid(f"engine_options has {len(fields)} entries, the limit is {OPTIONS_MAX}", field="engine_options")
    for name, value in fields.items():
        field = f"engine_options.{name}"
        if not _OPTION.fullmatch(str(name)):
            raise Invalid(f"{name!r} cannot be the name of an option", field="engine_options")
        if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and "\0" in value):
            raise Invalid(f"{field} is {value!r}", field=field, hint="a text, a number, true or false")
    return dict(fields)


def _predictor(data: Mapping[str, Any]) -> str:
    named = _text(data, "predictor", "")
    if named and not _PREDICTOR.fullmatch(named):
        raise Invalid(f"predictor is {named!r}", field="predictor", hint="module:Class")
    return named


def _named(value: object, field: str) -> str:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value):
        raise Invalid(f"{field} is {value!r}", field=field, hint="1 to 200 characters without spaces")
    return value


def _object(data: object, field: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise Invalid(f"{field} is {data!r}, not an object", field=field)
    return data


def _text(data: Mapping[str, Any], field: str, default: str) -> str:
    value = data.get(field, default)
    if not isinstance(value, str) or len(value) > 4096 or "\0" in value:
        raise Invalid(f"{field} is {value!r}, not a text", field=field)
    return value


def _whole(
    data: Mapping[str, Any], field: str, least: int, most: int, default: int | None = None, prefix: str = ""
) -> int:
    value = data.get(field, default)
    field = prefix + field
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"{field} is {value!r}, not a number from {least} to {most}", field=field)
    return value


def _seconds(data: Mapping[str, Any], field: str, default: float) -> float:
    value = data.get(field, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 86_400:
        raise Invalid(f"health.{field} is {value!r}, not a number of seconds up to 86400", field=f"health.{field}")
    return float(value)


def _flag(data: Mapping[str, Any], field: str, default: bool, prefix: str = "") -> bool:
    value = data.get(field, default)
    if not isinstance(value, bool):
        raise Invalid(f"{prefix}{field} is {value!r}, not true or false", field=prefix + field)
    return value
