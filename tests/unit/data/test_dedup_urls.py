from pathlib import Path

import pytest

from atoll.data.engine.dedup import urls
from duplicates import corpus_of, stages_in

FORMS = [
    ("HTTP://Example.COM:80/a/", "http://example.com/a"),
    ("https://example.com:443", "https://example.com"),
    ("https://example.com:8443/", "https://example.com:8443"),
    ("http://user:secret@example.com/", "http://example.com"),
    ("http://example.com./a", "http://example.com/a"),
    ("http://example.com/a#part", "http://example.com/a"),
    ("http://example.com/a/../b/./c", "http://example.com/b/c"),
    ("http://example.com/../../a", "http://example.com/a"),
    ("http://example.com/%7ename/%e4%b8%ad%2f", "http://example.com/~name/%E4%B8%AD%2F"),
    ("http://example.com/中", "http://example.com/%E4%B8%AD"),
    ("http://example.com/100%", "http://example.com/100%25"),
    ("http://example.com/a b", "http://example.com/a%20b"),
    ("http://example.com/?utm_source=x&b=2&fbclid=y&a=1", "http://example.com?b=2&a=1"),
    ("http://example.com/?UTM_Medium=x", "http://example.com"),
    ("http://example.com/a?", "http://example.com/a"),
    ("http://example.com/a?b=%26&c", "http://example.com/a?b=%26&c"),
    ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]"),
    ("//Example.com/a", "://example.com/a"),
    (" http://example.com/a\n", "http://example.com/a"),
    ("notes/a.md#x", "notes/a.md"),
    ("http://example.com:port/a#x", "http://example.com:port/a"),
]


@pytest.mark.parametrize(("url", "form"), FORMS)
def test_a_url_has_one_form(url: str, form: str) -> None:
    assert urls.canonical(url) == form


@pytest.mark.parametrize("url", [url for url, _ in FORMS])
def test_the_form_of_a_form_is_itself(url: str) -> None:
    assert urls.canonical(urls.canonical(url)) == urls.canonical(url)


def test_what_may_be_two_pages_stays_two() -> None:
    pages = ["http://a.b/c", "https://a.b/c", "http://www.a.b/c", "http://a.b/C", "http://a.b/c?x=1&y=2"]
    pages += ["http://a.b/c?y=2&x=1", "http://a.b/c%2Fd", "http://a.b/c/d"]
    assert len({urls.canonical(page) for page in pages}) == len(pages)


def test_documents_of_one_url_are_a_group_and_those_without_are_alone(tmp_path: Path) -> None:
    pages = ["", "http://a.b/1", "", "http://a.b/2", "http://A.b/1/"]
    corpus = corpus_of(tmp_path / "corpus", list("abcde"), batch_rows=2, url=pages)
    assert urls.groups(corpus, stages_in(tmp_path / "stages")).tolist() == [0, 1, 2, 3, 1]


def test_what_stands_for_no_url_makes_no_group() -> None:
    nothing = ["N/A", "unknown", " ", "#top", "about:blank", "-", "null"]
    assert not urls.keys_of(nothing).any()
    named = ["http://a.b/1", "//a.b/1", "a.b/1", "localhost.lan", "file:///a", "s3://a/b", "urn:isbn:1", "例子.中国/1"]
    assert urls.keys_of(named).any(axis=1).all()
