"""Formats of records: JSON lines, JSON, CSV, Parquet."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Fields, Source
from atoll.data.engine.read import Limits, Quarantined, documents, plan_parts

LIMITS = Limits()
FIELDS = Fields()

CHINESE = "我们把数据变成模型\uff0c再把模型变成服务。"
TRADITIONAL = "我們把資料變成模型\uff0c再把模型變成服務。"


def _read(path: Path, fields: Fields = FIELDS, limits: Limits = LIMITS) -> tuple[list[Document], dict[int, str]]:
    parts = plan_parts(Source("files", paths=(str(path),), fields=fields), "sources[0]")
    found = [item for part in parts for item in documents(part, limits)]
    refused = {item.line: item.reason for item in found if isinstance(item, Quarantined)}
    return [item for item in found if isinstance(item, Document)], refused


def _written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_is_a_document_named_by_its_id_or_its_place(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "text": "one", "title": "T", "url": "http://h/"},
        {"id": 7, "text": "two"},
        {"text": "three"},
        {"id": "", "text": "four"},
        {"id": True, "text": "five"},
    ]
    found, refused = _read(_written(tmp_path, "x.jsonl", "\n".join(map(json.dumps, lines))))
    assert [item.id for item in found] == ["a", "7", "x.jsonl:3", "x.jsonl:4", "x.jsonl:5"]
    assert found[0] == Document("a", "one", "s0:x.jsonl", "T", "text", "http://h/")
    assert refused == {}


def test_fields_have_the_names_the_source_gives_them_and_dots_reach_into_objects(tmp_path: Path) -> None:
    record = {"doc": {"body": "words", "key": 5}, "page.url": "u"}
    fields = Fields(text="doc.body", id="doc.key", url="page.url")
    found, _ = _read(_written(tmp_path, "x.jsonl", json.dumps(record)), fields)
    assert [(item.id, item.text, item.url) for item in found] == [("5", "words", "u")]


def test_broken_lines_are_quarantined_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"{broken",
        b"",
        b'["text"]',
        b'{"text": 5}',
        b'{"text": null}',
        b'{"body": "x", "more": 1}',
        b'{"text": " \\n "}',
        b'{"text": "nul \x00 inside"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff\xfe\xfd"}',
        b'{"text": ["a"]}',
        b'{"text": "last"}\r',
    ]
    found, refused = _read(_written(tmp_path, "x.jsonl", b"\n".join(lines)))
    assert [item.text for item in found] == ["good", "last"]
    assert sorted(refused) == [2, *range(4, 13)]
    assert "not JSON" in refused[2] and "column 2" in refused[2]
    assert refused[4] == "it is a list, not an object"
    assert refused[5] == "its field 'text' is a number, not a text"
    assert "null" in refused[6]
    assert refused[7] == "it has no field 'text'; its fields are body, more"
    assert "no text" in refused[8]
    assert "not JSON" in refused[9] and "not JSON" in refused[10]
    assert "neither UTF-8" in refused[11]
    assert "a list, not a text" in refused[12]


def test_each_line_is_decoded_on_its_own(tmp_path: Path) -> None:
    texts = [(CHINESE, "utf-8"), (CHINESE, "gb18030"), (TRADITIONAL, "big5"), ("plain", "ascii")]
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode(encoding) for text, encoding in texts]
    found, refused = _read(_written(tmp_path, "x.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines)))
    assert [item.text for item in found] == [text for text, _ in texts]
    assert refused == {}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_json_lines_in_utf16_are_read(tmp_path: Path, encoding: str) -> None:
    content = "".join(f'{{"text": "line {number} {CHINESE}"}}\n' for number in range(3))
    found, refused = _read(_written(tmp_path, "x.jsonl", content.encode(encoding)))
    assert [item.text for item in found] == [f"line {number} {CHINESE}" for number in range(3)]
    assert refused == {}


def test_chats_and_instructions_are_records_too(tmp_path: Path) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"instruction": "Add", "input": "1 1", "output": "2"},
        {"messages": [{"role": "user", "content": 5}]},
    ]
    found, refused = _read(_written(tmp_path, "x.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(item.kind, item.text) for item in found] == [
        ("chat", "\x1euser\x1fHi"),
        ("chat", "\x1euser\x1fAdd\n\n1 1\x1eassistant\x1f2"),
    ]
    assert refused == {3: "its messages[0] is not a text"}


def test_a_line_or_text_beyond_the_limits_is_quarantined(tmp_path: Path) -> None:
    limits = Limits(line_bytes_max=100, text_bytes_max=40)
    lines = [
        '{"text": "a"}',
        f'{{"text": "{"x" * 200}"}}',
        f'{{"text": "{"x" * 50}"}}',
        f'{{"text": "{"的" * 20}"}}',
        '{"text": "b"}',
    ]
    found, refused = _read(_written(tmp_path, "x.jsonl", "\n".join(lines)), limits=limits)
    assert [item.text for item in found] == ["a", "b"]
    assert refused[2] == "the line has more than 100 bytes"
    assert refused[3] == refused[4] == "its text has more than 40 bytes"


def test_a_line_of_very_many_values_is_refused_unparsed(tmp_path: Path) -> None:
    content = '{"text": "a", "more": [' + "[]," * 2_000_000 + "0]}\n"
    found, refused = _read(_written(tmp_path, "x.jsonl", content + '{"text": "b"}'))
    assert [item.text for item in found] == ["b"]
    assert "more than 2000000 values" in refused[1]


@pytest.mark.parametrize(
    ("content", "texts", "refused"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"], {}),
        ('{"text": "a"}', ["a"], {}),
        ('\ufeff[{"text": "a"}, 5, {"body": ""}]', ["a"], {2: "a number, not an object", 3: "no field 'text'"}),
        ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"], {}),
        ("[{]", [], {1: "not JSON"}),
        ("", [], {0: "empty"}),
        ("[" * 5000 + "]" * 5000, [], {1: "not JSON"}),
    ],
)
def test_a_json_file_is_an_array_of_records(
    tmp_path: Path, content: str, texts: list[str], refused: dict[int, str]
) -> None:
    found, reasons = _read(_written(tmp_path, "x.json", content))
    assert [item.text for item in found] == texts
    assert list(reasons) == list(refused)
    assert all(words in reasons[line] for line, words in refused.items())


def test_a_row_of_csv_is_a_document(tmp_path: Path) -> None:
    content = 'id,text,title\r\n1,"words, ""quoted""\nover two lines",T\r\n\r\n,more,\r\n'
    found, refused = _read(_written(tmp_path, "x.csv", content))
    assert [(item.id, item.text, item.title) for item in found] == [
        ("1", 'words, "quoted"\nover two lines', "T"),
        ("x.csv:5", "more", ""),
    ]
    assert refused == {}


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_fields_are_separated_by_what_separates_the_first_row(tmp_path: Path, mark: str) -> None:
    found, _ = _read(_written(tmp_path, "x.csv", f"\ufeffid{mark}text\n1{mark}a, b\n"))
    assert [(item.id, item.text) for item in found] == [("1", "a, b")]


def test_ragged_and_broken_rows_are_quarantined_by_line(tmp_path: Path) -> None:
    content = b'id,text\n1,good\n2\n3,a,b\n4,"a"b\n5,nul \x00\n6,\xff\xfe\xfd\n7,last\n8,"never closed\n'
    found, refused = _read(_written(tmp_path, "x.csv", content))
    assert [item.text for item in found] == ["good", "last"]
    assert sorted(refused) == [3, 4, 5, 6, 7, 9]
    assert refused[3] == "the row has 1 fields, the first row 2"
    assert refused[4] == "the row has 3 fields, the first row 2"
    assert "not CSV" in refused[5]
    assert "NUL" in refused[6]
    assert "neither UTF-8" in refused[7]
    assert "never closed, so nothing is read from here to line 9" in refused[9]


def test_a_field_that_never_ends_ends_the_file(tmp_path: Path) -> None:
    content = 'id,text\n1,good\n2,"open\n' + "more,of it\n" * 2000
    found, refused = _read(_written(tmp_path, "x.csv", content), limits=Limits(line_bytes_max=10_000))
    assert [item.text for item in found] == ["good"]
    assert "a quote may be open" in refused[3]


def test_csv_in_a_chinese_encoding_is_read(tmp_path: Path) -> None:
    found, _ = _read(_written(tmp_path, "x.csv", f"编号,text\n1,{CHINESE}\n".encode("gb18030")))
    assert [item.text for item in found] == [CHINESE]


@pytest.mark.parametrize(
    ("content", "reason"), [("", "empty"), ("a,b\n1,2\n3,4\n", "no field 'text'; its fields are a, b")]
)
def test_csv_without_texts_says_so_once(tmp_path: Path, content: str, reason: str) -> None:
    found, refused = _read(_written(tmp_path, "x.csv", content))
    assert not found
    assert [reason in words for words in refused.values()] == [True]


def test_instructions_in_csv_are_read(tmp_path: Path) -> None:
    found, refused = _read(_written(tmp_path, "x.csv", "instruction,output\nsay it,said\n"))
    assert [item.kind for item in found] == ["chat"] and not refused


def _parquet(path: Path, columns: dict[str, Any], row_group_size: int = 1000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_a_row_of_parquet_is_a_document(tmp_path: Path) -> None:
    columns = {
        "text": ["a", None, " ", "d"],
        "id": ["x", "y", "z", None],
        "meta": [{"url": f"http://{number}"} for number in range(4)],
        "other": [b"\0"] * 4,
    }
    found, refused = _read(_parquet(tmp_path / "x.parquet", columns), Fields(url="meta.url"))
    assert [(item.id, item.text, item.url) for item in found] == [
        ("x", "a", "http://0"),
        ("x.parquet:4", "d", "http://3"),
    ]
    assert refused == {2: "its field 'text' is null, not a text", 3: "it holds no text"}


def test_parquet_without_the_text_column_names_those_there_are(tmp_path: Path) -> None:
    found, refused = _read(_parquet(tmp_path / "x.parquet", {"body": ["a"], "n": [1]}))
    assert not found
    assert refused == {0: "it has no column 'text'; its columns are body, n"}


def test_texts_of_parquet_that_are_no_texts_are_quarantined(tmp_path: Path) -> None:
    found, refused = _read(_parquet(tmp_path / "x.parquet", {"text": [1, 2]}))
    assert not found
    assert refused == dict.fromkeys((1, 2), "its field 'text' is a number, not a text")


def test_chats_in_parquet_are_read(tmp_path: Path) -> None:
    columns = {"messages": [[{"role": "user", "content": "Hi"}]], "id": ["c"]}
    found, _ = _read(_parquet(tmp_path / "x.parquet", columns))
    assert [(item.id, item.kind, item.text) for item in found] == [("c", "chat", "\x1euser\x1fHi")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_quarantined(tmp_path: Path, content: bytes) -> None:
    found, refused = _read(_written(tmp_path, "x.parquet", content))
    assert not found
    assert "not sound Parquet" in refused[0]


def test_a_row_of_parquet_that_is_no_utf8_is_quarantined_alone(tmp_path: Path) -> None:
    offsets, data = pa.array([0, 3, 5, 7], pa.int32()).buffers()[1], pa.py_buffer(b"onet\xffup")
    column = pa.StringArray.from_buffers(3, offsets, data)
    found, refused = _read(_parquet(tmp_path / "x.parquet", {"text": column}))
    assert [item.text for item in found] == ["one", "up"]
    assert list(refused) == [2]
    assert "no sound row: 'utf-8' codec can't decode byte 0xff" in refused[2]


def test_a_parquet_file_whose_columns_are_named_in_no_utf8_is_quarantined(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "x.parquet", {"text": ["one"], "name": ["two"]})
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xeb\xffe"))
    for part_bytes in (1, 1 << 20):
        parts = plan_parts(Source("files", paths=(str(path),)), "s", part_bytes=part_bytes)
        (refused,) = [item for part in parts for item in documents(part)]
        assert isinstance(refused, Quarantined) and "not sound Parquet" in refused.reason


def test_damage_inside_a_parquet_file_is_quarantined(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "x.parquet", {"text": [f"text {number}" * 50 for number in range(100)]})
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    found, refused = _read(path)
    assert not found
    assert "not sound Parquet" in refused[0]
