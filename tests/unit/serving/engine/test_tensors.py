"""Tensors of the Open Inference Protocol: to arrays and back, and every claim that is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.tensors import (
    asked_outputs,
    check_outputs,
    read_inputs,
    split_body,
    write_outputs,
)
from atoll.serving.predictor import DATATYPES, Tensor

SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "BYTES": ["a", "", "ü", "text"],
    **{f"UINT{bits}": [0, 1, 2, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": [0.5, -1, 2.25, 0] for bits in (16, 32, 64)},
}


def _tensor(datatype: Any = "FP32", **change: Any) -> dict[str, Any]:
    data = SAMPLES.get(str(datatype), [1, 2, 3, 4])
    return {"name": "x", "datatype": datatype, "shape": [2, 2], "data": data} | change


def _read(*tensors: dict[str, Any], declared: tuple[Tensor, ...] = ()) -> dict[str, Any]:
    return read_inputs({"inputs": list(tensors)}, b"", declared)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_type_survives_the_way_there_and_back(datatype: str) -> None:
    arrays = _read(_tensor(datatype))
    assert arrays["x"].shape == (2, 2)
    told, length = write_outputs({"model_name": "m"}, arrays, [], is_binary=False)
    output = json.loads(told)["outputs"][0]
    assert length is None and output == {"name": "x", "datatype": datatype, "shape": [2, 2], "data": SAMPLES[datatype]}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_type_survives_as_bytes(datatype: str) -> None:
    arrays = _read(_tensor(datatype))
    told, length = write_outputs({}, arrays, [], is_binary=True)
    body, rest = split_body(told, str(length))
    again = read_inputs({"inputs": body["outputs"]}, rest, ())
    assert again["x"].dtype == arrays["x"].dtype and (again["x"] == arrays["x"]).all()


def test_nested_data_and_an_empty_tensor_are_read() -> None:
    arrays = _read(_tensor(data=[[1, 2], [3, 4.5]]), _tensor(name="y", shape=[0, 3], data=[]))
    assert arrays["x"].tolist() == [[1, 2], [3, 4.5]] and arrays["y"].shape == (0, 3)


def test_bytes_may_come_as_base64() -> None:
    picture = bytes(range(256))
    data = [base64.b64encode(picture).decode()]
    arrays = _read(_tensor("BYTES", shape=[1], data=data, parameters={"content_type": "base64"}))
    assert arrays["x"].tolist() == [picture]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": ""}, "no name"),
        ({"datatype": "FLOAT"}, "datatype 'FLOAT'"),
        ({"datatype": ["FP32"]}, "datatype"),
        ({"shape": None}, "shape"),
        ({"shape": [-1, 2]}, "shape"),
        ({"shape": [True, 4]}, "shape"),
        ({"shape": [1 << 40, 1 << 40]}, "shape"),
        ({"shape": [1] * 17}, "shape"),
        ({"shape": [3, 2]}, "has 4 elements, shape .* takes 6"),
        ({"data": None}, "no data"),
        ({"data": [[1, 2, 3], [4]]}, "nested data"),
        ({"data": [[1, 2], 3, 4]}, "nested data"),
        ({"data": ["a", 1, 2, 3]}, "holds 'a'"),
        ({"data": [True, 1, 2, 3]}, "holds 'True'"),
        ({"datatype": "INT8", "data": [1, 2, 3, 1.5]}, r"holds '1\.5'"),
        ({"datatype": "INT8", "data": [1, 2, 3, 128]}, "128 does not fit into INT8"),
        ({"datatype": "UINT64", "data": [1, 2, 3, -1]}, "-1 does not fit"),
        ({"datatype": "BOOL", "data": [1, 0, 1, 0]}, "BOOL"),
        ({"datatype": "BYTES", "data": [1, 0, 1, 0]}, "BYTES"),
        ({"datatype": "BYTES", "data": ["!"] * 4, "parameters": {"content_type": "base64"}}, "not base64"),
        ({"parameters": []}, None),
        ({"parameters": 3}, "parameters"),
        ({"parameters": {"binary_data_size": 9}}, "0 bytes are left"),
    ],
)
def test_a_wrong_claim_is_refused(change: dict[str, Any], why: str | None) -> None:
    if why is None:
        _read(_tensor(**change))
        return
    with pytest.raises(Invalid, match=why):
        _read(_tensor(**change))


def test_inputs_must_be_a_list_of_different_tensors() -> None:
    for inputs in (None, [], {}, [None]):
        with pytest.raises(Invalid, match="inputs"):
            read_inputs({"inputs": inputs}, b"", ())
    with pytest.raises(Invalid, match="comes twice"):
        _read(_tensor(), _tensor())


def test_binary_parts_must_be_as_long_as_told() -> None:
    def read(size: int, data: bytes, datatype: str = "INT16", shape: tuple[int, ...] = (2,)) -> None:
        parameters = {"binary_data_size": size}
        item = {"name": "x", "datatype": datatype, "shape": list(shape), "parameters": parameters}
        read_inputs({"inputs": [item]}, data, ())

    read(4, b"abcd")
    for size, data, why in ((3, b"abc", "has 3 bytes"), (4, b"abcdef", "2 bytes follow"), (9, b"abcd", "are left")):
        with pytest.raises(Invalid, match=why):
            read(size, data)
    for data in (b"\x05\0\0\0abc", b"\xff\xff\xff\xff", b"\x01\0\0\0a\x01\0\0\0b"):
        with pytest.raises(Invalid, match="its bytes are not 1 elements"):
            read(len(data), data, "BYTES", (1,))


def test_a_body_is_split_where_its_header_says() -> None:
    assert split_body(b'{"a":1}xy', "7") == ({"a": 1}, b"xy")
    for body, length in ((b"{}", "x"), (b"{}", "3"), (b"{", None), (b"[]", None)):
        with pytest.raises(Invalid):
            split_body(body, length)


def test_inputs_must_be_the_declared_ones() -> None:
    declared = (Tensor("x", "FP32", (-1, 2)),)
    assert _read(_tensor(), declared=declared)["x"].shape == (2, 2)
    for change, why in (
        ({"name": "z"}, "input '[xz]'"),
        ({"datatype": "FP64"}, "is FP64, not FP32"),
        ({"shape": [4, 1]}, r"shape \[4, 1\], not \[-1, 2\]"),
        ({"shape": [4]}, r"shape \[4\], not"),
    ):
        with pytest.raises(Invalid, match=why):
            _read(_tensor(**change), declared=declared)


def test_outputs_are_brought_to_their_declared_type_where_nothing_is_lost_in_kind() -> None:
    declared = (Tensor("y", "FP32", (-1,)),)
    assert check_outputs({"y": [1.0, 2.0]}, declared)["y"].dtype == np.float32
    assert check_outputs({"label": ["cat", "dog"]}, ())["label"].tolist() == ["cat", "dog"]
    for returned, why in (
        (None, "returned NoneType"),
        ({}, "returned dict"),
        ({"y": [1 + 2j]}, "complex128"),
        ({"z": [1.0]}, "output '[yz]'"),
        ({"y": [[1.0]]}, "has shape"),
    ):
        with pytest.raises(ValueError, match=why):
            check_outputs(returned, declared)


def test_only_the_outputs_asked_for_are_told() -> None:
    arrays = {"a": np.zeros(1, np.float32), "b": np.ones(2, np.int64)}
    told, _ = write_outputs({}, arrays, asked_outputs({"outputs": [{"name": "b"}]}), is_binary=False)
    assert [output["name"] for output in json.loads(told)["outputs"]] == ["b"]
    with pytest.raises(Invalid, match="no output 'c'"):
        write_outputs({}, arrays, [{"name": "c"}], is_binary=False)
    with pytest.raises(Invalid, match="outputs"):
        asked_outputs({"outputs": [1]})


def test_a_tensor_is_declared_with_a_known_type_and_shape() -> None:
    for name, datatype, shape in (("", "FP32", (1,)), ("x", "FP8", (1,)), ("x", "FP32", (-2,))):
        with pytest.raises(ValueError, match="tensor"):
            Tensor(name, datatype, shape)
