"""Telephone numbers: Chinese mobiles and landlines, international numbers behind a plus, American ones by their groups.

Segments that no operator has been given (154 among Chinese mobiles, 555-01xx in America) belong to nobody and are not
found. A number without area code or country counts only behind a word such as tel or 电话.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from atoll.data.engine.privacy.kinds import Span

_ALONE = r"(?<![0-9A-Za-z_+])(?<!\d[.\-/])"
_END = r"(?![0-9A-Za-z_])(?!\.\d)(?!-\d{5})"
_MOBILE_HEAD = r"1(?:[38]\d|4[15-9]|5[0-35-9]|6[2567]|7[0-8]|9[0-35-9])"
_MOBILE = r"(?:\(?(?:\+|00)?86\)?[ -]?)?" + _MOBILE_HEAD + r"(?:[ -]?\d{4}[ -]?\d{4}|[ -]?\d{3}[ -]?\d{5})"
_AREA = r"(?:10|2[0-57-9]|[3-9]\d{2})"
_LANDLINE = (
    rf"(?:(?:\+|00)86[ -]?\(?0?{_AREA}\)?[ -]?|\(0{_AREA}\)[ -]?|0{_AREA}[ -])[2-8]\d{{2,3}}[ -]?\d{{4}}(?:-\d{{1,5}})?"
    rf"|0(?:10|2[0-57-9])[2-8]\d{{7}}|0[3-9]\d{{2}}[2-8]\d{{6,7}}"
)
_AMERICAN = (
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\) ?(?!555[-. ]?01)[2-9]\d{2}[-. ]"
    r"|[2-9]\d{2}([-. ])(?!555[-. ]?01)[2-9]\d{2}\1)\d{4}"
)
_COUNTRIES = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[1-368]|2[2-4]\d|25[0-8]|26\d|29[0179]|35\d|37\d"
    r"|38[0-35-79]|42[013]|50\d|59\d|67\d|68\d|69[0-2]|80[08]|85[02356]|88[0126]|96\d|97\d|99[2-68])"
)
_INTERNATIONAL = rf"(?:\+{_COUNTRIES}(?:[ .()-]{{0,2}}\d){{6,12}}|00(?!1){_COUNTRIES}(?:[ ()-]{{0,2}}\d){{6,12}})"
_PLUS = re.compile(r"(?<![0-9A-Za-z_+])(?<!\d[.\-])(?!\+\d{4}-\d\d-\d\d)" + _INTERNATIONAL + r"(?![0-9A-Za-z_]|[.-]\d)")
_PHONES = re.compile(_ALONE + f"(?:{_MOBILE}|{_LANDLINE}|{_AMERICAN})" + _END)
_AFTER_WORD = re.compile(
    r"(?i)(?:tel|phone|mobile|mob|cell|call|qq|wechat|wx|vx)(" + _MOBILE_HEAD + r"\d{8})(?![0-9A-Za-z_])"
)
_WORD = re.compile(
    r"(?i)(?:(?<![a-z])(?:tel|telephone|phone|mobile|cell|fax)(?:\s?(?:no|number)?\.?)?|电话|電話|手机|手機|座机|热线|熱線|传真|傳真"
    r"|联系方式|聯絡電話)\s{0,2}(?:号码|號碼|号|is|是|为)?\s{0,2}[:\-=]?\s{0,2}\(?\Z"
)
_LOCAL = re.compile(r"(?<![0-9A-Za-z_])\(?(?!00)(?:0\d{1,4}|[2-9]\d{0,3})\)?(?:[ -]?\d){5,10}(?![0-9A-Za-z_])(?!\.\d)")
_OPERAND_BEFORE = re.compile(r"[A-Za-z0-9_)\]]( ?)(?:\*\*?|\^|(?<!=)==)\1\Z")
_OPERAND_BEHIND = re.compile(r"( ?)(?:\*\*?|\^)\1[A-Za-z0-9_(]")
"""A sign between two operands; bullets and the stars of Markdown have something else on one side."""
_NOBODYS = re.compile(r"86154|(?:1?\d{3})?55501\d\d\Z")
"""Digits, without 00 before them, of numbers in the segments that belong to nobody."""
_DIGITS_MAX, _DIGITS_MIN = 15, 8
_LENGTH_MIN = 11
"""Characters of a number with its area code or of a mobile."""


def phones(text: str, start: int, stop: int) -> Iterator[Span]:
    """The telephone numbers in the run of digits from `start` to `stop`, with a plus or bracket before it."""
    if start and text[start - 1] in "(+":
        start -= 1 + (start > 1 and text[start - 2 : start] in ("(+", "+("))
    for found in _PLUS.finditer(text, start, stop):
        digits = sum(map(str.isdigit, found[0]))
        if _DIGITS_MIN <= digits <= _DIGITS_MAX and _is_dialled(text, found):
            yield Span(found.start(), found.end(), "phone")
    for found in _PHONES.finditer(text, start, stop) if stop - start >= _LENGTH_MIN else ():
        if not _is_table(text, found):
            yield Span(found.start(), found.end(), "phone")
    yield from _behind_word(text, start, stop)


def _behind_word(text: str, start: int, stop: int) -> Iterator[Span]:
    close = _AFTER_WORD.search(text, max(0, start - 8), stop) if stop - start >= _LENGTH_MIN else None
    if close:
        yield Span(close.start(1), close.end(1), "phone")
        return
    found = _LOCAL.match(text, start, stop)
    if found and _is_local(found[0]) and _WORD.search(text[max(0, start - 24) : start]):
        yield Span(found.start(), found.end(), "phone")


def _is_local(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return 7 <= len(digits) <= 11 and not _NOBODYS.match(digits)


def _is_dialled(text: str, found: re.Match[str]) -> bool:
    """Not the added line of a diff, the sum of numbers, or a number of the fiction ranges."""
    digits = re.sub(r"\D", "", found[0]).removeprefix("00")
    if _NOBODYS.match(digits):
        return False
    if digits.startswith("1"):
        return len(digits) == 11
    return digits[:2] != "86" or len(digits) >= 11


def is_arithmetic(text: str, found: re.Match[str]) -> bool:
    """Whether the digits are a factor or the side of a comparison."""
    if _OPERAND_BEFORE.search(text, max(0, found.start() - 5), found.start()):
        return True
    is_emphasised = text[: found.start()].endswith("*")
    return not is_emphasised and _OPERAND_BEHIND.match(text, found.end()) is not None


def _is_table(text: str, found: re.Match[str]) -> bool:
    """Groups set off by spaces alone, with more numbers beside them, are columns of a table."""
    if is_arithmetic(text, found):
        return True
    if found[1] != " ":
        return False
    before, after = text[: found.start()].rstrip(" ")[-1:], text[found.end() :].lstrip(" ")[:1]
    return before.isdigit() or after.isdigit()
