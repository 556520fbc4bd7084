# ruff: noqa: RUF001 - Chinese is written with its own punctuation
"""What a model is told: requests for a question, an instruction, or a judgement, in the language of the document.

An example goes before, and the shape of the answer is enforced by a JSON schema with bounds on every string, for small
models do not stop by themselves. Which languages a model speaks is not known here; documents that are neither Chinese
nor in a language of spaces are asked about in English, and told to be answered in their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from atoll.data.engine.hashing import hash_text
from atoll.data.engine.synthesis.content import is_cjk
from atoll.data.engine.synthesis.passages import Target
from atoll.data.engine.synthesis.wanted import INSTRUCTION, QUESTION, Wanted

QUESTION_CHARACTERS, EVIDENCE_CHARACTERS = 300, 500
TOKENS_PER_CHARACTER, TOKENS_PER_CHARACTER_CJK = 0.5, 1.5
JUDGE_TOKENS = 16
FRAME_TOKENS = 60

Shape = tuple[str, str, str]
Said = list[tuple[str, str]]
_FIELDS: dict[str, Shape] = {
    QUESTION: ("question", "evidence", "answer"),
    INSTRUCTION: ("instruction", "evidence", "response"),
}
_TASKS = (
    "summarise the text in one or two sentences",
    "explain the point of the text to a beginner",
    "list the most important facts of the text",
    "rewrite the main statement of the text more simply",
    "name what the text is about and what it says of it",
)
_TASKS_CJK = (
    "用一两句话概括这段文字",
    "向初学者解释这段文字的要点",
    "列出这段文字中最重要的事实",
    "用更简单的话改写这段文字的主要内容",
    "说明这段文字的主题以及它的说法",
)
_SYSTEM = "You write exercises about a text. You use only what the text says. You reply with one JSON object."
_SYSTEM_CJK = "你根据一段文字编写练习。只能使用文字中的内容。只用一个 JSON 对象回答。"
_ASK = {
    QUESTION: (
        "Text:\n<<<\n{passage}\n>>>\n\nWrite a question about this sentence of the text: {sentence}\n"
        "The question names what it is about, so that it is clear without the text. The evidence repeats, word for "
        "word, the words of the text that the answer is taken from. The answer is a complete sentence.{language}"
    ),
    INSTRUCTION: (
        "Text:\n<<<\n{passage}\n>>>\n\nWrite an instruction to {task}, in your own words, and carry it out. "
        "The evidence repeats, word for word, a sentence of the text that the response rests on. "
        "The response uses only what the text says.{language}"
    ),
}
_ASK_CJK = {
    QUESTION: (
        "文字：\n<<<\n{passage}\n>>>\n\n请针对文字中的这句话里的内容写一个问题：{sentence}\n"
        "问题要写明问的是什么，不看文字也能明白。evidence 逐字重复文字中给出答案的那句话。"
        "answer 用完整的句子回答。请用中文。"
    ),
    INSTRUCTION: (
        "文字：\n<<<\n{passage}\n>>>\n\n请用自己的话写一条指令，要求{task}，并完成这条指令。"
        "evidence 逐字重复回答所依据的一句原文。response 只根据文字内容完成指令。请用中文。"
    ),
}
_SHOWN = (
    "The harbour museum of Lund opened in 1903. It keeps eleven wooden boats and the tools of the men who built them. "
    "Entry is free on Sundays."
)
_SHOWN_SENTENCE = "It keeps eleven wooden boats and the tools of the men who built them."
_SHOWN_CJK = "隆德港口博物馆于1903年开放。馆内收藏着十一艘木船和造船工人的工具。星期日免费参观。"
_SHOWN_SENTENCE_CJK = "馆内收藏着十一艘木船和造船工人的工具。"
_EXAMPLE = {
    QUESTION: (
        "What does the harbour museum of Lund keep?",
        "It keeps eleven wooden boats and the tools of the men who built them.",
        "The harbour museum of Lund keeps eleven wooden boats and the tools of their builders.",
    ),
    INSTRUCTION: (
        "Describe the following museum briefly.",
        "The harbour museum of Lund opened in 1903.",
        "The harbour museum of Lund, opened in 1903, keeps eleven wooden boats and tools and is free on Sundays.",
    ),
}
_EXAMPLE_CJK = {
    QUESTION: (
        "隆德港口博物馆收藏着什么？",
        "馆内收藏着十一艘木船和造船工人的工具。",
        "隆德港口博物馆收藏着十一艘木船和造船工人的工具。",
    ),
    INSTRUCTION: (
        "请简要介绍下面这座博物馆。",
        "隆德港口博物馆于1903年开放。",
        "隆德港口博物馆于1903年开放，收藏着十一艘木船和造船工人的工具，星期日免费参观。",
    ),
}
_JUDGE = (
    "Text:\n<<<\n{passage}\n>>>\n\nQuestion: {question}\nAnswer: {answer}\n\nDoes the text say everything the answer "
    'says, and does the answer fit the question? Reply as {{"supported": "yes"}} or {{"supported": "no"}}'
)
_JUDGE_CJK = (
    "文字：\n<<<\n{passage}\n>>>\n\n问题：{question}\n答案：{answer}\n\n答案中的内容是否都能在文字中找到，并且回答了问题？"
    '请回答 {{"supported": "yes"}} 或 {{"supported": "no"}}'
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its body, and the most tokens it may use (prompt and answer, the prompt by its bytes)."""

    body: dict[str, Any]
    tokens_max: int


def fields_of(kind: str) -> Shape:
    """The fields of an answer: what is asked, the evidence, what is answered."""
    return _FIELDS[kind]


def write_request(target: Target, attempt: int, wanted: Wanted) -> Ask:
    """The request that makes a target; another attempt has another seed."""
    cjk = is_cjk(target.passage)
    seed = hash_text(f"{target.id}\0{attempt}", wanted.seed)
    tasks = _TASKS_CJK if cjk else _TASKS
    frame = partial((_ASK_CJK if cjk else _ASK)[target.kind].format, task=tasks[seed % len(tasks)])
    language = "" if target.passage.isascii() else " Write in the language of the text."
    shown, sentence = (_SHOWN_CJK, _SHOWN_SENTENCE_CJK) if cjk else (_SHOWN, _SHOWN_SENTENCE)
    example = dict(zip(fields_of(target.kind), (_EXAMPLE_CJK if cjk else _EXAMPLE)[target.kind], strict=True))
    said = [
        ("system", _SYSTEM_CJK if cjk else _SYSTEM),
        ("user", frame(passage=shown, sentence=sentence, language="")),
        ("assistant", orjson.dumps(example).decode()),
        ("user", frame(passage=target.passage, sentence=target.sentence, language=language)),
    ]
    bounds = (QUESTION_CHARACTERS, EVIDENCE_CHARACTERS, wanted.answer_characters_max)
    lengths = [length // 2 for length in bounds] if cjk else list(bounds)
    rate = TOKENS_PER_CHARACTER_CJK if cjk else TOKENS_PER_CHARACTER
    answer_tokens = FRAME_TOKENS + int(rate * sum(lengths))
    strings = [{"type": "string", "maxLength": length} for length in lengths]
    schema = _schema(dict(zip(fields_of(target.kind), strings, strict=True)))
    sampling = {"temperature": wanted.temperature, "seed": seed % 2**31}
    return _ask(wanted.model, said, schema, answer_tokens, sampling)


def judge_request(target: Target, question: str, answer: str, wanted: Wanted) -> Ask:
    """The request for a second opinion on an answer."""
    cjk = is_cjk(target.passage)
    words = (_JUDGE_CJK if cjk else _JUDGE).format(passage=target.passage, question=question, answer=answer)
    schema = _schema({"supported": {"type": "string", "enum": ["yes", "no"]}})
    return _ask(wanted.judge, [("user", words)], schema, JUDGE_TOKENS, {"temperature": 0.0, "seed": 0})


def instruction_text(instruction: str, passage: str) -> str:
    """What a user says who gives an instruction about a passage."""
    return f"{instruction}\n\n{passage}"


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _ask(model: str, said: Said, schema: dict[str, Any], answer_tokens: int, sampling: dict[str, Any]) -> Ask:
    body = {
        "model": model,
        "messages": [{"role": role, "content": text} for role, text in said],
        "max_tokens": answer_tokens,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
        **sampling,
    }
    prompt_tokens = FRAME_TOKENS + sum(len(text.encode()) for _, text in said) // 2
    return Ask(body, prompt_tokens + answer_tokens)
