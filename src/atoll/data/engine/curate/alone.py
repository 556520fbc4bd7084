"""A curation without a platform: files and folders in, a folder with a dataset, its notes and a report out.

The folder keeps the state of the run in `.work`, so it goes on after a kill and begins with what was read when the
recipe changes. A recipe in Python is executed here and nowhere else: it is the caller's own file.

What a curation is made of is imported only when the runtime is there: its processes start meanwhile.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import runpy
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from atoll.core.errors import Conflict, Invalid
from atoll.core.files import disk_full_named, write_bytes
from atoll.core.yaml_lines import Document, read_documents
from atoll.data.engine.curate.plan import Plan
from atoll.data.engine.runtimes import runtime_of
from atoll.data.engine.runtimes.stages import Runtime, cpu_s
from atoll.data.recipes import Recipe, parse_recipe

if TYPE_CHECKING:
    from atoll.data.manifest import Manifest

KEY = "privacy.key"
KEYED_ACTIONS = frozenset({"hash", "pseudonymise"})
_PLACE = re.compile(r"\[(\d+)\]")
ELSEWHERE = {"pypi:": "package", "hf:": "hub"}

Report = Callable[..., None]


def curate_alone(
    inputs: Sequence[str],
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,
    runtime: str = "process",
    seed: int = 0,
    fields: Mapping[str, str] | None = None,
    report: Report = lambda *args, **more: None,
) -> tuple[Manifest, dict[str, Any]]:
    """Curate `inputs` into the folder `out`: files, folders, globs, packages (pypi:NAME==VERSION) and datasets of a
    hub (hf:OWNER/NAME); NAME=INPUT for sources of their own. fields: what records call their text, id, title and url.

    The manifest, and the figures of the run: cpu_s, seconds, workers, runtime, mb_per_cpu_s.
    Invalid for inputs or an `out` that cannot be; Conflict while another run works on `out`.
    """
    started = time.monotonic(), cpu_s()
    named = {"fields": dict(fields)} if fields else {}
    task = {"sources": [source | named for source in sources_of(inputs)], "recipe": recipe, "seed": seed}
    working = runtime_of(runtime, workers)
    try:
        return _curated(task, out, working, report, started, {"workers": workers, "runtime": runtime})
    finally:
        working.close()


def _curated(
    task: dict[str, Any],
    out: Path,
    working: Runtime,
    report: Report,
    started: tuple[float, float],
    figures: dict[str, Any],
) -> tuple[Manifest, dict[str, Any]]:
    """Curate into `out` by a runtime, which is closed on the way. started: monotonic and processor seconds."""
    from atoll.data.engine.curate import curation
    from atoll.data.engine.curate.dataset import put
    from atoll.data.engine.curate.fetch import fetched
    from atoll.data.engine.curate.known import indexed
    from atoll.data.engine.curate.planning import plan_of
    from atoll.data.engine.curate.results import Folder
    from atoll.data.engine.curate.run import cpu_of
    from atoll.data.engine.read import close as end_parsers

    plan = plan_of(task)
    state = _state_in(out)
    with _alone(state):
        ready = fetched(plan, None, state / "inputs", report=report)
        place = curation.Place(state, cache=str(state / "cache"), key=_key(plan, state), files=ready.files)
        known = indexed(ready.plan, ready.known, place, working, report)
        curated = curation.curate(known, place, working, report)
        working.close()
        end_parsers()  # or what they took would not be counted
        report("finish", 0, 1, "dataset")
        used_s = cpu_of(working, started[1])
        figures = {"cpu_s": used_s, "seconds": round(time.monotonic() - started[0], 3), **figures}
        figures["mb_per_cpu_s"] = round(curated.input_bytes / 1e6 / used_s, 2) if used_s else 0.0
        _, manifest = put(curated, Folder(out), figures, ready.parents, figures["workers"])
        curation.remember(curated)
        report("finish", 1, 1, "dataset")
    return manifest, figures | {"input_bytes": curated.input_bytes}


def sources_of(inputs: Sequence[str]) -> list[dict[str, Any]]:
    """The sources inputs stand for: one of all files that have no name, one for each name, dataset, package and hub."""
    from atoll.data.engine.read.dataset import is_dataset

    named: dict[str, list[str]] = {}
    elsewhere: list[dict[str, Any]] = []
    for given in inputs:
        name, equals, path = given.partition("=")
        is_named = bool(equals) and name.isidentifier() and not os.path.exists(given)
        name, path = (name, path) if is_named else ("", given)
        kind = next((kind for start, kind in ELSEWHERE.items() if path.startswith(start)), "")
        more = {"name": name} if name else {}
        if kind:
            elsewhere.append({"kind": kind, "reference": path, **more})
            continue
        for found in _paths(path):
            if is_dataset(Path(found)):
                elsewhere.append({"kind": "dataset", "reference": found, **more})
            else:
                named.setdefault(name, []).append(found)
    return [*(_source(name, paths) for name, paths in named.items()), *elsewhere]


def _source(name: str, paths: Sequence[str]) -> dict[str, Any]:
    more = {"name": name} if name else {}
    if len(paths) == 1 and os.path.isdir(paths[0]):
        return {"kind": "folder", "path": paths[0], **more}
    return {"kind": "files", "paths": list(paths), **more}


def _paths(pattern: str) -> list[str]:
    if os.path.exists(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise Invalid(f"there is nothing at {pattern!r}", field="input", hint="a file, a folder or a pattern")
    return found


def recipe_from(path: Path | None, preset: str | None) -> Recipe:
    """The recipe in a .yaml, .json or .py file over a preset; Invalid names what is wrong with it, and its line."""
    document = None if path is None or path.suffix == ".py" else _document_in(path)
    value = {} if path is None else _value_of_python(path) if document is None else document.value
    if isinstance(value, Recipe):
        if preset is None:
            return value
        value = value.model_dump(exclude_unset=True)
    if not isinstance(value, Mapping):
        raise Invalid(f"{path} holds no recipe", field="recipe", hint="an object, as `atoll explain` shows it")
    try:
        return parse_recipe({**value, "preset": preset} if preset else dict(value))
    except Invalid as error:
        if document is None:
            raise
        place = _PLACE.sub(r".\1", error.field.removeprefix("recipe").removeprefix("."))
        raise Invalid(
            f"{path}:{document.line_of(place)}: {error.message}", field=error.field, hint=error.hint
        ) from error


def _document_in(path: Path) -> Document:
    """What a file of YAML or JSON says; Invalid when it is none, or more than one document."""
    try:
        found = read_documents(path.read_bytes().decode("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if len(found) > 1:
        raise Invalid(f"{path} holds {len(found)} documents", field="recipe", hint="one recipe, without ---")
    return found[0] if found else Document({}, 1, {})


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> Invalid:
    said = error.strerror if isinstance(error, OSError) else error
    return Invalid(f"{path} cannot be read: {said}", field="recipe", hint="a .yaml, .json or .py file in UTF-8")


def _value_of_python(path: Path) -> Any:
    try:
        path.read_bytes()  # or the reason why it cannot be read is taken for one of its own
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = runpy.run_path(str(path))
    except Exception as error:  # the caller's own code
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        message = f"{path}{'' if line is None else f', line {line}'}: {type(error).__name__}: {error}"
        raise Invalid(message, field="recipe", hint="a Python file that runs and defines `recipe`") from error
    if "recipe" not in found:
        raise Invalid(f"{path} defines no `recipe`", field="recipe", hint="recipe = Recipe(…), or a dict")
    return found["recipe"]


def _state_in(out: Path) -> Path:
    """The folder for the state of a run, made if need be; Invalid when `out` cannot be one of ours."""
    from atoll.data.engine.curate.results import check_ours
    from atoll.data.engine.read.dataset import STATE

    state = out / STATE
    try:
        check_ours(out)
        with disk_full_named(out):
            state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{out} cannot be the folder of the dataset: {error.strerror}"
        raise Invalid(message, field="out", hint="name a folder that can be written to") from error
    return state


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the lock of a folder's state; Conflict while another process does."""
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait for its end, or choose another folder"
            raise Conflict(f"another curation works on {state.parent}", hint=hint) from error
        yield


def _key(plan: Plan, state: Path) -> bytes:
    """The key for hashes and stand-ins: the environment's, else one made for this folder; none where none is used."""
    from atoll.data.engine.curate.run import KEY_VARIABLE

    if given := os.environ.get(KEY_VARIABLE):
        return given.encode()
    if not is_keyed(plan):
        return b""
    path = state / KEY
    if not path.exists():
        write_bytes(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()


def is_keyed(plan: Plan) -> bool:
    """Whether what is done about personal data needs a key."""
    used = {action for _, action in plan.privacy.actions} | {plan.privacy.default} if plan.privacy else set()
    return bool(used & KEYED_ACTIONS)


def described(recipe: Recipe) -> bytes:
    """The whole recipe, presets filled in, as YAML."""
    return yaml.safe_dump(orjson.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True).encode()
