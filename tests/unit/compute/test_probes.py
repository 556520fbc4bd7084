"""The probes, on texts in the vendors' formats, and the limits of control groups, on trees like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.compute.agent import probes
from atoll.compute.agent.probes import Accelerator, AmdSmi, Ascend, Nvidia, RocmSmi

GIB = 1 << 30

NVIDIA_SMI = """\
0, NVIDIA H100 80GB HBM3, 81559
1, NVIDIA H100 80GB HBM3, 81559
"""
NVIDIA_SHARED_MEMORY = "0, NVIDIA GB10, [N/A]\n"

ROCM_SMI = """\
{"card1": {"VRAM Total Memory (B)": "68702699520", "VRAM Total Used Memory (B)": "11034624", "Card series": "MI250X",
           "Card model": "0x0b0c", "Card vendor": "Advanced Micro Devices, Inc. [AMD/ATI]", "Card SKU": "D65209"},
 "card0": {"VRAM Total Memory (B)": "21458059264", "VRAM Total Used Memory (B)": "27856896",
           "Card Series": "Radeon RX 7900 XT", "Card Model": "0x744c", "GFX Version": "gfx1100"},
 "system": {"Driver version": "6.8.5"}}
"""

AMD_SMI = """\
[{"gpu": 0,
  "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002", "num_compute_units": 304},
  "vram": {"type": "HBM", "vendor": "HYNIX", "size": {"value": 196592, "unit": "MB"}, "bit_width": 8192}}]
"""
AMD_SMI_WRAPPED = '{"gpu_data": [{"gpu": 3, "asic": {"market_name": "MI210"}, "vram": {"size": "N/A"}}]}'

NPU_SMI = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 91.7        39                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3351 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 88.1        32                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3197 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 4242          | python                   | 3021                    |
+===========================+===============+====================================================+
"""
NPU_SMI_TWO_CHIPS = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 162.6       34                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3419 / 65536         |
+------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -           34                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          2874 / 65536         |
"""
NPU_SMI_INFERENCE = """\
| 8     310P3               | OK            | NA          44                0     / 0            |
| 0     0                   | 0000:01:00.0  | 0           1693 / 21527                           |
"""


def test_nvidia_devices_are_read_from_the_query() -> None:
    device = Accelerator("nvidia", 0, 81559 << 20, "NVIDIA H100 80GB HBM3")
    assert Nvidia().parse(NVIDIA_SMI) == [device, Accelerator("nvidia", 1, 81559 << 20, "NVIDIA H100 80GB HBM3")]


def test_a_device_that_shares_memory_counts_none_of_its_own() -> None:
    assert Nvidia().parse(NVIDIA_SHARED_MEMORY) == [Accelerator("nvidia", 0, 0, "NVIDIA GB10")]


def test_amd_cards_are_read_whatever_the_spelling_of_the_keys() -> None:
    assert RocmSmi().parse(ROCM_SMI) == [
        Accelerator("amd", 0, 21458059264, "Radeon RX 7900 XT"),
        Accelerator("amd", 1, 68702699520, "MI250X"),
    ]


def test_amd_devices_are_read_from_both_forms_of_the_newer_tool() -> None:
    assert AmdSmi().parse(AMD_SMI) == [Accelerator("amd", 0, 196592 << 20, "AMD Instinct MI300X")]
    assert AmdSmi().parse(AMD_SMI_WRAPPED) == [Accelerator("amd", 3, 0, "MI210")]


def test_ascend_chips_are_numbered_through_the_table() -> None:
    assert Ascend().parse(NPU_SMI) == [
        Accelerator("ascend", 0, 64 * GIB, "910B3"),
        Accelerator("ascend", 1, 64 * GIB, "910B3"),
    ]
    assert Ascend().parse(NPU_SMI_TWO_CHIPS) == [
        Accelerator("ascend", 0, 64 * GIB, "Ascend910"),
        Accelerator("ascend", 1, 64 * GIB, "Ascend910"),
    ]
    assert Ascend().parse(NPU_SMI_INFERENCE) == [Accelerator("ascend", 0, 21527 << 20, "310P3")]


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_absent_tools_mean_no_accelerators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes.accelerators() == []


def test_tools_on_the_path_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "nvidia-smi", f"cat <<END\n{NVIDIA_SMI}END")
    tool(tmp_path, "npu-smi", f"cat <<END\n{NPU_SMI}END")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert [device.kind for device in probes.accelerators()] == ["nvidia", "nvidia", "ascend", "ascend"]


def test_of_two_tools_for_one_kind_the_first_that_finds_anything_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, "amd-smi", "exit 1")
    tool(tmp_path, "rocm-smi", f"cat <<END\n{ROCM_SMI}END")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert [device.name for device in probes.accelerators()] == ["Radeon RX 7900 XT", "MI250X"]


@pytest.mark.parametrize("script", ["exit 9", "echo garbage", "echo 'a, b, c'", "echo '[{}]'"])
def test_a_tool_that_fails_or_babbles_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    for name in ("nvidia-smi", "amd-smi", "rocm-smi", "npu-smi"):
        tool(tmp_path, name, script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert probes.accelerators() == []


def test_the_inventory_has_what_a_node_registers_with(tmp_path: Path) -> None:
    facts = probes.inventory(tmp_path, {"rack": "r1"})
    assert 0 < facts["cpu"] <= (os.cpu_count() or 1)
    assert facts["memory_bytes"] > 1 << 20
    assert facts["disk_free_bytes"] > 0
    assert facts["labels"] == {"rack": "r1"}
    assert set(facts) >= {"accelerators", "os", "arch", "atoll"}


# -- control groups ---------------------------------------------------------------------------------------------


def files(root: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_smallest_quota_above_the_process_counts(tmp_path: Path) -> None:
    proc = files(tmp_path / "proc", {"self/cgroup": "0::/machine.slice/box\n"})
    groups = files(
        tmp_path / "cgroup",
        {
            "machine.slice/cpu.max": "50000 100000\n",
            "machine.slice/box/cpu.max": "max 100000\n",
            "machine.slice/box/memory.max": "1073741824\n",
            "machine.slice/memory.max": "max\n",
        },
    )
    assert probes.cpu_count(proc, groups) == 0.5
    assert probes.memory_bytes(proc, groups) == GIB


def test_the_groups_of_version_one_count_too(tmp_path: Path) -> None:
    proc = files(tmp_path / "proc", {"self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n"})
    groups = files(
        tmp_path / "cgroup",
        {
            "cpu/cpu.cfs_quota_us": "25000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/docker/abc/memory.limit_in_bytes": "536870912\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert probes.cpu_count(proc, groups) == 0.25
    assert probes.memory_bytes(proc, groups) == GIB // 2


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert probes.cpu_count(tmp_path, tmp_path) == len(os.sched_getaffinity(0))
    assert probes.memory_bytes(tmp_path, tmp_path) > GIB // 4


def test_a_quota_of_minus_one_is_no_quota(tmp_path: Path) -> None:
    proc = files(tmp_path / "proc", {"self/cgroup": "3:cpu:/\n"})
    groups = files(tmp_path / "cgroup", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert probes.cpu_count(proc, groups) == len(os.sched_getaffinity(0))
