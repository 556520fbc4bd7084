"""Text of tokens as it becomes certain, and how tokens are chosen."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("torch", reason="the training extra is not installed (pip install atoll[train])")
pytest.importorskip("transformers", reason="the training extra is not installed (pip install atoll[train])")
pytest.importorskip("llguidance", reason="the serving extra is not installed (pip install atoll[serve])")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from atoll.core.errors import Invalid
from atoll.serving.engine.constraints import Constraints
from atoll.serving.engine.generation import Generation, TextStream
from atoll.serving.engine.sampling import Sampling, choose, likelihood

TOKENIZER: Any = importlib.import_module("tiny_safetensors").tokenizer()
VOCABULARY, END = 263, 262


def _told(text: str, *stops: str) -> tuple[str, bool]:
    """What a stream tells of `text`, token by token, and whether it was stopped."""
    stream, told = TextStream(TOKENIZER, stops), ""
    for token in TOKENIZER.encode(text).ids:
        piece, is_stopped = stream.push(token)
        told += piece
        if is_stopped:
            return told, True
    return told + stream.rest(), False


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.lists(st.text("abü", min_size=1, max_size=3)))
def test_text_is_told_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    found = [text.index(stop) for stop in stops if stop in text]
    told, is_stopped = _told(text, *stops)
    assert is_stopped == bool(found)
    if not found:
        assert told == text
    else:
        assert text.startswith(told) and not any(stop in told for stop in stops)


def test_a_beginning_of_a_stop_string_is_held_until_it_is_none() -> None:
    stream = TextStream(TOKENIZER, ["STOP"])
    said = [stream.push(token)[0] for token in TOKENIZER.encode("aSTOaSTOP").ids]
    assert said == ["a", "", "", "", "STOa", "", "", "", ""]


def test_a_character_is_told_when_it_is_whole() -> None:
    stream = TextStream(TOKENIZER)
    assert [stream.push(token)[0] for token in TOKENIZER.encode("ü").ids] == ["", "ü"]


def test_an_answer_ends_with_its_end_token_or_its_last() -> None:
    generation = Generation([1], 3, TextStream(TOKENIZER), print, end_tokens=frozenset({END}))
    assert [generation.take(token, None).finish for token in (65, 66, 67)] == ["", "", "length"]
    generation = Generation([1], 9, TextStream(TOKENIZER), print, end_tokens=frozenset({END}))
    assert [generation.take(token, None).finish for token in (65, END)] == ["", "stop"]


# -- sampling ------------------------------------------------------------------------------------------------------


def _counts(sampling: Sampling, logits: list[float], draws: int = 2000) -> Counter[int]:
    generator = torch.Generator().manual_seed(1)
    row = torch.tensor(logits)
    return Counter(choose(row, sampling, generator, Counter()) for _ in range(draws))


def test_tokens_come_as_often_as_they_are_likely() -> None:
    counts = _counts(Sampling(), [0.0, 1.0, 2.0])
    shares = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0)
    assert [counts[token] / 2000 for token in range(3)] == pytest.approx(shares.tolist(), abs=0.04)


def test_narrow_sampling_leaves_unlikely_tokens_out() -> None:
    logits = [0.0, 1.0, 2.0, 3.0]
    assert set(_counts(Sampling(top_k=2), logits)) == {2, 3}
    assert set(_counts(Sampling(top_p=0.6), logits)) == {3}
    assert set(_counts(Sampling(top_p=0.7), logits)) == {2, 3}
    assert set(_counts(Sampling(min_p=0.3), logits)) == {2, 3}
    assert set(_counts(Sampling(temperature=0.0), logits)) == {3}
    assert set(_counts(Sampling(bias={3: -100.0, 2: -100.0}), logits)) == {0, 1}


def test_penalties_go_to_what_was_said() -> None:
    row, generator = torch.tensor([1.0, 1.5]), torch.Generator()
    greedy = Sampling(temperature=0.0, frequency_penalty=0.2)
    assert choose(row, greedy, generator, Counter({1: 2})) == 1
    assert choose(row, greedy, generator, Counter({1: 3})) == 0
    assert row.tolist() == [1.0, 1.5]


def test_what_is_not_allowed_is_never_chosen() -> None:
    allowed = torch.tensor([True, False, True])
    for _ in range(50):
        assert choose(torch.tensor([0.0, 9.0, 0.0]), Sampling(), torch.Generator(), Counter(), allowed) != 1


def test_likelihoods_are_log_probabilities() -> None:
    told = likelihood(torch.tensor([0.0, 1.0, 2.0]), 1, 2)
    assert told.logprob == pytest.approx(-1.4076, abs=1e-3)
    assert [token for token, _ in told.top] == [2, 1] and told.top[1][1] == told.logprob
    assert likelihood(torch.tensor([0.0, 1.0]), 1, 0).top == ()


def test_seeds_make_answers_repeatable_and_different() -> None:
    sampling = Sampling(seed=(1 << 63) - 1)
    assert sampling.for_answer(1).seed != sampling.seed
    first = torch.rand(3, generator=sampling.generator())
    assert torch.equal(first, torch.rand(3, generator=sampling.for_answer(0).generator()))
    assert Sampling().for_answer(3).seed is None


# -- constraints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    fast = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER, eos_token="<|im_end|>")
    return Constraints(fast, VOCABULARY, [END])


def _random_answer(constraint: Any, seed: int, tokens_max: int = 600) -> str:
    """An answer of a model that knows nothing, held by the constraint."""
    generator, tokens = torch.Generator().manual_seed(seed), []
    while not constraint.is_over and len(tokens) < tokens_max:
        token = choose(torch.zeros(VOCABULARY), Sampling(), generator, Counter(), constraint.allowed())
        if token == END:
            break
        constraint.take(token)
        tokens.append(token)
    return str(TOKENIZER.decode(tokens))


def test_a_schema_holds_for_a_model_that_knows_nothing(constraints: Constraints) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}}}
    schema |= {"required": ["a", "b"], "additionalProperties": False}
    constraint = constraints.of_schema(schema, "schema")
    for seed in range(20):
        made = json.loads(_random_answer(constraint.copy(), seed))
        assert made["a"] in (1, 22) and isinstance(made["b"], bool)


def test_a_call_holds_for_a_model_that_knows_nothing(constraints: Constraints) -> None:
    tools = [{"name": name, "parameters": {"enum": [{"x": 1}, {"x": 2}]}} for name in ("add", "sum")]
    constraint = constraints.of_call(tools, is_required=True)
    for seed in range(20):
        text = _random_answer(constraint.copy(), seed).replace("<tool_call>", "").replace("</tool_call>", "")
        made = json.loads(text)
        assert made["name"] in ("add", "sum") and made["arguments"]["x"] in (1, 2)


def test_what_cannot_be_enforced_is_refused_by_its_field(constraints: Constraints) -> None:
    for schema in (3, {"type": "banana"}, {"pattern": "(", "type": "string"}, {"enum": ["x" * (1 << 18)]}):
        with pytest.raises(Invalid) as caught:
            constraints.of_schema(schema, "here")
        assert caught.value.field == "here"
    for grammar in ("", 3, "root ::= (", "x" * (1 << 19)):
        with pytest.raises(Invalid) as caught:
            constraints.of_grammar(grammar, "there")
        assert caught.value.field == "there"
