"""A curation run as a task: documents in, a dataset in the blob store out. `python -m atoll.data.engine.curate.run`.

The state is in the workload's own folder, so a run that was killed goes on where it was, and ends with the same
manifest: nothing depends on time, place, workers or batches. What was read goes with the run and is never kept for
another: an erasure promises that copies of texts on nodes end with the runs they belong to.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, Unavailable
from atoll.core.sealed import DataKey
from atoll.data.engine.curate import curation
from atoll.data.engine.curate.curation import Place
from atoll.data.engine.curate.dataset import put
from atoll.data.engine.curate.fetch import Sealed, Told, fetched
from atoll.data.engine.curate.known import indexed
from atoll.data.engine.curate.planning import plan_of
from atoll.data.engine.curate.results import Blobs
from atoll.data.engine.read import close as end_parsers
from atoll.data.engine.runtimes import runtime_of
from atoll.data.engine.runtimes.stages import Runtime, cpu_s
from atoll.data.engine.runtimes.without_pandas import do_without_pandas
from atoll.governance.data_keys import from_environment

Report = Callable[..., None]

KEY_VARIABLE = "ATOLL_PRIVACY_KEY"
"""Where a task finds the project's key for hashes of, and stand-ins for, personal data."""

TOLD = ("names", "known", "tokenizer", "door", "project")
NOT_OF_THE_PLAN = frozenset({"workers", "runtime", "sealed", *TOLD})


def curate(
    task_input: Mapping[str, Any],
    store: BlobStore,
    work: Path,
    report: Report = lambda *args, **more: None,
    keys: Sequence[DataKey] = (),
) -> dict[str, Any]:
    """Make the dataset `task_input` asks for in `store`; the result names its manifest, counts and funnel.

    task_input: sources, recipe, seed, and optionally workers, runtime ("process" or "ray"), what is TOLD besides (see
    `fetch.Told`) and sealed (digests of the uploads that `keys` open). work: a folder for state, empty again when the
    run is over, however it ends but by being killed.
    report(stage, done, total, unit) is called now and then.
    Raises Invalid for a wrong input, sources without documents, and when every document is dropped.
    """
    try:
        result = _curated(task_input, store, work, report, keys)
    except Unavailable:
        raise
    except AtollError:
        _empty(work)
        raise
    _empty(work)
    return result


def _curated(
    task_input: Mapping[str, Any], store: BlobStore, work: Path, report: Report, keys: Sequence[DataKey]
) -> dict[str, Any]:
    started_s, started_cpu_s = time.monotonic(), cpu_s()
    plan = plan_of({name: task_input[name] for name in task_input if name not in NOT_OF_THE_PLAN})
    sealed = Sealed(task_input.get("sealed") or (), keys)
    told = Told(sealed=sealed, **{name: task_input[name] for name in TOLD if task_input.get(name)})
    inputs = fetched(plan, store, work / "inputs", told, report)
    place = Place(work, key=os.environ.get(KEY_VARIABLE, "").encode(), files=inputs.files)
    runtime = runtime_of(task_input.get("runtime", "process"), task_input.get("workers", 1))
    try:
        ready = indexed(inputs.plan, inputs.known, place, runtime, report)
        curated = curation.curate(ready, place, runtime, report)
    finally:
        runtime.close()
        end_parsers()  # or what they took would not be counted
    report("finish", 0, 1, "dataset")
    figures = {"cpu_s": cpu_of(runtime, started_cpu_s), "seconds": round(time.monotonic() - started_s, 3)}
    digest, manifest = put(curated, Blobs(store), figures, inputs.parents, task_input.get("workers", 1))
    curation.remember(curated)
    report("finish", 1, 1, "dataset")
    figures_told = {"counts": manifest.counts, "funnel": manifest.funnel, "privacy": manifest.privacy}
    return {"manifest": digest, **figures_told, "languages": manifest.languages, **figures}


def cpu_of(runtime: Runtime, since_s: float) -> float:
    """Processor seconds of this process and its workers since then; the runtime must be closed."""
    own_s = cpu_s() - since_s  # with those of children that have ended
    return round(own_s + (0.0 if runtime.is_local else runtime.cpu_s), 3)


def _empty(work: Path) -> None:
    for path in work.iterdir() if work.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Run the task in the current task directory."""
    keys = from_environment()

    def curated(value: Mapping[str, Any]) -> dict[str, Any]:
        if value.get("runtime") != "ray":  # which uses pandas
            do_without_pandas()
        return curate(value, BlobStore(task.blobs_url()), task.work_dir(), task.report_progress, keys)

    task.run(curated)


if __name__ == "__main__":
    main()
