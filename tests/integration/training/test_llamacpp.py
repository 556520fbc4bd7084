"""What was trained in torch computes the same in llama.cpp: the conversion, and the order of the query and key rows."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny_training
from atoll.core.blobs import digest_of_file
from atoll.training.engine.convert import converted
from atoll.training.engine.export import Heads, heads_of, write_gguf
from atoll.training.engine.lora import Adapter, AdapterShape
from atoll.training.engine.model import Base, load_base
from atoll.training.recipes import TARGETS
from running_engine import Running, serve

TEXT = "the item in the box is 12 blue and another one is an île"
CLOSE = 0.05
"""Largest difference of a log probability of the tiny model, whose odds differ by tens: llama.cpp keeps the keys and
values of earlier tokens in float16."""

FAR = 1.0
"""What a wrong order of the rows makes at least."""

QUANTISED = 0.5
"""llama.cpp also rounds activations to 8 bits where weights are quantised, torch does not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llamacpp")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return tiny_training.write_model(folder / "tiny.gguf")


def _base(model: Path, cache: Path) -> Base:
    """Converted in a process of its own, as tasks do, so that no library remembers another test's model."""
    digest = digest_of_file(model)
    code = (
        "import sys; from pathlib import Path; from atoll.training.engine.convert import converted; "
        "converted(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))"
    )
    subprocess.run([sys.executable, "-c", code, str(model), model.name, digest, str(cache)], check=True, timeout=240)
    return load_base(converted(model, model.name, digest, cache), "float32")


def _torch_odds(base: Base, tokens: list[int]) -> torch.Tensor:
    """Log probabilities [vocabulary] of the token after `tokens`."""
    ids = torch.tensor([tokens])
    mask = torch.full((len(tokens), len(tokens)), torch.finfo(torch.float32).min).triu(1)[None, None]
    with torch.no_grad():
        logits = base.causal(input_ids=ids, attention_mask=mask).logits
    return torch.log_softmax(logits[0, -1].float(), -1)


def _llamacpp_odds(running: Running, tokens: list[int], count: int) -> dict[int, float]:
    body = {"prompt": tokens, "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": False}
    first = running.post("/completion", body)["completion_probabilities"][0]
    return {item["id"]: item["logprob"] for item in first["top_logprobs"]}


def _difference(base: Base, running: Running, tokens: list[int], count: int) -> float:
    """The largest difference of the `count` likeliest tokens' log probabilities."""
    ours, theirs = _torch_odds(base, tokens), _llamacpp_odds(running, tokens, count)
    assert len(theirs) >= count - 1
    held = [*base.causal.named_parameters(), *base.causal.named_buffers()]
    broken = [name for name, value in held if not value.isfinite().all()]
    assert not broken, f"loaded with numbers that are none: {broken}"
    assert ours.isfinite().all(), f"torch computed {ours.isnan().sum()} odds that are none from sound weights"
    assert all(math.isfinite(odds) for odds in theirs.values()), f"llama.cpp answered {theirs}"
    return max(abs(float(ours[token]) - odds) for token, odds in theirs.items())


def _random_adapter(base: Base, targets: tuple[str, ...]) -> Adapter:
    adapter = Adapter(base, AdapterShape(4, 8.0, targets), seed=3)
    with torch.no_grad():
        adapter.master.copy_(torch.randn(len(adapter.master), generator=torch.Generator().manual_seed(5)) * 0.2)
    adapter.publish()
    return adapter


def test_the_tokenizer_splits_as_llamacpp_does(folder: Path, model: Path) -> None:
    base = _base(model, folder / "cache")
    running = serve(folder / "tokens", model)
    try:
        theirs = running.post("/tokenize", {"content": TEXT, "parse_special": True})["tokens"]
        assert base.tokenizer(TEXT, add_special_tokens=False)["input_ids"] == theirs
    finally:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize(
    ("targets", "half"),
    [((), False), (("q_proj",), False), (("k_proj",), False), (TARGETS, False), (TARGETS, True)],
    ids=["base", "query", "key", "all", "float16"],
)
def test_torch_and_llamacpp_give_the_same_odds(
    folder: Path, model: Path, targets: tuple[str, ...], half: bool, request: pytest.FixtureRequest
) -> None:
    base = _base(model, folder / "cache")
    adapters = []
    if targets:
        adapter = _random_adapter(base, targets)
        path = folder / "adapter.gguf"
        write_gguf(path, adapter.matrices(), adapter.shape, heads_of(base.causal.config), half=half)
        adapters.append(path)
    tokens = base.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    running = serve(folder / request.node.callspec.id, model, *adapters)
    try:
        assert _difference(base, running, tokens, len(base.tokenizer)) < CLOSE
    finally:
        running.process.kill()
        running.process.wait()


def test_the_order_of_the_query_rows_matters(folder: Path, model: Path) -> None:
    base = _base(model, folder / "cache")
    adapter = _random_adapter(base, ("q_proj",))
    path = folder / "unordered.gguf"
    write_gguf(path, adapter.matrices(), adapter.shape, Heads(query=0, key=0))
    tokens = base.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    running = serve(folder / "unordered", model, path)
    try:
        assert _difference(base, running, tokens, len(base.tokenizer)) > FAR
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def real() -> Iterator[Path]:
    named = os.environ.get("ATOLL_TEST_MODEL")
    paths = [Path(named)] if named else []
    if not paths:
        pytest.skip("no real model here: set ATOLL_TEST_MODEL to a GGUF chat model")
    yield paths[0]


def test_a_real_model_gives_close_odds_in_both(folder: Path, real: Path) -> None:
    base = _base(real, folder / "cache")
    tokens = base.tokenizer("The capital of France is", add_special_tokens=False)["input_ids"]
    running = serve(folder / "real", real, threads=0)
    try:
        assert running.post("/tokenize", {"content": "The capital of France is"})["tokens"] == tokens
        assert _difference(base, running, tokens, 20) < QUANTISED
    finally:
        running.process.kill()
        running.process.wait()
