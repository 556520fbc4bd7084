"""The steps of one target: what is to be asked next, or what came of it.

Pure: given the same answers it takes the same course, so a run that was killed goes on from its journal as if it had
not been.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.data.engine.synthesis.answers import Pair, Rejection, Said, is_approved, read
from atoll.data.engine.synthesis.passages import Target
from atoll.data.engine.synthesis.prompts import Ask, judge_request, write_request
from atoll.data.engine.synthesis.wanted import Wanted

Step = tuple[str, Ask]
"""The name a step's answer is kept under, and its request."""


def next_step(target: Target, said: Mapping[str, Said], wanted: Wanted) -> Step | Pair | Rejection:
    """What to ask next after what was `said` so far, by name of step; or the pair; or why there is none.

    A rejected answer is asked for again, `attempts` times in all; the last reason counts.
    """
    outcome: Pair | Rejection = Rejection("no_answer")
    for attempt in range(1, wanted.attempts + 1):
        name = f"write{attempt}"
        if name not in said:
            return name, write_request(target, attempt, wanted)
        outcome = read(target, said[name], wanted)
        if isinstance(outcome, Rejection):
            continue
        if not wanted.judge:
            return outcome
        name = f"judge{attempt}"
        if name not in said:
            return name, judge_request(target, outcome.question, outcome.answer, wanted)
        if is_approved(said[name]):
            return outcome
        outcome = Rejection("judged_unsupported", f"{outcome.asked} -> {outcome.answer}")
    return outcome


def outcome_of(target: Target, said: Mapping[str, Said], wanted: Wanted) -> Pair | Rejection:
    """What came of a target; what the end of the run left unfinished was not asked."""
    found = next_step(target, said, wanted)
    return Rejection("not_asked") if isinstance(found, tuple) else found
