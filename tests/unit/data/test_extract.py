import pytest

from atoll.data.engine.extract import Unreadable, decode, extract, html_text

CHINESE = "人工智能平台把数据变成模型、把模型变成服务。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_chinese_is_read_in_every_known_encoding(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding)) == CHINESE


def test_big_endian_utf16_is_read_by_its_mark() -> None:
    assert decode(b"\xfe\xff" + CHINESE.encode("utf-16-be")) == CHINESE


def test_a_four_byte_gb18030_character_among_common_ones_is_read() -> None:
    text = CHINESE + "㐀"
    assert decode(text.encode("gb18030")) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"ab\0cd", "NUL"),
        ("text".encode("utf-16-le"), "NUL"),
        (b"\x01\x02\x03\x04" * 10 + b"text", "control characters"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xd8", "neither UTF-8|NUL"),
        ("été à la plage, très agréable, déjà vu".encode("latin-1"), "neither UTF-8"),
        ("Привет, как дела? Хорошо.".encode("cp1251"), "neither UTF-8"),
        (b"\xef\xbb\xbfbad \xff", "marked as utf-8-sig but byte"),
        (b"\xff\xfea\x00\x00\xd8", "marked as utf-16"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_a_file_without_text_is_unreadable(name: str) -> None:
    with pytest.raises(Unreadable, match="holds no text"):
        extract(name, b"  \n\t\n<p></p>" if name.endswith("html") else b" \n ")


@pytest.mark.parametrize(
    ("name", "kind"), [("a.txt", "text"), ("a.MD", "markdown"), ("a.rst", "rst"), ("a.htm", "markdown"), ("a", "text")]
)
def test_the_kind_follows_the_name(name: str, kind: str) -> None:
    assert extract(name, b"words")[2] == kind


def test_a_page_declares_its_encoding() -> None:
    page = '<meta charset="iso-8859-1"><p>déjà vu</p>'.encode("latin-1")
    assert extract("a.html", page)[0] == "déjà vu"
    with pytest.raises(Unreadable):
        extract("a.html", page.replace(b"iso-8859-1", b"utf-7"))


def test_a_page_becomes_headings_paragraphs_items_and_verbatim_blocks() -> None:
    page = """<html><head><title> The  page </title><style>p {}</style></head><body>
      <nav>menu</nav><h1>Top <em>level</em></h1><h2></h2>
      <p>One
         two<br>three &amp; <code>four</code>.</p>
      <ul><li>first</li><li></li><li><p>second</p></li></ul>
      <pre>def f():
    return 1
</pre><table><tr><th>a</th><td>1</td></tr><tr><td>b</td></tr></table>
      <script>alert(1)</script><!-- hidden --><div>end</div></body></html>"""
    text, title = html_text(page)
    assert title == "The page"
    assert text == (
        "# Top level\n\nOne two\nthree & four.\n\n- first\n- second\n\n"
        "```\ndef f():\n    return 1\n```\n\na 1\nb\n\nend"
    )


def test_a_page_nested_deeper_than_python_calls_is_read() -> None:
    assert html_text("<div>" * 20_000 + "deep")[0] == "deep"
    assert html_text("<pre>" + "<b>" * 20_000 + "deep")[0] == "```\ndeep\n```"


@pytest.mark.parametrize("page", ["", "<", "<html>", "plain words", "<title>t", "<p><<<>>>", "&#xD800; &#0; &bogus;"])
def test_a_broken_page_is_read_as_far_as_it_goes(page: str) -> None:
    text, title = html_text(page)
    assert isinstance(text, str) and isinstance(title, str)
