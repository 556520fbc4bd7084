"""Serve a user's Python class (see `atoll.serving.predictor`) by the Open Inference Protocol, version 2.

Run as `python -m atoll.serving.engine.predictor` in a task directory. With an environment named, the process turns
into that environment's Python, which must be of the same version; its own packages come first, Atoll's after them.
Options: model_code (run code among the model's files), code_path (a folder of this node to import from),
batch_size_max, batch_wait_ms, timeout_s (of one call, after which the replica counts as failed).
It does not confine the class: that code can do whatever this user can do on this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import orjson

import atoll
from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, Invalid, NotFound, Unavailable
from atoll.serving.engine import placed
from atoll.serving.engine.base import Option, ServeInput
from atoll.serving.engine.command import find_program
from atoll.serving.engine.lifecycle import grace_s, keep_watch, leave, stop_event, wait_until_ready
from atoll.serving.engine.predictions import Predictions, find_class, loaded, merged, read_manifest
from atoll.serving.engine.server import Answer, Door, Request, ServerThread, new_key
from atoll.serving.engine.tensors import asked_outputs, read_inputs, split_body, write_outputs

MODULE = "atoll.serving.engine.predictor"
BODY_BYTES_MAX = 64 << 20
READY_TIMEOUT_S = 60.0
TIMEOUT_S = 300.0
BATCH_WAIT_MS = 5.0
MOVED = "ATOLL_PREDICTOR_MOVED"
"""Set once the process runs in the deployment's environment."""

OPTIONS: dict[str, tuple[type, ...]] = {
    "model_code": (bool,),
    "code_path": (str,),
    "batch_size_max": (int,),
    "batch_wait_ms": (int, float),
    "timeout_s": (int, float),
}
EXTENSIONS = ["binary_tensor_data", "model_version"]
_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")
_BOOTSTRAP = "import sys, runpy; sys.path += {paths!r}; runpy.run_module({module!r}, run_name='__main__')"


class PredictorServer:
    """Answers the protocol's requests for one predictor."""

    def __init__(self, name: str, version: str, predictions: Predictions) -> None:
        self._name, self._version, self._predictions = name, version, predictions

    async def handle(self, request: Request) -> Answer:
        """The answer to a request; NotFound for other models and paths."""
        about: dict[str, dict[str, Any]] = {
            "/v2": {"name": "atoll", "version": atoll.__version__, "extensions": EXTENSIONS},
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
        }
        if request.method == "GET" and request.path in about:
            return Answer(orjson.dumps(about[request.path]))
        found = _MODEL_PATH.fullmatch(request.path)
        if found is None:
            raise NotFound(f"{request.method} {request.path} is not served here")
        self._check_model(found[1], found[2])
        if found[3] == "/infer" and request.method == "POST":
            return await self._infer(request)
        if request.method != "GET" or found[3] == "/infer":
            raise NotFound(f"{request.method} {request.path} is not served here")
        state = {"name": self._name, "ready": True} if found[3] else self._metadata()
        return Answer(orjson.dumps(state))

    def _check_model(self, name: str, version: str | None) -> None:
        if name != self._name:
            raise NotFound(f"there is no model {name!r}", hint=f"this replica serves {self._name}")
        if version is not None and version != self._version:
            raise NotFound(f"there is no version {version!r} of {name}", hint=f"this replica serves {self._version}")

    def _metadata(self) -> dict[str, Any]:
        about = self._predictions.about
        tensors = {
            kind: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in listed]
            for kind, listed in (("inputs", about.inputs), ("outputs", about.outputs))
        }
        return {"name": self._name, "versions": [self._version], "platform": "atoll_python", **tensors}

    async def _infer(self, request: Request) -> Answer:
        header_length = request.headers.get("inference-header-content-length")
        body, binary = split_body(request.body, header_length)
        asked, parameters = asked_outputs(body), body.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise Invalid("parameters is not an object", field="parameters")
        arrays = read_inputs(body, binary, self._predictions.about.inputs)
        outputs = await self._predictions.predict(arrays)
        head = {"model_name": self._name, "model_version": self._version}
        if body.get("id") is not None:
            head["id"] = str(body["id"])
        is_binary = parameters.get("binary_data_output") is True
        told, length = write_outputs(head, outputs, asked, is_binary=is_binary)
        if length is None:
            return Answer(told)
        extra = {"inference-header-content-length": str(length)}
        return Answer(told, content_type="application/octet-stream", headers=extra)


def render_error(error: AtollError) -> bytes:
    """The error in the protocol's form."""
    return orjson.dumps({"error": str(error)})


def serve(data: dict[str, Any]) -> None:
    """Serve what the input names until told to stop; leaves the process, never returns normally."""
    spec = ServeInput.from_dict(data)
    check_options(spec.engine_options)
    if spec.environment and MOVED not in os.environ:
        move(spec.environment)
    started = time.monotonic()
    folder = placed.folder(spec.files, task.task_dir() / "model", BlobStore(task.blobs_url()), task.cache_dir())
    predictions = work(spec, folder)
    key = new_key()
    version = spec.version or "1"
    served = PredictorServer(spec.alias, version, predictions)
    door = Door(served.handle, key, render_error, BODY_BYTES_MAX, predictions.check)
    backend = ServerThread("predictor", door, key)
    stop = stop_event()
    backend.start()
    try:
        wait_until_ready(backend, READY_TIMEOUT_S, stop)
    except Unavailable as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        leave(1)
    task.report_progress("load", 1, 1, "", "serving", load_s=round(time.monotonic() - started, 3))
    task.write_endpoint(backend.url, key, ("predict",))
    leave(keep_watch(backend, stop, grace_s(), spec.health))


def work(spec: ServeInput, folder: Path) -> Predictions:
    """The predictor the input names, loaded from the model's files in `folder`. Invalid, Unavailable."""
    manifest = read_manifest(folder)
    options = spec.engine_options
    paths = [str(folder)] if options.get("model_code") else []
    sys.path[:0] = [*([str(options["code_path"])] if options.get("code_path") else []), *paths]
    kind = find_class(spec.predictor or manifest.predictor)
    about = merged(manifest, kind, options)
    task.report_progress("load", 0, None, "", f"loading {kind.__name__}")
    wait_s = float(options.get("batch_wait_ms", BATCH_WAIT_MS)) / 1000
    timeout_s = float(options.get("timeout_s", TIMEOUT_S))
    return Predictions(loaded(kind, folder), about, spec.slots, wait_s, timeout_s)


def check_options(options: Mapping[str, Option]) -> None:
    """Invalid names an option there is not, or one of another type."""
    for name, value in options.items():
        field = f"engine_options.{name}"
        if name not in OPTIONS:
            hint = "there are " + ", ".join(OPTIONS)
            raise Invalid(f"predictor has no option {name!r}", field=field, hint=hint)
        if type(value) not in OPTIONS[name] or (not isinstance(value, bool | str) and value <= 0):
            raise Invalid(f"{field} is {value!r}", field=field)


def move(environment: str) -> NoReturn:
    """Turn this process into the environment's Python, running this module. Invalid when it is of another version."""
    python = find_program("python", environment, "predictor")
    asked = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True, text=True, check=False
    )
    own = ".".join(str(number) for number in sys.version_info[:2])
    if asked.stdout.strip() != own:
        raise Invalid(
            f"{environment} has Python {asked.stdout.strip() or asked.stderr.strip()[-200:]}, this node has {own}",
            field="environment",
            hint=f"make the environment with Python {own}",
        )
    root = str(Path(atoll.__file__).parents[1])
    paths = [root, *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")} - {root}]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program = _BOOTSTRAP.format(paths=paths, module=MODULE)
    os.execve(python, [python, "-c", program], kept | {MOVED: "1"})  # noqa: S606 - a list of words, and no shell


if __name__ == "__main__":
    task.run(serve)
