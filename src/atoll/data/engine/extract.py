"""Extraction: text out of the bytes of a file, or the reason there is none.

Encodings: a byte order mark, else UTF-8, else what an HTML page declares, else GB18030 where the result is made of
common Chinese characters. Nothing is guessed beyond that: a file in another encoding is refused, not garbled.
HTML becomes headings, paragraphs, list items and verbatim blocks in the manner of Markdown; what scripts would have
drawn is not seen.
"""

from __future__ import annotations

import codecs
import re
from pathlib import PurePath

from selectolax.lexbor import LexborHTMLParser, LexborNode

FILE_BYTES_MAX = 64 << 20

KINDS = {".md": "markdown", ".markdown": "markdown", ".rst": "rst", ".html": "html", ".htm": "html"}

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.I)
_DECLARABLE = re.compile(r"iso-8859-1|latin-1|windows-1252|iso-8859-15|gbk|gb2312|gb18030|big5|shift_jis|euc-jp|euc-kr")
_CONTROLS = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
CONTROL_SHARE_MAX = 0.05
CHINESE_SHARE_MIN = 0.7

_HIDDEN = ["script", "style", "noscript", "template", "svg", "math", "iframe", "object", "head", "nav", "button"]
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCK = re.compile(
    r"address|article|aside|blockquote|body|d[dlt]|details|div|fieldset|figcaption|figure|footer|form|h[1-6]|header|hr|"
    r"html|li|main|ol|p|pre|section|summary|table|tbody|tfoot|thead|tr|ul"
)


class Unreadable(Exception):
    """A file or module that yields no text; the message is the reason."""


def extract(name: str, data: bytes) -> tuple[str, str, str]:
    """Text, title and kind (markdown, rst or text) of the file `name` with the content `data`; raises Unreadable."""
    kind = KINDS.get(PurePath(name).suffix.lower(), "text")
    text = decode(data, is_html=kind == "html")
    if kind == "html":
        text, title = html_text(text)
        kind = "markdown"
    else:
        title = ""
    if not text.strip():
        raise Unreadable("it holds no text")
    return text, title, kind


def decode(data: bytes, *, is_html: bool = False) -> str:
    """The text in `data`; raises Unreadable for empty, binary and unknown content."""
    if not data:
        raise Unreadable("the file is empty")
    text = _decoded(data, is_html)
    if "\0" in text:
        raise Unreadable("it holds NUL characters: binary, or UTF-16 without a byte order mark")
    if len(_CONTROLS.findall(text)) > CONTROL_SHARE_MAX * len(text):
        raise Unreadable("it holds many control characters: binary")
    return text


def _decoded(data: bytes, is_html: bool) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        declared = _declared(data) if is_html else ""
        if declared:
            return _strictly(data, declared)
        return _chinese(data, error)


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is marked as {encoding} but byte {error.start} does not fit") from error


def _declared(data: bytes) -> str:
    found = _DECLARED.search(data[:4096])
    name = found[1].decode().lower() if found else ""
    return name if _DECLARABLE.fullmatch(name) else ""


def _chinese(data: bytes, utf8_error: UnicodeDecodeError) -> str:
    """GB18030, if the text then consists of common characters; other 8-bit encodings decode too, but to rare ones."""
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    wide = "".join(character for character in text if character > "\x7f")
    common = len(wide.encode("gb2312", "ignore")) // 2
    if not wide or common < CHINESE_SHARE_MIN * len(wide):
        raise Unreadable(f"it is neither UTF-8 (byte {utf8_error.start} does not fit), UTF-16 nor GB18030")
    return text


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
    return 1 if tag in ("li", "tr", "dt", "dd") else 2


def _lay_verbatim(node: LexborNode, page: _Page) -> None:
    content = node.text().strip("\n")
    if content.strip():
        page.gap(2)
        page.verbatim(f"```\n{content}\n```")
        page.gap(2)
