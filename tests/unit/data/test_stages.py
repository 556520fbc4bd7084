import os
from pathlib import Path

import pytest

import stage_work
from atoll.core.errors import Invalid
from atoll.data.engine.runtimes.stages import Inline, OperatorFailed, Stages, perform


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(tmp_path / "state", Inline())


def _texts(folders: list[Path]) -> list[str]:
    return [(folder / "item.txt").read_text() for folder in folders]


def test_every_item_gets_a_folder_in_its_order(stages: Stages) -> None:
    assert _texts(stages.map("copy", stage_work.copy, ["a", "b", "c"])) == ["a", "b", "c"]


def test_what_is_there_is_not_done_again(stages: Stages) -> None:
    folders = stages.map("copy", stage_work.copy, ["a", "b", "c"])
    (folders[1] / "item.txt").write_text("as it was")
    folders[2].rename(folders[2].with_name("away"))
    assert _texts(stages.map("copy", stage_work.copy, ["a", "b", "c"])) == ["a", "as it was", "c"]


def test_what_broken_attempts_left_is_swept_away(stages: Stages) -> None:
    left = stages.folder / "copy" / ".000000-0123456789ab"
    left.mkdir(parents=True)
    (left / "item.txt").write_text("torn")
    (stages.folder / "copy" / ".tries-000000").write_text("..")
    stages.map("copy", stage_work.copy, ["a"])
    assert [path.name for path in (stages.folder / "copy").iterdir()] == ["000000"]


def test_a_failing_operator_is_named_with_its_stage_and_item(stages: Stages) -> None:
    with pytest.raises(
        OperatorFailed, match=r"stage work, item 000001 \(boom\): KeyError: 'sum' at stage_work.py"
    ) as e:
        stages.map("work", stage_work.work, ["a", "boom", "c"])
    assert e.value.details["stage"] == "work" and "Traceback" in e.value.details["traceback"]
    assert [path.name for path in (stages.folder / "work").iterdir()] == ["000000"]


def test_a_refusal_passes_as_it_is(stages: Stages) -> None:
    with pytest.raises(Invalid, match="this file is wrong"):
        stages.map("work", stage_work.work, ["wrong"])


def test_two_that_do_one_item_leave_one_output(tmp_path: Path) -> None:
    place = tmp_path / "stage" / "000000"
    perform(stage_work.copy, "first", place)
    perform(stage_work.copy, "second", place)
    assert (place / "item.txt").read_text() == "first"
    assert [path.name for path in place.parent.iterdir()] == ["000000"]


def test_once_makes_a_place_only_when_it_is_not_there(stages: Stages) -> None:
    places = [stages.once("place", stage_work.copy, item) for item in ("first", "second")]
    assert places[0] == places[1] and (places[0] / "item.txt").read_text() == "first"


def test_what_outlasts_a_power_failure_is_on_disk_before_its_name_is(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    place = stages.folder / "copy" / "000000"
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, place.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    stages.map("copy", stage_work.copy, ["a"])
    *before, folder, parent = synced
    assert before == [("item.txt", False)] and folder[0].startswith(".000000-") and not folder[1]
    assert parent == ("copy", True)
    synced.clear()
    assert _texts(stages.until_restart("quick").map("copy", stage_work.copy, ["a"])) == ["a"] and not synced


def test_what_is_kept_until_a_restart_is_not_looked_at_after_it(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "boot_id"
    monkeypatch.setattr("atoll.data.engine.runtimes.stages.BOOT", start)
    folders = []
    for name in ("one", "two", "one"):
        start.write_text(f"{name}\n")
        folders.append(stages.until_restart("quick").folder)
    assert folders[0] == folders[2] != folders[1]
    start.unlink()
    assert stages.until_restart("quick").folder.name == "quick" and stages.until_restart("quick").is_durable
    elsewhere = Inline()
    elsewhere.is_local = False
    assert Stages(tmp_path, elsewhere).until_restart("quick").is_durable


def test_progress_counts_what_was_there_already(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    stages = Stages(tmp_path, Inline(), lambda *values: told.append(values))
    stages.map("copy", stage_work.copy, ["a", "b"])
    stages.map("copy", stage_work.copy, ["a", "b", "c"], "part")
    assert told == [
        *[("copy", done, 2, "batch") for done in (0, 1, 2)],
        *[("copy", done, 3, "part") for done in (2, 3)],
    ]
