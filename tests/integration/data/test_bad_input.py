"""Input as it comes: what cannot be read is told by file, line and reason, and the documents beside it are kept."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pypdf import PdfWriter

from atoll.core.errors import Invalid
from atoll.data.engine.curate import intake
from atoll.data.engine.curate.alone import curate_alone
from atoll.data.engine.runtimes.stages import OperatorFailed
from atoll.data.recipes import parse_recipe

RECIPE: dict[str, Any] = {"preset": "instructions", "dedup": {"near": None}, "split": {"heldout_fraction": 0}}
CHINESE = "图书馆每个工作日早上九点开门"
Refused = list[tuple[str, int, str]]


def text(name: str) -> str:
    return f"{name} is a text of its own, long enough to be kept, for it says what it has to say. " * 3


def record(name: str, **fields: Any) -> bytes:
    return json.dumps({"id": name, "text": text(name), **fields}).encode() + b"\n"


def broken_lines(folder: Path) -> tuple[set[str], Refused]:
    lines = [record("one"), b"{broken\n", b'"a text"\n', b'{"id": "x"}\n', b'{"id": "y", "text": 5}\n', b"[1]\n"]
    lines += [b'{"text": "   "}\n', b"[" * 100_000 + b"\n", record("two"), b'{"text": "cut o']
    (folder / "a.jsonl").write_bytes(b"".join(lines))
    said = ("not JSON", "a text, not an object", "no field 'text'", "is a number", "a list, not an object", "no text")
    told = [("a.jsonl", 2 + place, reason) for place, reason in enumerate(said)]
    return {"one", "two"}, [*told, ("a.jsonl", 8, "not JSON"), ("a.jsonl", 10, "not JSON")]


def one_long_line(folder: Path) -> tuple[set[str], Refused]:
    """A line of a gigabyte, a hole of the file but for its ends."""
    with (folder / "a.jsonl").open("wb") as file:
        file.write(record("one") + b'{"text": "')
        file.seek(1 << 30, os.SEEK_CUR)
        file.write(b'"}\n' + record("two"))
    return {"one", "two"}, [("a.jsonl", 2, "the line has more than 33554432 bytes")]


def nul_characters(folder: Path) -> tuple[set[str], Refused]:
    (folder / "a.txt").write_bytes(text("a").encode().replace(b"own", b"o\0n"))
    (folder / "b.txt").write_bytes(b"\0" * 5000)
    (folder / "c.jsonl").write_bytes(record("one", text=text("one") + "\0") + b"\0\0\0\0\n" + record("two"))
    told = [("a.txt", 0, "NUL characters"), ("b.txt", 0, "NUL characters"), ("c.jsonl", 2, "not JSON")]
    return {"one", "two"}, told


def mixed_encodings(folder: Path) -> tuple[set[str], Refused]:
    (folder / "utf16.txt").write_bytes(text("wide").encode("utf-16"))
    (folder / "gb.txt").write_bytes((CHINESE * 20).encode("gb18030"))
    (folder / "mixed.txt").write_bytes(text("a").encode() + (CHINESE * 5).encode("gb18030") + (CHINESE * 3).encode())
    lines = [json.dumps({"id": name, "text": text(name) + CHINESE}, ensure_ascii=False) for name in ("utf", "gbk")]
    (folder / "lines.jsonl").write_bytes(lines[0].encode() + b"\n" + lines[1].encode("gb18030") + b"\n")
    return {"utf16.txt", "gb.txt", "utf", "gbk"}, [("mixed.txt", 0, "neither UTF-8")]


def archive_bombs(folder: Path) -> tuple[set[str], Refused]:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ok.txt", text("inside"))
        with packed.open("bomb.txt", "w", force_zip64=True) as file:
            for _ in range(80):
                file.write(bytes(1 << 20))
        packed.writestr("../../out.txt", text("out"))
    (folder / "b.txt.gz").write_bytes(gzip.compress(bytes(80 << 20)))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("t.txt", text("nested"))
    with zipfile.ZipFile(folder / "c.zip", "w") as packed:
        packed.writestr("inner.zip", inner.getvalue())
    (folder / "d.zip").write_bytes(b"PK\x03\x04 nothing here")
    told = [("a.zip/../../out.txt", 0, "leads out"), ("a.zip/bomb.txt", 0, "as bombs do")]
    told += [("b.txt.gz", 0, "as bombs do"), ("c.zip/inner.zip", 0, "an archive inside an archive")]
    return {"a.zip/ok.txt"}, [*told, ("d.zip", 0, "not a sound archive")]


def locked_documents(folder: Path) -> tuple[set[str], Refused]:
    for name in ("blank", "locked"):
        writer = PdfWriter()
        writer.add_blank_page(200, 200)
        if name == "locked":
            writer.encrypt("secret")
        writer.write(folder / f"{name}.pdf")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\n garbage")
    told = [("blank.pdf", 0, "may be scanned"), ("broken.pdf", 0, "cannot be parsed"), ("locked.pdf", 0, "encrypted")]
    return set(), told


def entity_bombs(folder: Path) -> tuple[set[str], Refused]:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e9;</x>'
    for name, part in (("a.docx", "word/document.xml"), ("b.xlsx", "xl/workbook.xml")):
        with zipfile.ZipFile(folder / name, "w") as packed:
            packed.writestr("[Content_Types].xml", "<Types/>")
            packed.writestr(part, bomb)
    page = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><html><body><p>{text("page")}&a;</p></body></html>'
    (folder / "c.html").write_text(page)
    return {"c.html"}, [(name, 0, "declares a document type") for name in ("a.docx", "b.xlsx")]


def empty_files(folder: Path) -> tuple[set[str], Refused]:
    for name in ("a.txt", "b.pdf", "c.csv", "d.zip", "e.parquet"):
        (folder / name).touch()
    (folder / "f.txt").write_text(" \n\n\t ")
    (folder / "g.parquet").write_bytes(b"PAR1 no PAR1")
    (folder / "h.jsonl").touch()
    (folder / "i.jsonl").write_text("\n \n")
    reasons = ("is empty", "is empty", "is empty", "", "", "no text", "not sound Parquet", "is empty", "is empty")
    names = ("a.txt", "b.pdf", "c.csv", "d.zip", "e.parquet", "f.txt", "g.parquet", "h.jsonl", "i.jsonl")
    return set(), [(name, 0, reason) for name, reason in zip(names, reasons, strict=True)]


def strange_files(folder: Path) -> tuple[set[str], Refused]:
    os.symlink("/nowhere", folder / "a.txt")
    os.mkfifo(folder / "b.txt")
    (folder / "c.csv").write_text('id,text\n1,"unclosed\n2,b\n')
    (folder / "d.csv").write_text("a,b\n1,2\n")
    (folder / "e.jsonl").write_bytes(b'{"id": "s", "text": "\\ud800"}\n')
    (folder / "f.warc").write_bytes(b"WARC/1.0\r\ngarbage")
    told = [("a.txt", 0, "leads out"), ("b.txt", 0, "not a regular file"), ("c.csv", 2, "not CSV")]
    more = [("d.csv", 1, "no field 'text'"), ("e.jsonl", 1, "surrogate"), ("f.warc", 0, "cut off")]
    return set(), [*told, *more]


CASES = [broken_lines, one_long_line, nul_characters, mixed_encodings, archive_bombs, locked_documents]
CASES += [entity_bombs, empty_files, strange_files]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_cannot_be_read_is_told_and_the_rest_is_kept(
    make: Callable[[Path], tuple[set[str], Refused]], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.txt").write_text(text("good"))
    kept, refused = make(tmp_path / "in")
    manifest, _ = curate_alone([str(tmp_path / "in")], parse_recipe(RECIPE), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "train").to_pylist()
    assert {row["id"] for row in rows} == {"good.txt", *kept}
    assert not any("\0" in row["text"] for row in rows)
    told = json.loads((tmp_path / "out" / "report.json").read_bytes())["quarantined"]
    found = sorted((item["name"], item["line"], item["reason"]) for item in told)
    assert [item[:2] for item in found] == [item[:2] for item in sorted(refused)]
    for (name, _, reason), (*_, words) in zip(found, sorted(refused), strict=True):
        assert words in reason, (name, reason)
    assert manifest.funnel[0]["dropped"] == len(refused) == manifest.tables["quarantined"].rows


def test_documents_of_one_id_are_dropped_but_the_first(tmp_path: Path) -> None:
    ids = ["x", "x", "y", "", 7, None]
    lines = [record("", id=name, text=text(f"text {place}")) for place, name in enumerate(ids)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    manifest, _ = curate_alone([str(tmp_path / "a.jsonl")], parse_recipe(RECIPE), tmp_path / "out")
    rows = {row["id"]: row["text"] for row in pq.read_table(tmp_path / "out" / "train").to_pylist()}
    assert set(rows) == {"x", "y", "a.jsonl:4", "7", "a.jsonl:6"} and rows["x"].startswith("text 0 ")
    assert {step["rule"]: step["dropped"] for step in manifest.funnel if step["dropped"]} == {"duplicate_id": 1}


def test_nothing_but_bad_input_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    locked_documents(tmp_path / "in")
    with pytest.raises(Invalid, match=r"3 were refused \(blank\.pdf: .*locked\.pdf: it is encrypted"):
        curate_alone([str(tmp_path / "in")], parse_recipe(RECIPE), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_operator_that_fails_fails_the_run_and_leaves_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.txt").write_text(text("good"))

    def failing(*_: object) -> None:
        raise ZeroDivisionError("an operator of ours")

    with monkeypatch.context() as broken:
        broken.setattr(intake, "notes_of", failing)
        with pytest.raises(OperatorFailed, match=r"stage read, item 000000 \(s0:good\.txt\): ZeroDivisionError"):
            curate_alone([str(tmp_path / "good.txt")], parse_recipe(RECIPE), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    manifest, _ = curate_alone([str(tmp_path / "good.txt")], parse_recipe(RECIPE), tmp_path / "out")
    assert manifest.counts["documents_out"] == 1
