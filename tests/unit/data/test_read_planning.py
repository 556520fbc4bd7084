import json
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.read import Limits, Part, Quarantined, documents, fingerprint, nothing_readable, plan_parts
from atoll.data.engine.read.formats import PACKAGES

LIMITS = Limits()


def _folder(path: Path, patterns: tuple[str, ...] | None = None) -> Source:
    return Source("folder", path=str(path), patterns=patterns)


def _read(parts: list[Part], limits: Limits = LIMITS) -> tuple[list[Document], dict[str, str]]:
    found = [item for part in parts for item in documents(part, limits)]
    refused = {item.name: item.reason for item in found if isinstance(item, Quarantined)}
    return [item for item in found if isinstance(item, Document)], refused


def _read_folder(path: Path, patterns: tuple[str, ...] | None = None) -> tuple[list[Document], dict[str, str]]:
    return _read(plan_parts(_folder(path, patterns), "sources[0]"))


def test_a_folder_is_read_by_relative_path_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.MD").write_text("intro\n\n# Second *one*\n\nwords")
    (tmp_path / "a.txt").write_text("plain words")
    (tmp_path / "page.html").write_text("<title>The page</title><h1>x</h1>")
    found, refused = _read_folder(tmp_path)
    assert [(item.id, item.source, item.title, item.kind) for item in found] == [
        ("a.txt", "s0:a.txt", "a", "text"),
        ("b/two.MD", "s0:b/two.MD", "Second *one*", "markdown"),
        ("page.html", "s0:page.html", "The page", "markdown"),
    ]
    assert refused == {}


def test_hidden_and_unmatched_files_are_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("no")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "data.bin").write_bytes(b"\0")
    (tmp_path / "a.txt").write_text("yes")
    assert [item.id for item in _read_folder(tmp_path)[0]] == ["a.txt"]


def test_a_pattern_matches_names_and_paths(tmp_path: Path) -> None:
    for name in ("x/one.log", "x/two.txt", "one.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    assert [item.id for item in _read_folder(tmp_path, ("*.log",))[0]] == ["one.log", "x/one.log"]
    assert [item.id for item in _read_folder(tmp_path, ("x/*",))[0]] == ["x/one.log", "x/two.txt"]


def test_what_cannot_be_read_is_quarantined_with_its_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("outside")
    (folder / "good.txt").write_text("words")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.md").write_bytes(b" \n\t\n")
    (folder / "blank.html").write_bytes(b"<p></p>")
    (folder / "nul.txt").write_bytes(b"a\0b")
    (folder / "big.txt").write_bytes(b"x" * 1001)
    (folder / "big.json").write_bytes(b"[%s]" % (b" " * 1000))
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "broken.txt").symlink_to(folder / "nothing")
    (folder / "in.txt").symlink_to(folder / "good.txt")
    os.mkfifo(folder / "pipe.txt")
    found, refused = _read(plan_parts(_folder(folder), "sources[0]"), Limits(file_bytes_max=1000))
    assert [item.id for item in found] == ["good.txt", "in.txt"]
    assert "empty" in refused["empty.txt"]
    assert refused["blank.md"] == refused["blank.html"] == "it holds no text"
    assert "NUL" in refused["nul.txt"]
    assert refused["big.txt"] == "it has more than 1000 bytes, the limit for files of its format"
    assert refused["big.json"].endswith("the limit for files of its format; JSON lines, a record a line, have none")
    assert "out of the folder" in refused["out.txt"]
    assert "broken link" in refused["broken.txt"]
    assert "not a regular file" in refused["pipe.txt"]


def test_a_path_that_is_too_long_is_quarantined(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_PATH_MAX")
    folder = tmp_path
    while len(str(folder)) < longest - 250:
        folder /= "d" * 100
    folder.mkdir(parents=True)
    place = os.open(folder, os.O_RDONLY)
    os.close(os.open("x" * 240 + ".txt", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    (tmp_path / "a.txt").write_text("words")
    found, refused = _read_folder(tmp_path)
    assert [item.id for item in found] == ["a.txt"]
    assert list(refused.values()) == ["cannot be read: File name too long"]


def test_what_may_not_be_read_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "in").mkdir()
    for name, content in (("in/b.txt", "b"), ("big.jsonl", '{"text": "c"}\n' * 100), ("d.txt", "d")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0)
    (tmp_path / "in").chmod(0o400)
    if os.access(tmp_path / "d.txt", os.R_OK):
        pytest.skip("this user may read everything")
    found, refused = _read(plan_parts(_folder(tmp_path), "sources[0]", part_bytes=100))
    (tmp_path / "in").chmod(0o700)
    assert [item.id for item in found] == ["a.txt"]
    assert refused == dict.fromkeys(("in/b.txt", "big.jsonl", "d.txt"), "cannot be read: Permission denied")


def test_a_loop_of_links_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    found, refused = _read_folder(tmp_path)
    assert [item.id for item in found] == ["a.txt"]
    assert list(refused) == ["self.txt"]


def test_a_link_to_a_folder_is_told_where_it_leads_out(tmp_path: Path) -> None:
    for name in ("docs/in", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docs" / "in" / "a.txt").write_text("words")
    (tmp_path / "docs" / "again").symlink_to(tmp_path / "docs" / "in")
    (tmp_path / "docs" / "more").symlink_to(tmp_path / "elsewhere")
    found, refused = _read_folder(tmp_path / "docs")
    assert [item.id for item in found] == ["in/a.txt"]
    assert refused == {"more": "it is a link that leads out of the folder"}


def test_a_folder_with_a_manifest_of_its_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"text": "of a web page"}')
    assert [item.id for item in _read_folder(tmp_path)[0]] == ["app/manifest.json:1"]


def test_files_whose_names_are_not_utf8_are_read_and_told_apart(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a row"]}), tmp_path / "rows")
    (tmp_path / "rows").rename(folder / os.fsdecode(b"\xe8.parquet"))
    for name in (b"\xe8.txt", b"\xe9.txt", b"\xe8.html"):
        (folder / os.fsdecode(name)).write_text("words")
    found, refused = _read_folder(tmp_path)
    names = ["\\xe8.html", "\\xe8.parquet:1", "\\xe8.txt", "\\xe9.txt"]
    assert [item.id for item in found] == [f"d\\xe9/{name}" for name in names]
    assert not refused


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nowhere does not exist") as caught:
        _read_folder(tmp_path / "nowhere")
    assert caught.value.field == "sources[0].path"
    (tmp_path / "file").write_text("x")
    with pytest.raises(Invalid, match="is not a folder"):
        _read_folder(tmp_path / "file")


def test_a_folder_without_documents_is_an_error_that_names_the_patterns(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin", "c.png"):
        (tmp_path / name).write_text("x")
    with pytest.raises(Invalid, match=r"holds no document, 3 other files \(2 .bin, 1 .png\).*\*\.jsonl.* more"):
        _read_folder(tmp_path)


def test_numbers_and_words_after_a_dot_are_no_suffix(tmp_path: Path) -> None:
    for name in ("part.00001", "part.00002", "Minutes of 3.Mai, with notes", "a.7z", "b.MP3", "c", "d." + "x" * 40):
        (tmp_path / name).write_text("x")
    (tmp_path / "a.txt").write_text("words")
    assert plan_parts(_folder(tmp_path), "sources[0]")[0].passed_over == (("", 5), (".7z", 1), (".mp3", 1))


def test_a_source_of_unreadable_files_is_an_error_that_gives_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{")
    parts = plan_parts(_folder(tmp_path), "sources[0]")
    quarantined = [item for part in parts for item in documents(part) if isinstance(item, Quarantined)]
    error = nothing_readable(_folder(tmp_path), "sources[0]", quarantined)
    assert "1 was refused (a.jsonl line 1: it is not JSON" in error.message
    assert error.field == "sources[0]"


def test_a_folder_of_nothing_but_broken_links_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(Invalid, match=r"1 was refused \(a.txt: it is a broken link\)"):
        _read_folder(tmp_path)


def test_a_long_title_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<title>{'long ' * 1000}</title><p>words")
    assert len(_read_folder(tmp_path)[0][0].title) == 200


def test_files_are_named_below_the_folder_they_share(tmp_path: Path) -> None:
    for name in ("x/one.txt", "y/two.weird", "y/more/three.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    paths = (str(tmp_path / "y/two.weird"), str(tmp_path / "x/one.txt"), str(tmp_path / "y/more"))
    parts = plan_parts(Source("files", name="mine", paths=paths), "sources[0]", prefix="mine/")
    found, _ = _read(parts)
    assert [(item.id, item.source) for item in found] == [
        ("mine/x/one.txt", "mine:x/one.txt"),
        ("mine/y/more/three.txt", "mine:y/more/three.txt"),
        ("mine/y/two.weird", "mine:y/two.weird"),
    ]


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"gone\.txt does not exist") as caught:
        plan_parts(Source("files", paths=(str(tmp_path / "gone.txt"),)), "sources[1]")
    assert caught.value.field == "sources[1].paths[0]"


def test_fetched_files_are_read_by_the_names_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "9f86d08").write_text('{"text": "words"}')
    parts = plan_parts(Source("upload", digest="9f86d08"), "s", files=[("mine.jsonl", str(tmp_path / "9f86d08"))])
    assert [item.id for item in _read(parts)[0]] == ["mine.jsonl:1"]


def test_small_files_share_a_part_and_large_ones_have_their_own(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("x" * 300)
    (tmp_path / "5.txt").write_text("x" * 3000)
    parts = plan_parts(_folder(tmp_path), "s", part_bytes=1000)
    assert [[file.name for file in part.files] for part in parts] == [
        ["0.txt", "1.txt", "2.txt"],
        ["3.txt", "4.txt"],
        ["5.txt"],
        ["6.txt", "7.txt", "8.txt"],
        ["9.txt"],
    ]
    assert [part.bytes for part in parts] == [900, 600, 3000, 900, 300]


def test_a_large_file_of_lines_is_cut_at_line_ends_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {number} {'x' * (number % 7 * 30)}"}) for number in range(200)]
    lines[150] = "broken"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    parts = plan_parts(_folder(tmp_path), "s", part_bytes=1000)
    assert len(parts) > 5
    assert sum(part.bytes for part in parts) == (tmp_path / "a.jsonl").stat().st_size
    found = [item for part in parts for item in documents(part)]
    assert found == list(documents(plan_parts(_folder(tmp_path), "s")[0]))
    assert [item.id for item in found if isinstance(item, Document)] == [
        f"a.jsonl:{number}" for number in range(1, 201) if number != 151
    ]
    assert [item.line for item in found if isinstance(item, Quarantined)] == [151]


def test_lines_in_utf16_and_compressed_ones_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(('{"text": "x"}\n' * 200).encode("utf-16"))
    (tmp_path / "b.jsonl.gz").write_bytes(os.urandom(5000))
    parts = plan_parts(_folder(tmp_path), "s", part_bytes=1000)
    assert [[file.name for file in part.files] for part in parts] == [["a.jsonl"], ["b.jsonl.gz"]]
    assert len(_read(parts[:1])[0]) == 200


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    texts = [f"text {number} {'x' * 50}" for number in range(100)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10, compression="none")
    parts = plan_parts(_folder(tmp_path), "s", part_bytes=1000)
    assert len(parts) > 3
    assert 0 <= (tmp_path / "a.parquet").stat().st_size - sum(part.bytes for part in parts) < len(parts)
    found, _ = _read(parts)
    assert [(item.id, item.text) for item in found] == [
        (f"a.parquet:{number}", text) for number, text in enumerate(texts, 1)
    ]


def test_parts_are_the_same_each_time_and_travel(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "Z.txt", "中.txt"):
        (tmp_path / name).write_text("words")
    parts = plan_parts(_folder(tmp_path), "s")
    assert [file.name for file in parts[0].files] == ["Z.txt", "a.txt", "b.txt", "中.txt"]
    assert plan_parts(_folder(tmp_path), "s") == parts
    assert pickle.loads(pickle.dumps(parts)) == parts
    assert fingerprint(parts) == fingerprint(plan_parts(_folder(tmp_path), "s"))


def test_the_fingerprint_follows_the_files_and_how_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    before = fingerprint(plan_parts(_folder(tmp_path), "s"))
    assert fingerprint(plan_parts(_folder(tmp_path), "s", prefix="x/")) != before
    (tmp_path / "a.txt").write_text("other words")
    assert fingerprint(plan_parts(_folder(tmp_path), "s")) != before


def test_a_file_that_changed_since_it_was_planned_is_quarantined(tmp_path: Path) -> None:
    for name in ("a.txt", "b.html", "c.txt"):
        (tmp_path / name).write_text("words")
    parts = plan_parts(_folder(tmp_path), "s")
    (tmp_path / "a.txt").write_text("more words")
    (tmp_path / "b.html").unlink()
    found, refused = _read(parts)
    assert [item.id for item in found] == ["c.txt"]
    assert refused["a.txt"] == "it had 5 bytes when the run began and has 10 now"
    assert "No such file" in refused["b.html"]


def test_a_package_that_is_missing_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")
    monkeypatch.setitem(PACKAGES, "pdf", "no_such_package")
    with pytest.raises(Invalid, match="no_such_package, which is not installed"):
        plan_parts(_folder(tmp_path), "sources[0]")
    assert plan_parts(_folder(tmp_path, ("*.txt",)), "sources[0]")


def test_the_standard_library_is_one_part() -> None:
    (part,) = plan_parts(Source("stdlib"), "sources[0]", prefix="s0/")
    first = next(iter(documents(part)))
    assert isinstance(first, Document)
    assert first.id.startswith("s0/pydoc:topic/")
    assert first.source.startswith("s0:pydoc:topic/")
