"""One task directory, read: what the task was, whether it lives, how it ended, what it said.

Everything here was written by processes that may have been killed mid-way, or by the task itself, which may write
garbage, gigabytes or a named pipe; so each read has a limit, and what cannot be read becomes a sentence.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.compute.runtime.base import LogPiece, State, TaskReport, TaskSpec
from atoll.core.errors import Invalid
from atoll.core.files import write_json
from atoll.core.task import PROGRESS_BYTES_MAX, RESULT_BYTES_MAX

SPEC_BYTES_MAX = 16 << 20
RECORD_BYTES_MAX = 64 << 10
TAIL_LINES_MAX = 20
TAIL_CHARACTERS_MAX = 500
_TAIL_BYTES = 32 << 10
_CUT_TRIES = 4
_PIECE = re.compile(r"output\.log\.(\d+)")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What a JSON file held: a value, or a problem in words, or neither when there is no file."""

    value: dict[str, Any] | None = None
    problem: str = ""


def read_object(path: Path, bytes_max: int) -> Found:
    """The JSON object in `path`, which anyone may have written; never waits, never raises."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Found()
    except OSError as error:
        return Found(problem=f"{path.name} cannot be read: {error.strerror}")
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return Found(problem=f"{path.name} is not a file")
        if found.st_size > bytes_max:
            return Found(problem=f"{path.name} has {found.st_size} bytes, the limit is {bytes_max}")
        return _parsed(path.name, file.read(bytes_max))


def _parsed(name: str, data: bytes) -> Found:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return Found(problem=f"{name} is not JSON: {error}")
    return Found(value) if isinstance(value, dict) else Found(problem=f"{name} is not a JSON object")


@dataclass(frozen=True, slots=True)
class Identity:
    """shim.json: the two processes of a task, each with its start in clock ticks since the boot `boot_id` names."""

    shim_pid: int
    shim_start_ticks: int
    child_pid: int
    child_start_ticks: int
    epoch: int
    boot_id: str
    started_at: float | None


_PIDS = ("shim_pid", "shim_start_ticks", "child_pid", "child_start_ticks", "epoch")


class TaskFolder:
    """The files of one task."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uid = path.name
        self._watched = [f"{path}/{name}" for name in ("shim.json", "stop.json", "endpoint.json", "progress.json")]

    # -- life ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, patience_s: float = 0.0) -> Iterator[int | None]:
        """The lock's descriptor while held by us; None when someone else has it and keeps it for `patience_s`."""
        descriptor = self._open_lock()
        try:
            deadline = time.monotonic() + patience_s
            while not (is_ours := _try_lock(descriptor, fcntl.LOCK_EX)) and time.monotonic() < deadline:
                time.sleep(0.002)
            yield descriptor if is_ours else None
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether a shim (or a start under way) holds the task. Those who only ask never see each other."""
        descriptor = self._open_lock()
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        return os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def is_ended(self) -> bool:
        return (self.path / "exit.json").exists()

    def seal(self, reason: str) -> None:
        """Record, durably, that this task is over because of `reason`; the caller holds the lock."""
        record = {"exit_code": None, "signal": None, "reason": reason}
        write_json(self.path / "exit.json", record, mode=0o600)

    def spec(self) -> TaskSpec | None:
        """The spec the task was started with; None when it was never wholly written."""
        found = read_object(self.path / "task.json", SPEC_BYTES_MAX)
        try:
            return TaskSpec.from_dict(found.value) if found.value else None
        except Invalid:
            return None

    def identity(self) -> Identity | None:
        """What the shim wrote of itself and its child; None while it has not."""
        record = read_object(self.path / "shim.json", RECORD_BYTES_MAX).value
        if record is None:
            return None
        numbers = {name: _whole(record, name) or 0 for name in _PIDS}
        return Identity(**numbers, boot_id=str(record.get("boot_id", "")), started_at=_number(record, "started_at"))

    def stop_reason(self) -> str | None:
        """Why the task was asked to stop; None when it was not."""
        found = read_object(self.path / "stop.json", RECORD_BYTES_MAX)
        return None if found == Found() else str((found.value or {}).get("reason", ""))

    def shim_words(self) -> str:
        """The last line the shim itself wrote, which it does only when it breaks."""
        with contextlib.suppress(OSError):
            lines = (self.path / "shim.log").read_bytes()[-RECORD_BYTES_MAX:].decode(errors="replace").split("\n")
            return next((line.strip()[:TAIL_CHARACTERS_MAX] for line in reversed(lines) if line.strip()), "")
        return ""

    def stamps(self) -> tuple[Stamp, ...]:
        """Changes whenever a file that shows in a report does."""
        return tuple([_stamp(path) for path in self._watched])

    # -- reports ------------------------------------------------------------------------------------------------

    def report_alive(self, spec: TaskSpec | None, note: str = "") -> TaskReport:
        """The report of a task whose lock is held."""
        identity, stop = self.identity(), self.stop_reason()
        progress = read_object(self.path / "progress.json", PROGRESS_BYTES_MAX)
        endpoint = read_object(self.path / "endpoint.json", RECORD_BYTES_MAX)
        state: State = "stopping" if stop is not None or note else "running" if identity else "starting"
        return TaskReport(
            **_origin(self.uid, spec, identity),
            state=state,
            reason="; ".join(filter(None, (note, stop, progress.problem, endpoint.problem))),
            log_tail=self.log_tail(),
            progress=progress.value,
            endpoint=endpoint.value,
        )

    def report_ended(self, spec: TaskSpec | None) -> TaskReport:
        """The report of a task that has its exit.json."""
        identity, stop = self.identity(), self.stop_reason()
        ending = read_object(self.path / "exit.json", RECORD_BYTES_MAX)
        result = read_object(self.path / "result.json", RESULT_BYTES_MAX)
        record = ending.value or {"reason": ending.problem}
        is_success = record.get("exit_code") == 0 and not result.problem
        if record.get("stopped") and result.value is None:
            is_success = False  # it gave way to the stop and has nothing to show
        return TaskReport(
            **_origin(self.uid, spec, identity),
            state="succeeded" if is_success else "failed",
            exit_code=_whole(record, "exit_code"),
            signal=_whole(record, "signal"),
            reason="" if is_success else explain(record, result, stop),
            log_tail=self.log_tail(),
            progress=read_object(self.path / "progress.json", PROGRESS_BYTES_MAX).value,
            result=result.value,
        )

    # -- output -------------------------------------------------------------------------------------------------

    def log(self, offset: int, limit_bytes: int) -> LogPiece:
        """At most `limit_bytes` of the output stream from `offset`, or from -`offset` bytes before its end."""
        is_ended = self.is_ended()
        pieces = self._log_pieces()
        size = max(start + length for _, start, length in pieces)
        begin = max(0, size + offset) if offset < 0 else min(offset, size)
        begin = max(begin, min(start for _, start, _ in pieces))
        data = b"".join(_span(path, start, begin, begin + limit_bytes) for path, start, _ in pieces)
        return LogPiece(data[:limit_bytes], begin, max(size, begin + len(data)), is_ended)

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of output as a person would have seen them."""
        text = self.log(-_TAIL_BYTES, _TAIL_BYTES).data.decode(errors="replace")
        lines = [_as_seen(line) for line in text.split("\n")]
        return tuple([line for line in lines if line][-TAIL_LINES_MAX:])

    def _log_pieces(self) -> list[tuple[Path, int, int]]:
        """(file, stream offset, length) in stream order; read again when the log was cut meanwhile."""
        for _ in range(_CUT_TRIES):
            ends = self._log_ends()
            old = [(self.path / f"output.log.{end}", end) for end in ends]
            pieces = [(path, end - length, length) for path, end in old if (length := _length(path))]
            present = self.path / "output.log"
            pieces.append((present, max(ends, default=0), _length(present)))
            if ends == self._log_ends():
                break
        return pieces

    def _log_ends(self) -> list[int]:
        names = (_PIECE.fullmatch(name) for name in os.listdir(self.path))
        return sorted(int(match[1]) for match in names if match)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def explain(record: Mapping[str, Any], result: Found, stop: str | None) -> str:
    """Why a task ended, for people: the exit, then what is known about it."""
    return "; ".join(filter(None, (_asked(record, stop), _exit(record, result), result.problem, _memory(record))))


def _asked(record: Mapping[str, Any], stop: str | None) -> str:
    if stop is None and not record.get("stopped"):
        return ""
    late = ", killed when its grace was over" if record.get("forced") else ""
    return f"stopped{': ' + stop if stop else ''}{late}"


def _exit(record: Mapping[str, Any], result: Found) -> str:
    if record.get("reason"):
        return str(record["reason"])
    number = _whole(record, "signal")
    if number is not None:
        return f"killed by signal {number} ({_signal_name(number)})"
    error = (result.value or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return f"exited with code {record.get('exit_code')}" + (f": {message}" if message else "")


def _memory(record: Mapping[str, Any]) -> str:
    kills = _whole(record, "oom_kills")
    if record.get("signal") != signal.SIGKILL or not kills or record.get("forced"):
        return ""
    peak_mib = (_whole(record, "rss_max_bytes") or 0) >> 20
    processes = "1 process" if kills == 1 else f"{kills} processes"
    return f"the kernel killed {processes} here for lack of memory while it ran; its peak was {peak_mib} MiB"


def _number(record: Mapping[str, Any], name: str) -> int | float | None:
    value = record.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(record: Mapping[str, Any], name: str) -> int | None:
    value = _number(record, name)
    return None if value is None else int(value)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _origin(uid: str, spec: TaskSpec | None, identity: Identity | None) -> dict[str, Any]:
    return {
        "uid": uid,
        "epoch": spec.epoch if spec else identity.epoch if identity else 0,
        "slot": spec.slot if spec else None,
        "on_partition": spec.on_partition if spec else "continue",
        "stop_grace_s": spec.stop_grace_s if spec else 10.0,
        "pid": identity.child_pid if identity else None,
        "started_at": identity.started_at if identity else None,
    }


def _stamp(path: Path | str) -> Stamp:
    try:
        found = os.lstat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _length(path: Path) -> int:
    return _stamp(path)[2]


def _span(path: Path, start: int, begin: int, end: int) -> bytes:
    """The bytes of the stream from `begin` to `end` that are in `path`, whose first byte is at `start`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, max(0, end - max(begin, start)), max(0, begin - start))
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _as_seen(line: str) -> str:
    """A line after carriage returns and colours have had their effect."""
    return _ESCAPE.sub("", line.rstrip("\r").rpartition("\r")[2])[:TAIL_CHARACTERS_MAX].rstrip()
