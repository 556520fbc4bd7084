"""What was said about an item, checked against the schema, compared, and brought to one.

A value is: class a name; classes a list of names; spans a list of {start, stop, label}; pair "a", "b" or "tie";
rating a whole number; text a text. Pure; who said it is not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any

from atoll.core.errors import Invalid
from atoll.data.labelling.schema import (
    ClassesField,
    ClassField,
    Fields,
    PairField,
    RatingField,
    SpansField,
    TextField,
)

SPANS_MAX = 2000
PAIR = ("a", "b", "tie")
Values = dict[str, Any]


def check_values(fields: Fields, values: Mapping[str, Any], text: str) -> Values:
    """`values` in their one form; Invalid names the field, the value and what would be valid.

    `text` is the item's, which spans must lie in. Null stands for a value that is not given.
    """
    known = {field.name: field for field in fields}
    for name in values:
        if name not in known:
            raise Invalid(f"there is no field {name!r}", field=f"values.{name}", hint=f"fields: {', '.join(known)}")
    checked: Values = {}
    for name, field in known.items():
        value = values.get(name)
        if value is not None:
            checked[name] = _CHECKS[field.type](field, value, text)
        elif field.required:
            raise Invalid(f"field {name!r} is not answered", field=f"values.{name}", hint=_valid(field))
    return checked


def similarity(field: Any, first: Any, second: Any) -> float:
    """How alike two values of a field are, from 0 to 1.

    class, pair: equal or not. classes: Jaccard index. rating: 1 - distance / width of the scale. spans: F1 of those
    that are exactly equal.
    """
    if isinstance(field, ClassesField):
        union = set(first) | set(second)
        return len(set(first) & set(second)) / len(union) if union else 1.0
    if isinstance(field, RatingField):
        return 1.0 - float(abs(first - second)) / (field.max - field.min)
    if isinstance(field, SpansField):
        both = len(first) + len(second)
        return 2 * len(_places(first) & _places(second)) / both if both else 1.0
    return float(first == second)


def agreement_of(fields: Fields, answers: Sequence[Values]) -> float:
    """The least, over the fields, of the mean similarity of two answers; 1 when nothing can be compared.

    Free text is not compared; a value that only one of two has counts as unlike.
    """
    return min((_field_agreement(f, answers) for f in fields if not isinstance(f, TextField)), default=1.0)


def consensus(fields: Fields, answers: Sequence[Values]) -> Values | None:
    """What the answers say together; None when a field has no majority.

    class, pair: what more than any other say. classes, spans: what more than half say. rating: the median.
    text: the first that is given.
    """
    found: Values = {}
    for field in fields:
        given = [answer[field.name] for answer in answers if field.name in answer]
        if not given:
            continue
        value = _together(field, given, len(answers))
        if value is None:
            return None
        found[field.name] = value
    return found


def from_model(fields: Fields, said: Mapping[str, Any], text: str) -> Values:
    """A model's answer (of the form `schema.answer_schema` asks for) as values.

    Quotes become spans at the first place in `text` not taken by the same label; quotes that do not stand there are
    left out, and so are options there are not. Invalid when the rest cannot be a value.
    """
    values = dict(said)
    for field in fields:
        if isinstance(field, SpansField) and isinstance(said.get(field.name), list):
            values[field.name] = _located(said[field.name], text)
        if isinstance(field, ClassesField) and isinstance(said.get(field.name), list):
            values[field.name] = [name for name in field.options if name in said[field.name]]
        if isinstance(field, TextField) and isinstance(said.get(field.name), str):
            values[field.name] = said[field.name][: field.characters_max]
    return check_values(fields, values, text)


def _field_agreement(field: Any, answers: Sequence[Values]) -> float:
    pairs = list(combinations([answer.get(field.name) for answer in answers], 2))
    alike = [_alike(field, *pair) for pair in pairs]
    return sum(alike) / len(alike) if alike else 1.0


def _alike(field: Any, first: Any, second: Any) -> float:
    if first is None or second is None:
        return float(first is second)
    return similarity(field, first, second)


def _together(field: Any, given: list[Any], count: int) -> Any:
    if isinstance(field, ClassesField):
        votes = Counter(name for value in given for name in value)
        return [name for name in field.options if votes[name] * 2 > count]
    if isinstance(field, SpansField):
        places = Counter(place for value in given for place in _places(value))
        chosen = sorted(place for place, number in places.items() if number * 2 > count)
        return [{"start": start, "stop": stop, "label": label} for start, stop, label in chosen]
    if isinstance(field, RatingField):
        middle = median(given)
        return int(middle) if middle == int(middle) else float(middle)
    if isinstance(field, TextField):
        return given[0]
    (value, number), *others = Counter(given).most_common(2)
    return value if not others or others[0][1] < number else None


def _places(spans: Sequence[Mapping[str, Any]]) -> set[tuple[int, int, str]]:
    return {(span["start"], span["stop"], span["label"]) for span in spans}


def _located(quotes: Sequence[Any], text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    begin: dict[tuple[str, str], int] = {}
    for said in quotes:
        if not isinstance(said, dict) or not isinstance(said.get("quote"), str) or not said["quote"]:
            continue
        quote, label = said["quote"], str(said.get("label"))
        start = text.find(quote, begin.get((quote, label), 0))
        if start >= 0:
            begin[quote, label] = start + len(quote)
            found.append({"start": start, "stop": start + len(quote), "label": label})
    return found


# one check a type: (field, value, text) -> value, or Invalid


def _class(field: ClassField, value: Any, text: str) -> str:
    if value not in field.options:
        raise _wrong(field, value)
    return str(value)


def _classes(field: ClassesField, value: Any, text: str) -> list[str]:
    if not isinstance(value, list):
        raise _wrong(field, value)
    wrong = next((name for name in value if name not in field.options), None)
    if wrong is not None:
        raise _wrong(field, wrong)
    return [name for name in field.options if name in value]


def _spans(field: SpansField, value: Any, text: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > SPANS_MAX:
        raise _wrong(field, value)
    places = {_span(field, span, index, text) for index, span in enumerate(value)}
    return [{"start": start, "stop": stop, "label": label} for start, stop, label in sorted(places)]


def _span(field: SpansField, span: Any, index: int, text: str) -> tuple[int, int, str]:
    where = f"values.{field.name}[{index}]"
    if not isinstance(span, dict) or set(span) != {"start", "stop", "label"}:
        raise Invalid(f"{where} cannot be {span!r:.80}", field=where, hint="an object with start, stop and label")
    start, stop, label = span["start"], span["stop"], span["label"]
    if label not in field.options:
        hint = f"one of {', '.join(field.options[:20])}"
        raise Invalid(f"{where}.label cannot be {label!r:.80}", field=f"{where}.label", hint=hint)
    if not _is_whole(start) or not _is_whole(stop) or not 0 <= start < stop <= len(text):
        hint = f"start below stop, both whole numbers from 0 to {len(text)}, the length of the text in characters"
        raise Invalid(f"{where} cannot be from {start!r:.40} to {stop!r:.40}", field=where, hint=hint)
    return start, stop, str(label)


def _pair(field: PairField, value: Any, text: str) -> str:
    if value not in (PAIR if field.ties else PAIR[:2]):
        raise _wrong(field, value)
    return str(value)


def _rating(field: RatingField, value: Any, text: str) -> int:
    if not _is_whole(value) or not field.min <= value <= field.max:
        raise _wrong(field, value)
    return int(value)


def _text(field: TextField, value: Any, text: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= field.characters_max:
        raise _wrong(field, value)
    return value


_CHECKS: dict[str, Callable[[Any, Any, str], Any]] = {
    "class": _class,
    "classes": _classes,
    "spans": _spans,
    "pair": _pair,
    "rating": _rating,
    "text": _text,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _valid(field: Any) -> str:
    """What a value of the field may be, in words."""
    if isinstance(field, ClassField):
        return f"one of {', '.join(field.options[:20])}"
    if isinstance(field, ClassesField):
        return f"a list of any of {', '.join(field.options[:20])}"
    if isinstance(field, SpansField):
        return f"a list of at most {SPANS_MAX} of start, stop and label"
    if isinstance(field, PairField):
        return "a, b or tie" if field.ties else "a or b"
    if isinstance(field, RatingField):
        return f"a whole number from {field.min} to {field.max}"
    return f"a text of 1 to {field.characters_max} characters"


def _wrong(field: Any, value: Any) -> Invalid:
    words = f"field {field.name!r} cannot be {value!r:.80}"
    return Invalid(words, field=f"values.{field.name}", hint=_valid(field))
