"""Addresses: a Chinese road with a house number and what leads to it, an English street with its number.

Towns and countries alone are no findings, and neither are the stand-ins this package writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from atoll.data.engine.privacy.kinds import Span

_PROVINCES = (
    "北京|天津|上海|重庆|重慶|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾|臺灣"
    "|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_PART = r"[\u4e00-\u9fffA-Za-z0-9]"
_HAN = r"[\u4e00-\u9fff]"
_LEAD = re.compile(
    rf"(?:(?:中国|中國)?(?:{_PROVINCES})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区|特别行政区)?|{_HAN}{{2,3}}[市县縣])"
    rf"(?:{_HAN}{{2,8}}?(?:市|州|盟|地区))?(?:{_HAN}{{1,6}}?(?:区|區|县|縣|旗|市|新区))?(?:{_PART}{{1,12}}?(?:街道|镇|鎮|乡|鄉|村|开发区|园区))?\Z"
)
_STREET = re.compile(rf"({_HAN}{{2,6}}?(?:路|大街|大道|街道|街|道|巷|弄|胡同|里|段))\Z")
_ESTATE = re.compile(rf"({_HAN}{{2,8}}?(?:小区|花园|公寓|大厦|新村|苑|城|庄|园|村))\Z")
_HOUSE = re.compile(
    r"\d{1,5}(?:[-\u2014]\d{1,4})?(?:号|號|弄)(?:院|楼)?(?:[\u4e00-\u9fffA-Z]{0,8}?(?:大厦|小区|花园|公寓|广场|中心|苑))?"
    r"(?:[A-Z]?\d{0,4}(?:[-]\d{1,4}){0,2}(?:号楼|栋|幢|座|单元|楼|层|室|房|号|户)){0,5}"
)
_FLAT = re.compile(
    r"[A-Z]?\d{1,4}(?:号楼|栋|幢|座|單元|单元)(?:[A-Z]?\d{1,4}(?:[-]\d{1,4}){0,2}(?:号楼|栋|幢|座|单元|楼|层|室|房|号|户)?){0,4}"
)
_JUNK = re.compile(
    r"^(?:[位住在于址是为到从往至去即由向经沿过进我你他她们家的了和与及]|地址|现住|家住|位于|住址|通讯)+"
)
_WORDS_NEVER = re.compile(
    r"思路|线路|電路|电路|链路|回路|通路|网路|网络|管道|通道|频道|频段|字段|阶段|时段|片段|分段|地段|东西|这里|哪里|那里|千里|公里|海里|表里|例里|某路|街道口"
)

_ENDINGS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Highway|Hwy|Parkway|Pkwy|Square|Sq"
    "|Terrace|Circle|Cir|Broadway"
)
_ENGLISH = re.compile(
    rf"\d{{1,5}}[A-Z]? (?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?"
    rf"(?:[A-Z][a-z']+ |\d{{1,3}}(?:st|nd|rd|th) ){{1,3}}?(?:{_ENDINGS})(?![A-Za-z])\.?"
    r"(?:,? (?:Apt|Suite|Ste|Unit|Floor|Fl|Room|Rm)\.? ?#?[A-Za-z0-9\-]{1,6}| #\d{1,5})?"
    r"(?:,?\s(?:[A-Z][a-z]+ ?){1,3},? (?:[A-Z]{2}|[A-Z][a-z]+) \d{5}(?:-\d{4})?)?"
)
_NOT_STREETS = frozenset(
    {
        *("Sample", "The", "This", "A", "An", "In", "On", "Of", "If", "When", "Note", "Example", "See", "First"),
        *("Next", "Last", "Then", "It", "And"),
    }
)
_AMBIGUOUS = frozenset(
    {
        *("Place", "Way", "Court", "Drive", "Square", "Circle", "Pl", "Ct"),
    }
)
_SURNAME_LIKE = frozenset(["Lane", "Street", "Way", "Place", "Court", "Drive", "Square"])


def streets(text: str, start: int, stop: int) -> Iterator[Span]:
    """An English house number, street and, where they follow, flat, town, state and code."""
    found = _ENGLISH.match(text, start)
    if found is None or re.match(r"[A-Za-z0-9_.]", text[start - 1 : start] if start else ""):
        return
    words = re.findall(r"[A-Z][a-z']+", found[0])
    if re.match(r"(?:19|20)\d\d ", found[0]) and words[-1] in _SURNAME_LIKE:
        return
    if not set(words) & _NOT_STREETS and (len(words) > 2 or not set(words) & _AMBIGUOUS):
        yield Span(start, found.end(), "address")


def roads(text: str, start: int, stop: int) -> Iterator[Span]:
    """A Chinese address around the road's last character at `start`, the number behind it."""
    before = text[max(0, start - 40) : start + 1]
    house = _HOUSE.match(text, start + 1)
    estate = None if house else _FLAT.match(text, start + 1)
    name = _name(before, is_street=house is not None) if house or estate else None
    if name is None:
        return
    lead = _lead(before[: len(before) - len(name)])
    end = house or estate
    assert end is not None
    yield Span(start + 1 - len(name) - len(lead), end.end(), "address")


def _name(before: str, is_street: bool) -> str | None:
    """The shortest name of a road or an estate at the end of `before`; its head may be part of what leads to it."""
    run = re.search(rf"{_PART}+$", before)
    pattern = _STREET if is_street else _ESTATE
    found = pattern.search(run[0][-8:]) if run else None
    if found is None or _WORDS_NEVER.search(found[1][-3:]):
        return None
    name = re.split(r"[省市区區县縣镇鎮乡鄉]", found[1])[-1] if not found[1][:-1].endswith("区") else found[1]
    name = _JUNK.sub("", name) or found[1]
    return name if len(name) >= 2 else None


def _lead(before: str) -> str:
    """Province, city and district at the end of `before`, the longest that is one; or nothing."""
    run = re.search(rf"{_PART}*$", before)
    text = run[0] if run else ""
    for start in range(len(text)):
        if _LEAD.match(text, start):
            return _JUNK.sub("", text[start:])
    return ""
