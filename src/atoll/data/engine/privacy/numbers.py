"""Numbers of people and companies: identity cards, bank cards, credit codes, passports, plates and network addresses.

Each function looks at a window of text (full-width forms folded) around a candidate and yields spans of it. A span of
kind BLOCKED is a number that is known to be nothing: what has the shape of an identity card but a wrong check digit
must not pass for another kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from atoll.data.engine.privacy import anchors
from atoll.data.engine.privacy.checks import (
    is_bank_card,
    is_credit_code,
    is_identity_card,
    looks_like_identity_card,
    mrz_check,
)
from atoll.data.engine.privacy.kinds import Span
from atoll.data.engine.privacy.phones import is_arithmetic, phones

BLOCKED = ""

_ALONE = r"(?<![0-9A-Za-z_])(?<!\d\.)"
_END = r"(?![0-9A-Za-z_])(?!\.\d)"
_IDENTITY = re.compile(_ALONE + r"(?:\d{15}|\d{6}([ -]?)\d{8}\1\d{3}[\dXx]|\d(?:[ -]?\d){16}[ -]?[\dXx])" + _END)
_IDENTITY_WORDS = re.compile(r"(?i)[\u4e00-\u9fff]|identity|citizen|(?<![a-z])id(?![a-z])")
_CARD = re.compile(
    _ALONE + r"(?<!\d-)(?:\d{13,19}|\d{4}(?:([ -])\d{4}(?:\1\d{4}){1,2}\1\d{1,4}(?!\1\d)|([ -])\d{6}\2\d{4,5})"
    r"|\d{6}[ -]\d{10,13})" + _END
)
_IP = re.compile(_ALONE + r"(?:\d{1,3}\.){3}\d{1,3}" + _END)
_IDENTITY_LENGTH_MIN, _CARD_LENGTH_MIN, _IP_DOTS = 15, 13, 3
"""What each of these has at least."""
_IP_WORDS = re.compile(
    r"(?i)(?:(?<![a-z])ip|addr|host|server|dns|ping|from|gateway|router|inet|://|@|地址|主机|服务器)[^\w\n]{0,3}(?:\w{1,8}[^\w\n]{1,3})?\Z"
)
_VERSION_WORDS = re.compile(
    r"(?i)(?:(?<![a-z])(?:v|ver(?:sion)?s?|release|build|revision|section|clause|chapter|v8)|版本|\w+-"
    r"|(?:updat|upgrad|patch|bump)\w* [^\n]{0,24}?to)[ .:'\"`]{0,3}\Z"
)
_VERSION_TAIL = re.compile(r"[-+~][A-Za-z]")
_DECIMAL_BEFORE = re.compile(r"(?<![\d.])\d*\.\d+[ ,]\Z")
_DECIMAL_BEHIND = re.compile(r"[ ,]-?\d*\.\d+(?![\d.])")
_VERSION_OCTET_MAX = 50
_ENDPOINT_TAIL = re.compile(r":\d{2,5}(?![\d:.])|/\d{1,2}(?![\d/.])")
"""A port, or the length of a prefix."""
_PASSPORT_WORDS = re.compile(r"(?i)passport|travel document|护照|護照|通行证|通行證")
_PASSPORT_CN = re.compile(r"[DEGHPS]\d{8}|E[A-HJ-NP-Z]\d{7}|[HM]\d{8,10}|[DPS]E\d{7}")
_PASSPORT_OTHER = re.compile(r"(?!Z0)[A-Z]{1,2}\d{6,9}")
_PASSPORT_DIGITS = re.compile(r"(?<![0-9A-Za-z])\d{9}(?![0-9A-Za-z])")
_ZONE = re.compile(
    r"P[A-Z<][A-Z]{3}[A-Z<]{39}(?:\r?\n([A-Z0-9<]{9})(\d)[A-Z<]{3}(\d{6})(\d)[MF<](\d{6})(\d)[A-Z0-9<]{14}[\d<]\d)?"
)
_REGIONS = f"[{anchors.PLATE_REGIONS}]"
_PLATE = re.compile(
    _REGIONS + r"[A-HJ-NP-Z][ ·•.\-]?"
    r"(?:[DF](?![A-Z]{2})[A-HJ-NP-Z0-9]\d{4}|\d{5}[DF]|(?=[A-HJ-NP-Z]*\d)[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9学警港澳领挂])"
    r"(?![0-9A-Za-z_])"
)


def numbers(text: str, start: int, stop: int) -> Iterator[Span]:
    """What the run of digits from `start` to `stop` (and a check letter behind it) holds."""
    stop = min(stop + 1, len(text))
    length = stop - start  # a look at it spares most runs most of the patterns
    if length >= _IDENTITY_LENGTH_MIN:
        yield from _identity_cards(text, start, stop)
    if length >= _CARD_LENGTH_MIN:
        yield from _bank_cards(text, start, stop)
    if text.count(".", start, stop) >= _IP_DOTS:
        yield from _addresses(text, start, stop)
    yield from phones(text, start, stop)
    if 9 <= length <= 10 and _PASSPORT_WORDS.search(text, max(0, start - 24), start):
        yield from (Span(*found.span(), "passport") for found in _PASSPORT_DIGITS.finditer(text, start, stop))


def _bank_cards(text: str, start: int, stop: int) -> Iterator[Span]:
    for found in _CARD.finditer(text, start, stop):
        if not is_arithmetic(text, found) and is_bank_card(re.sub(r"\D", "", found[0])):
            yield Span(found.start(), found.end(), "bank_card")


def _addresses(text: str, start: int, stop: int) -> Iterator[Span]:
    for found in _IP.finditer(text, start, stop):
        if _is_public_address(found[0]) and not _is_version(text, found):
            yield Span(found.start(), found.end(), "ip")


def _identity_cards(text: str, start: int, stop: int) -> Iterator[Span]:
    for found in _IDENTITY.finditer(text, start, stop):
        number = re.sub(r"[^\dXx]", "", found[0])
        if is_arithmetic(text, found) or (
            len(number) == 15 and not _IDENTITY_WORDS.search(text[max(0, start - 40) : stop + 8])
        ):
            continue
        if is_identity_card(number):
            yield Span(found.start(), found.end(), "identity_card")
        elif len(number) == 18 and is_credit_code(number) and not looks_like_identity_card(number):
            yield Span(found.start(), found.end(), "credit_code")
        elif len(number) == 18 and looks_like_identity_card(number):
            yield Span(found.start(), found.end(), BLOCKED)


def _is_public_address(text: str) -> bool:
    """Global unicast only: private, loopback, link-local, documentation and reserved ranges name nobody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def _is_version(text: str, found: re.Match[str]) -> bool:
    """Four small numbers are a version, a section or an example, unless a word or a port says they are an address."""
    before = text[max(0, found.start() - 32) : found.start()]
    if _VERSION_WORDS.search(before) or _VERSION_TAIL.match(text, found.end()):
        return True
    if _DECIMAL_BEFORE.search(before) and _DECIMAL_BEHIND.match(text, found.end()):
        return True
    octets = [int(part) for part in found[0].split(".")]
    if max(octets) > _VERSION_OCTET_MAX or _ENDPOINT_TAIL.match(text, found.end()):
        return False
    return not _IP_WORDS.search(before)


def addresses6(text: str, start: int, stop: int) -> Iterator[Span]:
    """A global IPv6 address."""
    stop = start + len(text[start:stop].rstrip(":."))
    if _is_public_address(text[start:stop]):
        yield Span(start, stop, "ip")


def passports(text: str, start: int, stop: int) -> Iterator[Span]:
    """Capitals and digits with a word for passports before them."""
    if not _PASSPORT_WORDS.search(text, max(0, start - 32), start):
        return
    if _PASSPORT_CN.fullmatch(text, start, stop) or _PASSPORT_OTHER.fullmatch(text, start, stop):
        yield Span(start, stop, "passport")


def zones(text: str, start: int, stop: int) -> Iterator[Span]:
    """The machine-readable zone of a passport: its first line, and the second where its check digits hold."""
    found = _ZONE.match(text, start)
    if found is None:
        return
    held = found[1] is not None and all(mrz_check(found[at]) == found[at + 1] for at in (1, 3, 5))
    line_stop = start + 44
    yield Span(start, found.end() if held else line_stop, "passport")


def codes(text: str, start: int, stop: int) -> Iterator[Span]:
    """A unified social credit code by its check character."""
    if is_credit_code(text[start:stop]):
        yield Span(start, stop, "credit_code")


def plates(text: str, start: int, stop: int) -> Iterator[Span]:
    """A Chinese licence plate: five places, or six for new energy (D or F)."""
    found = _PLATE.match(text, start)
    if found:
        yield Span(start, found.end(), "plate")
