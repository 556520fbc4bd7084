"""Every field of a YAML document is found on the line it stands on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.yaml_lines import DEPTH_MAX, dump_yaml, read_documents

KEYS = st.text("abcdefghij_-", min_size=1, max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.text("abc xyz:#'\"{}[]é漢,&*!|>%@`0123456789.eE+-~\n", max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
MAPPINGS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, child in inner for p in [(*path, key), *paths(child, (*path, key))]]


@settings(deadline=None)
@given(MAPPINGS)
def test_what_was_written_is_read_and_every_path_has_a_line(value: dict[str, Any]) -> None:
    text = dump_yaml(value)
    [document] = read_documents(text, "f.yaml")
    assert document.value == value
    assert set(document.lines) == set(paths(value))
    assert all(1 <= line <= text.count("\n") + 1 for line in document.lines.values())


@settings(deadline=None)
@given(MAPPINGS)
def test_a_key_stands_on_the_line_that_is_named(value: dict[str, Any]) -> None:
    text = dump_yaml(value)
    [document] = read_documents(text, "f.yaml")
    lines = text.split("\n")
    for path, number in document.lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[number - 1]
        else:
            assert "-" in lines[number - 1] or "[" in lines[number - 1]


@settings(deadline=None)
@given(MAPPINGS, st.data())
def test_a_path_is_found_from_its_dotted_text(value: dict[str, Any], data: st.DataObject) -> None:
    [document] = read_documents(dump_yaml(value), "f.yaml")
    path = data.draw(st.sampled_from(sorted(document.lines, key=str)))
    dotted = ".".join(str(part) for part in path)
    assert document.line_of(dotted) == document.lines[path]
    assert document.line_of(f"{dotted}.no_such_field") >= document.lines[path]


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        documents = read_documents(text, "f.yaml")
    except Invalid as error:
        assert error.message.startswith("f.yaml")
    else:
        assert all(document.line >= 1 for document in documents)


def test_scalars_are_those_of_yaml_1_2() -> None:
    [document] = read_documents(
        "a: no\nb: 1e-4\nc: 2026-05-01\nd: 12:30\ne: 0x1f\nf: !!str 12\ng: '7'\nh: .inf\ni: on\nj:\nk: true\nl: 007",
        "f",
    )
    assert document.value == {
        "a": "no",
        "b": 1e-4,
        "c": "2026-05-01",
        "d": "12:30",
        "e": 31,
        "f": "12",
        "g": "7",
        "h": ".inf",
        "i": "on",
        "j": None,
        "k": True,
        "l": 7,
    }


def test_merged_fields_keep_the_line_they_were_written_on() -> None:
    [document] = read_documents("base: &b\n  x: 1\n  y: 2\nspec:\n  <<: *b\n  y: 3\n", "f")
    assert document.value["spec"] == {"x": 1, "y": 3}
    assert (document.line_of("spec.x"), document.line_of("spec.y")) == (2, 6)


def test_names_with_dots_are_found() -> None:
    [document] = read_documents("labels:\n  a: 1\n  a.b/c: 2\n", "f")
    assert document.line_of("labels.a.b/c") == 3


def test_parts_that_are_not_written_down_are_passed_over() -> None:
    [document] = read_documents("spec:\n  sources:\n    - kind: folder\n      path: x\n", "f")
    assert document.line_of("spec.sources.0.folder.path") == 4
    assert document.line_of("spec.sources.0.missing") == 3
    assert document.line_of("") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: 'a' is given twice, first on line 1"),
        ("a: 1\nb: [1,\n", "f.yaml:3: not valid YAML"),
        ("a: *nothing\n", "f.yaml:1: not valid YAML: found undefined alias"),
        ("a:\n  - !!python/object:os.system {}\n", "f.yaml:2: the tag tag:yaml.org,2002:python/object:os.system"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be a text"),
        ("a: !!int seven\n", "f.yaml:1: 'seven' is no int"),
        ("a: &a [*a]\n", "f.yaml:1: more than"),
        ("<<: 3\n", "f.yaml:1: << can merge only mappings"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_documents(text, "f.yaml")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_without_end_is_refused_and_kills_nothing(opening: str) -> None:
    with pytest.raises(Invalid, match="nested too deeply"):
        read_documents(opening * 50_000, "f.yaml")
    assert DEPTH_MAX < 50_000


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory() -> None:
    names = "abcdefghij"
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names)]
    with pytest.raises(Invalid, match="aliases written out"):
        read_documents("\n".join(lines), "f.yaml")
