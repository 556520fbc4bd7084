"""The flight recorder: what is found after a process ended at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.gateway import recorder as module
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.recorder import EVENT_BYTES_MAX, Recorder


def found(path: Path, written: int = 0) -> list[tuple[bytes, bytes, int]]:
    """What another process finds."""
    recorder = Recorder(path, 8)
    try:
        return sorted((head, event, notes) for head, event, notes, _ in recorder.recover(written))
    finally:
        recorder.close()


def test_requests_in_flight_are_found_with_their_last_event(tmp_path: Path) -> None:
    path = tmp_path / "recorder"
    recorder = Recorder(path, 8)
    quiet, busy, done = (recorder.open(name) for name in (b"quiet", b"busy", b"done"))
    assert quiet and busy and done and recorder.in_flight == 3
    for number in range(5):
        busy.note(b"event %d" % number)
    done.close()
    assert recorder.in_flight == 2
    assert found(path) == [(b"busy", b"event 4", 5), (b"quiet", b"", 0)]


def test_head_can_be_replaced(tmp_path: Path) -> None:
    entry = Recorder(tmp_path / "recorder", 8).open(b"first")
    assert entry is not None
    for head in (b"second", b"third"):
        entry.amend(head)
        assert [lost[0] for lost in found(tmp_path / "recorder")] == [head]


def test_slots_are_used_again_and_start_empty(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "recorder", 2)
    for number in range(100):
        entry = recorder.open(b"%d" % number)
        assert entry is not None
        if number % 2:
            entry.note(b"event")
            entry.close()
        else:
            assert found(tmp_path / "recorder")[-1] == (b"%d" % number, b"", 0)
            entry.close()
    assert found(tmp_path / "recorder") == []


def test_long_event_is_known_by_its_end(tmp_path: Path) -> None:
    entry = Recorder(tmp_path / "recorder", 2).open(b"h")
    assert entry is not None
    entry.note(b"x" * EVENT_BYTES_MAX + b"the end")
    ((_, event, _),) = found(tmp_path / "recorder")
    assert len(event) == EVENT_BYTES_MAX and event.endswith(b"xthe end")


def test_recorder_grows_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_MAX", 3)
    path = tmp_path / "recorder"
    recorder = Recorder(path, 4)
    entries = [recorder.open(b"%02d" % number) for number in range(12)]
    assert all(entries)
    assert recorder.open(b"no room") is None
    assert recorder.missed == 1
    assert [head for head, _, _ in found(path)] == [b"%02d" % number for number in range(12)]
    entries[5].close()  # type: ignore[union-attr]
    assert recorder.open(b"room") is not None


def test_damage_is_told_from_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "recorder"
    recorder = Recorder(path, 4)
    for name in (b"head", b"event", b"whole"):
        entry = recorder.open(b"<%b>" % name)
        assert entry is not None
        entry.note(b"[%b]" % name)
    recorder.close()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<head>", b"<torn>").replace(b"[event]", b"[tornn]"))
    assert [(head, event) for head, event, _ in found(path)] == [(b"<event>", b""), (b"<whole>", b"[whole]")]


def test_file_that_is_none_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "recorder"
    path.write_bytes(b"something else entirely")
    assert found(path) == []
    assert "is no flight recorder" in caplog.text


def test_geometry_of_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recorder"
    entry = Recorder(path, 4).open(b"head")
    assert entry is not None
    entry.note(b"event")
    monkeypatch.setattr(module, "HEAD_BYTES_MAX", 2048)
    monkeypatch.setattr(module, "EVENT_BYTES_MAX", 512)
    assert found(path) == [(b"head", b"event", 1)]


@given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=60), st.integers(0, 60))
def test_death_in_the_middle_of_a_note_leaves_the_event_before(
    tmp_path_factory: pytest.TempPathFactory, events: list[bytes], last: bytes, copied: int
) -> None:
    """Only the copy of a further event was under way: its word had not been switched."""
    path = tmp_path_factory.mktemp("torn") / "recorder"
    recorder = Recorder(path, 1)
    entry: Any = recorder.open(b"head")
    for event in events:
        entry.note(event)
    at = entry._areas + 2 * entry._head_bytes + ((len(events) + 1) & 1) * entry._event_bytes
    part = last[:copied]
    entry._pages[at : at + len(part)] = part
    assert found(path) == [(b"head", events[-1] if events else b"", len(events))]


@pytest.mark.parametrize("died", ["before the record", "before it closed", "after all"])
def test_record_and_entry_are_one_step(tmp_path: Path, died: str) -> None:
    """Whatever the moment of death, the request is on record once after recovery."""

    async def live() -> None:
        journal, recorder = Journal(tmp_path / "journal"), Recorder(tmp_path / "recorder", 4)
        entry = recorder.open(b"r1")
        assert entry is not None
        if died == "before the record":
            entry.settle_as(journal.written + 1)
        elif died == "before it closed":
            entry.settle_as(journal.written + 1)
            journal.append({"request_id": "r1"})
        else:
            journal.append({"request_id": "r1"}, entry)
        await journal.close()

    async def recover() -> int:
        journal, recorder = Journal(tmp_path / "journal"), Recorder(tmp_path / "recorder", 4)
        for lost in recorder.recover(journal.written):
            journal.append({"request_id": lost.head.decode()}, lost.entry)
        assert recorder.in_flight == 0
        await journal.close()
        return journal.written

    asyncio.run(live())
    assert asyncio.run(recover()) == 1
    assert asyncio.run(recover()) == 1


VICTIM = """
import sys
from pathlib import Path
from atoll.serving.gateway.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), 8)
entry = recorder.open(b"head")
number = 0
while True:
    number += 1
    entry.note(b"%d:" % number + b"%d" % (number % 10) * 300)
    if number == 1000:
        print("under way", flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_whole_event(tmp_path: Path) -> None:
    path = tmp_path / "recorder"
    for _ in range(5):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"under way\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        ((head, event, notes),) = found(path)
        number, _, rest = event.partition(b":")
        assert head == b"head" and int(number) >= 1000
        assert int(number) % (1 << 20) == notes
        assert rest == b"%d" % (int(number) % 10) * 300
