"""ZIP and tar files, compressed streams, and what hostile ones try."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.read import Limits, Quarantined, documents, plan_parts

LIMITS = Limits()

LINES = b"".join(b'{"text": "line %d"}\n' % number for number in range(1, 6))
PACKERS = {".gz": gzip.compress, ".zst": zstandard.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
PACKED = pytest.mark.parametrize("suffix", PACKERS)


def _read(
    path: Path, limits: Limits = LIMITS, patterns: tuple[str, ...] | None = None
) -> tuple[list[Document], list[Quarantined]]:
    parts = plan_parts(Source("files", paths=(str(path),), patterns=patterns), "s")
    found = [item for part in parts for item in documents(part, limits)]
    refused = [item for item in found if isinstance(item, Quarantined)]
    return [item for item in found if isinstance(item, Document)], refused


def _reasons(refused: list[Quarantined]) -> dict[str, str]:
    return {item.name: item.reason for item in refused}


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MEMBERS = {
    "./docs/a.md": b"# Title\n\nwords",
    "docs/page.html": b"<title>Page</title><p>words",
    "data/b.jsonl": LINES[:40] + b"{broken",
    "data/c.jsonl.gz": gzip.compress(LINES),
    "data/d.csv": b"text\nfrom a row\n",
    "image.png": b"\x89PNG",
    ".hidden/e.txt": b"hidden",
    "empty.txt": b"",
}


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("x.zip", _zip),
        ("x.tar", _tar),
        ("x.tar.gz", lambda path, members: _tar(path, members, "w:gz")),
        ("x.tgz", lambda path, members: _tar(path, members, "w:gz")),
        ("x.tar.bz2", lambda path, members: _tar(path, members, "w:bz2")),
        ("x.tar.xz", lambda path, members: _tar(path, members, "w:xz")),
    ],
)
def test_members_are_read_like_files(
    tmp_path: Path, name: str, packed: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    found, refused = _read(packed(tmp_path / name, MEMBERS))
    assert [(item.id, item.source) for item in found] == [
        (f"{name}/docs/a.md", f"s0:{name}/docs/a.md"),
        (f"{name}/docs/page.html", f"s0:{name}/docs/page.html"),
        (f"{name}/data/b.jsonl:1", f"s0:{name}/data/b.jsonl"),
        (f"{name}/data/b.jsonl:2", f"s0:{name}/data/b.jsonl"),
        *((f"{name}/data/c.jsonl.gz:{line}", f"s0:{name}/data/c.jsonl.gz") for line in range(1, 6)),
        (f"{name}/data/d.csv:2", f"s0:{name}/data/d.csv"),
    ]
    assert [(item.name, item.line) for item in refused] == [(f"{name}/data/b.jsonl", 3), (f"{name}/empty.txt", 0)]


def test_patterns_choose_among_members(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", MEMBERS)
    assert [item.id for item in _read(path, patterns=("*.zip", "*.md"))[0]] == ["x.zip/docs/a.md"]


def test_names_that_lead_out_links_and_inner_archives_are_refused(tmp_path: Path) -> None:
    path = _zip(
        tmp_path / "x.zip",
        {"../a.txt": b"a", "/b.txt": b"b", "c\\..\\..\\d.txt": b"c", "in.zip": b"PK", "e.txt": b"fine"},
    )
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.zip/e.txt"]
    reasons = _reasons(refused)
    assert reasons["x.zip/../a.txt"] == reasons["x.zip//b.txt"] == "its name leads out of the archive"
    assert reasons["x.zip/in.zip"] == "it is an archive inside an archive"
    assert reasons["x.zip/link.txt"] == "it is a link"
    assert len(reasons) == 5


def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar", {"../a.txt": b"a", "in.tar.gz": b"x", "b.txt": b"fine"})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("s.txt", tarfile.SYMTYPE), ("h.txt", tarfile.LNKTYPE), ("d.txt", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.tar/b.txt"]
    assert _reasons(refused) == {
        "x.tar/../a.txt": "its name leads out of the archive",
        "x.tar/in.tar.gz": "it is an archive inside an archive",
        "x.tar/s.txt": "it is a link",
        "x.tar/h.txt": "it is a link",
        "x.tar/d.txt": "it is not a regular file",
    }


def test_an_encrypted_member_is_quarantined(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {"a.txt": b"words", "b.txt": b"words"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.zip/b.txt"]
    assert _reasons(refused) == {"x.zip/a.txt": "it is encrypted with a password"}


def test_a_damaged_member_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {"a.txt": b"some words " * 50, "b.txt": b"words"})
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.zip/b.txt"]
    assert "it is damaged" in _reasons(refused)["x.zip/a.txt"]


def test_names_in_a_chinese_encoding_are_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {"AAAAAA.txt": "我们".encode()})
    path.write_bytes(path.read_bytes().replace(b"AAAAAA", "说明书".encode("gb18030")))
    assert [item.id for item in _read(path)[0]] == ["x.zip/说明书.txt"]


def test_members_of_a_tar_whose_names_are_not_utf8_are_told_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("\xe8.txt", "\xe9.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"words"))
    assert [item.id for item in _read(tmp_path / "x.tar")[0]] == ["x.tar/\\xe8.txt", "x.tar/\\xe9.txt"]


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.zst"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\xff" * 600, b"\x1f\x8b\x08" + b"\0" * 600])
def test_what_is_no_archive_is_quarantined(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    found, refused = _read(tmp_path / name)
    assert not found
    assert [item.name for item in refused] == [name]


def test_a_tar_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar.gz", {"a.txt": b"words", "b.txt": bytes(range(32, 127)) * 2000}, "w:gz")
    path.write_bytes(path.read_bytes()[:-200])
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.tar.gz/a.txt"]
    assert any("cut off" in item.reason for item in refused)


ZEROS = bytes(24 << 20)


def test_a_zip_bomb_is_refused_and_its_neighbours_are_read(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {"bomb.jsonl": ZEROS, "a.txt": b"words"})
    found, refused = _read(path)
    assert [item.id for item in found] == ["x.zip/a.txt"]
    assert _reasons(refused) == {"x.zip/bomb.jsonl": "it expands to more than 400 times its size, as bombs do"}


def test_an_archive_may_expand_and_hold_only_so_much(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", {f"{number}.txt": b"x" * 1000 for number in range(10)})
    found, refused = _read(path, Limits(expanded_bytes_max=3500))
    assert len(found) == 3
    assert refused[-1] == Quarantined("x.zip", 0, "it expands to more than 3500 bytes")
    found, refused = _read(path, Limits(members_max=5))
    assert len(found) == 5
    assert refused == [Quarantined("x.zip", 0, "it has more than 5 members")]


@PACKED
def test_a_packed_file_is_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.jsonl{suffix}").write_bytes(PACKERS[suffix](LINES))
    found, refused = _read(tmp_path / f"x.jsonl{suffix}")
    assert [item.text for item in found] == [f"line {number}" for number in range(1, 6)]
    assert refused == []


@PACKED
def test_packed_streams_after_each_other_are_one_file(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    (tmp_path / f"x.jsonl{suffix}").write_bytes(pack(LINES[:30]) + pack(b"") + pack(LINES[30:]))
    found, refused = _read(tmp_path / f"x.jsonl{suffix}")
    assert len(found) == 5
    assert refused == []


@PACKED
def test_a_packed_file_that_is_cut_off_says_so(tmp_path: Path, suffix: str) -> None:
    content = PACKERS[suffix](LINES)
    (tmp_path / f"x.jsonl{suffix}").write_bytes(content[:-3])
    _, refused = _read(tmp_path / f"x.jsonl{suffix}")
    assert "cut off" in refused[-1].reason
    assert refused[-1].name == f"x.jsonl{suffix}"


@PACKED
@pytest.mark.parametrize("content", [b"not packed at all", b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 50])
def test_what_is_not_packed_is_quarantined(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x.jsonl{suffix}").write_bytes(content)
    found, refused = _read(tmp_path / f"x.jsonl{suffix}")
    assert not found
    assert "is not sound" in refused[0].reason


@PACKED
def test_rubbish_after_the_stream_is_refused_and_what_came_before_is_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.jsonl{suffix}").write_bytes(PACKERS[suffix](LINES) + b"rubbish rubbish")
    found, refused = _read(tmp_path / f"x.jsonl{suffix}")
    assert len(found) == 5
    assert "is not sound" in refused[0].reason


@PACKED
def test_a_packed_bomb_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.txt{suffix}").write_bytes(PACKERS[suffix](ZEROS))
    found, refused = _read(tmp_path / f"x.txt{suffix}")
    assert not found
    assert "as bombs do" in refused[0].reason


def test_an_empty_packed_file_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b""))
    assert "empty" in _read(tmp_path / "x.txt.gz")[1][0].reason
