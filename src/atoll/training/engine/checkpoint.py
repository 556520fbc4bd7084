"""Checkpoints: the whole state of a run at one step, on disk or not there at all.

A checkpoint is a folder `step-N` of `state.safetensors` (flat float32 tensors), `state.json` (plain figures) and
`manifest.json` (size and SHA-256 of both). It is written to a hidden folder, synced, and renamed; two are kept.
Restoring takes the newest one whose checksums hold and says which it passed over. The loop waits only while tensors
are copied into buffers made beforehand; a thread does the rest. There is no pickle.
A full disk leaves the earlier ones as they are and raises ResourceExhausted at the next call.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load

from atoll.core.blobs import digest_of
from atoll.core.errors import IntegrityError
from atoll.core.files import disk_full_named, read_json, replace_file, sync, write_json

FORMAT = "atoll-checkpoint/1"
KEPT = 2
TENSORS, FIGURES, MANIFEST = "state.safetensors", "state.json", "manifest.json"

_NAME = re.compile(r"step-(\d{10})")


@dataclass(frozen=True, slots=True)
class State:
    """A run after `step` steps. tensors: float32, one dimension each; figures: what JSON can hold."""

    step: int
    tensors: dict[str, torch.Tensor]
    figures: dict[str, Any]


@dataclass(slots=True)
class Costs:
    """What checkpoints cost: `stalls_s` the loop waited, `writes_s` the thread took."""

    stalls_s: list[float] = field(default_factory=list)
    writes_s: list[float] = field(default_factory=list)
    size_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The figures of a report; times in milliseconds."""
        return {
            "written": len(self.writes_s),
            "size_bytes": self.size_bytes,
            "stall_ms_mean": _mean_ms(self.stalls_s),
            "stall_ms_max": round(1000 * max(self.stalls_s, default=0.0), 3),
            "write_ms_mean": _mean_ms(self.writes_s),
        }


class Checkpoints:
    """The checkpoints of one run in `folder`. Only one process may use it at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.costs = Costs()
        self.saved_step: int | None = None
        """The newest step that is safely on disk."""
        self._buffers: dict[str, torch.Tensor] = {}
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None
        with disk_full_named(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".making-*"):
            shutil.rmtree(leftover)

    @property
    def is_writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def newest(self) -> State | None:
        """The newest whole checkpoint, or None. Damaged ones are named on stderr and removed."""
        for step, folder in sorted(self._found(), reverse=True):
            try:
                state = read_checkpoint(folder)
            except IntegrityError as error:
                sys.stderr.write(f"checkpoint {folder.name} passed over: {error}\n")
                shutil.rmtree(folder)
                continue
            self.saved_step = step
            return state
        return None

    def save(self, state: State) -> None:
        """Copy `state` and write it in the background; first waits for the write before it, whose error it raises."""
        started = time.perf_counter()
        self.wait()
        for name, tensor in state.tensors.items():
            if name not in self._buffers or self._buffers[name].shape != tensor.shape:
                self._buffers[name] = torch.empty_like(tensor, requires_grad=False)
            self._buffers[name].copy_(tensor.detach())
        copied = State(state.step, self._buffers, dict(state.figures))
        self._writer = threading.Thread(target=self._write, args=(copied,), name="checkpoint")
        self._writer.start()
        self.costs.stalls_s.append(time.perf_counter() - started)

    def wait(self) -> None:
        """Return when nothing is being written; raises the error of the last write, once."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def forget(self) -> None:
        """Remove all checkpoints."""
        self.saved_step = None
        for _, folder in self._found():
            shutil.rmtree(folder)

    def _write(self, state: State) -> None:
        started = time.perf_counter()
        try:
            self.costs.size_bytes = write_checkpoint(self.folder, state)
            self.saved_step = state.step
            for _, folder in sorted(self._found(), reverse=True)[KEPT:]:
                shutil.rmtree(folder)
        except BaseException as error:  # noqa: BLE001 -- a thread cannot raise; `wait` does
            self._error = error
        self.costs.writes_s.append(time.perf_counter() - started)

    def _found(self) -> list[tuple[int, Path]]:
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return [(int(match[1]), path) for match, path in found if match]


def write_checkpoint(parent: Path, state: State) -> int:
    """Write `state` as `parent`/step-N, durably and all or nothing; returns its size in bytes."""
    target = parent / f"step-{state.step:010d}"
    making = parent / f".making-{target.name}"
    with disk_full_named(target):
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        try:
            files = {
                TENSORS: _write_tensors(making / TENSORS, state.tensors),
                FIGURES: _write_figures(making / FIGURES, state.figures),
            }
            write_json(making / MANIFEST, {"format": FORMAT, "step": state.step, "files": files})
            if target.exists():
                shutil.rmtree(target)
            making.rename(target)
            sync(parent)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return sum(int(file["size_bytes"]) for file in files.values())


def read_checkpoint(folder: Path) -> State:
    """The state in `folder`; IntegrityError says what is wrong with it."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        raise IntegrityError("its manifest is missing or damaged")
    files = manifest["files"]
    assert isinstance(files, dict)
    data = {name: _verified(folder / name, stated) for name, stated in files.items()}
    step = manifest["step"]
    assert isinstance(step, int)
    return State(step, load(data[TENSORS]), json.loads(data[FIGURES]))


def _verified(path: Path, stated: Mapping[str, Any]) -> bytes:
    """The bytes of the file, which match what the manifest states of it."""
    if not path.is_file():
        raise IntegrityError(f"{path.name} is missing")
    data = path.read_bytes()
    if len(data) != stated["size_bytes"]:
        raise IntegrityError(f"{path.name} has {len(data)} bytes instead of {stated['size_bytes']}")
    if digest_of(data) != stated["digest"]:
        raise IntegrityError(f"{path.name} does not match its checksum")
    return data


class _Digesting:
    """Writes to a file and digests what goes by; both let other threads run."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._checksum = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._checksum.update(data)
        self._size_bytes += len(data)

    def stated(self) -> dict[str, Any]:
        return {"digest": "sha256:" + self._checksum.hexdigest(), "size_bytes": self._size_bytes}


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Write flat float32 tensors in the safetensors format without a second copy in memory."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32 and tensor.ndim == 1, f"{name} is {tensor.dtype} {tuple(tensor.shape)}"
        end = offset + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": [tensor.numel()], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replace_file(path) as file:
        target = _Digesting(file)
        target.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            target.write(tensor.numpy().data.cast("B"))
    return target.stated()


def _write_figures(path: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
    with replace_file(path) as file:
        target = _Digesting(file)
        target.write(json.dumps(figures, sort_keys=True, allow_nan=False).encode())
    return target.stated()


def _mean_ms(times_s: list[float]) -> float:
    return round(1000 * sum(times_s) / len(times_s), 3) if times_s else 0.0
