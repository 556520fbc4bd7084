"""What this machine has: processors, memory, disk, accelerators.

Processors and memory are what a task here may really use: the affinity mask and every control group above this
process count. Accelerators come from probes, one for each vendor's own tool; a tool that is absent means there are
none of that kind, and one that fails or prints something unknown is logged and counts as none.

Adding a kind of accelerator is a class with `kind`, `command` and `parse`, and a line in PROBES.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

import atoll

log = logging.getLogger(__name__)

MIB = 1 << 20
PROBE_TIMEOUT_S = 20.0
_UNIT_BYTES = {"B": 1, "KB": 1 << 10, "MB": MIB, "GB": 1 << 30, "KIB": 1 << 10, "MIB": MIB, "GIB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device; `memory_bytes` is 0 where the tool does not tell (memory shared with the processor, say)."""

    kind: str
    index: int
    memory_bytes: int
    name: str


class Probe(Protocol):
    """One vendor's tool: how to call it, and how to read what it prints (ValueError or KeyError if it cannot)."""

    @property
    def kind(self) -> str: ...

    @property
    def command(self) -> Sequence[str]: ...

    def parse(self, text: str) -> list[Accelerator]: ...


class Nvidia:
    """nvidia-smi's query format: one comma-separated line a device, memory in MiB."""

    kind = "nvidia"
    command = ("nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits")

    def parse(self, text: str) -> list[Accelerator]:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
        return [Accelerator(self.kind, int(row[0]), _whole(row[2]) * MIB, row[1]) for row in rows]


class AmdSmi:
    """amd-smi's JSON, in its old form (a list) and its new one (a list under "gpu_data")."""

    kind = "amd"
    command = ("amd-smi", "static", "--asic", "--vram", "--json")

    def parse(self, text: str) -> list[Accelerator]:
        value = orjson.loads(text)
        devices = value["gpu_data"] if isinstance(value, dict) else value
        return [self._device(device) for device in devices]

    def _device(self, device: Mapping[str, Any]) -> Accelerator:
        size = device["vram"]["size"]
        unit_bytes = _UNIT_BYTES.get(str(size.get("unit", "MB")).upper(), MIB) if isinstance(size, dict) else MIB
        amount = size.get("value") if isinstance(size, dict) else size
        name = str(device["asic"].get("market_name", ""))
        return Accelerator(self.kind, int(device["gpu"]), _whole(amount) * unit_bytes, name)


class RocmSmi:
    """rocm-smi's JSON: one object a card, memory in bytes; the spelling of its keys changed with time."""

    kind = "amd"
    command = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")

    def parse(self, text: str) -> list[Accelerator]:
        cards = {name: card for name, card in orjson.loads(text).items() if re.fullmatch(r"card\d+", name)}
        return [self._device(name, card) for name, card in sorted(cards.items(), key=lambda item: int(item[0][4:]))]

    def _device(self, card_name: str, card: Mapping[str, Any]) -> Accelerator:
        facts = {key.lower(): str(value) for key, value in card.items()}
        name = facts.get("card series") or facts.get("device name") or facts.get("card model") or ""
        return Accelerator(self.kind, int(card_name[4:]), _whole(facts.get("vram total memory (b)")), name)


class Ascend:
    """npu-smi's table: two rows a chip, the second with its bus address and "used / total" memory in MB.

    A chip's index is its number in the order of the table, which is what ASCEND_RT_VISIBLE_DEVICES counts.
    """

    kind = "ascend"
    command = ("npu-smi", "info")
    _BUS = re.compile(r"^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]$")
    _TOTAL = re.compile(r"\d+\s*/\s*(\d+)")

    def parse(self, text: str) -> list[Accelerator]:
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]
        cells = [row for row in rows if len(row) == 3]
        found: list[Accelerator] = []
        for above, row in itertools.pairwise(cells):
            if self._BUS.match(row[1]):
                totals = [int(total) for total in self._TOTAL.findall(row[2])]
                name = above[0].partition(" ")[2].strip()
                found.append(Accelerator(self.kind, len(found), max(totals, default=0) * MIB, name))
        return found


PROBES: tuple[Probe, ...] = (Nvidia(), AmdSmi(), RocmSmi(), Ascend())
"""Asked in this order; of one kind the first that finds anything counts."""


def inventory(home: Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """The facts an agent registers with; `home` says which disk."""
    return {
        "cpu": cpu_count(),
        "memory_bytes": memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(home).free,
        "accelerators": [asdict(device) for device in accelerators()],
        "labels": dict(labels),
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "atoll": atoll.__version__,
    }


def accelerators(probes: Sequence[Probe] = PROBES) -> list[Accelerator]:
    """Every accelerator the probes find."""
    found: dict[str, list[Accelerator]] = {}
    for probe in probes:
        if not found.get(probe.kind):
            found[probe.kind] = _ask(probe)
    return [device for devices in found.values() for device in devices]


def _ask(probe: Probe) -> list[Accelerator]:
    tool = shutil.which(probe.command[0])
    if tool is None:
        return []
    try:
        answer = subprocess.run(
            [tool, *probe.command[1:]], capture_output=True, timeout=PROBE_TIMEOUT_S, check=True, text=True
        )
        return probe.parse(answer.stdout)
    except (OSError, subprocess.SubprocessError, LookupError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s does not say what it has: %r", probe.command[0], error)
        return []


# -- processors and memory --------------------------------------------------------------------------------------


def cpu_count(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores usable here: the affinity mask, or less if a control group grants less."""
    has_mask = hasattr(os, "sched_getaffinity")
    cores = float(len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1)
    return min([cores, *_limits(proc, groups, "cpu", "cpu.max", _cpu_max, _cfs_quota)])


def memory_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory usable here: the machine's, or less if a control group grants less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min([total, *_limits(proc, groups, "memory", "memory.max", _one_number, _memory_limit)]))


def _limits(
    proc: Path,
    groups: Path,
    controller: str,
    unified_file: str,
    unified: Callable[[Path], float],
    legacy: Callable[[Path], float],
) -> Iterator[float]:
    """The limits of `controller` in all control groups above this process, of both versions.

    In a container the listed path may be the host's, and the container's own group is the mount's root: walking up
    finds it either way.
    """
    for names, path in _own_groups(proc):
        if names == "":
            for mount in (groups, groups / "unified"):
                yield from (unified(folder / unified_file) for folder in _upwards(mount, path))
        elif controller in names.split(","):
            yield from (legacy(folder) for folder in _upwards(groups / controller, path))


def _own_groups(proc: Path) -> list[tuple[str, str]]:
    """(controllers, path) of this process's groups; controllers are "" for version 2."""
    lines = [line.split(":", 2) for line in _read(proc / "self/cgroup").splitlines()]
    return [(line[1], line[2]) for line in lines if len(line) == 3]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path.lstrip("/")
    yield folder
    while folder != mount and mount in folder.parents:
        folder = folder.parent
        yield folder


def _cpu_max(path: Path) -> float:
    words = _read(path).split()
    return float(words[0]) / float(words[1]) if len(words) == 2 and words[0] != "max" else math.inf


def _cfs_quota(folder: Path) -> float:
    quota, period = _one_number(folder / "cpu.cfs_quota_us"), _one_number(folder / "cpu.cfs_period_us")
    return quota / period if 0 < quota < math.inf and period < math.inf else math.inf


def _memory_limit(folder: Path) -> float:
    return _one_number(folder / "memory.limit_in_bytes")


def _one_number(path: Path) -> float:
    word = _read(path).strip()
    return float(word) if word.lstrip("-").isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _whole(value: object) -> int:
    """A count in a tool's answer; 0 for [N/A] and the like."""
    word = str(value).split(".")[0].strip()
    return int(word) if word.isdigit() else 0
