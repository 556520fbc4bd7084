"""The diary of attempts, and what counts as time lost."""

from pathlib import Path

import pytest

from atoll.training.engine.attempts import STARTED, Diary, Entry, lost_s, read_entries, resumed_steps


def _entry(
    attempt: int, step: int, at_s: float, *, boot: str = "a", wall_s: float = 0.0, resumed: bool = False
) -> Entry:
    return Entry(attempt, step, at_s, wall_s, boot, None, resumed)


def _attempt(number: int, started_s: float, from_step: int, resumed_s: float, *steps: tuple[int, float]) -> list[Entry]:
    begin = [_entry(number, STARTED, started_s), _entry(number, from_step, resumed_s, resumed=True)]
    return begin + [_entry(number, step, at_s) for step, at_s in steps]


def test_an_unbroken_run_loses_nothing() -> None:
    assert lost_s(_attempt(1, 0, 0, 5, (1, 6), (2, 7))) == 0


def test_time_is_lost_from_the_last_step_until_it_is_reached_again() -> None:
    first = _attempt(1, 0, 0, 5, *((step, 5 + step) for step in range(1, 51)))
    second = _attempt(2, 60, 40, 70, *((step, 30 + step) for step in range(41, 60)))
    assert lost_s(first + second) == 80 - 55


def test_a_checkpoint_of_the_last_step_saves_the_repetition() -> None:
    assert lost_s(_attempt(1, 0, 0, 5, (1, 6)) + _attempt(2, 8, 1, 13, (2, 14))) == 7


def test_time_lost_to_a_crash_within_a_crash_counts_once() -> None:
    first = _attempt(1, 0, 0, 5, (1, 6), (2, 7), (3, 8))
    second = _attempt(2, 10, 0, 15, (1, 16), (2, 17))
    third = _attempt(3, 20, 0, 25, (1, 26), (2, 27), (3, 28), (4, 29))
    assert lost_s(first + second + third) == 28 - 8


def test_an_attempt_killed_before_its_first_step_loses_its_own_time() -> None:
    assert lost_s([_entry(1, STARTED, 0), *_attempt(2, 9, 0, 14, (1, 15))]) == 9


def test_a_span_across_a_reboot_is_taken_from_the_wall_clock() -> None:
    before = _entry(1, 3, 9000, wall_s=100)
    after = _entry(2, 3, 12, boot="b", wall_s=160, resumed=True)
    assert lost_s([before, after]) == 60


def test_a_run_that_has_not_caught_up_yet_has_no_figure_for_it() -> None:
    assert lost_s(_attempt(1, 0, 0, 5, (1, 6), (2, 7)) + _attempt(2, 10, 0, 15, (1, 16))) == 0


def test_the_diary_counts_attempts_and_where_they_went_on(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    for resumed in (0, 4, 8):
        diary = Diary(path)
        diary.resume(resumed)
        diary.complete(resumed + 5, 1.25)
        diary.close()
    assert (diary.attempt, diary.restarts) == (3, 2)
    assert resumed_steps(diary.entries()) == [4, 8]
    assert diary.elapsed_s() >= 0
    assert [e.loss for e in diary.entries() if e.loss is not None] == [1.25, 1.25, 1.25]


@pytest.mark.parametrize("torn", [b'{"attempt":1,"st', b"\x00\x00", b'{"attempt":1}\n'])
def test_a_torn_line_spoils_only_itself(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "attempts.jsonl"
    diary = Diary(path)
    diary.complete(1, 2.0)
    diary.close()
    with path.open("ab") as file:
        file.write(torn)
    again = Diary(path)
    again.close()
    assert again.attempt == 2
    assert [(e.attempt, e.step) for e in read_entries(path)] == [(1, STARTED), (1, 1), (2, STARTED)]
