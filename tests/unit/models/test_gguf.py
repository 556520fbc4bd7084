"""GGUF headers: read exactly, or refused by name and offset; never a crash, a hang or a large allocation."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_gguf
from atoll.core.errors import AtollError, IntegrityError, Invalid
from atoll.models import gguf as reader
from atoll.models.formats import read_gguf
from atoll.models.gguf import ArrayValue, is_gguf, read_header

_FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _header(*pairs: bytes, tensors: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, len(pairs)) + b"".join(pairs)


def _pair(key: bytes, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "made.gguf"
    path.write_bytes(data)
    return path


def test_a_header_agrees_with_the_reference_reader(model: Path) -> None:
    header, reference = read_header(model), gguf.GGUFReader(model)
    assert [t.name for t in header.tensors] == [t.name for t in reference.tensors]
    assert [t.offset for t in header.tensors] == [t.data_offset for t in reference.tensors]
    assert [t.size_bytes for t in header.tensors] == [t.n_bytes for t in reference.tensors]
    assert [t.elements for t in header.tensors] == [t.n_elements for t in reference.tensors]
    assert set(header.values) == {name for name in reference.fields if not name.startswith("GGUF.")}


def test_every_scalar_and_array_type_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "llama")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -1)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -2)
    writer.add_uint32("u32", 7)
    writer.add_int32("i32", -7)
    writer.add_uint64("u64", 1 << 63)
    writer.add_int64("i64", -(1 << 60))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_array("few", [1, 2, 3])
    writer.add_array("many", list(range(reader.ARRAY_KEPT_MAX + 1)))
    writer.add_array("words", ["a", "bc"])
    writer.add_tensor("x", np.zeros((3, 32), np.float32))
    values = read_header(tiny_gguf.finished(writer, tmp_path / "all.gguf")).values
    assert [values[k] for k in ("u8", "i8", "u16", "i16", "u32", "i32")] == [255, -1, 65535, -2, 7, -7]
    assert [values[k] for k in ("u64", "i64", "f32", "f64", "yes")] == [1 << 63, -(1 << 60), 0.5, 0.1, True]
    assert values["few"] == ArrayValue(3, (1, 2, 3))
    assert values["many"] == ArrayValue(reader.ARRAY_KEPT_MAX + 1, None)
    assert values["words"] == ArrayValue(2, None)


def test_the_table_of_tensor_types_is_the_reference_one() -> None:
    reference = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    shared = reference.keys() & reader.TENSOR_TYPES.keys()
    assert {k: reader.TENSOR_TYPES[k] for k in shared} == {k: reference[k] for k in shared}
    assert len(shared) >= 30


def test_a_file_of_another_kind_is_told_by_its_magic(tmp_path: Path, model: Path) -> None:
    path = _written(tmp_path, _header(magic=b"GGML"))
    assert not is_gguf(path) and is_gguf(model)
    with pytest.raises(Invalid, match="starts with b'GGML'"):
        read_header(path)


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_a_version_we_do_not_read_is_refused(tmp_path: Path, version: int) -> None:
    with pytest.raises(Invalid, match="version") as caught:
        read_header(_written(tmp_path, _header(version=version)))
    assert caught.value.field == "version"


def test_an_empty_file_is_truncated_at_its_magic(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="magic needs 4 bytes at offset 0, the file has 0"):
        read_header(_written(tmp_path, b""))


@pytest.mark.parametrize(
    ("pair", "field"),
    [
        (_pair(b"k", 99, b""), "k"),
        (_pair(b"k", 7, b"\x02"), "k"),
        (_pair(b"\xff", 0, b"\x01"), "metadata key 0"),
        (_pair(b"k" * 300, 0, b"\x01"), "metadata key 0"),
        (_pair(b"k", 9, struct.pack("<IQ", 9, 1)), "k"),
        (_pair(b"k", 9, struct.pack("<IQ", 0, 1 << 40)), "k"),
        (_pair(b"k", 8, struct.pack("<Q", 1 << 62)), "k"),
        (_pair(b"k", 0, b"\x01") * 2, "k"),
        (_pair(b"general.alignment", 4, struct.pack("<I", 12)), "general.alignment"),
        (_pair(b"general.alignment", 8, _string(b"32")), "general.alignment"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(tmp_path: Path, pair: bytes, field: str) -> None:
    data = bytearray(_header(pair))
    data[16:24] = struct.pack("<Q", 2 if pair.count(b"k") == 2 else 1)
    with pytest.raises(Invalid) as caught:
        read_header(_written(tmp_path, bytes(data)))
    assert caught.value.field == field
    assert caught.value.details["offset"] <= len(data)


def _tensor(name: bytes = b"t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (_tensor(shape=()), "t.n_dimensions"),
        (_tensor(shape=(1, 1, 1, 1, 1)), "t.n_dimensions"),
        (_tensor(shape=(0,)), "t.dimensions"),
        (_tensor(shape=(1 << 40, 1 << 40)), "t.dimensions"),
        (_tensor(shape=(33,), kind=2), "t.dimensions"),
        (_tensor(kind=4), "t.type"),
        (_tensor(kind=1000), "t.type"),
        (_tensor(offset=32), "t.offset"),
        (_tensor(name=b"t" * 64), "name of tensor 0"),
    ],
)
def test_an_impossible_tensor_is_refused_by_its_field(tmp_path: Path, tensor: bytes, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_header(_written(tmp_path, _header(tensors=1) + tensor + bytes(256)))
    assert caught.value.field == field


def test_tensors_may_not_overlap_nor_repeat(tmp_path: Path) -> None:
    overlapping = _tensor(b"a") + _tensor(b"b", offset=32)
    with pytest.raises(Invalid, match=r"b.offset at offset \d+ is 32, expected 128"):
        read_header(_written(tmp_path, _header(tensors=2) + overlapping + bytes(512)))
    twice = _tensor(b"a") + _tensor(b"a", offset=128)
    with pytest.raises(Invalid, match="appears twice among the tensors"):
        read_header(_written(tmp_path, _header(tensors=2) + twice + bytes(512)))


def test_a_tensor_must_lie_inside_the_file(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"t\.data needs 128 bytes"):
        read_header(_written(tmp_path, _header(tensors=1) + _tensor() + bytes(64)))


@pytest.mark.parametrize("position", [8, 16])
def test_huge_counts_cost_nothing(tmp_path: Path, position: int) -> None:
    data = bytearray(_header())
    data[position : position + 8] = struct.pack("<Q", (1 << 64) - 1)
    with pytest.raises(Invalid, match="the limit is"):
        read_header(_written(tmp_path, bytes(data)))


def test_claimed_lengths_are_never_allocated(tmp_path: Path) -> None:
    claims = _header(_pair(b"k", 9, struct.pack("<IQ", 8, reader.ARRAY_LENGTH_MAX)))
    path = _written(tmp_path, claims)
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        read_header(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


def test_a_header_must_end_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(_header(_pair(b"k", 9, struct.pack("<IQ", 10, reader.ARRAY_LENGTH_MAX)), tensors=1))
        file.truncate(reader.HEADER_BYTES_MAX * 2)
    with pytest.raises(Invalid, match="where a header must end"):
        read_header(path)


@_FUZZ
@given(data=st.data())
def test_a_truncated_model_is_always_told(model: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = model.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(IntegrityError) as caught:
        read_gguf(_written(tmp_path, whole[:length]))
    assert caught.value.details["field"]


@_FUZZ
@given(data=st.data())
def test_flipped_bytes_raise_nothing_but_our_errors(model: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(model.read_bytes())
    header_bytes = read_header(model).data_offset
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, header_bytes - 1))] = data.draw(st.integers(0, 255))
    try:
        read_gguf(_written(tmp_path, bytes(whole)))
    except AtollError as error:
        assert str(error)


@_FUZZ
@given(noise=st.binary(max_size=2048), counts=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_noise_raises_nothing_but_our_errors(tmp_path: Path, noise: bytes, counts: tuple[int, int]) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, *counts) + noise
    try:
        read_gguf(_written(tmp_path, data))
    except AtollError as error:
        assert str(error)
