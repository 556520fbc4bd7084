"""Stages: a function over many items, each item's output a folder that is there whole or not at all.

An item's function writes into a fresh folder, which is renamed into place when the function returns: a run that is
killed at any moment goes on with the items that have no folder yet, and ends with the same bytes. Functions and items
travel to other processes and machines, so functions are module-level and items are plain values.
Which machine runs an item is not known here; see `runtimes`.

What a kill leaves and what a power failure leaves are two things. The kernel outlives a process: once a folder is
renamed everybody sees all of it, on the disk or not. After the machine has stopped, the rename may have reached the
disk and the files not. So a folder that a later start of the machine is to trust is synced before it is renamed, which
costs more than most items that are quick to make again. The stages of those are kept `until_restart`: not synced, in
a folder named by the kernel's start, which no later start looks into. That holds where all workers are of this
machine; elsewhere, and where a kernel does not tell its starts apart, everything is synced.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from atoll.core.errors import AtollError, ResourceExhausted
from atoll.core.files import disk_full_named, sync

Work = Callable[[Any, Path], None]
"""work(item, folder): do `item` and leave what comes of it in `folder`, which exists and is empty."""

Call = tuple[Work, Any, Path, bool]
"""Work, item, its folder, and whether that must outlast a power failure."""

ATTEMPTS = 2
"""How often an item is tried whose worker dies under it."""

BOOT = Path("/proc/sys/kernel/random/boot_id")


class OperatorFailed(AtollError):
    """Our own code failed on an item of a stage; the message names both, `details` hold the traceback."""

    code = "operator_failed"
    http_status = 500


class Runtime(Protocol):
    """Where items are worked off. `cpu_s` is what they took so far, processor seconds.

    `is_local`: workers are this process or its children, so that its own clocks count them once they have ended.
    """

    cpu_s: float
    is_local: bool

    def run(self, calls: Sequence[Call]) -> Iterator[Path]:
        """Call `perform(*call)` for each; yield each folder once it is there, in any order.

        The first failure ends the others and is raised here.
        """

    def prepare(self, ready: Callable[[Any], None], value: Any, meanwhile: Callable[[], None]) -> None:
        """Call `ready(value)`, a module-level function, once where the items will be worked off, if that is a process
        of this machine, and `meanwhile()` in this process where that is another."""

    def close(self) -> None:
        """End the workers."""


class Stages:
    """The stages of one run below `folder`; outputs are kept from run to run until `forget`."""

    def __init__(
        self,
        folder: Path,
        runtime: Runtime,
        report: Callable[..., None] = lambda *args, **more: None,
        is_durable: bool = True,
    ) -> None:
        self.folder = folder
        self.runtime = runtime
        self.report = report
        self.is_durable = is_durable

    def below(self, name: str) -> Stages:
        """Stages of the same run in a folder of their own."""
        return Stages(self.folder / name, self.runtime, self.report, self.is_durable)

    def until_restart(self, name: str) -> Stages:
        """Stages of the same run in a folder of their own whose outputs are lost when the machine stops."""
        start = _start_of_machine() if self.runtime.is_local else ""
        if not start:
            return self.below(name)
        return Stages(self.folder / f"{name}-{start}", self.runtime, self.report, is_durable=False)

    def map(self, name: str, work: Work, items: Sequence[Any], unit: str = "batch") -> list[Path]:
        """The output folders of `work` over `items`, in their order; those that are there already are not redone."""
        stage = self.folder / name
        with disk_full_named(stage):
            stage.mkdir(parents=True, exist_ok=True)
        _sweep(stage)
        places = [stage / f"{number:06d}" for number in range(len(items))]
        calls = [(work, item, place, self.is_durable) for item, place in zip(items, places, strict=True)]
        missing = [call for call in calls if not call[2].exists()]
        done = len(items) - len(missing)
        self.report(name, done, len(items), unit)
        for _ in self.runtime.run(missing):
            done += 1
            self.report(name, done, len(items), unit)
        return places

    def once(self, name: str, work: Work, item: Any) -> Path:
        """The output folder of `work` over one item, done in this process unless it is there."""
        place = self.folder / name
        if not place.exists():
            perform(work, item, place, self.is_durable)
        return place

    def forget(self, name: str) -> None:
        """Remove what a stage has made."""
        shutil.rmtree(self.folder / name, ignore_errors=True)


class Inline:
    """Items one after the other in this process."""

    is_local = True

    def __init__(self) -> None:
        self.cpu_s = 0.0

    def run(self, calls: Sequence[Call]) -> Iterator[Path]:
        for call in calls:
            self.cpu_s += perform(*call)
            give_back()
            yield call[2]

    def prepare(self, ready: Callable[[Any], None], value: Any, meanwhile: Callable[[], None]) -> None:
        """The first item does as well."""

    def close(self) -> None:
        """There are no workers."""


def give_back() -> None:
    """Return memory that Arrow and the allocator keep for later to the system."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def perform(work: Work, item: Any, place: Path, is_durable: bool = True) -> float:
    """Do one item: into a folder beside `place`, synced and renamed to it. Returns the processor seconds it took.

    Two that do the same item at once leave one output. An AtollError passes; anything else becomes OperatorFailed.
    """
    before_s = cpu_s()
    making = place.with_name(f".{place.name}-{uuid.uuid4().hex[:12]}")
    try:
        with disk_full_named(place):
            making.mkdir(parents=True)
            work(item, making)
            _put(making, place, is_durable)
    except AtollError:
        raise
    except Exception as error:
        raise failure(place, item, error) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return cpu_s() - before_s


def cpu_s() -> float:
    """Processor seconds of this process and the children it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def failure(place: Path, item: Any, error: BaseException) -> OperatorFailed:
    """What is said of an item whose function failed."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return OperatorFailed(
        f"stage {place.parent.name}, item {place.name} ({described(item)}): {type(error).__name__}: {error}{where}",
        hint="this is a fault of an operator, not of the data; nothing was made of this run",
        stage=place.parent.name,
        item=place.name,
        traceback="".join(traceback.format_exception(error))[-4000:],
    )


def killed_twice(place: Path, item: Any) -> ResourceExhausted:
    """What is said of an item whose worker died, and so did the next one that tried it."""
    return ResourceExhausted(
        f"stage {place.parent.name}, item {place.name} ({described(item)}) killed its worker twice",
        hint="give the run more memory, or fewer workers",
        stage=place.parent.name,
        item=place.name,
    )


def described(item: Any) -> str:
    """An item in few words, for messages."""
    name = getattr(item, "label", None)
    return str(name() if callable(name) else item)[:120]


def _put(making: Path, place: Path, is_durable: bool) -> None:
    for path in [*making.rglob("*"), making] if is_durable else ():
        sync(path)
    try:
        making.rename(place)
    except OSError:
        if not place.exists():  # else another did the same item
            raise
    if is_durable:
        sync(place.parent)


def _start_of_machine() -> str:
    """A name of the kernel's start, other after every restart; "" where there is none."""
    try:
        return BOOT.read_text().strip().replace("-", "")[:12]
    except OSError:
        return ""


def _sweep(stage: Path) -> None:
    """Remove what broken attempts left."""
    for left in stage.glob(".*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
