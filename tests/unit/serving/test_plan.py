"""Where a deployment fits: nodes and what is free of them, reasons with numbers, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import Resource
from atoll.models.formats import ModelShape
from atoll.serving.fit import FitEstimate, memory_needed, shape_of
from atoll.serving.plan import Room, node_rooms, place, suggest, summarise

GIB, MIB = 1 << 30, 1 << 20
SHAPE = ModelShape(96 * MIB, 30, 576, 1536, 90, 64, 64, 49_152)
ROOM = Room("a", 8.0, 16 * GIB, 0, 0, 4.0, 8 * GIB, 0)
SPEC: dict[str, Any] = {"cpu": 1.0, "accelerators": 0, "context": 2048, "slots": 4}


def memory_of(context: int, slots: int) -> FitEstimate:
    return memory_needed(SHAPE, context, slots)


SMALL = memory_of(2048, 4)


def resource(kind: str, name: str, spec: dict[str, Any], phase: str) -> Resource:
    times: dict[str, Any] = {"created_at": 0.0, "updated_at": 0.0, "deleting_at": None}
    return Resource(kind, "system", name, name, 1, 1, {}, None, spec, {"phase": phase}, **times)


def node(name: str, phase: str = "schedulable", devices: int = 0) -> Resource:
    found = [{"memory_bytes": 80 * GIB}] * devices
    return resource("Node", name, {"inventory": {"cpu": 8.0, "memory_bytes": 16 * GIB, "accelerators": found}}, phase)


def task(node: str, phase: str = "running") -> Resource:
    needs = {"cpu": 1.0, "memory_bytes": GIB, "accelerators": 1}
    return resource("Task", "t", {"node": node, "resources": needs}, phase)


def test_what_tasks_were_promised_is_not_free() -> None:
    (room,) = node_rooms([node("a", devices=2), node("b", "lost")], [task("a"), task("a", "succeeded"), task("b")])
    assert (room.node, room.free_cpu, room.free_memory_bytes, room.free_accelerators) == ("a", 7.0, 15 * GIB, 1)
    assert (room.cpu, room.accelerators, room.device_bytes) == (8.0, 2, 80 * GIB)


def test_a_plan_says_how_many_fit_now_and_where_best() -> None:
    tight = replace(ROOM, node="b", free_memory_bytes=2 * SMALL.total_bytes)
    placement = place(SMALL, SPEC, [ROOM, tight])
    assert [n.count_now for n in placement.nodes] == [2, 4]
    assert placement.best is not None
    assert placement.best.room.node == "b", "the smallest space that is large enough"
    assert summarise(placement, 5, []).endswith("fits on b, a; there is room for 6 now, best b")


def test_full_now_is_not_too_small_for_ever() -> None:
    full = replace(ROOM, free_cpu=0.5)
    placement = place(SMALL, SPEC, [full])
    assert (placement.fits, placement.count_now) == (True, 0)
    assert summarise(placement, 1, []).endswith("but not now: needs 1 cpu, a has free 0.5")
    assert "now for 4 of 9" in summarise(place(SMALL, SPEC, [ROOM]), 9, [])


def test_what_fits_nowhere_names_the_largest_node_and_both_numbers() -> None:
    huge = memory_of(1 << 20, 64)
    placement = place(huge, SPEC, [ROOM, replace(ROOM, node="small", memory_bytes=GIB)])
    assert not placement.fits
    assert placement.why_not.startswith("the largest is 'a': needs ")
    assert "and 16.0 GiB are available: it does not fit" in placement.why_not
    assert place(huge, SPEC, []).why_not == "no node is schedulable"


def test_accelerators_must_be_there_and_large_enough() -> None:
    spec = SPEC | {"accelerators": 2}
    assert "needs 2 accelerators, a has 0" in place(SMALL, spec, [ROOM]).why_not
    gpus = replace(ROOM, accelerators=2, device_bytes=24 * GIB, free_accelerators=2)
    assert place(SMALL, spec, [gpus]).count_now == 1
    large = FitEstimate(60 * GIB, 0, 0, 0)
    assert "needs 31.0 GiB on each of 2 accelerators, those of a have 21.6 GiB" in place(large, spec, [gpus]).why_not
    assert place(large, spec, [replace(gpus, device_bytes=80 * GIB)]).need.memory_bytes == 2 * GIB
    busy = place(SMALL, spec, [replace(gpus, free_accelerators=1)])
    assert busy.nodes[0].reason == "needs 2 accelerators, a has free 1"


def test_suggestions_are_the_largest_that_fit() -> None:
    room = replace(ROOM, memory_bytes=GIB)
    spec = SPEC | {"context": 8192, "slots": 16}
    found = {s.field: s.value for s in suggest(memory_of, spec, [room])}
    assert place(memory_of(found["context"], 16), spec, [room]).fits
    assert not place(memory_of(found["context"] + 256, 16), spec, [room]).fits
    assert place(memory_of(8192, found["slots"]), spec, [room]).fits
    assert not place(memory_of(8192, found["slots"] + 1), spec, [room]).fits
    words = summarise(place(memory_of(8192, 16), spec, [room]), 1, suggest(memory_of, spec, [room]))
    assert f"would fit: context {found['context']} (with 16 slots) or slots {found['slots']}" in words


def test_where_one_alone_does_not_help_both_are_lowered() -> None:
    room = replace(ROOM, memory_bytes=512 * MIB)
    found = suggest(memory_of, SPEC | {"context": 1 << 20, "slots": 256}, [room])
    assert [s.field for s in found] == ["slots", "context"]
    assert place(memory_of(found[1].value, 1), SPEC, [room]).fits


def test_nothing_is_suggested_where_nothing_helps_or_nothing_is_needed() -> None:
    assert suggest(memory_of, SPEC, [ROOM]) == []
    assert suggest(memory_of, SPEC, [replace(ROOM, memory_bytes=MIB)]) == []
    assert suggest(memory_of, SPEC, []) == []


@given(st.integers(256, 1 << 20), st.integers(1, 256), st.integers(26, 40))
def test_every_single_suggestion_fits(context: int, slots: int, power: int) -> None:
    room = replace(ROOM, memory_bytes=1 << power)
    spec = SPEC | {"context": context, "slots": slots}
    found = suggest(memory_of, spec, [room])
    both = spec | {s.field: s.value for s in found}
    if found:
        assert place(memory_of(both["context"], both["slots"]), both, [room]).fits
        assert not place(memory_of(context, slots), spec, [room]).fits


def test_the_shape_of_a_safetensors_model_is_read_from_its_configuration() -> None:
    config = {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49_152,
        "weights_bytes": 96 * MIB,
    }
    assert shape_of("safetensors", config, 1) == SHAPE
    assert shape_of("safetensors", {}, 1) is None
    assert shape_of("predictor", config, 1) is None
