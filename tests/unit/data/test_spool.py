from pathlib import Path

import pytest

from atoll.data.engine import spool as spools
from atoll.data.engine.spool import Document, Spool


def _document(number: int) -> Document:
    return Document(f"d{number}", f"text {number} é", "here", f"Title {number}", "text")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.setattr(spools, "BATCH_BYTES", 25)
    return Spool(tmp_path / "spool")


def test_documents_come_back_as_they_were_added(spool: Spool) -> None:
    for number in range(10):
        spool.add(_document(number))
    spool.flush()
    assert len(spool) == 10
    assert [spool[number] for number in range(10)] == [_document(number) for number in range(10)]
    assert [text for batch in spool.texts() for text in batch.to_pylist()] == [f"text {n} é" for n in range(10)]
    assert spool.text(7).to_pylist() == ["text 7 é"]
    assert len(list(spool.folder.iterdir())) > 1


def test_flushing_nothing_writes_nothing(spool: Spool) -> None:
    spool.flush()
    assert list(spool.texts()) == []
    assert list(spool.folder.iterdir()) == []


def test_a_new_spool_forgets_what_a_killed_run_left(tmp_path: Path) -> None:
    left = tmp_path / "spool" / "000000.arrow"
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    assert len(Spool(left.parent)) == 0
    assert not left.exists()


def test_closing_removes_the_files(spool: Spool) -> None:
    spool.add(_document(1))
    spool.flush()
    spool.close()
    assert not spool.folder.exists()
