"""One revision after another: each situation and the steps it asks for."""

from __future__ import annotations

from typing import Any

from atoll.serving.rollout import Copy, Steps, next_steps


def copy(revision: str, index: int, state: str = "ready") -> Copy:
    return Copy(
        f"{revision}-{index}",
        revision,
        index,
        is_ready=state == "ready",
        was_ready=state in ("ready", "down"),
        is_failing=state == "failing",
        is_deleting=state == "deleting",
    )


def steps(copies: list[Copy], wanted: int, surge: int = 1, *, is_done: bool = False, **options: Any) -> Steps:
    return next_steps(copies, "new", wanted, surge, is_done=is_done, **options)


def test_the_first_revision_starts_all_its_replicas_at_once() -> None:
    assert steps([], 3).create == (("new", 0), ("new", 1), ("new", 2))


def test_a_number_still_leaving_is_not_given_again() -> None:
    assert steps([copy("new", 0, "deleting")], 1).create == (("new", 1),)


def test_nothing_old_goes_before_a_new_one_is_ready() -> None:
    old = [copy("old", 0), copy("old", 1)]
    assert steps(old, 2) == Steps(create=(("new", 0),))
    assert steps([*old, copy("new", 0, "starting")], 2) == Steps()
    assert steps([*old, copy("new", 0)], 2).delete == ("old-1",)


def test_a_freed_place_is_taken_by_the_next_new_one() -> None:
    assert steps([copy("old", 0), copy("new", 0)], 2).create == (("new", 1),)


def test_the_rollout_is_over_when_the_new_ones_are_enough() -> None:
    done = steps([copy("old", 0), copy("new", 0), copy("new", 1)], 2)
    assert done == Steps(delete=("old-0",), is_done=True)


def test_old_ones_that_never_worked_make_room_at_once() -> None:
    found = [copy("old", 0, "failing"), copy("new", 0, "starting")]
    assert steps(found, 1).delete == ("old-0",)


def test_an_old_one_that_is_down_for_a_moment_is_waited_for() -> None:
    found = [copy("old", 0, "down"), copy("new", 0, "starting")]
    assert steps(found, 1).delete == ()
    assert steps([copy("old", 0, "down"), copy("new", 0)], 1).delete == ("old-0",)


def test_a_revision_that_does_not_start_leaves_the_old_one_serving() -> None:
    found = [copy("old", 0), copy("old", 1), copy("new", 0, "failing")]
    assert steps(found, 2, previous="old") == Steps(is_stuck=True)


def test_the_old_revision_grows_while_the_new_one_does_not_start() -> None:
    found = [copy("old", 0), copy("new", 0, "failing")]
    assert steps(found, 3, previous="old").create == (("old", 1), ("old", 2))


def test_the_previous_revision_stays_for_a_while_without_being_counted() -> None:
    found = [copy("old", 0), copy("new", 0), copy("older", 0)]
    kept = steps(found, 1, previous="old", kept=1)
    assert (kept.delete, kept.is_done) == (("older-0",), True)
    assert steps(found, 1, previous="old").delete == ("old-0", "older-0")


def test_kept_replicas_let_the_new_ones_start_together() -> None:
    found = [copy("old", 0), copy("old", 1)]
    assert steps(found, 2, previous="old", kept=2).create == (("new", 0), ("new", 1))


def test_after_the_rollout_a_dying_replica_brings_no_old_one_back() -> None:
    found = [copy("old", 0), copy("new", 0, "down")]
    assert steps(found, 1, is_done=True) == Steps(delete=("old-0",), is_done=True)


def test_fewer_replicas_are_wanted_and_the_youngest_go() -> None:
    found = [copy("new", 0), copy("new", 1, "starting"), copy("new", 2)]
    assert steps(found, 2, is_done=True).delete == ("new-1",)
    assert steps(found, 1, is_done=True).delete == ("new-1", "new-2")
    assert steps(found, 0, is_done=True).delete == ("new-1", "new-2", "new-0")


def test_without_surge_an_old_one_goes_first() -> None:
    old = [copy("old", 0), copy("old", 1)]
    assert steps(old, 2, 0) == Steps(delete=("old-1",))
    assert steps([copy("old", 0)], 2, 0).create == (("new", 0),)
    assert steps([copy("old", 0), copy("new", 0, "starting")], 2, 0) == Steps()
    assert steps([copy("old", 0), copy("new", 0, "starting")], 1, 0) == Steps(delete=("old-0",)), "it waits for room"
