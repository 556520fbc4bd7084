import pytest

from atoll.data.engine.read.page import html_text, main_text, title_in


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


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<pre>one<br>two<b><br/>three</b>\nfour</pre>", "```\none\ntwo\nthree\nfour\n```"),
        ("<select><option>one<option>two</select>", "one\ntwo"),
        ("<center>one</center>two<legend>three</legend>", "one\n\ntwo\n\nthree"),
    ],
)
def test_words_on_lines_of_their_own_stay_apart(page: str, text: str) -> None:
    assert html_text(page)[0] == text


def test_a_page_nested_deeper_than_python_calls_is_read() -> None:
    assert html_text("<div>" * 20_000 + "deep")[0] == "deep"
    assert html_text("<pre>" + "<b>" * 20_000 + "deep")[0] == "```\ndeep\n```"


@pytest.mark.parametrize("page", ["", "<", "<html>", "plain words", "<title>t", "<p><<<>>>", "&#xD800; &#0; &bogus;"])
def test_a_broken_page_is_read_as_far_as_it_goes(page: str) -> None:
    text, title = html_text(page)
    assert isinstance(text, str) and isinstance(title, str)


def test_the_main_text_leaves_out_what_surrounds_it() -> None:
    page = """<title>News</title><body><nav><ul><li><a href="/">Home</a></li></ul></nav>
      <main><article><h1>Rain</h1><p>It rained all day in the hills
        above the town, and the river rose.</p></article></main>
      <footer>Imprint, cookies, and so on</footer></body>"""
    text = main_text(page)
    assert "the river rose" in text
    assert "cookies" not in text
    assert title_in(page) == "News"
