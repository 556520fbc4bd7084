"""Keeps one task: starts its command, copies its output to a rotated log, and leaves no process of it behind.

Run as `python -I -S shim.py TASK_DIR [LOCK_FD]`. While this process lives it holds the lock on TASK_DIR/lock, so a
held lock means the task is alive and a free lock means it is over, whoever asks and however often they restarted.
The command starts at most once per directory: never after shim.json or exit.json exists.
SIGTERM stops the command: it gets SIGTERM too, and SIGKILL when its grace is over; SIGUSR1 ends the grace now.
If this process is killed, the kernel kills the command too; grandchildren are then the agent's to end.
Where task.json names a contact file, the command is stopped when the machine's contact with the centre has been stale
for a lease, so that it has ended before the centre may start another in its place, whether or not an agent is left.

The output goes through a pipe of this process rather than straight into the file: only so can the log be cut at a
byte without losing a line, and a full disk costs log lines, not the task. The price is the last 64 KiB when this
process is killed.

It knows neither the agent nor the platform: it reads task.json and the contact file and writes shim.json, stop.json
and exit.json. It imports the standard library only, and little of it, because it must start in milliseconds and stay
small.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time

LOG_BYTES_MAX = 64 << 20
COPY_BYTES = 1 << 16
EXIT_JSON_BYTES = 4096
REFUSED = 73
"""Exit code of a shim that may not start: the directory is in use, or was used before."""

STOP_AFTER_TTLS = 1.0
KILL_AFTER_TTLS = 1.5
LOOK_TTLS = 0.1
LOOK_S_MAX = 1.0
"""Without contact the command is asked to stop after one lease time and killed after one and a half; the centre gives
its place away after two. The contact is looked at this often. docs/decisions/0012 holds the sum."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IS_LINUX = sys.platform.startswith("linux")


class Refused(Exception):
    """This directory is another shim's, now or before."""


# -- what identifies a process ----------------------------------------------------------------------------------


def boot_id() -> str:
    """The name of this boot of the machine, and of the container's process space: where pids mean the same."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _boot_session_uuid() if sys.platform == "darwin" else ""


def _boot_session_uuid() -> str:
    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(64)
    failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, 0)
    return "" if failed else buffer.value.decode()


def stat_fields(pid: int | str) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; empty when there is no such process (or no /proc)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks since boot: with the boot id it names a process for ever. 0 if unknown."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def children_of(parent: int) -> list[int]:
    """Direct children of `parent`; empty where there is no /proc."""
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [int(name) for name in names if (fields := stat_fields(name)) and int(fields[1]) == parent]


def oom_kills() -> int:
    """Processes the kernel killed for lack of memory since boot; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


# -- files ------------------------------------------------------------------------------------------------------


def take_lock(inherited: int | None) -> int:
    """Hold the lock of the current directory for as long as this process lives; raises Refused."""
    descriptor = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600) if inherited is None else inherited
    os.set_inheritable(descriptor, False)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Refused("another shim holds the lock") from error
    return descriptor


def write_durably(name: str, value: dict[str, object]) -> None:
    """Put `value` into `name` as JSON, on disk when this returns."""
    descriptor = os.open("." + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, json.dumps(value).encode())
    publish(descriptor, name)


def publish(descriptor: int, name: str) -> None:
    """Sync and close the file open at `descriptor` and give it its name."""
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename("." + name, name)
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def reserve_exit() -> int:
    """A descriptor for exit.json whose blocks are taken now, so that a full disk cannot hide how the task ended."""
    descriptor = os.open(".exit.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, b" " * EXIT_JSON_BYTES)
    return descriptor


def write_exit(descriptor: int, value: dict[str, object]) -> None:
    """Fill the reserved exit.json."""
    data = json.dumps(value).encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
    publish(descriptor, "exit.json")


def say_why_stopped(reason: str) -> None:
    """Leave `reason` in stop.json if nobody left another before; a full disk costs the words, not the stop."""
    with contextlib.suppress(OSError):
        descriptor = os.open("stop.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, json.dumps({"reason": reason}).encode())
        os.close(descriptor)


class Log:
    """output.log, cut at `bytes_max`; the piece before it is output.log.N, where N is the stream offset it ends at."""

    def __init__(self, bytes_max: int) -> None:
        self.lost_bytes = 0
        self._bytes_max = bytes_max
        self._base = 0
        self._size = 0
        self._descriptor = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes) -> None:
        """Append; what the disk refuses is counted in `lost_bytes` and dropped, so that the task never waits."""
        rest = memoryview(data)
        try:
            while rest:
                if self._size >= self._bytes_max:
                    self._rotate()
                written = os.write(self._descriptor, rest[: self._bytes_max - self._size])
                self._size += written
                rest = rest[written:]
        except OSError:
            self.lost_bytes += len(rest)

    def _rotate(self) -> None:
        fresh = os.open(".output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        end = self._base + self._size
        os.rename("output.log", f"output.log.{end}")
        os.rename(".output.log", "output.log")
        os.close(self._descriptor)
        if self._base:
            os.unlink(f"output.log.{self._base}")
        self._descriptor, self._base, self._size = fresh, end, 0


# -- contact with the centre ------------------------------------------------------------------------------------


def lease_clock_s(is_centre_here: bool) -> float:
    """Seconds on the clock the centre's patience with this machine is measured against.

    A sleeping machine loses its lease like any other, so sleep counts; but not where the centre sleeps with it.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if is_centre_here or clock is None else time.clock_gettime(clock)


def is_free(lock: str) -> bool:
    """Whether nobody holds the lock on the file `lock`; False when that cannot be told."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def renewed(known_s: float, at_s: float, lease_ttl_s: float) -> float:
    """The contact to count from when `known_s` was, and `at_s` is heard of now: a lease that has ended stays so.

    A machine that slept finds contact again before its shims have looked; their places may be others' by then.
    """
    is_in_time = at_s <= known_s + STOP_AFTER_TTLS * lease_ttl_s
    return at_s if known_s == float("-inf") or (known_s < at_s and is_in_time) else known_s


class Contact:
    """Since when the centre may have heard nothing of this machine, as the file at `path` says.

    The file holds {"boot_id", "lease_ttl_s", "centre_lock"}; its modification time is the contact, on the lease clock.
    A centre whose lock is free does not run, and the next one watches for two lease times before it judges: so a free
    lock is as good as contact. What cannot be read changes nothing.
    """

    def __init__(self, path: str) -> None:
        self.at_s = float("-inf")
        self.lease_ttl_s = 0.0
        self._path, self._boot_id, self._is_centre_here = path, boot_id(), False
        self.look()

    def look(self) -> None:
        """Take in what the file and the lock say now."""
        try:
            with open(self._path, "rb") as file:
                said, at_s = json.load(file), os.fstat(file.fileno()).st_mtime_ns / 1e9
            if said["boot_id"] == self._boot_id:
                self._take(at_s, float(said["lease_ttl_s"]), str(said["centre_lock"]))
        except (OSError, ValueError, KeyError, TypeError):
            return

    def _take(self, at_s: float, lease_ttl_s: float, centre_lock: str) -> None:
        if self._is_centre_here != bool(centre_lock):
            self._is_centre_here, self.at_s = bool(centre_lock), float("-inf")  # it was on another clock
        self.lease_ttl_s, now_s = lease_ttl_s, lease_clock_s(self._is_centre_here)
        heard_s = now_s if centre_lock and is_free(centre_lock) else at_s
        if heard_s <= now_s:
            self.at_s = renewed(self.at_s, heard_s, lease_ttl_s)

    def left_s(self, ttls: float) -> float:
        """Seconds until contact has been stale for `ttls` lease times; negative when it was before."""
        return self.at_s + ttls * self.lease_ttl_s - lease_clock_s(self._is_centre_here)

    @property
    def is_stale(self) -> bool:
        """Whether what may not outlive contact has to stop."""
        return self.left_s(STOP_AFTER_TTLS) <= 0

    @property
    def look_s(self) -> float:
        """How often to look."""
        return min(LOOK_S_MAX, LOOK_TTLS * self.lease_ttl_s)

    def __str__(self) -> str:
        since = f"for {self.lease_ttl_s:g} s" if self.lease_ttl_s else "is noted here"
        return f"no contact with the centre {since}"


# -- the child --------------------------------------------------------------------------------------------------


class Child:
    """The task's command, forked but held back until `release`."""

    def __init__(self, command: list[str], env: dict[str, str], output: int) -> None:
        self._errors, errors = os.pipe()
        go, self._go = os.pipe()
        shim_pid = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            _become(command, env, shim_pid, go, output, errors)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(go)
        os.close(errors)

    def release(self) -> None:
        """Let the command run."""
        os.write(self._go, b"g")
        os.close(self._go)

    def withhold(self) -> None:
        """Never let the command run."""
        os.close(self._go)

    def error(self) -> str:
        """Why the command could not start, "" if it did; to be asked when the child has ended, and never waits then."""
        return os.read(self._errors, 4096).decode(errors="replace")


def _become(command: list[str], env: dict[str, str], shim_pid: int, go: int, output: int, errors: int) -> None:
    """In the forked child: turn into `command`, or say on `errors` why not. Never returns."""
    try:
        os.setsid()
        _die_with(shim_pid)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if os.read(go, 1) == b"g":
            _reset_signals()
            os.execvpe(command[0], command, env)  # noqa: S606 - a list of words, and no shell, is what we want
    except (OSError, ValueError, TypeError, IndexError) as error:
        os.write(errors, f"cannot start: {_named(error)}: {(command or [''])[0]!r}".encode()[:500])
    finally:
        os._exit(127)


def _named(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _die_with(shim_pid: int) -> None:
    if not _IS_LINUX:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != shim_pid:
        os._exit(127)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


# -- keeping ----------------------------------------------------------------------------------------------------


class Keeper:
    """Watches one child to its end: copies its output, passes on a stop, reaps, and ends what it left behind.

    With a `contact` it is also the one who stops the child when contact is stale.
    """

    def __init__(
        self, child: Child, output: int, wake: int, log: Log, grace_s: float, contact: Contact | None = None
    ) -> None:
        self.is_stopped = False
        self.is_forced = False
        self.rss_max_bytes = 0
        self._status: int | None = None
        self._deadline: float | None = None
        self._look_at = time.monotonic()
        self._child, self._output, self._wake, self._log, self._grace_s = child, output, wake, log, grace_s
        self._contact = contact

    def outcome(self) -> dict[str, object]:
        """Let the child run, unless contact is stale already; say how it ended once nothing of it is left."""
        reason = f"cannot start: {self._contact}" if self._contact is not None and self._contact.is_stale else ""
        if reason:
            self._contact = None
            self._child.withhold()
        else:
            self._child.release()
        code = self._watch()
        return {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "reason": reason or self._child.error(),
            "stopped": self.is_stopped,
            "forced": self.is_forced,
            "rss_max_bytes": self.rss_max_bytes,
            "log_lost_bytes": self._log.lost_bytes,
        }

    def _watch(self) -> int:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._output, select.POLLIN)
        while self._status is None:
            ready = [descriptor for descriptor, _ in poll.poll(self._timeout_ms())]
            if self._wake in ready:
                self._on_signals()
            if self._output in ready and not self._copy():
                poll.unregister(self._output)
            self._fence_if_due()
            self._force_if_due()
        self._end_descendants()
        os.set_blocking(self._output, False)
        while self._copy():
            pass
        return os.waitstatus_to_exitcode(self._status)

    def _timeout_ms(self) -> float | None:
        moments = [] if self._deadline is None else [self._deadline]
        moments += [] if self._contact is None else [self._look_at]
        return max(0.0, min(moments) - time.monotonic()) * 1000 + 1 if moments else None

    def _copy(self) -> bool:
        try:
            data = os.read(self._output, COPY_BYTES)
        except BlockingIOError:
            return False
        self._log.write(data)
        return bool(data)

    def _on_signals(self) -> None:
        numbers = os.read(self._wake, 64)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop(self._grace_s)
        if signal.SIGUSR1 in numbers:
            self._stop(0.0)
        self._reap()

    def _stop(self, grace_s: float) -> None:
        """Ask the command to end if nobody did before; of several graces the one that is over first counts."""
        deadline = time.monotonic() + grace_s
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        if not self.is_stopped:
            self.is_stopped = True
            self._signal(signal.SIGTERM)

    def _fence_if_due(self) -> None:
        """Stop a command that may not outlive contact; its grace is over when the lease says so, however late it is."""
        if self._contact is None or time.monotonic() < self._look_at:
            return
        self._contact.look()
        self._look_at = time.monotonic() + self._contact.look_s
        if self._contact.is_stale:
            self._stop(min(self._grace_s, max(0.0, self._contact.left_s(KILL_AFTER_TTLS))))
            say_why_stopped(str(self._contact))
            self._contact = None

    def _force_if_due(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline and self._status is None:
            self.is_forced = True
            self._deadline = None
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the child's group, or the child alone as long as it has not made its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self._child.pid, number)
            except ProcessLookupError:
                os.kill(self._child.pid, number)

    def _reap(self) -> bool:
        """Collect everything that ended; say whether a child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.rss_max_bytes = max(self.rss_max_bytes, usage.ru_maxrss * (1024 if _IS_LINUX else 1))
            if pid == self._child.pid:
                self._status = status

    def _end_descendants(self) -> None:
        """Kill and reap until there is no child: as the subreaper, every orphan of ours becomes our child."""
        if not _IS_LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
        while self._reap():
            for pid in children_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if select.select([self._wake], [], [], 0.05)[0]:
                os.read(self._wake, 64)


def catch_signals() -> int:
    """A descriptor that yields one byte, its number, for every signal that means something here."""
    wake, notice = os.pipe()
    os.set_blocking(notice, False)
    signal.set_wakeup_fd(notice, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return wake


def detach() -> None:
    """Leave the starter's session, and become the parent of every orphan below."""
    if os.getsid(0) != os.getpid():
        with contextlib.suppress(PermissionError):  # started by hand, as the leader of a group
            os.setsid()
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep(folder: str, lock: int | None) -> None:
    """Run the task of `folder` to its end; raises Refused when it was started before."""
    os.chdir(folder)
    take_lock(lock)
    if os.path.exists("shim.json") or os.path.exists("exit.json"):
        raise Refused("this task was started before")
    detach()
    exit_json = reserve_exit()
    wake = catch_signals()
    started, kills = time.monotonic(), oom_kills()
    try:
        keeper = _start(wake)
    except (OSError, ValueError, KeyError, TypeError) as error:
        outcome: dict[str, object] = {
            "exit_code": 127,
            "signal": None,
            "reason": f"cannot start: {_named(error)}"[:500],
        }
    else:
        outcome = keeper.outcome()
    times = {"ended_at": time.time(), "duration_s": round(time.monotonic() - started, 3)}
    write_exit(exit_json, {**outcome, **times, "oom_kills": oom_kills() - kills})


def _start(wake: int) -> Keeper:
    with open("task.json", "rb") as file:
        task = json.load(file)
    log = Log(int(task.get("log_bytes_max", LOG_BYTES_MAX)))
    contact = Contact(task["contact"]) if task.get("contact") else None
    output, output_end = os.pipe()
    env = {**os.environ, **task["env"], **{k: v for k, v in os.environ.items() if k.startswith("ATOLL_")}}
    child = Child(task["command"], env, output_end)
    os.close(output_end)
    write_durably("shim.json", _identity(child.pid, task))
    return Keeper(child, output, wake, log, float(task.get("stop_grace_s", 10)), contact)


def _identity(child_pid: int, task: dict[str, object]) -> dict[str, object]:
    return {
        "uid": task["uid"],
        "epoch": task["epoch"],
        "shim_pid": os.getpid(),
        "shim_start_ticks": start_ticks(os.getpid()),
        "child_pid": child_pid,
        "child_start_ticks": start_ticks(child_pid),
        "boot_id": boot_id(),
        "started_at": time.time(),
    }


def main(arguments: list[str]) -> int:
    """The command line: TASK_DIR [LOCK_FD]."""
    try:
        keep(arguments[0], int(arguments[1]) if len(arguments) > 1 else None)
    except Refused as refusal:
        sys.stderr.write(f"{arguments[0]}: {refusal}\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
