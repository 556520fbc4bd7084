"""The usage journal: numbers without gaps, torn tails, and deliveries that are repeated but never doubled."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Conflict
from atoll.serving.gateway.journal import Journal, frames


def run(folder: Path, work: Callable[[Journal], Awaitable[None]], **options: int) -> None:
    """Open the journal, work, and close it in good order."""

    async def inside() -> None:
        journal = Journal(folder, **options)
        try:
            await work(journal)
        finally:
            await journal.close()

    asyncio.run(inside())


async def durable(journal: Journal) -> None:
    async with asyncio.timeout(60):
        while journal.durable < journal.written or journal.unacknowledged > journal.written - journal.acknowledged:
            await asyncio.sleep(0.001)


def read_all(journal: Journal, **limits: int) -> list[int]:
    """Acknowledge everything, batch by batch; the numbers as they came."""
    numbers: list[int] = []
    while batch := [json.loads(payload)["seq"] for payload in journal.read(**limits)]:
        numbers += batch
        journal.acknowledge(batch[-1])
    return numbers


def record(name: str = "x") -> dict[str, object]:
    return {"request_id": name, "prompt_tokens": 7}


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


@contextmanager
def disk_full_at(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this size meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_record_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        for count in range(1, 4):
            journal.append(record(f"r{count}"))
            assert [json.loads(p)["seq"] for _, p in frames(segments(tmp_path)[0].read_bytes())] == [
                *range(1, count + 1)
            ]

    run(tmp_path, work)


def test_only_durable_records_are_read(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.append(record())
        assert journal.read() == []
        await durable(journal)
        assert len(journal.read()) == 1

    run(tmp_path, work)


def test_records_become_durable_within_the_promised_time(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        told = asyncio.Event()
        journal.on_durable = told.set
        journal.append(record())
        await asyncio.wait_for(told.wait(), 60)
        assert journal.durable == 1

    run(tmp_path, work)


def test_numbering_goes_on_after_reopening(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.append(record())
        journal.append(record())

    async def check(journal: Journal) -> None:
        assert journal.written == 6
        assert read_all(journal) == [1, 2, 3, 4, 5, 6]

    for _ in range(3):
        run(tmp_path, work)
    run(tmp_path, check)


def test_identity_stays_with_the_folder(tmp_path: Path) -> None:
    sources: set[str] = set()

    async def work(journal: Journal) -> None:
        sources.add(journal.source)

    run(tmp_path / "a", work)
    run(tmp_path / "a", work)
    assert len(sources) == 1
    run(tmp_path / "b", work)
    assert len(sources) == 2


def test_folder_has_one_writer(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        with pytest.raises(Conflict):
            Journal(tmp_path)

    run(tmp_path, work)


def test_acknowledged_segments_are_deleted(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        for _ in range(40):
            journal.append(record("x" * 100))
        await durable(journal)
        assert len(segments(tmp_path)) > 3
        assert read_all(journal, records_max=7) == list(range(1, 41))
        assert len(segments(tmp_path)) == 1

    run(tmp_path, work, segment_bytes_max=1000)


def test_unconfirmed_batch_is_read_again(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        for _ in range(30):
            journal.append(record())
        await durable(journal)
        first = journal.read(records_max=10)
        assert journal.read(records_max=10) == first
        journal.acknowledge(4)
        assert [json.loads(p)["seq"] for p in journal.read(records_max=3)] == [5, 6, 7]

    run(tmp_path, work, segment_bytes_max=600)


def test_lost_acknowledgement_file_only_repeats(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        journal.append(record())
        await durable(journal)
        journal.acknowledge(1)

    async def check(journal: Journal) -> None:
        assert read_all(journal) == [1]

    run(tmp_path, work)
    (tmp_path / "acknowledged").write_bytes(b"")
    run(tmp_path, check)


def test_number_the_server_has_is_never_given_again(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        for _ in range(5):
            journal.append(record())
        await durable(journal)
        journal.acknowledge(5)

    async def check(journal: Journal) -> None:
        assert journal.read() == []
        journal.append(record("new"))
        await durable(journal)
        assert read_all(journal) == [6]

    run(tmp_path, work)
    segments(tmp_path)[0].write_bytes(b"")
    run(tmp_path, check)


def test_damaged_segment_is_skipped_and_the_rest_delivered(tmp_path: Path) -> None:
    async def work(journal: Journal) -> None:
        for _ in range(20):
            journal.append(record("x" * 100))

    async def check(journal: Journal) -> None:
        numbers = read_all(journal)
        assert numbers[-1] == 20
        assert numbers == sorted(set(numbers)) and len(numbers) < 20
        journal.append(record())
        await durable(journal)
        assert read_all(journal) == [21]

    run(tmp_path, work, segment_bytes_max=700)
    damaged = bytearray(segments(tmp_path)[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    segments(tmp_path)[1].write_bytes(damaged)
    run(tmp_path, check, segment_bytes_max=700)


def test_full_disk_keeps_records_until_there_is_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(journal: Journal) -> None:
        journal.append(record())
        await durable(journal)
        with disk_full_at(segments(tmp_path)[0].stat().st_size + 20):
            journal.append(record("second"))
            journal.append(record("third"))
            assert journal.error is not None
            assert (journal.written, journal.unacknowledged) == (1, 3)
        await durable(journal)
        assert journal.error is None
        assert read_all(journal) == [1, 2, 3]

    run(tmp_path, work)
    assert "usage cannot be written" in caplog.text


@given(st.binary(max_size=200))
def test_garbage_has_no_records(data: bytes) -> None:
    assert list(frames(data)) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),  # records written
            st.integers(0, 3),  # batches sent
            st.booleans(),  # the last confirmation is lost
            st.integers(0, 400),  # bytes of the next record that reach the file before the kill
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([300, 900, 10**6]),
)
def test_no_kill_loses_or_doubles_a_record(lives: list[tuple[int, int, bool, int]], segment_bytes: int) -> None:
    """Each life ends with kill -9 while one more record is being written: any prefix of it may be in the file."""
    folder = Path(tempfile.mkdtemp())
    answered: list[str] = []
    server: dict[tuple[str, int], str] = {}

    def deliver(journal: Journal, batch: list[bytes]) -> int:
        for payload in batch:
            value = json.loads(payload)
            known = server.setdefault((journal.source, value["seq"]), value["request_id"])
            assert known == value["request_id"], "a number was used twice"
        return int(json.loads(batch[-1])["seq"])

    async def live(life: int, records: int, sent: int, is_lost: bool) -> None:
        journal = Journal(folder, segment_bytes_max=segment_bytes, sync_delay_s=0)
        for count in range(records):
            journal.append(record(f"{life}-{count}"))
            answered.append(f"{life}-{count}")
        await durable(journal)
        for number in range(sent):
            batch = journal.read(records_max=2)
            if batch:
                confirmed = deliver(journal, batch)
                if not (is_lost and number == sent - 1):
                    journal.acknowledge(confirmed)
        whole = segments(folder)[-1].stat().st_size
        journal.append(record(f"{life}-torn"))
        await journal.close()  # only to give the descriptors back; what the kill leaves is decided below
        torn.append((segments(folder)[-1], whole))

    torn: list[tuple[Path, int]] = []
    try:
        for life, (records, sent, is_lost, reached) in enumerate(lives):
            asyncio.run(live(life, records, sent, is_lost))
            path, whole = torn[-1]
            start = whole if path.stat().st_size > whole else 0
            data = path.read_bytes()
            path.write_bytes(data[: start + reached])
            if start + reached >= len(data):
                answered.append(f"{life}-torn")

        async def last(journal: Journal) -> None:
            while batch := journal.read():
                journal.acknowledge(deliver(journal, batch))

        run(folder, last, segment_bytes_max=segment_bytes)
        assert sorted(server.values()) == sorted(answered)
        assert sorted(seq for _, seq in server) == list(range(1, len(answered) + 1))
    finally:
        shutil.rmtree(folder)
