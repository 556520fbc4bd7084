"""What a synthesis is asked to do, as plain values; the controller has checked them.

Nothing here opens a file or asks a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

QUESTION, INSTRUCTION = "question_answer", "instruction"
KINDS = (QUESTION, INSTRUCTION)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`manifest` is the dataset whose documents are read; `judge` a model that is asked too, "" for none.

    tokens_max: prompt and generated tokens of all requests together; None does not limit. support_min: least share of
    an answer's content words the evidence must hold. decontaminate: digests of manifests, or files on the node.
    """

    manifest: str
    model: str
    project: str
    door: str
    kinds: tuple[str, ...] = (QUESTION,)
    judge: str = ""
    documents_max: int = 1000
    per_document: int = 3
    attempts: int = 2
    seed: int = 0
    tokens_max: int | None = None
    parallel: int = 8
    temperature: float = 0.7
    support_min: float = 0.6
    passage_characters: int = 1500
    answer_characters_max: int = 600
    decontaminate: tuple[str, ...] = ()
    known_within_s: float = 30.0

    @classmethod
    def of(cls, task_input: Mapping[str, Any]) -> Wanted:
        """What a task's input asks for; lists become tuples."""
        known = {field.name for field in fields(cls)}
        told = {name: value for name, value in task_input.items() if name in known}
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        return cls(**plain)
