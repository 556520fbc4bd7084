"""What a serving engine is to the rest of Atoll: a module to run, and the input it reads.

Engines are child processes; this module only describes them and imports none. Adding one is a module that reads a
ServeInput, writes endpoint.json when it is ready to serve, and a line in ENGINES.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from atoll.core.errors import Invalid
from atoll.serving.fit import PROMPT_CACHE_BYTES

CONTEXT_MAX = 1 << 24
SLOTS_MAX = 256
THREADS_MAX = 1024
ADAPTERS_MAX = 16
PROMPT_CACHE_BYTES_MAX = 1 << 40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ALIAS = re.compile(r"[^\x00-\x20\x7f]{1,200}")


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
class ServeInput:
    """What an engine is to serve. `context` is in tokens of each slot; `threads` 0 takes the node's cores.

    `embedding` serves embeddings instead of text. `prompt_cache_bytes` bounds what is kept of finished prompts.
    """

    model: ModelFile
    alias: str
    context: int
    slots: int
    adapters: tuple[ModelFile, ...] = ()
    threads: int = 0
    warm_up: bool = True
    embedding: bool = False
    prompt_cache_bytes: int = PROMPT_CACHE_BYTES

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServeInput:
        """The checked input; Invalid names the field at fault."""
        adapters = data.get("adapters") or []
        if not isinstance(adapters, list) or len(adapters) > ADAPTERS_MAX:
            raise Invalid(f"adapters is not a list of at most {ADAPTERS_MAX}", field="adapters")
        alias = data.get("alias")
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
            raise Invalid(f"alias is {alias!r}", field="alias", hint="1 to 200 characters without spaces")
        return cls(
            model=ModelFile.from_dict(data.get("model"), "model"),
            alias=alias,
            context=_whole(data, "context", 1, CONTEXT_MAX),
            slots=_whole(data, "slots", 1, SLOTS_MAX),
            adapters=tuple(ModelFile.from_dict(item, f"adapters.{i}") for i, item in enumerate(adapters)),
            threads=_whole(data, "threads", 0, THREADS_MAX, 0),
            warm_up=_flag(data, "warm_up", True),
            embedding=_flag(data, "embedding", False),
            prompt_cache_bytes=_whole(data, "prompt_cache_bytes", 0, PROMPT_CACHE_BYTES_MAX, PROMPT_CACHE_BYTES),
        )

    def to_dict(self) -> dict[str, Any]:
        """The wire form, as in input.json."""
        return asdict(self) | {"adapters": [asdict(adapter) for adapter in self.adapters]}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: what it reads (`formats`), what its replicas can do, and the `module` that runs it."""

    name: str
    module: str
    formats: tuple[str, ...]
    capabilities: tuple[str, ...]

    def command(self, spec: ServeInput) -> list[str]:
        """The command of a task; {python} is the node's interpreter."""
        return ["{python}", "-m", self.module]

    def input(self, spec: ServeInput) -> dict[str, Any]:
        """The input of a task."""
        return spec.to_dict()


ENGINES = {
    engine.name: engine
    for engine in (Engine("llamacpp", "atoll.serving.engine.llamacpp", ("gguf",), ("chat", "completion", "embedding")),)
}


def choose_engine(name: str, model_format: str) -> Engine:
    """The engine called `name`, or for "auto" the first that reads `model_format`; "" takes the name's word.

    Invalid names the engines there are.
    """
    if name == "auto":
        able = [engine for engine in ENGINES.values() if model_format in engine.formats]
        if not able:
            raise Invalid(f"no engine serves {model_format!r} models", field="engine", hint=_known())
        return able[0]
    if name not in ENGINES:
        raise Invalid(f"there is no engine {name!r}", field="engine", hint=_known())
    if model_format and model_format not in ENGINES[name].formats:
        raise Invalid(f"engine {name!r} does not serve {model_format!r} models", field="engine", hint=_known())
    return ENGINES[name]


def _known() -> str:
    return "there are " + ", ".join(f"{engine.name} for {'/'.join(engine.formats)}" for engine in ENGINES.values())


def _whole(data: Mapping[str, Any], field: str, least: int, most: int, default: int | None = None) -> int:
    value = data.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"{field} is {value!r}, not a number from {least} to {most}", field=field)
    return value


def _flag(data: Mapping[str, Any], field: str, default: bool) -> bool:
    value = data.get(field, default)
    if not isinstance(value, bool):
        raise Invalid(f"{field} is {value!r}, not true or false", field=field)
    return value
