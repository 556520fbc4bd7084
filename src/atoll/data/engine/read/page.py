"""Pages: HTML as headings, paragraphs, list items and verbatim blocks in the manner of Markdown.

What scripts would have drawn is not seen. `main_text` is for pages of the web: only what is not navigation, adverts and
the like, as far as simple heuristics tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode_page
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Item
from atoll.data.engine.read.text import document

_HIDDEN = ["script", "style", "noscript", "template", "svg", "math", "iframe", "object", "head", "nav", "button"]
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCK = re.compile(
    r"address|article|aside|blockquote|body|caption|center|d[dlt]|details|dialog|div|fieldset|figcaption|figure|footer|"
    r"form|h[1-6]|header|hgroup|hr|html|legend|li|main|menu|ol|optgroup|option|p|pre|section|summary|table|tbody|"
    r"textarea|tfoot|thead|tr|ul"
)


def read(content: Content) -> Iterator[Item]:
    """The visible text of the page."""
    with foreign("page"):
        text, title = html_text(decode_page(content.whole()))
    yield document(content, text, "markdown", title)


def main_text(html: str) -> str:
    """What the page is about, without what surrounds it on every page."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, main_content=True, alt_texts=False))


def title_in(html: str) -> str:
    """The title of a page, empty if it has none."""
    head = LexborHTMLParser(html).css_first("head > title")
    return " ".join(head.text().split()) if head else ""


def html_text(html: str) -> tuple[str, str]:
    """The visible text of a page and its title."""
    tree = LexborHTMLParser(html)
    head = tree.css_first("head > title")
    title = " ".join(head.text().split()) if head else ""
    tree.strip_tags(_HIDDEN)
    page = _Page()
    if tree.body:
        _walk(tree.body, page)
    return page.text(), title


class _Page:
    """Text being laid out: gaps and markers are owed until words follow, so none is left over."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._owed_lines = 0
        self._marker = ""

    def gap(self, lines: int) -> None:
        """At least so many line ends before the next words."""
        if self._parts and not self._marker:
            self._owed_lines = max(self._owed_lines, lines)

    def mark(self, marker: str) -> None:
        self._marker = marker

    def words(self, text: str) -> None:
        """Running text, its white space collapsed."""
        text = re.sub(r"\s+", " ", text)
        if self._owed_lines or self._marker or not self._parts:
            text = text.lstrip()
        if text:
            self.verbatim(text)

    def verbatim(self, text: str) -> None:
        self._parts += ["\n" * self._owed_lines, self._marker, text]
        self._owed_lines, self._marker = 0, ""

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in "".join(self._parts).split("\n"))


def _walk(body: LexborNode, page: _Page) -> None:
    """Lay out every node; with a stack of its own, for pages nest deeper than Python calls."""
    stack: list[tuple[LexborNode, bool]] = [(body, True)]
    while stack:
        node, is_opening = stack.pop()
        tag = node.tag or ""
        if tag == "-text":
            page.words(node.text_content or "")
        elif tag == "br":
            page.gap(1)
        elif tag == "pre":
            _lay_verbatim(node, page)
        elif is_opening:
            _open(tag, page)
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))
        elif _BLOCK.fullmatch(tag):
            page.mark("")
            page.gap(_gap_lines(tag))


def _open(tag: str, page: _Page) -> None:
    if _BLOCK.fullmatch(tag):
        page.gap(_gap_lines(tag))
    if tag == "li":
        page.mark("- ")
    elif tag in _HEADINGS:
        page.mark("#" * int(tag[1]) + " ")
    elif tag in ("td", "th"):
        page.words(" ")


def _gap_lines(tag: str) -> int:
    return 1 if tag in ("li", "tr", "dt", "dd", "option") else 2


def _lay_verbatim(node: LexborNode, page: _Page) -> None:
    for line_end in node.css("br"):
        line_end.replace_with("\n")
    content = node.text().strip("\n")
    if content.strip():
        page.gap(2)
        page.verbatim(f"```\n{content}\n```")
        page.gap(2)
