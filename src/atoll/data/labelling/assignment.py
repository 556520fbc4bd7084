"""Where an item stands, what is decided about it, and the groups in which items wait. Pure.

Items that wait for labellers are kept in groups of equal priority that the same people have had in hand. Whoever asks
gets the first item of the best group they are not in, so nobody's search passes what they had before: it costs as
much as there are groups, however many items there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atoll.data.labelling.schema import Fields
from atoll.data.labelling.values import Values, agreement_of, consensus

OPEN, TAKEN, DECIDED, DISPUTED, FINAL = range(5)
"""Waits for a labeller; all places leased or answered; decided by its answers; waits for an adjudicator; decided by
one."""

STATES = ("open", "taken", "decided", "disputed", "final")

LEASED, ANSWERED, SKIPPED = range(3)
"""What a labeller did with an item so far."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a task's items are labelled: by so many people, and disputed below this agreement or by so many skips."""

    fields: Fields
    labels_per_item: int
    agreement_min: float
    skips_max: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an item stands. `final` are its values once it is decided, `agreement` how far its answers agree."""

    state: int
    final: Values | None = None
    agreement: float | None = None


def standing(terms: Terms, answers: Sequence[Values], leased: int, skipped: int) -> Standing:
    """Where an item stands that has these answers, in the order of their labellers, and was not adjudicated.

    With all its answers it is decided by their consensus, or disputed: when they agree less than the terms say, or
    have no majority. One that too many skipped is disputed too.
    """
    if len(answers) >= terms.labels_per_item:
        agreement = agreement_of(terms.fields, answers)
        final = consensus(terms.fields, answers) if agreement >= terms.agreement_min else None
        return Standing(DISPUTED if final is None else DECIDED, final, agreement)
    if skipped >= terms.skips_max:
        return Standing(DISPUTED)
    return Standing(TAKEN if len(answers) + leased >= terms.labels_per_item else OPEN)


def group_of(people: Iterable[int]) -> str:
    """The name of the group of items these labellers, by number, have had in hand."""
    numbers = sorted(set(people))
    return f",{','.join(map(str, numbers))}," if numbers else ""


def people_in(group: str) -> tuple[int, ...]:
    """The labellers of a group."""
    return tuple(int(number) for number in group.split(",") if number)


def joined(group: str, person: int) -> str:
    """The group an item is in once `person` has had it too."""
    return group_of((*people_in(group), person))


def left(group: str, person: int) -> str:
    """The group an item is in when `person` gave it back unseen."""
    return group_of(number for number in people_in(group) if number != person)
