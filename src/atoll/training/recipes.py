"""How a fine-tuning run goes: every knob of `method: lora`, with its limits and why one would turn it.

Unknown fields and impossible values are refused by name. The defaults suit a small model on two processor cores.
It does not know the base model or the data; what depends on them is checked when the run starts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from atoll.core.errors import Invalid
from atoll.core.resources import Model

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

TARGETS: tuple[Target, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
STEPS_DEFAULT = 100


class Recipe(Model):
    """Fine-tuning by low-rank adapters (Hu et al. 2021, arXiv:2106.09685) on questions and answers."""

    rank: int = Field(16, ge=1, le=256, description="Rank of the adapter: more learns more and is larger.")
    alpha: float = Field(32.0, gt=0, le=1024, description="Scale of the adapter; it acts as alpha / rank.")
    targets: list[Target] = Field(
        default_factory=lambda: list(TARGETS), min_length=1, description="Linear layers that get an adapter."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the rate rises from zero.")
    final_rate_share: float = Field(
        0.1, ge=0, le=1, description="Share of the peak rate at the last step; the way there is a cosine."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    gradient_norm_max: float = Field(1.0, gt=0, description="Gradients with a greater norm are scaled down to it.")
    steps: int | None = Field(
        None, ge=1, le=1_000_000, description=f"Optimiser steps; empty means epochs, or {STEPS_DEFAULT}."
    )
    epochs: float | None = Field(None, gt=0, le=1000, description="Passes over the questions, instead of steps.")
    batch_tokens: int = Field(1024, ge=16, le=1 << 22, description="Tokens of one optimiser step.")
    micro_batch_tokens: int = Field(
        512, ge=16, le=1 << 20, description="Tokens computed at once: more is faster and takes more memory."
    )
    sequence_length: int = Field(
        256, ge=16, le=1 << 17, description="Tokens of one sequence, which holds several questions; longer are cut."
    )
    text_share: float = Field(
        0.0, ge=0, le=0.9, description="Share of the sequences that hold plain text of the train split instead."
    )
    heldout_rows: int = Field(
        200, ge=0, le=100_000, description="Held-out questions measured before and after; 0 measures nothing."
    )
    checkpoint_every_steps: int = Field(10, ge=1, description="Steps from one checkpoint to the next.")
    checkpoint_every_s: float = Field(30.0, gt=0, description="Seconds after which one is due in any case.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the base model; auto takes bfloat16 where the processor computes in it."
    )
    threads: int | None = Field(None, ge=1, le=1024, description="Threads; empty means as many as the task may use.")

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs are both given; give one")
        if self.sequence_length > self.micro_batch_tokens:
            raise ValueError(
                f"micro_batch_tokens {self.micro_batch_tokens} is less than sequence_length {self.sequence_length}"
            )
        if self.micro_batch_tokens > self.batch_tokens:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is less than micro_batch_tokens {self.micro_batch_tokens}"
            )
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("targets names a layer twice")
        return self


def parse_recipe(value: object, path: str = "recipe") -> Recipe:
    """The recipe in `value`, completed; Invalid names the field under `path` and what it may be."""
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, path) from error


def _refusal(error: ValidationError, path: str) -> Invalid:
    first = error.errors(include_url=False)[0]
    where = ".".join([path, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return Invalid(
            f"{where} is not a field of a recipe", field=where, hint=f"fields: {', '.join(Recipe.model_fields)}"
        )
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] == "value_error" else f" cannot be {first['input']!r:.80}"
    return Invalid(f"{where}{given}: {message[0].lower()}{message[1:]}", field=where)
