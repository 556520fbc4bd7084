import pytest

from atoll.data.engine.read.formats import CODE, DOCUMENTS, format_of, matches, member_patterns, patterns_of


@pytest.mark.parametrize(
    ("name", "reader", "kind", "codec"),
    [
        ("a.txt", "text", "text", ""),
        ("a.MD", "text", "markdown", ""),
        ("a.rst", "text", "rst", ""),
        ("src/a.py", "text", "code", ""),
        ("a.htm", "page", "text", ""),
        ("a.jsonl", "jsonl", "text", ""),
        ("a.ndjson.zst", "jsonl", "text", "zstd"),
        ("a.csv.gz", "csv", "text", "gzip"),
        ("a.tsv", "csv", "text", ""),
        ("a.parquet", "parquet", "text", ""),
        ("a.json", "array", "text", ""),
        ("a.warc.gz", "warc", "text", "gzip"),
        ("a.warc.wet.gz", "warc", "text", "gzip"),
        ("a.tgz", "archive", "text", "gzip"),
        ("a.tar.xz", "archive", "text", "xz"),
        ("a.zip", "archive", "text", ""),
        ("a.unknown", "text", "text", ""),
        ("a", "text", "text", ""),
        ("dir.zip/a", "text", "text", ""),
    ],
)
def test_the_name_says_how_a_file_is_read(name: str, reader: str, kind: str, codec: str) -> None:
    assert format_of(name)[:3] == (reader, kind, codec)


def test_formats_that_others_parse_are_read_in_a_child() -> None:
    risky = [
        name for name in ("a.pdf", "a.docx", "a.xlsx", "a.html", "a.zip", "a.warc.gz", "a.json", "a.jsonl", "a.md")
    ]
    assert [format_of(name).is_risky for name in risky] == [True] * 7 + [False] * 2


def test_patterns_match_names_and_paths_whatever_the_case() -> None:
    assert matches("x/A.TXT", ("*.txt",))
    assert matches("x/a.txt", ("x/*",))
    assert not matches("y/a.txt", ("x/*", "*.md"))


def test_source_code_is_read_only_where_it_is_wanted() -> None:
    assert patterns_of("documents") == patterns_of("web-en") == DOCUMENTS
    assert patterns_of("code") == CODE
    assert matches("a.py", CODE) and not matches("a.py", DOCUMENTS)
    assert matches("a.jsonl.gz", CODE) and matches("a.jsonl.gz", DOCUMENTS)
    assert matches("a.md", DOCUMENTS) and not matches("a.md", CODE)


def test_members_are_chosen_by_the_patterns_that_name_no_archive() -> None:
    assert member_patterns(("*.zip", "*.md")) == ("*.md",)
    assert member_patterns(("*.zip",)) == DOCUMENTS
