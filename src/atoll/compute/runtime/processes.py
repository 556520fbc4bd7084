"""Tasks as plain processes of this machine, each under its own shim, in a folder of task directories.

All memory is in the folder: another runtime over the same folder, now or after a crash, sees the same tasks.
- mkdir of the directory is the claim: who makes it starts the task, nobody starts it again.
- The directory's lock is held from the claim to the task's last breath, first by the starter, then by the shim.
  A free lock without exit.json is a death: what is left is killed, then the death is written down, under the lock.
So a start and a verdict about it exclude each other, and a verdict is final.

Durations are monotonic; processes are named by start ticks and boot id. It needs local disks: the lock is flock.
It does not confine a task: no memory limit, no other user, no network rules.
"""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.compute.runtime.base import LogPiece, TaskReport, TaskSpec, is_name
from atoll.compute.runtime.contact import contact_path
from atoll.compute.runtime.environment import node_environment, task_environment
from atoll.compute.runtime.folder import Identity, Stamp, TaskFolder
from atoll.compute.runtime.proc import Family, is_readable, kill_all, members, open_handle
from atoll.compute.runtime.shim import LOG_BYTES_MAX, boot_id, start_ticks
from atoll.core.errors import AtollError, Conflict, NotFound, ResourceExhausted
from atoll.core.files import sync, write_json

SHIM_SOURCE = Path(__file__).with_name("shim.py")
LOCK_PATIENCE_S = 2.0
KILL_PATIENCE_S = 0.5
STOP_MARGIN_S = 5.0
"""How long past a task's own grace its shim may take before it is taken for stuck, and killed."""

_FORGOTTEN = ".forgotten-"
_HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclass(slots=True)
class _Task:
    """What this process knows of a living task; all of it can be found again from the folder."""

    folder: TaskFolder
    spec: TaskSpec | None
    shim_pid: int = 0
    handle: int | None = None
    stamps: tuple[Stamp, ...] = ()
    report: TaskReport | None = None
    is_stop_wanted: bool = False
    is_signalled: bool = False
    hasten_at: float = float("inf")
    force_at: float = float("inf")


class ProcessRuntime:
    """A `Runtime` of processes under `home`/tasks. `blobs` is the blob store's URL, handed to every task."""

    def __init__(
        self,
        home: Path,
        *,
        blobs: str = "",
        environ: Mapping[str, str] | None = None,
        log_bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        self.blobs = blobs
        self._home = home.absolute()
        self._tasks = self._home / "tasks"
        self._environ = dict(os.environ if environ is None else environ)
        self._log_bytes_max = log_bytes_max
        self._alive: dict[str, _Task] = {}
        self._ended: dict[str, TaskReport] = {}
        self._unreaped: set[int] = set()
        self._shim: Path | None = None
        self._tasks.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._tasks.glob(_FORGOTTEN + "*"):
            shutil.rmtree(path, ignore_errors=True)

    # -- start --------------------------------------------------------------------------------------------------

    def start(self, spec: TaskSpec) -> None:
        """Start `spec` unless its uid was ever started or refused here. Failing to start is a report, not an error."""
        folder = self._claim(spec.uid)
        if folder is None:
            return
        with folder.locked(LOCK_PATIENCE_S) as lock:
            if lock is None or folder.is_ended():
                return  # another runtime looked between our mkdir and our lock, and judged the start interrupted
            try:
                self._write_spec(folder, spec)
                pid = self._spawn_shim(folder, spec, lock)
            except (OSError, AtollError) as error:
                folder.seal(f"cannot start: {error}")
                return
        self._unreaped.add(pid)
        self._alive[spec.uid] = _Task(folder, spec, pid, open_handle(pid, start_ticks(pid)))

    def refuse(self, spec: TaskSpec, reason: str) -> None:
        """Use up the uid without starting anything: it is reported as failed with `reason`, for ever."""
        folder = self._claim(spec.uid)
        if folder is None:
            return
        with folder.locked(LOCK_PATIENCE_S) as lock:
            if lock is not None and not folder.is_ended():
                self._write_spec(folder, spec)
                folder.seal(reason)

    def _claim(self, uid: str) -> TaskFolder | None:
        """The task's new directory, on disk for good; None when there was one: then it is not ours to start."""
        path = self._tasks / uid
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return None
        sync(self._tasks)
        return TaskFolder(path)

    def _write_spec(self, folder: TaskFolder, spec: TaskSpec) -> None:
        write_json(folder.path / "input.json", spec.input, durable=False, mode=0o600)
        command = [word.replace("{python}", sys.executable) for word in spec.command]
        record = {**spec.to_dict(), "command": command, "log_bytes_max": self._log_bytes_max}
        if spec.on_partition == "stop":
            record["contact"] = str(contact_path(self._home))
        write_json(folder.path / "task.json", record, durable=False, mode=0o600)

    def _spawn_shim(self, folder: TaskFolder, spec: TaskSpec, lock: int) -> int:
        """Start the shim with our lock as its own; return its pid.

        SIGTERM is held back until the shim can listen, so that a stop right after a start is a stop, not a crash.
        """
        own = task_environment(spec, folder.path, self._home, self.blobs)
        for name in ("ATOLL_CACHE", "ATOLL_WORK"):
            Path(own[name]).mkdir(parents=True, exist_ok=True)
        number = 4 if lock == 3 else 3
        self._shim = self._shim or _compiled_shim(self._home)
        python = sys.executable
        return os.posix_spawn(
            python,
            [python, "-I", "-S", str(self._shim), str(folder.path), str(number)],
            {**node_environment(self._environ, self.blobs), **own},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, lock, number),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(folder.path / "shim.log"), os.O_WRONLY | os.O_CREAT, 0o600),
            ],
            setsigmask=_HELD_BACK,
        )

    # -- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> list[TaskReport]:
        """Every task here, started or refused and not yet forgotten, in order of uid."""
        uids = sorted(name for name in os.listdir(self._tasks) if not name.startswith("."))
        for uid in self._ended.keys() - set(uids):
            del self._ended[uid]
        reports = [report for uid in uids if (report := self._look(uid)) is not None]
        self._reap()
        return reports

    def _look(self, uid: str) -> TaskReport | None:
        if uid in self._ended:
            return self._ended[uid]
        task = self._alive.get(uid) or self._adopt(uid)
        try:
            if self._is_alive(task):
                self._enforce_stop(task)
                return self._report(task)
            return self._conclude(task)
        except FileNotFoundError:
            self._drop(uid)
            return None
        except OSError as error:  # no descriptors left, say: not knowing is no verdict
            return replace(task.report or _unknown(task), reason=f"cannot be looked at: {error}")

    def _adopt(self, uid: str) -> _Task:
        folder = TaskFolder(self._tasks / uid)
        task = self._alive[uid] = _Task(folder, folder.spec())
        return task

    def _is_alive(self, task: _Task) -> bool:
        if task.handle is not None:
            return not is_readable(task.handle)
        if not task.folder.is_locked():
            return False
        identity = task.folder.identity()
        if identity is not None:
            task.shim_pid = identity.shim_pid
            task.handle = open_handle(identity.shim_pid, identity.shim_start_ticks)
        return True

    def _report(self, task: _Task) -> TaskReport:
        stamps = task.folder.stamps()
        if task.report is None or stamps != task.stamps:
            task.spec = task.spec or task.folder.spec()
            task.report, task.stamps = task.folder.report_alive(task.spec), stamps
        return task.report

    def _conclude(self, task: _Task) -> TaskReport:
        """The final report of a task whose shim is gone, after a verdict if it left none."""
        folder = task.folder
        with folder.locked() as lock:
            if lock is None:
                return self._report(task)
            task.spec = task.spec or folder.spec()
            if not folder.is_ended():
                reason = _cause(folder)
                if not _end_leftovers(folder):
                    self._close_handle(task)  # it would ring for ever
                    return folder.report_alive(task.spec, f"{reason}; its last processes are being ended")
                try:
                    folder.seal(reason)
                except ResourceExhausted as error:  # true, though it cannot be written down yet
                    return replace(_unknown(task), state="failed", reason=f"{reason}; {error}")
            report = folder.report_ended(task.spec)
        self._drop(folder.uid)
        self._ended[folder.uid] = report
        return report

    def _drop(self, uid: str) -> None:
        if (task := self._alive.pop(uid, None)) is not None:
            self._close_handle(task)

    def _close_handle(self, task: _Task) -> None:
        if task.handle is not None:
            os.close(task.handle)
            task.handle = None

    def _reap(self) -> None:
        """Collect our own shims that ended; those of an earlier process are another's to collect."""
        for pid in list(self._unreaped):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._unreaped.discard(pid)

    # -- stop, forget, output -----------------------------------------------------------------------------------

    def stop(self, uid: str, reason: str, grace_s: float | None = None) -> None:
        """Begin to stop the task: SIGTERM, and SIGKILL after its own grace, or after `grace_s` if that is sooner.

        Unknown or ended tasks are left as they are.
        """
        if not is_name(uid) or not (self._tasks / uid).is_dir():
            return
        self._look(uid)
        task = self._alive.get(uid)
        if task is None:
            return
        if not task.is_stop_wanted:
            self._mark_stopping(task, reason)
            task.is_stop_wanted = True
        if grace_s is not None:
            task.hasten_at = min(task.hasten_at, time.monotonic() + grace_s)
        self._enforce_stop(task)

    def _mark_stopping(self, task: _Task, reason: str) -> None:
        marker = task.folder.path / "stop.json"
        if not marker.exists():
            with contextlib.suppress(ResourceExhausted):
                write_json(marker, {"reason": reason}, durable=False, mode=0o600)

    def forget(self, uid: str) -> None:
        """Delete all that is kept of an ended task; raises Conflict while it is alive."""
        folder = TaskFolder(self._tasks / uid)
        if not folder.path.is_dir():
            return
        with folder.locked() as lock:
            if lock is None or not folder.is_ended():
                raise Conflict(f"task {uid} is alive, its directory stays", hint="stop it first")
            grave = self._tasks / f"{_FORGOTTEN}{uid}-{time.time_ns()}"
            folder.path.rename(grave)
        self._drop(uid)
        self._ended.pop(uid, None)
        shutil.rmtree(grave, ignore_errors=True)

    def tail(self, uid: str, offset: int, limit_bytes: int) -> LogPiece:
        """At most `limit_bytes` of output from `offset` on (negative: from that far before the end); NotFound."""
        folder = TaskFolder(self._tasks / uid)
        if not is_name(uid) or not folder.path.is_dir():
            raise NotFound(f"task {uid} is not on this node", hint="it was forgotten, or ran elsewhere")
        return folder.log(offset, limit_bytes)

    def alarms(self) -> Sequence[int]:
        """File descriptors that become readable when a task ends, for `select`; empty without pidfd."""
        return [task.handle for task in self._alive.values() if task.handle is not None]

    def close(self) -> None:
        """Let go of everything here; the tasks go on."""
        for uid in list(self._alive):
            self._drop(uid)

    def _signal_shim(self, task: _Task, number: signal.Signals) -> bool:
        """Signal the shim if it is surely the one; say whether that was possible."""
        with contextlib.suppress(ProcessLookupError):
            if task.handle is not None:
                signal.pidfd_send_signal(task.handle, number)
                return True
            if task.shim_pid and not hasattr(os, "pidfd_open") and task.folder.is_locked():
                os.kill(task.shim_pid, number)
                return True
        return False

    def _enforce_stop(self, task: _Task) -> None:
        """Take a stop one step further: ask, end a grace that was cut short, kill a shim that does not answer."""
        if not task.is_stop_wanted:
            return
        now = time.monotonic()
        if not task.is_signalled and self._signal_shim(task, signal.SIGTERM):
            task.is_signalled = True
            task.force_at = now + (task.spec.stop_grace_s if task.spec else 0.0) + STOP_MARGIN_S
        if now >= task.hasten_at and self._signal_shim(task, signal.SIGUSR1):
            task.hasten_at = float("inf")
            task.force_at = min(task.force_at, now + STOP_MARGIN_S)
        if now >= task.force_at and self._signal_shim(task, signal.SIGKILL):
            task.force_at = float("inf")


def _compiled_shim(home: Path) -> Path:
    """The shim as byte code in `home`: a script is compiled at every start, which costs each task 10 ms and 1 MB."""
    path = home / f"shim.{sys.implementation.cache_tag}.pyc"
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(SHIM_SOURCE), str(path), doraise=True, invalidation_mode=unchecked)
    return path


def _unknown(task: _Task) -> TaskReport:
    spec = task.spec
    epoch, slot = (spec.epoch, spec.slot) if spec else (0, None)
    return TaskReport(task.folder.uid, epoch, "starting", slot, spec.on_partition if spec else "continue")


def _cause(folder: TaskFolder) -> str:
    """Why a task is over that left no exit.json."""
    identity = folder.identity()
    words = folder.shim_words()
    if identity is None:
        return "start interrupted" + (f": {words}" if words else "")
    if identity.boot_id != boot_id():
        return "the machine, or its container, restarted while it ran"
    return "the shim was killed" + (f": {words}" if words else "")


def _end_leftovers(folder: TaskFolder) -> bool:
    """Kill what a dead shim left behind; say whether all of it is gone."""
    identity, spec = folder.identity(), folder.spec()
    if identity is None or identity.boot_id != boot_id():
        return True
    if not sys.platform.startswith("linux"):
        return _end_group(identity)
    family = Family(folder.uid, spec.epoch if spec else identity.epoch, identity.child_pid, identity.child_start_ticks)
    found = members(family)
    if found:
        kill_all(found, KILL_PATIENCE_S)
        found = members(family)
    return not found


def _end_group(identity: Identity) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(identity.child_pid, signal.SIGKILL)
    return True
