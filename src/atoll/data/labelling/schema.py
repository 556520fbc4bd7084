"""What is asked of a labeller about an item: fields of six kinds, and what an item must have for each.

A field's options may be appended to, never taken away: what was counted speaks of them by their place.
What people answered is judged by `values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from atoll.core.errors import Invalid

FIELDS_MAX = 20
OPTIONS_MAX = 200
ITEM_BYTES_MAX = 1 << 20
TEXT_CHARACTERS_MAX = 20_000
PRIORITY_MAX = 100

FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
OptionName = Annotated[str, Field(min_length=1, max_length=100)]
ItemKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Options = Annotated[list[OptionName], Field(max_length=OPTIONS_MAX)]


class _Field(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FieldName = Field(description="Name of the field: what answers and exports call it.")
    description: str = Field("", max_length=2000, description="What the labeller is asked.")
    required: bool = Field(True, description="Whether an answer must have it.")


class _WithOptions(_Field):
    options: Options = Field(min_length=1, description="What may be chosen, in the order it is shown.")

    @model_validator(mode="after")
    def _different(self) -> _WithOptions:
        if len(set(self.options)) < len(self.options):
            twice = next(o for o in self.options if self.options.count(o) > 1)
            raise ValueError(f"option {twice!r} stands there twice")
        return self


class ClassField(_WithOptions):
    """One of some options."""

    type: Literal["class"] = Field(description="One of the options.")


class ClassesField(_WithOptions):
    """Any number of some options, also none."""

    type: Literal["classes"] = Field(description="Any of the options.")


class SpansField(_WithOptions):
    """Parts of the item's text, each with one of some labels; offsets count code points."""

    type: Literal["spans"] = Field(description="Stretches of the text, each with a label.")


class PairField(_Field):
    """Which of the item's two texts `a` and `b` is better."""

    type: Literal["pair"] = Field(description="Which of two texts is better.")
    ties: bool = Field(True, description="Whether neither may be better.")


class RatingField(_Field):
    """A whole number on a scale."""

    type: Literal["rating"] = Field(description="A number of a scale.")
    min: int = Field(1, ge=-1000, le=1000, description="Lowest rating.")
    max: int = Field(5, ge=-1000, le=1000, description="Highest rating.")

    @model_validator(mode="after")
    def _a_scale(self) -> RatingField:
        if self.min >= self.max:
            raise ValueError(f"min {self.min} is not below max {self.max}")
        return self


class TextField(_Field):
    """Free text."""

    type: Literal["text"] = Field(description="Free text.")
    characters_max: int = Field(2000, ge=1, le=TEXT_CHARACTERS_MAX, description="Longest answer.")


AnyField = Annotated[
    ClassField | ClassesField | SpansField | PairField | RatingField | TextField, Field(discriminator="type")
]
Fields = Sequence[ClassField | ClassesField | SpansField | PairField | RatingField | TextField]


class Prelabel(BaseModel):
    """What a model said of an item."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=128, description="Name of the model.")
    version: str = Field("", max_length=128, description="Its version.")
    values: dict[str, Any] = Field(description="Values by field.")


class Said(BaseModel):
    """An answer that was given elsewhere, such as feedback of a chat."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=100, description="Who answered, as the one who adds it calls them.")
    values: dict[str, Any] = Field(description="Values by field.")
    comment: str = Field("", max_length=4000, description="What they noted.")


class Item(BaseModel):
    """One thing to label. `key` names it in its task: adding the same key again changes nothing."""

    model_config = ConfigDict(extra="forbid")

    key: ItemKey = Field(description="Its name in the task.")
    text: str = Field("", description="What is looked at.")
    prompt: str = Field("", description="What two texts answer.")
    a: str = Field("", description="One of two texts.")
    b: str = Field("", description="The other.")
    meta: dict[str, Any] = Field(default_factory=dict, description="What else is known; shown, and kept in exports.")
    priority: int = Field(0, ge=-PRIORITY_MAX, le=PRIORITY_MAX, description="Higher is handed out sooner.")
    prelabel: Prelabel | None = Field(None, description="What a model says of it.")
    answer: Said | None = Field(None, description="An answer given elsewhere.")


def check_fields(fields: Fields) -> None:
    """ValueError when two fields have one name."""
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} stands there twice")


def check_growth(before: Fields, after: Fields) -> None:
    """Invalid unless `after` still understands every answer to `before`."""
    found = {field.name: field for field in after}
    for old in before:
        new = found.get(old.name)
        if new is None:
            hint = "fields may be added, not taken away; make another task"
            raise Invalid(f"field {old.name!r} would be gone", field="spec.fields", hint=hint)
        if new.type != old.type:
            hint = "make a field of another name"
            raise Invalid(
                f"field {old.name!r} is {old.type}, it cannot become {new.type}", field="spec.fields", hint=hint
            )
        if isinstance(old, _WithOptions) and isinstance(new, _WithOptions):
            _check_options(old, new)
        if isinstance(old, RatingField) and isinstance(new, RatingField) and (old.min < new.min or old.max > new.max):
            hint = f"keep at least {old.min} to {old.max}"
            raise Invalid(f"field {old.name!r} would rate from {new.min} to {new.max}", field="spec.fields", hint=hint)


def _check_options(old: _WithOptions, new: _WithOptions) -> None:
    if new.options[: len(old.options)] != old.options:
        hint = f"append to {', '.join(old.options[:10])}"
        raise Invalid(f"options of field {old.name!r} would change or move", field="spec.fields", hint=hint)


def check_item(fields: Fields, item: Item, where: str) -> None:
    """Invalid when the item lacks what a field is about; `where` names it, as items[3]."""
    for field in fields:
        needed = ("text",) if field.type == "spans" else ("a", "b") if field.type == "pair" else ()
        lacking = next((name for name in needed if not getattr(item, name)), None)
        if lacking is not None:
            path = f"{where}.{lacking}"
            words = f"item {item.key!r} has no {lacking}, which field {field.name!r} ({field.type}) is about"
            raise Invalid(words, field=path, hint=f"give {path}, a text that is not empty")
    if not (item.text or item.a or item.b or item.prompt or item.meta):
        raise Invalid(f"item {item.key!r} has nothing to look at", field=f"{where}.text", hint="give it a text")


def answer_schema(fields: Fields) -> dict[str, Any]:
    """The JSON schema of a model's answer about an item, for response_format.

    Models do not count characters: a span is asked for as a quote of the text. Every string has a longest length.
    """
    properties = {field.name: _asked(field) for field in fields}
    required = [field.name for field in fields if field.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _asked(field: Any) -> dict[str, Any]:
    if isinstance(field, ClassField):
        return {"type": "string", "enum": field.options}
    if isinstance(field, ClassesField):
        choice = {"type": "string", "enum": field.options}
        return {"type": "array", "items": choice, "maxItems": len(field.options)}
    if isinstance(field, SpansField):
        quote = {"type": "string", "minLength": 1, "maxLength": 300}
        span = {"quote": quote, "label": {"type": "string", "enum": field.options}}
        one = {"type": "object", "properties": span, "required": ["quote", "label"], "additionalProperties": False}
        return {"type": "array", "items": one, "maxItems": 50}
    if isinstance(field, PairField):
        return {"type": "string", "enum": ["a", "b", "tie"] if field.ties else ["a", "b"]}
    if isinstance(field, RatingField):
        return {"type": "integer", "minimum": field.min, "maximum": field.max}
    return {"type": "string", "maxLength": field.characters_max}
