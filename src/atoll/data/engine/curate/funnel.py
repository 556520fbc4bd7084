"""The funnel: how many documents each reason took, in the order reasons were given, with samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.core.errors import Invalid
from atoll.data.engine.read import Quarantined

SAMPLES_MAX = 3
SAMPLE_CHARACTERS = 200

Step = dict[str, Any]


HINTS = {
    "known_before": "none of them is new: there is nothing to make a dataset of",
    "unreadable": "none could be read: see the reasons",
    "language": "the recipe keeps no document of these languages: see language.keep",
    "too_short": "lower min_characters, or give longer documents",
    "too_long": "raise max_characters, or cut the documents",
    "privacy": "the recipe drops every document with personal data: mask it instead",
}
"""What to do when this reason dropped most."""


def funnel_of(
    refused: Sequence[Quarantined], names: Sequence[str], always: Sequence[str], counts: Sequence[Mapping[str, Any]]
) -> list[Step]:
    """Steps {rule, dropped, samples}: what could not be read, then `names`, those in `always` even when they took none.

    counts: what the items of writing tell, in order.
    """
    told = [f"{said(item)[:SAMPLE_CHARACTERS]}" for item in refused[:SAMPLES_MAX]]
    steps: list[Step] = [{"rule": "unreadable", "dropped": len(refused), "samples": told}]
    for name in names:
        dropped = sum(count["dropped"].get(name, 0) for count in counts)
        samples = [sample for count in counts for sample in count["samples"].get(name, ())][:SAMPLES_MAX]
        if dropped or name in always:
            steps.append({"rule": name, "dropped": dropped, "samples": samples})
    return steps


def said(item: Quarantined) -> str:
    """What was refused, where, and why."""
    return f"{item.name}{f' line {item.line}' if item.line else ''}: {item.reason}"


def all_dropped(documents: int, funnel: Sequence[Step]) -> Invalid:
    """The error of a run of which nothing is left."""
    dropped = ", ".join(f"{step['rule']} {step['dropped']}" for step in funnel if step["dropped"])
    message = f"all {documents} documents were dropped: {dropped}"
    most = max(funnel, key=lambda step: int(step["dropped"]), default={"rule": ""})["rule"]
    hint = HINTS.get(most, f"loosen {most}, which dropped most" if most else "give documents")
    return Invalid(message, field="recipe", hint=hint, funnel=list(funnel))
