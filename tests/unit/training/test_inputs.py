"""Task inputs are checked before any work, and refused by field."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.training.engine.inputs import FileRef, parse_evaluate, parse_train

DIGEST = "sha256:" + "0" * 64
BASE = {"files": [{"name": "m.gguf", "digest": DIGEST, "size_bytes": 1}], "format": "gguf"}
TRAIN = {"base": BASE, "dataset": DIGEST, "method": "lora", "recipe": {"steps": 3}, "seed": 7}
EVALUATE = {"base": BASE, "adapter": {"name": "adapter.gguf", "digest": DIGEST}, "dataset": DIGEST}


def test_a_training_input_is_read_in_full() -> None:
    wanted = parse_train(TRAIN)
    assert (wanted.base, wanted.dataset, wanted.recipe.steps, wanted.seed) == (FileRef("m.gguf", DIGEST), DIGEST, 3, 7)


def test_the_gguf_file_is_found_among_others() -> None:
    files = [{"name": "README.md", "digest": DIGEST}, {"name": "m.gguf", "digest": DIGEST}]
    assert parse_train(TRAIN | {"base": BASE | {"files": files}}).base.name == "m.gguf"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": "full"}, "method"),
        ({"base": None}, "base"),
        ({"base": BASE | {"format": "safetensors"}}, "base.format"),
        ({"base": BASE | {"files": []}}, "base.files"),
        ({"base": BASE | {"files": [{"name": "m.gguf"}]}}, "base.files.0.digest"),
        ({"dataset": ""}, "dataset"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"recipe": {"rank": 0}}, "recipe.rank"),
    ],
)
def test_a_wrong_training_input_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_train(TRAIN | change)
    assert refusal.value.field == field


def test_an_evaluation_needs_neither_adapter_nor_gate() -> None:
    wanted = parse_evaluate({"base": BASE, "dataset": DIGEST, "adapter": None})
    assert (wanted.adapter, wanted.gate, wanted.split) == (None, None, "qa_heldout")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"split": "qa_train"}, "split"),
        ({"max_rows": 0}, "max_rows"),
        ({"adapter": {"name": "adapter.gguf"}}, "adapter.digest"),
        ({"gate": {"metric": "beauty"}}, "gate"),
        ({"gate": 0.05}, "gate"),
    ],
)
def test_a_wrong_evaluation_input_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_evaluate(EVALUATE | change)
    assert refusal.value.field == field
