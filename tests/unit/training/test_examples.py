"""Rows become tokens in the form in which the model is served, and only answers are learned."""

from typing import Any

import pytest

import tiny_training
from atoll.core.errors import Invalid
from atoll.training.engine.examples import chosen_rows, question_examples, text_examples

ROWS = tiny_training.question_rows(0, 6)


def test_an_example_is_the_served_prompt_the_answer_and_its_end(tokenizer: Any) -> None:
    examples = question_examples(ROWS, tokenizer, 200)
    example = examples.items[2]
    whole = list(examples.prefix + example.tokens)
    prompt = "<|im_start|>user\nWhat is item 2?<|im_end|><|im_start|>assistant\n"
    assert tokenizer.decode(whole) == prompt + "Item 2 is green.<|im_end|>"
    learned = whole[len(examples.prefix) + example.learned_from :]
    assert tokenizer.decode(learned) == "Item 2 is green.<|im_end|>"
    assert learned[-1] == tokenizer.eos_token_id


def test_the_prefix_is_what_all_prompts_begin_with(tokenizer: Any) -> None:
    assert tokenizer.decode(question_examples(ROWS, tokenizer, 200).prefix) == "<|im_start|>user\nWhat is item "


def test_equal_questions_still_leave_a_token_to_predict_from(tokenizer: Any) -> None:
    examples = question_examples([ROWS[0], ROWS[0]], tokenizer, 200)
    assert all(item.learned_from == 1 for item in examples.items)


def test_a_long_answer_is_cut_and_a_question_without_room_left_out(tokenizer: Any) -> None:
    rows = [ROWS[0] | {"answer": "blue " * 100}, ROWS[1] | {"question": "why " * 100}]
    examples = question_examples(rows, tokenizer, 80)
    assert len(examples.items) == 1
    assert len(examples.prefix) + len(examples.items[0].tokens) == 80
    assert examples.items[0].tokens[-1] != tokenizer.eos_token_id


def test_a_dataset_of_questions_too_long_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Invalid, match="sequence_length 16"):
        question_examples(ROWS, tokenizer, 16)


def test_no_rows_are_refused(tokenizer: Any) -> None:
    with pytest.raises(Invalid, match="no question"):
        question_examples([], tokenizer, 128)


def test_text_is_cut_into_pieces_and_learned_whole(tokenizer: Any) -> None:
    examples = text_examples(["item " * 40, "x"], tokenizer, 64)
    assert examples.prefix == ()
    assert [item.learned_from for item in examples.items] == [1] * len(examples.items)
    assert sum(examples.lengths) >= 150
    assert max(examples.lengths) == 64


def test_of_a_long_text_only_the_beginning_is_used_when_asked(tokenizer: Any) -> None:
    assert sum(text_examples(["item " * 400], tokenizer, 64, tokens_max=128).lengths) == 128


def test_text_too_short_to_learn_from_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Invalid, match="text_share"):
        text_examples(["x"], tokenizer, 64)


def test_the_same_rows_are_chosen_every_time() -> None:
    assert chosen_rows(100, 10, seed=3) == chosen_rows(100, 10, seed=3)
    assert chosen_rows(5, 10, seed=3) == [0, 1, 2, 3, 4]
