"""safetensors headers: read exactly, or refused; never a crash."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from atoll.core.errors import AtollError, IntegrityError, Invalid
from atoll.models.safetensors import HEADER_BYTES_MAX, read_file_header, read_folder_header

_FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def _entry(begin: int = 0, end: int = 8, dtype: object = "F32", shape: object = (2,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _written(folder: Path, header: object, data: bytes = bytes(8), name: str = "m.safetensors") -> Path:
    text = json.dumps(header).encode()
    path = folder / name
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_header_agrees_with_the_reference_writer(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((4, 8), np.float16), "b": np.zeros((), np.int64), "c": np.zeros(0, np.float32)}
    save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "np"})
    tensors = read_file_header(tmp_path / "m.safetensors")
    assert tensors == {"a": ("F16", 32, 64), "b": ("I64", 1, 8), "c": ("F32", 0, 0)}


def test_the_files_of_a_folder_are_read_together(tmp_path: Path) -> None:
    save_file({"a": np.zeros(4, np.float32)}, tmp_path / "1.safetensors")
    save_file({"b": np.zeros(2, np.float16)}, tmp_path / "2.safetensors")
    weights = read_folder_header(tmp_path)
    assert (weights.tensors, weights.elements, weights.size_bytes, weights.type_name) == (2, 6, 20, "F32")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save_file({"a": np.zeros(4, np.float32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(Invalid, match="another file"):
        read_folder_header(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no tensors"):
        read_folder_header(tmp_path)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ([], "not an object"),
        ({"a": 1}, "a.dtype"),
        ({"a": _entry(dtype="F99")}, "a.dtype"),
        ({"a": _entry(dtype=["F32"])}, "a.dtype"),
        ({"a": _entry(shape="2")}, "a.shape"),
        ({"a": _entry(shape=[-2])}, "a.shape"),
        ({"a": _entry(shape=[True])}, "a.shape"),
        ({"a": _entry(shape=[3])}, "a.data_offsets"),
        ({"a": _entry(begin=8, end=16)}, "a.data_offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, "a.data_offsets"),
        ({"a": _entry(), "b": _entry()}, "b.data_offsets"),
        ({}, "bytes no tensor covers"),
    ],
)
def test_an_impossible_header_is_refused_by_its_field(tmp_path: Path, header: object, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        read_file_header(_written(tmp_path, header))


def test_a_short_file_is_truncated(tmp_path: Path) -> None:
    path = _written(tmp_path, {"a": _entry()})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match="truncated"):
            read_file_header(path)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", HEADER_BYTES_MAX + 1))
    with pytest.raises(Invalid, match="the limit is"):
        read_file_header(path)


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    text = b"[" * 100_000
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(IntegrityError, match="not JSON"):
        read_file_header(path)


@_FUZZ
@given(data=st.data())
def test_flipped_bytes_raise_nothing_but_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    path = _written(tmp_path, {"a": _entry(), "b": _entry(8, 16)}, bytes(16))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 17))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole))
    try:
        read_file_header(path)
    except AtollError as error:
        assert str(error)
