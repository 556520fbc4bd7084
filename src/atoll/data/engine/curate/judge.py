"""What the notes of a document alone decide: rules, language, sensitive words, personal data.

Pure functions over a table of notes, so that other thresholds can be tried on the notes of a run that is over. The
first check that holds is a document's reason. Duplicates and what else needs other documents is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.curate.plan import Language, Plan
from atoll.data.engine.quality.conditions import evaluate
from atoll.data.rules import Rule

Mask = NDArray[np.bool_]
Notes: TypeAlias = Any
"""A pa.RecordBatch or pa.Table of notes."""

KEPT = -1
LENGTHS = ("too_short", "too_long")


@dataclass(frozen=True, slots=True)
class Check:
    """Documents for which `holds` are dropped, with `name` as the reason."""

    name: str
    holds: Callable[[Notes], Mask]


def checks_of(plan: Plan) -> list[Check]:
    """Every check of a plan, in order: lengths, language, the rules, sensitive words, personal data."""
    lengths = [Check(rule.name, partial(_rule, rule)) for rule in plan.rules if rule.name in LENGTHS]
    rules = [Check(rule.name, partial(_rule, rule)) for rule in plan.rules if rule.name not in LENGTHS]
    language = [Check("language", partial(_language, plan.language))] if plan.language else []
    words = [f"words_{words.name}" for words in plan.words if words.action == "drop"]
    kinds = _dropping(plan)
    sensitive = [Check("sensitive_words", partial(_any, words))] if words else []
    personal = [Check("privacy", partial(_any, kinds))] if kinds else []
    return merged([*lengths, *language, *rules, *sensitive, *personal])


def merged(checks: Sequence[Check]) -> list[Check]:
    """Tests of one name as one, at the place of the first."""
    names = dict.fromkeys(check.name for check in checks)
    alike = {name: [check.holds for check in checks if check.name == name] for name in names}
    return [Check(name, holds[0] if len(holds) == 1 else partial(_either, holds)) for name, holds in alike.items()]


def first_reasons(checks: Sequence[Check], notes: Notes) -> NDArray[np.int16]:
    """For each row the place of the first check that holds, or KEPT. Invalid names a column the notes lack."""
    reasons = np.full(notes.num_rows, KEPT, np.int16)
    for index, check in enumerate(checks):
        try:
            holds = check.holds(notes)
        except KeyError as error:
            hint = "curate again with this recipe: the notes were made by one that did not ask for it"
            raise Invalid(
                f"the rule {check.name!r} needs the column {error}, which was not noted", hint=hint
            ) from error
        reasons[(reasons == KEPT) & holds] = index
    return reasons


def _rule(rule: Rule, notes: Notes) -> Mask:
    found: Mask = evaluate(rule.drop, notes)
    return found


def _either(holds: Sequence[Callable[[Notes], Mask]], notes: Notes) -> Mask:
    found: Mask = np.logical_or.reduce([one(notes) for one in holds])
    return found


def _language(wanted: Language, notes: Notes) -> Mask:
    """Another language than those wanted, or one of them without enough confidence."""
    if not wanted.keep:
        return np.zeros(notes.num_rows, np.bool_)
    from atoll.data.engine.language.identify import keeps

    scores: Any = column(notes, "language_score")
    codes = notes.column("language")
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    found: Mask = ~keeps(codes, wanted.keep) | (scores < np.float32(wanted.score_min))
    return found


def _any(names: Sequence[str], notes: Notes) -> Mask:
    found: Mask = np.logical_or.reduce([column(notes, name) > 0 for name in names])
    return found


def column(notes: Notes, name: str) -> NDArray[Any]:
    """A numeric column; KeyError when there is none."""
    found = notes.column(name)
    return np.asarray(found.to_numpy() if isinstance(found, pa.ChunkedArray) else found.to_numpy(zero_copy_only=False))


def _dropping(plan: Plan) -> list[str]:
    """The columns of the kinds of personal data that lead to dropping a document."""
    if plan.privacy is None or "drop" not in {plan.privacy.default, *dict(plan.privacy.actions).values()}:
        return []
    from atoll.data.engine.privacy.kinds import KINDS

    return [f"pii_{kind}" for kind in KINDS if plan.privacy.action(kind) == "drop"]
