"""Dataset rows as token sequences: questions in the model's own chat form, and plain text.

A question becomes the prompt the model would be served, then the answer and the end-of-turn token; only the latter
two are learned. All prompts begin alike (system message, role marks); that shared prefix is kept once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from jinja2 import TemplateError

from atoll.core.errors import Invalid
from atoll.training.engine.order import permutation

TEXT_TOKENS_MIN = 16
_ROWS_STREAM = 2


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens after the shared prefix; from `learned_from` on they are learned."""

    tokens: tuple[int, ...]
    learned_from: int


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples that share a prefix (empty for plain text)."""

    prefix: tuple[int, ...]
    items: tuple[Example, ...]

    @property
    def lengths(self) -> list[int]:
        return [len(item.tokens) for item in self.items]


def question_examples(rows: Sequence[Mapping[str, Any]], tokenizer: Any, sequence_length: int) -> Examples:
    """The rows (`question`, `answer`) as examples of at most `sequence_length` tokens with the prefix.

    A row may carry `messages`, the whole conversation before the answer as JSON, which then is the prompt.
    A longer answer is cut and then has no end; a question that leaves no room for an answer is left out.
    Raises Invalid when nothing is left.
    """
    prompts = _tokens(tokenizer, [_prompt(tokenizer, row) for row in rows])
    answers = _tokens(tokenizer, [row["answer"] for row in rows])
    begin = [tokenizer.bos_token_id] if getattr(tokenizer, "add_bos_token", False) else []
    prompts = [p if p[:1] == begin else begin + p for p in prompts]
    pairs = [(p, a) for p, a in zip(prompts, answers, strict=True) if a and len(p) < sequence_length]
    if not pairs:
        hint = f"all questions are longer than sequence_length {sequence_length}" if rows else "curate other documents"
        raise Invalid("the dataset has no question to learn from", field="dataset", hint=hint)
    prefix = _shared_prefix([p for p, _ in pairs])
    end = tokenizer.eos_token_id
    items = [Example(tuple((p + a + [end])[len(prefix) : sequence_length]), len(p) - len(prefix)) for p, a in pairs]
    return Examples(tuple(prefix), tuple(items))


def text_examples(
    texts: Sequence[str], tokenizer: Any, sequence_length: int, tokens_max: int | None = None
) -> Examples:
    """Texts cut into examples of at most `sequence_length` tokens, every token but the first learned.

    Of each text only the first `tokens_max` tokens are used. Raises Invalid when nothing is left.
    """
    items = []
    for tokens in _tokens(tokenizer, texts):
        ended = [*tokens, tokenizer.eos_token_id][:tokens_max]
        for start in range(0, len(ended), sequence_length):
            piece = ended[start : start + sequence_length]
            if len(piece) >= TEXT_TOKENS_MIN:
                items.append(Example(tuple(piece), 1))
    if not items:
        raise Invalid("the dataset has no text to learn from", field="dataset", hint="set recipe.text_share to 0")
    return Examples((), tuple(items))


def chosen_rows(count: int, rows_max: int, seed: int) -> list[int]:
    """Which of `count` rows are measured when at most `rows_max` may be: always the same for the same arguments."""
    return sorted(permutation(count, seed, 0, _ROWS_STREAM)[:rows_max])


def _prompt(tokenizer: Any, row: Mapping[str, Any]) -> str:
    said = row.get("messages")
    messages = orjson.loads(said) if said else [{"role": "user", "content": row["question"]}]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        what = f"the model's chat template refuses example {row.get('id', '')!r}: {error}"
        raise Invalid(what, field="dataset", hint="change the roles of its messages") from error


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return encoded


def _shared_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with, leaving at least one token of each to predict the answer from."""
    shortest, first, last = min(map(len, prompts)), min(prompts), max(prompts)
    length = next((i for i in range(shortest) if first[i] != last[i]), shortest)
    return first[: max(0, min(length, shortest - 1))]
