"""Answers: what a model said, as a pair that is supported by its document, or the reason why it is none.

A pure function of what was said, so the same answers give the same dataset, and other thresholds need no new answers.
Whether a supported answer is also true is not known here, only that the document says it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from atoll.data.engine.synthesis.content import content, is_cjk
from atoll.data.engine.synthesis.evidence import Located, locate, strange_numbers, support
from atoll.data.engine.synthesis.passages import Target
from atoll.data.engine.synthesis.prompts import fields_of, instruction_text
from atoll.data.engine.synthesis.wanted import QUESTION, Wanted

CHARACTERS_MIN, CHARACTERS_MIN_CJK = 12, 5
"""Shorter questions and answers say nothing."""

REASONS = (
    *("model_failed", "cut_off", "no_answer", "not_json", "wrong_shape", "refused", "wrong_language", "too_short"),
    *(
        "no_question",
        "refers_to_text",
        "echo",
        "evidence_not_found",
        "strange_number",
        "unsupported",
        "judged_unsupported",
    ),
    *("duplicate_question", "contaminated", "not_asked"),
)
"""Why there is no pair, in the order things are looked at."""

_REFUSAL = re.compile(
    r"\A\W*(?:i(?:'|\u2019)?m (?:sorry|unable|afraid)|sorry\b|i (?:can(?:no|'|\u2019)t|am unable)|as an ai\b)"
    r"|\A\W*(?:很?抱歉|对不起|對不起|我(?:无法|不能|無法)|作为(?:一个)?(?:AI|人工智能))",
    re.I,
)
_ASKS = re.compile(
    r"[?\uff1f]|\A\W*(?:explain|describe|name|list|tell|state|give|compare|define|summari[sz]e|outline)\b"
    r"|\A\W*(?:请|說明|说明|解释|描述|列出|列举|简述|介绍)|什么|什麼|谁|誰|哪|几|幾|多少|为何|如何|怎|吗|嗎|是否",
    re.I,
)
_REFERS = re.compile(
    r"\bthe (?:answer|question|evidence)\b"
    r"|\b(?:the|this|that|given|above|following|provided) (?:text|passage|sentence|paragraph|excerpt|document)\b"
    r"|本文|上文|文中|这段(?:文字|话)|這段(?:文字|話)|这句话|這句話|上述|该(?:文|段)",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What came back for one request: the HTTP status, the text, why it ended, and the tokens it used."""

    status: int
    text: str
    finish: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A supported pair; `start` and `stop` are where its evidence stands in the document's text, in characters."""

    target: Target
    asked: str
    answer: str
    start: int
    stop: int
    support: float

    @property
    def question(self) -> str:
        """What the user says: an instruction comes with its passage."""
        return self.asked if self.target.kind == QUESTION else instruction_text(self.asked, self.target.passage)


@dataclass(frozen=True, slots=True)
class Rejection:
    """No pair, by one of REASONS; `sample` shows what was wrong."""

    reason: str
    sample: str = ""


def read(target: Target, said: Said, wanted: Wanted) -> Pair | Rejection:
    """The pair a model's answer makes."""
    shaped = _shaped(target, said)
    if isinstance(shaped, Rejection):
        return shaped
    asked, quotation, answer = shaped
    reason = _unfit(target, asked, answer)
    if reason:
        return Rejection(reason, f"{asked} -> {answer}")
    located = locate(quotation, target.passage)
    if located is None:
        return Rejection("evidence_not_found", quotation)
    return _supported(target, asked, answer, located, wanted)


def is_approved(said: Said) -> bool | None:
    """What a judge said of a pair; None when it said neither yes nor no."""
    try:
        value = orjson.loads(said.text)
    except orjson.JSONDecodeError:
        return None
    verdict = value.get("supported") if isinstance(value, dict) else None
    return {"yes": True, "no": False}.get(str(verdict).strip().casefold())


def _shaped(target: Target, said: Said) -> tuple[str, str, str] | Rejection:
    """The three texts of an answer."""
    if said.status != 200:
        return Rejection("model_failed", f"{said.status} {said.text}")
    if said.finish == "length":
        return Rejection("cut_off", said.text)
    if not said.text.strip():
        return Rejection("no_answer")
    try:
        value = orjson.loads(said.text)
    except orjson.JSONDecodeError:
        return Rejection("refused" if _REFUSAL.search(said.text) else "not_json", said.text)
    texts = [value.get(name) for name in fields_of(target.kind)] if isinstance(value, dict) else []
    asked, quotation, answer = (text if isinstance(text, str) else "" for text in texts or ("", "", ""))
    if not (asked and quotation and answer):
        return Rejection("wrong_shape", said.text)
    return " ".join(asked.split()), quotation, answer.strip()


def _unfit(target: Target, asked: str, answer: str) -> str:
    """Why the texts by themselves make no pair, or ""."""
    cjk = is_cjk(target.passage)
    if _REFUSAL.search(answer) or _REFUSAL.search(asked):
        return "refused"
    if is_cjk(asked) != cjk or is_cjk(answer) != cjk:
        return "wrong_language"
    if min(len(asked), len(answer)) < (CHARACTERS_MIN_CJK if cjk else CHARACTERS_MIN):
        return "too_short"
    return _unfit_question(asked, answer) if target.kind == QUESTION else ""


def _unfit_question(asked: str, answer: str) -> str:
    """Why a question cannot stand alone, or its answer adds nothing to it; or ""."""
    if not _ASKS.search(asked):
        return "no_question"
    if _REFERS.search(asked) or _REFERS.search(answer):
        return "refers_to_text"
    return "" if content(answer) - content(asked) else "echo"


def _supported(target: Target, asked: str, answer: str, located: Located, wanted: Wanted) -> Pair | Rejection:
    """The pair, if its evidence holds its answer; a task about a whole passage rests on the passage."""
    evidence = target.passage[located.start : located.stop] if target.kind == QUESTION else target.passage
    if strange := strange_numbers(answer, evidence, asked):
        return Rejection("strange_number", f"{min(strange)}: {answer}")
    score = support(answer, evidence, asked, target.passage)
    if score < wanted.support_min:
        return Rejection("unsupported", f"{score:.2f}: {answer}")
    start, stop = target.start + located.start, target.start + located.stop
    return Pair(target, asked, answer, start, stop, round(score * located.alike, 4))
