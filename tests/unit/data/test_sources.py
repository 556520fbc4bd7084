import os
from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.data.engine import sources
from atoll.data.engine.plan import FOLDER_PATTERNS, Source
from atoll.data.engine.sources import Quarantined, documents
from atoll.data.engine.spool import Document


def _read(folder: Path, patterns: tuple[str, ...] = FOLDER_PATTERNS) -> tuple[list[Document], dict[str, str]]:
    found = list(documents(Source("folder", str(folder), patterns), "sources[0]"))
    refused = {item.name: item.reason for item in found if isinstance(item, Quarantined)}
    return [item for item in found if isinstance(item, Document)], refused


def test_a_folder_is_read_by_relative_path_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.MD").write_text("intro\n\n# Second *one*\n\nwords")
    (tmp_path / "a.txt").write_text("plain words")
    (tmp_path / "page.html").write_text("<title>The page</title><h1>x</h1>")
    found, refused = _read(tmp_path)
    assert [(item.id, item.title, item.kind) for item in found] == [
        ("a.txt", "a", "text"),
        ("b/two.MD", "Second *one*", "markdown"),
        ("page.html", "The page", "markdown"),
    ]
    assert refused == {}


def test_hidden_and_unmatched_files_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("no")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "data.bin").write_bytes(b"\0")
    (tmp_path / "a.txt").write_text("yes")
    assert [item.id for item in _read(tmp_path)[0]] == ["a.txt"]


def test_a_pattern_matches_names_and_paths(tmp_path: Path) -> None:
    for name in ("x/one.log", "x/two.txt", "one.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    assert [item.id for item in _read(tmp_path, ("*.log",))[0]] == ["one.log", "x/one.log"]
    assert [item.id for item in _read(tmp_path, ("x/*",))[0]] == ["x/one.log", "x/two.txt"]


def test_what_cannot_be_read_is_quarantined_with_its_reason_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FILE_BYTES_MAX", 1000)
    folder = tmp_path / "docs"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("outside")
    (folder / "good.txt").write_text("words")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "nul.txt").write_bytes(b"a\0b")
    (folder / "big.txt").write_bytes(b"x" * 1001)
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "broken.txt").symlink_to(folder / "nothing")
    (folder / "in.txt").symlink_to(folder / "good.txt")
    os.mkfifo(folder / "pipe.txt")
    found, refused = _read(folder)
    assert [item.id for item in found] == ["good.txt", "in.txt"]
    assert "empty" in refused["empty.txt"]
    assert "NUL" in refused["nul.txt"]
    assert refused["big.txt"] == "it has 1001 bytes, the limit is 1000"
    assert "out of the folder" in refused["out.txt"]
    assert "broken link" in refused["broken.txt"]
    assert "not a regular file" in refused["pipe.txt"]


def test_a_loop_of_links_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    found, refused = _read(tmp_path)
    assert [item.id for item in found] == ["a.txt"]
    assert list(refused) == ["self.txt"]


def test_a_file_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("words")
    found, _ = _read(tmp_path)
    assert len(found) == 1
    assert found[0].id.encode() == "caf\ufffd.txt".encode()


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nowhere does not exist") as caught:
        _read(tmp_path / "nowhere")
    assert caught.value.field == "sources[0].path"
    (tmp_path / "file").write_text("x")
    with pytest.raises(Invalid, match="is not a folder"):
        _read(tmp_path / "file")


def test_a_folder_without_documents_is_an_error_that_names_the_patterns(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(Invalid, match=r"holds no document.*\*\.txt"):
        _read(tmp_path)


def test_a_folder_of_unreadable_files_is_an_error_that_gives_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(Invalid, match=r"1 were refused \(a.txt: the file is empty\)"):
        _read(tmp_path)


def test_a_long_title_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<title>{'long ' * 1000}</title><p>words")
    assert len(_read(tmp_path)[0][0].title) == 200
