"""What notes alone decide: the order of checks, checks of one name, and columns that are not there."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.curate.judge import KEPT, Check, checks_of, column, first_reasons, merged
from atoll.data.engine.curate.planning import plan_of

NOTES = {
    "characters": [50, 5000, 500, 500, 500, 500],
    "language": ["en", "en", "fr", "en", "en", "en"],
    "language_score": np.array([0.9, 0.9, 0.9, 0.2, 0.9, 0.9], np.float32),
    "digit_ratio": [0.0, 0.0, 0.0, 0.0, 0.8, 0.0],
    "words_rude": pa.array([0, 0, 0, 0, 0, 2], pa.int32()),
    "pii_email": pa.array([1, 0, 0, 0, 0, 1], pa.int32()),
}
RECIPE: dict[str, Any] = {
    "preset": "documents",
    "min_characters": 100,
    "max_characters": 1000,
    "language": {"keep": ["en"]},
    "rules": [{"rule": "digits", "drop": "digit_ratio > 0.5"}],
    "rule_sets": [],
    "words": [{"name": "rude", "words": ["x"], "action": "drop"}],
    "privacy": {"default": "keep", "actions": {"email": "drop"}},
}


def _checks(**recipe: Any) -> list[Check]:
    checks = checks_of(plan_of({"sources": [{"kind": "stdlib"}], "recipe": {**RECIPE, **recipe}}))
    return [check for check in checks if check.name not in ("few_letters", "long_words", "repeated_lines")]


def _judged(checks: list[Check], notes: Any) -> list[str]:
    places = first_reasons(checks, notes).tolist()
    return ["" if place == KEPT else checks[place].name for place in places]


def _columns(*names: str) -> pa.RecordBatch:
    return pa.record_batch({name: NOTES[name] for name in names or NOTES})


def test_the_first_check_that_holds_is_the_reason() -> None:
    checks = _checks()
    names = [check.name for check in checks]
    assert names[:3] == ["too_short", "too_long", "language"]
    assert names[-3:] == ["digits", "sensitive_words", "privacy"]
    expected = ["too_short", "too_long", "language", "language", "digits", "sensitive_words"]
    assert _judged(checks, _columns()) == expected


def test_a_table_of_several_batches_is_judged_like_one_batch() -> None:
    batch = _columns()
    table = pa.Table.from_batches([batch.slice(0, 2), batch.slice(2)])
    assert _judged(_checks(), table) == _judged(_checks(), batch)
    assert column(table, "characters").tolist() == column(batch, "characters").tolist()


def test_personal_data_alone_drops_what_nothing_else_does() -> None:
    checks = _checks(words=[], min_characters=0)
    assert _judged(checks, _columns()) == ["privacy", "too_long", "language", "language", "digits", "privacy"]
    assert "privacy" not in [check.name for check in _checks(privacy={"actions": {"email": "mask"}})]


def test_words_that_only_mask_or_flag_drop_nothing() -> None:
    for action in ("mask", "flag"):
        names = [check.name for check in _checks(words=[{"name": "rude", "words": ["x"], "action": action}])]
        assert "sensitive_words" not in names


def test_all_languages_pass_when_none_is_named() -> None:
    assert "language" not in _judged(_checks(language={"keep": []}), _columns())


def test_checks_of_one_name_are_one_at_the_place_of_the_first() -> None:
    is_even = Check("a", lambda notes: column(notes, "characters") % 2 == 0)
    is_large = Check("a", lambda notes: column(notes, "characters") > 2)
    never = Check("b", lambda notes: np.zeros(notes.num_rows, bool))
    found = merged([is_even, never, is_large])
    assert [check.name for check in found] == ["a", "b"]
    assert found[0].holds(pa.record_batch({"characters": [1, 2, 3]})).tolist() == [False, True, True]
    assert found[1] == never


def test_notes_that_lack_a_column_are_named_with_the_rule() -> None:
    with pytest.raises(Invalid, match=r"the rule 'digits' needs the column .*digit_ratio") as caught:
        first_reasons(_checks(), _columns("characters", "language", "language_score"))
    assert "curate again" in caught.value.hint
