"""Items handed out, answered, skipped, decided and forgotten; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from atoll.core.clock import SystemClock, VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, Invalid, NotFound
from atoll.data.labelling import tallies
from atoll.data.labelling.assignment import ANSWERED, LEASED, OPEN, STATES, Terms
from atoll.data.labelling.rows import answers_in
from atoll.data.labelling.schema import Item, Prelabel
from atoll.data.labelling.store import Labels, forget_tasks
from atoll.data.labelling.tables import TABLES

from .conftest import items, terms_for

UID = "task-uid"
TERMS = terms_for()


def handed(labels: Labels, who: str, count: int = 1, terms: Terms = TERMS) -> list[str]:
    return [item.row.key for item in labels.next(UID, terms, who, count, 60.0)]


def say(labels: Labels, who: str, key: str, tone: str = "kind", terms: Terms = TERMS) -> str:
    return STATES[labels.answer(UID, terms, who, key, {"tone": tone}).state]


def recounted(labels: Labels) -> dict[str, int]:
    """Every count, counted anew from the rows."""
    found = labels.page(UID, 0, 1000)
    claims = [claim for _, own in found for claim in own.values()]
    counts = Counter(STATES[row.state] for row, _ in found)
    counts["items"] = len(found)
    counts["prelabelled"] = sum(row.prelabel is not None for row, _ in found)
    counts.update(("leases", "answers", "skips")[claim.state] for claim in claims)
    return dict(counts)


def check(labels: Labels) -> None:
    """What is counted on the way is what is there; nobody has more than the task wants."""
    counts = labels.counts(UID)
    assert {name: n for name, n in counts.items() if n and name != "labellers"} == +Counter(recounted(labels))
    told: Counter[tallies.Cell] = Counter()
    for row, claims in labels.page(UID, 0, 1000):
        held = sum(claim.state in (LEASED, ANSWERED) for claim in claims.values())
        assert held <= TERMS.labels_per_item
        assert (row.state == OPEN) <= (held < TERMS.labels_per_item)
        told.update(tallies.tally(TERMS.fields, answers_in(claims), None))
    assert labels.cells(UID) == told


def test_adding_an_item_again_changes_nothing(labels: Labels) -> None:
    assert labels.append(UID, TERMS, items(3)).added == 3
    again = labels.append(UID, TERMS, [*items(4), Item(key="k000", text="another text")])
    assert (again.added, again.known) == (1, 4)
    assert [row.key for row, _ in labels.page(UID, 0, 10)] == ["k000", "k001", "k002", "k003"]
    assert labels.page(UID, 0, 1)[0][0].text == "text 0"
    check(labels)


def test_an_item_goes_to_as_many_as_the_task_wants_and_to_nobody_twice(labels: Labels) -> None:
    labels.append(UID, TERMS, items(2))
    assert handed(labels, "a") == ["k000"]
    assert handed(labels, "a") == ["k000"], "what one holds comes again, with a new lease"
    assert handed(labels, "b") == ["k000"]
    assert handed(labels, "c") == ["k001"]
    assert say(labels, "a", "k000") == "taken"
    assert handed(labels, "a") == ["k001"]
    assert handed(labels, "d") == []
    assert say(labels, "b", "k000") == "decided"
    assert handed(labels, "b") == []
    check(labels)


def test_higher_priority_goes_first_then_what_others_began(labels: Labels) -> None:
    labels.append(UID, TERMS, items(3))
    labels.append(UID, TERMS, [Item(key="late", text="urgent", priority=5)])
    assert handed(labels, "a", 2) == ["late", "k000"]
    assert handed(labels, "b", 3) == ["late", "k000", "k001"]
    check(labels)


def test_an_expired_lease_goes_to_others_and_its_late_answer_only_while_there_is_room(
    labels: Labels, clock: VirtualClock
) -> None:
    labels.append(UID, TERMS, items(1))
    assert handed(labels, "a") == handed(labels, "b") == ["k000"]
    clock.advance(61)
    assert handed(labels, "c") == ["k000"]
    assert labels.counts(UID)["leases"] == 1
    assert say(labels, "a", "k000") == "taken"
    with pytest.raises(Conflict, match="in the hands of others"):
        say(labels, "b", "k000")
    assert say(labels, "c", "k000") == "decided"
    with pytest.raises(Conflict, match="has all the answers"):
        say(labels, "b", "k000")
    check(labels)


def test_an_answer_may_be_revised_and_everything_counted_follows(labels: Labels) -> None:
    labels.append(UID, TERMS, items(1))
    assert say(labels, "a", "k000", "kind") == "open"
    assert say(labels, "b", "k000", "rude") == "disputed"
    assert say(labels, "b", "k000", "kind") == "decided"
    assert labels.counts(UID)["answers"] == 2
    assert tallies.people(TERMS.fields, labels.cells(UID))[0].percent == 1.0
    assert [person["answers"] for person in labels.people(UID)] == [1, 1]
    check(labels)


def test_what_is_skipped_goes_to_others_until_too_many_skipped_it(labels: Labels) -> None:
    labels.append(UID, TERMS, items(1))
    for who in ("a", "b", "c"):
        assert handed(labels, who) == ["k000"]
        row = labels.skip(UID, TERMS, who, "k000", "cannot read it")
        assert handed(labels, who) == []
    assert STATES[row.state] == "disputed"
    assert handed(labels, "d") == []
    check(labels)


def test_what_was_answered_cannot_be_skipped_but_what_was_skipped_answered(labels: Labels) -> None:
    labels.append(UID, TERMS, items(2))
    say(labels, "a", "k000")
    with pytest.raises(Conflict, match="answer again to revise"):
        labels.skip(UID, TERMS, "a", "k000")
    labels.skip(UID, TERMS, "a", "k001")
    assert labels.skip(UID, TERMS, "a", "k001").skipped == 1
    assert say(labels, "a", "k001") == "open"
    assert labels.counts(UID)["skips"] == 0
    check(labels)


def test_an_adjudicators_decision_is_final(labels: Labels) -> None:
    labels.append(UID, TERMS, items(2))
    say(labels, "a", "k000", "kind")
    with pytest.raises(Conflict, match="still waits for answers"):
        labels.adjudicate(UID, TERMS, "judge", "k000", {"tone": "kind"})
    say(labels, "b", "k000", "rude")
    assert [row.key for row, _ in labels.page(UID, 0, 10, disputed=True)] == ["k000"]
    decided = labels.adjudicate(UID, TERMS, "judge", "k000", {"tone": "neither"}, "irony")
    assert (STATES[decided.state], decided.final) == ("final", '{"values":{"tone":"neither"},"comment":"irony"}')
    assert labels.page(UID, 0, 10, disputed=True) == []
    with pytest.raises(Conflict, match="by an adjudicator"):
        say(labels, "a", "k000", "neither")
    with pytest.raises(Conflict, match="another adjudicator"):
        labels.adjudicate(UID, TERMS, "a", "k000", {"tone": "kind"})
    labels.adjudicate(UID, TERMS, "judge", "k000", {"tone": "rude"})
    assert labels.counts(UID)["final"] == 1
    assert [person["decisions"] for person in labels.people(UID)] == [0, 0, 1]


def test_a_decision_stands_whoever_had_the_item_in_hand(labels: Labels) -> None:
    terms = terms_for(skips_max=1)
    labels.append(UID, terms, items(1))
    handed(labels, "a", terms=terms)
    labels.skip(UID, terms, "b", "k000")
    labels.adjudicate(UID, terms, "judge", "k000", {"tone": "neither"})
    assert handed(labels, "a", terms=terms) == []
    with pytest.raises(Conflict, match="has all the answers it needs"):
        labels.skip(UID, terms, "a", "k000")
    with pytest.raises(Conflict, match="by an adjudicator"):
        say(labels, "a", "k000", terms=terms)
    row, _ = labels.page(UID, 0, 1)[0]
    assert (STATES[row.state], row.final) == ("final", '{"values":{"tone":"neither"},"comment":""}')
    check(labels)


def test_a_wrong_answer_leaves_the_item_as_it_was(labels: Labels) -> None:
    labels.append(UID, TERMS, items(1))
    handed(labels, "a")
    with pytest.raises(Invalid, match="'tone' cannot be 'loud'"):
        say(labels, "a", "k000", "loud")
    with pytest.raises(NotFound, match="no item 'k999'"):
        say(labels, "a", "k999")
    assert handed(labels, "a") == ["k000"]
    assert labels.counts(UID)["answers"] == 0
    check(labels)


def test_prelabels_are_suggestions_and_are_compared_with_people(labels: Labels) -> None:
    labels.append(UID, TERMS, items(3))
    say(labels, "a", "k000", "kind")
    said = {key: Prelabel(model="m", version="m.v1", values={"tone": "kind"}) for key in ("k000", "k001", "none")}
    assert labels.prelabel(UID, TERMS, said) == {"written": 2, "same": 0, "unknown": 1}
    assert labels.prelabel(UID, TERMS, said) == {"written": 0, "same": 2, "unknown": 1}
    say(labels, "a", "k001", "rude")
    model = tallies.model(TERMS.fields, labels.cells(UID))[0]
    assert (model.pairs, model.percent) == (2, 0.5)
    newer = {"k001": Prelabel(model="m", version="m.v2", values={"tone": "rude"})}
    labels.prelabel(UID, TERMS, newer)
    assert tallies.model(TERMS.fields, labels.cells(UID))[0].percent == 1.0
    assert labels.counts(UID)["prelabelled"] == 2
    assert labels.next(UID, TERMS, "b", 1, 60)[0].row.prelabel_by == "m@m.v1"


def test_feedback_from_elsewhere_arrives_as_an_answer_once(labels: Labels) -> None:
    terms = terms_for([{"name": "better", "type": "pair"}], labels=1)
    item = {"key": "chat-1", "prompt": "Q", "a": "one", "b": "two", "answer": {"by": "u1", "values": {"better": "b"}}}
    for _ in range(2):
        labels.append(UID, terms, [Item.model_validate(item)])
    row, claims = labels.page(UID, 0, 10)[0]
    assert STATES[row.state] == "decided"
    assert len(claims) == 1
    assert [person["name"] for person in labels.people(UID)] == ["by:u1"]


def test_items_are_added_all_or_none(labels: Labels) -> None:
    labels.open(UID)
    wrong = Item.model_validate({"key": "x", "text": "t", "prelabel": {"model": "m", "values": {"tone": "loud"}}})
    with pytest.raises(Invalid, match="'tone' cannot be 'loud'"):
        labels.append(UID, TERMS, [*items(2), wrong])
    assert labels.counts(UID)["items"] == 0


def test_items_that_are_removed_leave_no_trace_in_the_counts(labels: Labels) -> None:
    labels.append(UID, TERMS, items(5))
    say(labels, "a", "k000", "kind")
    say(labels, "b", "k000", "rude")
    say(labels, "a", "k001", "kind")
    handed(labels, "c", 2)
    labels.skip(UID, TERMS, "b", "k003")
    labels.prelabel(UID, TERMS, {"k000": Prelabel(model="m", values={"tone": "kind"})})
    assert labels.remove(UID, TERMS, ["k000", "k001", "k003", "none"]) == 3
    assert labels.cells(UID) == Counter()
    check(labels)
    assert handed(labels, "d", 9) == ["k002", "k004"]
    assert labels.append(UID, TERMS, items(1)).added == 1


def test_a_task_that_goes_leaves_no_row_and_others_untouched(
    labels: Labels, database: Database, clock: VirtualClock
) -> None:
    other = Labels(database, clock, "elsewhere")
    for one, uid in ((labels, UID), (labels, "second"), (other, "third")):
        one.append(uid, TERMS, items(5))
        one.next(uid, TERMS, "a", 2, 60)
        for who in ("b", "c"):
            one.answer(uid, TERMS, who, "k004", {"tone": "kind"})
    labels.drop(UID)
    assert labels.counts(UID)["items"] == 0
    assert forget_tasks(database, {"second"}) == 1
    with database.reading() as connection:
        for table in TABLES:
            assert set(connection.execute(select(table.c.project, table.c.task))) <= {("default", 2)}
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() > 0
    labels.drop("second")


def test_a_page_of_long_items_is_short(labels: Labels) -> None:
    long = [Item(key=f"k{n}", text="x" * 900_000) for n in range(12)]
    labels.append(UID, TERMS, long)
    first = labels.page(UID, 0, 500)
    rest = labels.page(UID, first[-1][0].seq, 500)
    assert len(first) == 10
    assert [row.key for row, _ in first + rest] == [item.key for item in long]


def test_no_project_sees_anothers_task(labels: Labels, database: Database, clock: VirtualClock) -> None:
    labels.append(UID, TERMS, items(1))
    stranger = Labels(database, clock, "elsewhere")
    assert stranger.counts(UID)["items"] == 0
    with pytest.raises(NotFound):
        stranger.page(UID, 0, 10)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_people_do_counts_and_places_hold(labels: Labels, clock: VirtualClock, seed: int) -> None:
    rng = random.Random(seed)
    seen: dict[str, set[str]] = {}
    labels.append(UID, TERMS, items(6))
    for step in range(60):
        who, key = rng.choice("abcd"), f"k{rng.randrange(7):03d}"
        act: Callable[[], Any] = rng.choice(
            [
                lambda who=who: seen.setdefault(who, set()).update(handed(labels, who, rng.randint(1, 3))),
                lambda who=who, key=key: say(labels, who, key, rng.choice(["kind", "rude"])),
                lambda who=who, key=key: labels.skip(UID, TERMS, who, key),
                lambda key=key: labels.remove(UID, TERMS, [key]),
                lambda: clock.advance(rng.choice([1, 40])),
                lambda key=key, step=step: labels.append(UID, TERMS, [Item(key=key, text="t", priority=step % 3)]),
            ]
        )
        try:
            act()
        except (Conflict, NotFound):
            continue
    check(labels)


def test_many_at_once_never_get_more_of_an_item_than_there_are_places(
    url: str, opened: Callable[[str], Database]
) -> None:
    filler = Labels(opened(url), SystemClock(), "default")
    filler.append(UID, TERMS, items(12))
    failures: list[BaseException] = []

    def work(who: str, own: Labels) -> None:
        try:
            while keys := handed(own, who, 2):
                for key in keys:
                    say(own, who, key)
        except BaseException as error:
            failures.append(error)

    desks = [(f"p{n}", Labels(opened(url), SystemClock(), "default")) for n in range(4)]
    threads = [threading.Thread(target=work, args=desk) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert filler.counts(UID)["decided"] == 12
    assert filler.counts(UID)["answers"] == 24
    check(filler)


def test_tasks_opened_by_many_at_once_are_there_once(url: str, opened: Callable[[str], Database]) -> None:
    uids = ("task-a", "task-b", "task-c")
    desks = [Labels(opened(url), SystemClock(), "default") for _ in range(6)]
    ready = threading.Barrier(len(desks))
    failures: list[BaseException] = []

    def work(number: int, own: Labels) -> None:
        try:
            for uid in uids if number % 2 else reversed(uids):
                ready.wait(60)
                own.open(uid)
        except BaseException as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=desk) for desk in enumerate(desks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    tasks = TABLES[-1]
    with opened(url).reading() as connection:
        rows = connection.execute(select(tasks.c.uid, tasks.c.task)).all()
    assert sorted(row.uid for row in rows) == list(uids)
    assert sorted(row.task for row in rows) == [1, 2, 3]
