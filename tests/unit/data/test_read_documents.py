"""Documents that parsers of others read: PDF, Word, workbooks, web archives."""

import datetime
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import docx
import docx.enum.style
import docx.oxml
import openpyxl
import pypdf
import pytest
import zstandard

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.read import Limits, Quarantined, documents, plan_parts

LIMITS = Limits()

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><x>&i;</x>"
)


def _read(path: Path, limits: Limits = LIMITS) -> tuple[list[Document], list[Quarantined]]:
    found = [item for part in plan_parts(Source("files", paths=(str(path),)), "s") for item in documents(part, limits)]
    refused = [item for item in found if isinstance(item, Quarantined)]
    return [item for item in found if isinstance(item, Document)], refused


def _refusal(path: Path, limits: Limits = LIMITS) -> str:
    found, refused = _read(path, limits)
    assert not found and len(refused) == 1
    return refused[0].reason


def _pdf(path: Path, texts: list[str], title: str = "", password: str = "") -> Path:
    """A PDF with a page of Helvetica for each text."""
    writer = pypdf.PdfWriter()
    font = pypdf.generic.DictionaryObject(
        {
            pypdf.generic.NameObject("/Type"): pypdf.generic.NameObject("/Font"),
            pypdf.generic.NameObject("/Subtype"): pypdf.generic.NameObject("/Type1"),
            pypdf.generic.NameObject("/BaseFont"): pypdf.generic.NameObject("/Helvetica"),
        }
    )
    for text in texts:
        page = writer.add_blank_page(600, 800)
        stream = pypdf.generic.DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode())
        page[pypdf.generic.NameObject("/Contents")] = writer._add_object(stream)
        fonts = pypdf.generic.DictionaryObject({pypdf.generic.NameObject("/F1"): font})
        page[pypdf.generic.NameObject("/Resources")] = pypdf.generic.DictionaryObject(
            {pypdf.generic.NameObject("/Font"): fonts}
        )
    writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


def test_the_pages_of_a_pdf_are_one_document(tmp_path: Path) -> None:
    found, refused = _read(_pdf(tmp_path / "a.pdf", ["First page.", "Second page."], title="Report"))
    assert [(item.id, item.text, item.title, item.kind) for item in found] == [
        ("a.pdf", "First page.\n\nSecond page.", "Report", "text")
    ]
    assert refused == []


def test_an_encrypted_pdf_is_quarantined_unless_it_opens_without_a_password(tmp_path: Path) -> None:
    assert _refusal(_pdf(tmp_path / "a.pdf", ["words"], password="secret")) == "it is encrypted with a password"
    writer = pypdf.PdfWriter(clone_from=_pdf(tmp_path / "b.pdf", ["words"]))
    writer.encrypt("", "owner", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    assert [item.text for item in _read(tmp_path / "b.pdf")[0]] == ["words"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no pdf", "cannot be parsed"),
        (b"%PDF-1.4\n" + b"\xff" * 1000, "cannot be parsed"),
        (b"%PDF-1.4\ntrailer<</Root 1 0 R>>\nstartxref\n9999999\n%%EOF", "cannot be parsed"),
    ],
)
def test_a_broken_pdf_is_quarantined(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    assert reason in _refusal(tmp_path / "a.pdf")


def test_a_pdf_without_text_is_quarantined(tmp_path: Path) -> None:
    assert "may be scanned" in _refusal(_pdf(tmp_path / "a.pdf", [""]))


def _looping_pdf(path: Path) -> Path:
    """A PDF whose tree of pages contains itself."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>",
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(content)
    content += b"xref\n0 3\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    path.write_bytes(content + b"trailer<</Size 3/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start)
    return path


def test_a_pdf_that_contains_itself_is_quarantined(tmp_path: Path) -> None:
    assert "PDF" in _refusal(_looping_pdf(tmp_path / "a.pdf"), Limits(parser_s=2))


def test_a_word_document_becomes_headings_items_and_tables(tmp_path: Path) -> None:
    made = docx.Document()
    made.core_properties.title = "Plan"
    made.add_heading("Goals", 1)
    made.add_paragraph("First words.")
    made.add_paragraph("one", style="List Bullet")
    made.add_paragraph("two", style="List Number")
    table = made.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"cell {number}"
    table.cell(1, 0).merge(table.cell(1, 1))
    made.add_heading("Deeper", 2)
    made.add_paragraph("Last 文字.")
    made.save(str(tmp_path / "a.docx"))
    (found,), refused = _read(tmp_path / "a.docx")
    assert found.text == (
        "# Goals\n\nFirst words.\n\n- one\n- two\n\n| cell 0 | cell 1 |\n| cell 2 cell 3 |\n\n## Deeper\n\nLast 文字."
    )
    assert (found.title, found.kind) == ("Plan", "markdown")
    assert refused == []


WORDS = "<w:r><w:t>{}</w:t></w:r>"
BOX = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
WRAPPED = {
    "a field": f"<w:sdt><w:sdtPr/><w:sdtContent>{WORDS.format('a field')}</w:sdtContent></w:sdt>",
    "put in": f'<w:ins w:id="1" w:author="A">{WORDS.format("put in")}</w:ins>',
    "": '<w:del w:id="2" w:author="A"><w:r><w:delText>taken out</w:delText></w:r></w:del>',
    "tagged": f'<w:smartTag w:uri="u" w:element="e">{WORDS.format("tagged")}</w:smartTag>',
    "7": f'<w:fldSimple w:instr="PAGE">{WORDS.format("7")}</w:fldSimple>',
    "shown": '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>shown</w:t></w:r>',
    " ": "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>",
    "see\n\nboxed": f"{WORDS.format('see')}<w:r><mc:AlternateContent><mc:Choice Requires='wps'>"
    f"<w:drawing>{BOX}</w:drawing></mc:Choice><mc:Fallback><w:pict>{BOX}</w:pict></mc:Fallback></mc:AlternateContent></w:r>",
}
NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)


@pytest.mark.parametrize("shown", WRAPPED)
def test_words_are_read_whatever_is_around_them(tmp_path: Path, shown: str) -> None:
    made = docx.Document()
    made.add_paragraph("before ")._p.append(docx.oxml.parse_xml(f"<w:p {NAMESPACES}>{WRAPPED[shown]}</w:p>"))
    paragraph = made.paragraphs[0]._p
    inner = paragraph[-1]
    for element in list(inner):
        paragraph.append(element)
    paragraph.remove(inner)
    made.save(str(tmp_path / "a.docx"))
    (found,), _ = _read(tmp_path / "a.docx")
    assert found.text == f"before {shown}".strip()


def test_blocks_in_fields_and_tables_in_tables_are_read(tmp_path: Path) -> None:
    made = docx.Document()
    made.styles.add_style("Heading of an Appendix", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    made.add_paragraph("A", style="Heading of an Appendix")
    table = made.add_table(1, 1)
    table.cell(0, 0).text = "outer"
    table.cell(0, 0).add_table(1, 1).cell(0, 0).text = "inner"
    block = f"<w:sdt {NAMESPACES}><w:sdtContent><w:p>{WORDS.format('a block')}</w:p></w:sdtContent></w:sdt>"
    made.element.body.insert(2, docx.oxml.parse_xml(block))
    made.save(str(tmp_path / "a.docx"))
    (found,), _ = _read(tmp_path / "a.docx")
    assert found.text == "A\n\n| outer inner |\n\na block"


def test_a_workbook_is_a_table_of_each_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in (["name", "price"], ["tea", 2.5], [None, None], ["rice", 3]):
        book.active.append(row)
    book.create_sheet("Empty")
    book.save(tmp_path / "a.xlsx")
    (found,), refused = _read(tmp_path / "a.xlsx")
    assert found.text == "# Prices\n\n| name | price |\n| tea | 2.5 |\n| rice | 3 |"
    assert refused == []


def test_days_in_a_workbook_have_no_hour(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append([datetime.date(2024, 1, 31), datetime.datetime(2024, 2, 1, 13, 30), datetime.time(9, 30)])
    book.save(tmp_path / "a.xlsx")
    (found,), _ = _read(tmp_path / "a.xlsx")
    assert found.text == "# Sheet\n\n| 2024-01-31 | 2024-02-01 13:30:00 | 09:30:00 |"


def test_a_sheet_with_a_text_column_holds_records(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["id", "text"], [1, "one"], [None, "two"], [3, None], [4, 5]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    found, refused = _read(tmp_path / "a.xlsx")
    assert [(item.id, item.text) for item in found] == [("1", "one"), ("a.xlsx/Sheet:3", "two")]
    assert [(item.name, item.line) for item in refused] == [("a.xlsx/Sheet", 4), ("a.xlsx/Sheet", 5)]


def _word(path: Path) -> None:
    docx.Document().save(str(path))


def _workbook(path: Path) -> None:
    openpyxl.Workbook().save(path)


def _with(path: Path, part: str, content: bytes) -> None:
    """Replace or add a part of a package."""
    before = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(before)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != part:
                new.writestr(name, old.read(name))
        new.writestr(part, content)


OFFICE = pytest.mark.parametrize(
    ("name", "made", "part"),
    [("a.docx", _word, "word/document.xml"), ("a.xlsx", _workbook, "xl/worksheets/sheet1.xml")],
)


@OFFICE
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_entity_bomb_is_refused_before_it_is_parsed(
    tmp_path: Path, name: str, made: Callable[[Path], None], part: str, encoding: str
) -> None:
    made(tmp_path / name)
    _with(tmp_path / name, part, BOMB.encode(encoding))
    assert _refusal(tmp_path / name) == f"its part {part} declares a document type, as entity bombs do"


@OFFICE
def test_a_package_that_expands_without_measure_is_refused(
    tmp_path: Path, name: str, made: Callable[[Path], None], part: str
) -> None:
    made(tmp_path / name)
    _with(tmp_path / name, "media/zeros.bin", bytes(24 << 20))
    assert "as bombs do" in _refusal(tmp_path / name)


@OFFICE
def test_a_damaged_or_encrypted_package_is_quarantined(
    tmp_path: Path, name: str, made: Callable[[Path], None], part: str
) -> None:
    made(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for data, reason in (
        (b"", "empty"),
        (content[: len(content) // 2], "not a sound package"),
        (b"PK\x03\x04 rubbish", "not a sound package"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted"),
    ):
        (tmp_path / name).write_bytes(data)
        assert reason in _refusal(tmp_path / name)
    (tmp_path / name).write_bytes(content)
    _with(tmp_path / name, part, b"<broken")
    assert "cannot be parsed" in _refusal(tmp_path / name)


def _warc(records: list[tuple[str, str, bytes]]) -> bytes:
    """Response records: address, HTTP head, body."""
    out = b""
    for number, (url, head, body) in enumerate(records):
        http = f"HTTP/1.1 {head}\r\n".encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        about = (
            "WARC/1.0\r\nWARC-Type: response\r\n"
            f"WARC-Record-ID: <urn:uuid:0000-{number}>\r\nWARC-Target-URI: {url}\r\n"
            "WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(http)}\r\n\r\n"
        )
        out += about.encode() + http + b"\r\n\r\n"
    return out


PAGE = "<title>{0}</title><body><nav>menu</nav><main><p>The words of {0} are here for all to read.</p></main></body>"


def test_pages_of_a_crawl_come_with_their_addresses_and_their_servers_encoding(tmp_path: Path) -> None:
    chinese = "<title>新闻</title><p>今天的天气很好\uff0c我们去公园。</p>"
    records = [
        ("http://h/one", "200 OK\r\nContent-Type: text/html; charset=utf-8", PAGE.format("one").encode()),
        ("http://h/zh", "200 OK\r\nContent-Type: text/html; charset=GBK", chinese.encode("gb18030")),
        ("http://h/ru", "200 OK\r\nContent-Type: text/html; charset=windows-1251", "<p>Привет, мир".encode("cp1251")),
        ("http://h/txt", "200 OK\r\nContent-Type: text/plain", b"plain words"),
        ("http://h/img", "200 OK\r\nContent-Type: image/png", b"\x89PNG"),
        ("http://h/no", "404 Not Found\r\nContent-Type: text/html", PAGE.format("no").encode()),
        ("http://h/bad", "200 OK\r\nContent-Type: text/html", b"<p>\xff\xfe\xfd\xfc"),
        ("http://h/empty", "200 OK\r\nContent-Type: text/html", b"<p>"),
    ]
    (tmp_path / "a.warc").write_bytes(_warc(records))
    found, refused = _read(tmp_path / "a.warc")
    assert [(item.id, item.url, item.title) for item in found] == [
        ("0000-0", "http://h/one", "one"),
        ("0000-1", "http://h/zh", "新闻"),
        ("0000-2", "http://h/ru", ""),
        ("0000-3", "http://h/txt", ""),
    ]
    assert "menu" not in found[0].text and "words of one" in found[0].text
    assert "今天的天气很好" in found[1].text
    assert "Привет" in found[2].text
    assert [item.line for item in refused] == [7, 8]


def test_packed_pages_of_packed_archives_are_read(tmp_path: Path) -> None:
    head = "200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip"
    records = [(f"http://h/{number}", head, gzip.compress(PAGE.format(number).encode())) for number in range(3)]
    packed = b"".join(gzip.compress(_warc([record])) for record in records)
    (tmp_path / "a.warc.gz").write_bytes(packed)
    found, refused = _read(tmp_path / "a.warc.gz")
    assert [item.url for item in found] == ["http://h/0", "http://h/1", "http://h/2"]
    assert refused == []
    (tmp_path / "a.warc.gz").write_bytes(packed[:-10])
    found, refused = _read(tmp_path / "a.warc.gz")
    assert [item.url for item in found] == ["http://h/0", "http://h/1"]
    assert "cut off" in refused[0].reason


CHUNKS = b"4\r\n<p>a\r\n6\r\n b c d\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        ("Content-Encoding: gzip", b"<p>not packed at all", "not packed at all"),
        ("Content-Encoding: deflate", zlib.compress(b"<p>deflated"), "deflated"),
        ("Content-Encoding: zstd", zstandard.compress(b"<p>with zstd"), "with zstd"),
        ("Content-Encoding: br", b"\x0b\x02\x80hello\x03", "hello"),
        ("Transfer-Encoding: chunked", CHUNKS, "a b c d"),
        ("Content-Encoding: gzip", gzip.compress(b"<p>words", mtime=0)[:-12] + bytes(12), "cannot be parsed"),
        ("Content-Encoding: br", b"<p>not packed at all", "cannot be parsed"),
    ],
)
def test_how_a_page_is_packed_is_nothing_to_the_next(tmp_path: Path, head: str, body: bytes, text: str) -> None:
    plain = "200 OK\r\nContent-Type: text/html"
    records = [("http://h/one", f"{plain}\r\n{head}", body), ("http://h/two", plain, b"<p>the next")]
    (tmp_path / "a.warc").write_bytes(_warc(records))
    found, refused = _read(tmp_path / "a.warc")
    said = [item.text for item in found] + [item.reason for item in refused if item.line == 1]
    assert len(said) == 2 and "the next" in said
    assert any(text in words for words in said)


def test_what_was_read_before_a_web_archive_breaks_is_kept(tmp_path: Path) -> None:
    plain = "200 OK\r\nContent-Type: text/html"
    whole = _warc([(f"http://h/{number}", plain, PAGE.format(number).encode()) for number in range(3)])
    third = whole.rindex(b"WARC/1.0")
    (tmp_path / "a.warc").write_bytes(whole[:third] + b"rubbish" + whole[third:])
    found, refused = _read(tmp_path / "a.warc")
    assert [item.url for item in found] == ["http://h/0", "http://h/1"]
    assert [item.line for item in refused] == [2]


def test_a_page_that_expands_without_measure_is_quarantined(tmp_path: Path) -> None:
    head = "200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip"
    records = [
        ("http://h/bomb", head, gzip.compress(bytes(24 << 20))),
        ("http://h/one", head, gzip.compress(b"<p>words")),
    ]
    (tmp_path / "a.warc").write_bytes(_warc(records))
    found, refused = _read(tmp_path / "a.warc", Limits(file_bytes_max=1 << 20))
    assert [item.text for item in found] == ["words"]
    assert refused == [Quarantined("a.warc", 1, "the page has more than 1048576 bytes")]


def test_texts_of_a_wet_file_are_read(tmp_path: Path) -> None:
    text = "今天的天气很好。".encode()
    record = (
        b"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://h/zh\r\nContent-Type: text/plain\r\n"
        b"Content-Length: %d\r\n\r\n" % len(text)
    )
    (tmp_path / "a.warc").write_bytes(record + text + b"\r\n\r\n")
    found, _ = _read(tmp_path / "a.warc")
    assert [(item.id, item.text, item.url) for item in found] == [("a.warc:1", text.decode(), "http://h/zh")]


def test_a_web_archive_that_is_none_or_cut_off_is_quarantined(tmp_path: Path) -> None:
    whole = _warc([("http://h/one", "200 OK\r\nContent-Type: text/html", PAGE.format("one").encode())] * 3)
    for content in (b"", b"no web archive at all\r\n\r\n"):
        (tmp_path / "a.warc").write_bytes(content)
        assert _refusal(tmp_path / "a.warc")
    (tmp_path / "a.warc").write_bytes(whole[:-60])
    found, refused = _read(tmp_path / "a.warc")
    assert len(found) == 2
    assert len(refused) == 1
