"""Runtimes: where the items of a stage are worked off. All give the same bytes."""

from __future__ import annotations

from atoll.core.errors import Invalid
from atoll.data.engine.runtimes.stages import Inline, Runtime

WORKERS_MAX = 1024


def runtime_of(name: str, workers: int) -> Runtime:
    """The runtime called `name` ("process" or "ray") with so many workers; one process worker is this process."""
    if not 1 <= workers <= WORKERS_MAX:
        raise Invalid(f"workers cannot be {workers}", field="workers", hint=f"from 1 to {WORKERS_MAX}")
    if name == "ray":
        from atoll.data.engine.runtimes.ray import Ray

        return Ray(workers)
    if name != "process":
        raise Invalid(f"there is no runtime {name!r}", field="runtime", hint="process or ray")
    if workers == 1:
        return Inline()
    from atoll.data.engine.runtimes.processes import Processes

    return Processes(workers)
