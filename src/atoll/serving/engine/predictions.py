"""A user's predictor at work: found, loaded, and called with the rows of one or several requests.

Its code runs in threads of its own. Whatever it raises, even an exit, is the answer to the requests it was computing
and nothing more; a ValueError is the client's error. Rows of several requests are predicted together only where the
predictor says they may be; when that fails each request is predicted alone, so that one cannot fail another.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.serving.engine.tensors import Array, check_outputs
from atoll.serving.predictor import MANIFEST, Tensor

MANIFEST_BYTES_MAX = 1 << 20
BATCH_MAX = 4096
WAITING_MAX = 4096
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a predictor before it is loaded: from the model's manifest, then from its class."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batch_size_max: int = 1
    is_thread_safe: bool = False
    predictor: str = ""


class PredictorFailed(AtollError):
    """The user's code raised; the message is its own."""

    code = "predictor_failed"
    http_status = 500


def read_manifest(folder: Path) -> About:
    """What atoll-predictor.yaml in the model's folder says; nothing when there is none. Invalid names the field."""
    path = folder / MANIFEST
    if not path.exists():
        return About()
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise Invalid(f"{MANIFEST} has more than {MANIFEST_BYTES_MAX} bytes", field=MANIFEST)
    try:
        value = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"{MANIFEST} is not YAML: {error}", field=MANIFEST) from error
    if value is not None and not isinstance(value, dict):
        raise Invalid(f"{MANIFEST} is not a mapping", field=MANIFEST)
    fields = value or {}
    for name in fields.keys() - {"predictor", "inputs", "outputs", "batch_size_max"}:
        raise Invalid(f"{MANIFEST} has a field {name!r} that is not known", field=f"{MANIFEST}.{name}")
    return About(
        inputs=_tensors(fields.get("inputs"), "inputs"),
        outputs=_tensors(fields.get("outputs"), "outputs"),
        batch_size_max=_batch_size(fields.get("batch_size_max", 1)),
        predictor=str(fields.get("predictor") or ""),
    )


def find_class(named: str) -> type[Any]:
    """The class called "module:Class". Invalid when it cannot be imported or is no predictor."""
    module_name, _, class_name = named.partition(":")
    if not module_name or not class_name:
        hint = "name it in spec.predictor or in the model's " + MANIFEST
        raise Invalid(f"predictor is {named!r}, not module:Class", field="predictor", hint=hint)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        hint = "it must be importable in the deployment's environment"
        raise Invalid(f"cannot import {module_name}: {_said(error)}", field="predictor", hint=hint) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not callable(getattr(found, "predict", None)):
        raise Invalid(f"{named} is not a class with a method predict", field="predictor")
    return found


def merged(manifest: About, kind: type[Any], options: Mapping[str, object]) -> About:
    """What is known of the predictor in all: options before the manifest before the class."""
    size = options.get("batch_size_max") or (manifest.batch_size_max if manifest.batch_size_max > 1 else None)
    about = About(
        inputs=manifest.inputs or tuple(getattr(kind, "inputs", ())),
        outputs=manifest.outputs or tuple(getattr(kind, "outputs", ())),
        batch_size_max=_batch_size(getattr(kind, "batch_size_max", 1) if size is None else size),
        is_thread_safe=bool(getattr(kind, "is_thread_safe", False)),
    )
    for tensor in (*about.inputs, *about.outputs):
        if not isinstance(tensor, Tensor):
            raise Invalid(f"{tensor!r} among the predictor's inputs or outputs is no Tensor", field="predictor")
        if about.batch_size_max > 1 and (not tensor.shape or tensor.shape[0] != -1):
            raise Invalid(
                f"tensor {tensor.name!r} has shape {list(tensor.shape)}, rows cannot be predicted together",
                field="batch_size_max",
                hint="its first size must be -1",
            )
    return about


def loaded(kind: type[Any], folder: Path) -> Any:
    """A loaded predictor. Invalid when it raises, Unavailable when the machine is at fault."""
    try:
        predictor = kind()
        if callable(getattr(predictor, "load", None)):
            predictor.load(folder)
    except (ConnectionError, TimeoutError, MemoryError) as error:
        traceback.print_exc(file=sys.stderr)
        raise Unavailable(f"{kind.__name__}.load failed: {_said(error)}") from error
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise Invalid(f"{kind.__name__}.load failed: {_said(error)}", field="predictor") from error
    return predictor


@dataclass(slots=True)
class _Waiting:
    inputs: Arrays
    done: asyncio.Future[dict[str, Array]]
    key: tuple[object, ...]
    rows: int


class Predictions:
    """Calls one predictor. `threads` counts only where it is thread safe; `timeout_s` of one call ends the replica."""

    def __init__(self, predictor: Any, about: About, threads: int, wait_s: float, timeout_s: float) -> None:
        self.about = about
        self._predictor, self._wait_s, self._timeout_s = predictor, wait_s, timeout_s
        self._threads = ThreadPoolExecutor(threads if about.is_thread_safe else 1, "predict")
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def predict(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs for `inputs`. Invalid when the predictor says they are wrong, PredictorFailed when it fails."""
        if len(self._running) + len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} predictions are waiting already")
        rows = _rows(inputs)
        if self.about.batch_size_max == 1 or rows is None or rows >= self.about.batch_size_max:
            return await self._call(inputs)
        done: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(inputs, done, _key(inputs), rows))
        self._collect()
        return await done

    def check(self) -> None:
        """Unavailable when a call takes too long."""
        oldest = min(self._running.values(), default=None)
        if oldest is not None and time.monotonic() - oldest > self._timeout_s:
            raise Unavailable(f"predict has not returned for {self._timeout_s:g} s")

    def _collect(self) -> None:
        """Predict when enough rows wait, or when the first has waited long enough."""
        if sum(item.rows for item in self._waiting) >= self.about.batch_size_max:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = [item for item in self._waiting if not item.done.done()], []
        for group in _groups(waiting, self.about.batch_size_max):
            task = asyncio.get_running_loop().create_task(self._together(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _together(self, group: list[_Waiting]) -> None:
        """Predict a group at once, or one by one when that fails."""
        if len(group) > 1:
            names = group[0].inputs
            try:
                whole = await self._call({name: np.concatenate([i.inputs[name] for i in group]) for name in names})
            except AtollError:
                whole = {}
            if whole and all(len(array) == sum(item.rows for item in group) for array in whole.values() if array.shape):
                at = 0
                for item in group:
                    _settle(item.done, {name: array[at : at + item.rows] for name, array in whole.items()})
                    at += item.rows
                return
        for item in group:
            try:
                _settle(item.done, await self._call(item.inputs))
            except AtollError as error:
                _settle(item.done, error)

    async def _call(self, inputs: Arrays) -> dict[str, Array]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, inputs)

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        """In a thread: the user's code, and a check of what it returns."""
        me = id(inputs)
        self._running[me] = time.monotonic()
        name = type(self._predictor).__name__
        try:
            returned = self._predictor.predict(inputs)
        except ValueError as error:
            raise Invalid(f"{name}: {error}", field="inputs") from error
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            raise PredictorFailed(f"{name}.predict failed: {_said(error)}") from error
        finally:
            del self._running[me]
        try:
            return check_outputs(returned, self.about.outputs)
        except ValueError as error:
            raise PredictorFailed(f"{name}.predict failed: {error}") from error


def _settle(done: asyncio.Future[dict[str, Array]], what: dict[str, Array] | AtollError) -> None:
    if done.done():
        return
    if isinstance(what, AtollError):
        done.set_exception(what)
    else:
        done.set_result(what)


def _rows(inputs: Arrays) -> int | None:
    """The size of the first dimension when all inputs share it."""
    sizes = {array.shape[0] if array.shape else -1 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else None


def _key(inputs: Arrays) -> tuple[object, ...]:
    """Inputs with the same key can be joined."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))


def _groups(waiting: Sequence[_Waiting], rows_max: int) -> list[list[_Waiting]]:
    """Requests that can be joined, in order, at most `rows_max` rows each."""
    groups: list[list[_Waiting]] = []
    open_groups: dict[tuple[object, ...], list[_Waiting]] = {}
    for item in waiting:
        group = open_groups.get(item.key)
        if group is None or sum(other.rows for other in group) + item.rows > rows_max:
            group = open_groups[item.key] = []
            groups.append(group)
        group.append(item)
    return groups


def _tensors(value: object, field: str) -> tuple[Tensor, ...]:
    if value is None:
        return ()
    items: list[Any] = value if isinstance(value, list) else [None]
    try:
        return tuple(Tensor(str(i["name"]), str(i["datatype"]), tuple(i["shape"])) for i in items)
    except (KeyError, TypeError, ValueError) as error:
        hint = "a list of {name, datatype, shape}"
        raise Invalid(f"{MANIFEST}: {field}: {_said(error)}", field=f"{MANIFEST}.{field}", hint=hint) from error


def _batch_size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= BATCH_MAX:
        raise Invalid(f"batch_size_max is {value!r}, not 1 to {BATCH_MAX}", field="batch_size_max")
    return value


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
