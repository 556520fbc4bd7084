"""What processes cost: processor time of a process with its descendants, resident memory, open descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from types import TracebackType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """`pid` and all its descendants that live now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of `pid` and its living descendants, of all threads, user and system."""
    total = 0.0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return total


def memory_mb(pid: int) -> float:
    """Resident memory of `pid` and its descendants, MiB; shared pages are counted once (Pss)."""
    kib = 0
    for one in family(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += int(text.partition("\nPss:")[2].split()[0])
    return round(kib / 1024, 1)


class Watched:
    """While entered: the most resident memory of every descendant of this process whose command line holds `word` and
    which such a process made, that is of the workers of a nursery; MiB, shared pages counted whole."""

    def __init__(self, word: str) -> None:
        self.word = word.encode()
        self._peaks_kib: dict[int, int] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def resident_mb(self) -> list[int]:
        """The peak of each, in no order."""
        return [round(kib / 1024) for kib in self._peaks_kib.values()]

    def _watch(self) -> None:
        while not self._is_over.wait(0.05):
            for pid in family(os.getpid())[1:]:
                try:
                    self._look_at(pid)
                except (OSError, IndexError):
                    continue  # it ended meanwhile

    def _look_at(self, pid: int) -> None:
        place = Path("/proc", str(pid))
        parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
        if self.word in (place / "cmdline").read_bytes() and self.word in Path(f"/proc/{parent}/cmdline").read_bytes():
            peak = (place / "status").read_text().partition("VmHWM:")[2].split()[0]
            self._peaks_kib[pid] = int(peak)


def descriptors(pid: int) -> int:
    """Open file descriptors of `pid`."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def answer(port: int, path: str, key: str = "", within_s: float = 60.0) -> bytes:
    """The body at `path`, asked for until it is answered with 200. Raises TimeoutError."""
    for _ in range(int(within_s / 0.02)):
        body = await _ask(port, path, key)
        if body is not None:
            return body
        await asyncio.sleep(0.02)
    raise TimeoutError(f"nobody answers {path} on port {port} within {within_s} s")


async def _ask(port: int, path: str, key: str) -> bytes | None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    lines = f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    writer.write(lines.encode())
    try:
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    except OSError:
        return None
    finally:
        writer.close()
    return body if b" 200 " in head.partition(b"\r\n")[0] else None
