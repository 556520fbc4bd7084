"""The engine's inputs, read from the task's plain JSON: what is trained or judged, on what, how.

Everything is checked before any work begins; Invalid names the field. Whether the blobs exist is found out later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Invalid
from atoll.training.gate import METRICS
from atoll.training.recipes import Recipe, parse_recipe

SPLITS = ("heldout", "qa_heldout")
MAX_ROWS_DEFAULT = 200


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file in the blob store."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class TrainInput:
    """One fine-tuning run."""

    base: FileRef
    dataset: str
    recipe: Recipe
    seed: int


@dataclass(frozen=True, slots=True)
class EvaluateInput:
    """One evaluation; without an adapter the base is compared with itself, without a gate it is only measured."""

    base: FileRef
    adapter: FileRef | None
    dataset: str
    split: str
    gate: Mapping[str, Any] | None
    max_rows: int
    seed: int


def parse_train(value: Mapping[str, Any]) -> TrainInput:
    """The training input in `value`."""
    method = value.get("method", "lora")
    if method != "lora":
        raise Invalid(f"method cannot be {method!r}", field="method", hint="the one method there is: lora")
    return TrainInput(
        base=_base(value.get("base")),
        dataset=_text(value, "dataset"),
        recipe=parse_recipe(value.get("recipe") or {}),
        seed=_seed(value),
    )


def parse_evaluate(value: Mapping[str, Any]) -> EvaluateInput:
    """The evaluation input in `value`."""
    split, adapter, max_rows = value.get("split", "qa_heldout"), value.get("adapter"), value.get("max_rows")
    if split not in SPLITS:
        raise Invalid(f"split cannot be {split!r}", field="split", hint=f"one of: {', '.join(SPLITS)}")
    if max_rows is not None and (not _is_integer(max_rows) or max_rows < 1):
        raise Invalid(f"max_rows cannot be {max_rows!r}", field="max_rows", hint="a number from 1 up")
    return EvaluateInput(
        base=_base(value.get("base")),
        adapter=_file(adapter, "adapter") if adapter is not None else None,
        dataset=_text(value, "dataset"),
        split=split,
        gate=_gate(value.get("gate")),
        max_rows=max_rows or MAX_ROWS_DEFAULT,
        seed=_seed(value),
    )


def _base(value: object) -> FileRef:
    if not isinstance(value, Mapping):
        raise Invalid("base is missing", field="base", hint="the files and the format of a model version")
    if value.get("format") != "gguf":
        found = value.get("format")
        raise Invalid(f"base.format cannot be {found!r}", field="base.format", hint="import the model as GGUF")
    files = value.get("files")
    items = [_file(item, f"base.files.{i}") for i, item in enumerate(files)] if isinstance(files, list) else []
    models = [file for file in items if file.name.endswith(".gguf")]
    if len(models) != 1:
        names = ", ".join(file.name for file in items) or "none"
        raise Invalid(f"base.files must hold one .gguf file, there are: {names}", field="base.files")
    return models[0]


def _file(value: object, path: str) -> FileRef:
    if not isinstance(value, Mapping):
        raise Invalid(f"{path} is not a file", field=path, hint='{"name": …, "digest": "sha256:…"}')
    return FileRef(_text(value, "name", f"{path}."), _text(value, "digest", f"{path}."))


def _text(value: Mapping[str, Any], key: str, path: str = "") -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise Invalid(f"{path}{key} cannot be {found!r}", field=f"{path}{key}", hint="a non-empty text")
    return found


def _seed(value: Mapping[str, Any]) -> int:
    seed = value.get("seed", 0)
    if not _is_integer(seed) or not 0 <= seed < 1 << 63:
        raise Invalid(f"seed cannot be {seed!r}", field="seed", hint="a number from 0 to 2^63 - 1")
    return int(seed)


def _gate(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or value.get("metric", METRICS[0]) not in METRICS:
        raise Invalid(f"gate cannot be {value!r}", field="gate", hint=f"metric is one of: {', '.join(METRICS)}")
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
