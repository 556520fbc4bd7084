"""Stand-ins: what a pseudonym of each kind looks like, chosen by a keyed digest of the value, and nobody's.

The same value under the same key has the same stand-in. None is found as personal data again: check digits are wrong,
segments unassigned, ranges and domains reserved, names those of nobody.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable

from atoll.data.engine.privacy.checks import identity_check, is_bank_card
from atoll.data.engine.privacy.kinds import MARKS
from atoll.data.engine.privacy.people import STAND_IN_SURNAMES

_GIVEN = (
    *("Alex", "Avery", "Blake", "Casey", "Devon", "Drew", "Ellis", "Emery", "Finley", "Harper", "Jamie", "Jordan"),
    *("Kendall", "Lane", "Logan", "Marley", "Morgan", "Parker", "Quinn", "Reese", "Riley", "Robin", "Rowan", "Sage"),
)
_CHINESE_SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
_ORDINALS = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

_SEPARATORS = re.compile(r"[\s().\-·•]+")
_SEPARATED = frozenset({"identity_card", "bank_card", "credit_code", "passport", "plate"})
_AMERICA = re.compile(r"\+1|1(?=[\s().\-])")
_MOBILE = re.compile(r"1[3-9]\d{9}")


class Choice:
    """Numbers drawn from a keyed digest of a value: the same for the same key, kind and value."""

    def __init__(self, key: bytes, kind: str, value: str) -> None:
        content = value.encode("utf-8", "surrogatepass")
        keyed = hashlib.blake2b(key).digest()
        self._rest = int.from_bytes(hashlib.blake2b(content, key=keyed, person=kind.encode()[:16]).digest(), "big")

    def below(self, limit: int) -> int:
        """A number from 0 up to, not including, `limit`."""
        self._rest, number = divmod(self._rest, limit)
        return number

    def digits(self, length: int) -> str:
        return "".join(str(self.below(10)) for _ in range(length))


def digest(key: bytes, kind: str, value: str) -> str:
    """Twelve hexadecimal digits of the keyed BLAKE2b of `value`."""
    keyed = hashlib.blake2b(key).digest()
    content = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, key=keyed, person=kind.encode()[:16], digest_size=6).hexdigest()


def spelled(kind: str, value: str) -> str:
    """The one spelling under which values of `kind` are compared: full-width forms folded, case and separators gone,
    telephone numbers as they are dialled at home, IPv6 addresses as RFC 5952 writes them, Chinese names without the
    spaces of forms. Of other names, of addresses and secrets every letter counts.
    """
    if kind == "name" and _is_chinese(value):
        return "".join(value.split())
    if kind in ("name", "address", "secret"):
        return value
    plain = _folded(value).lower()
    if kind == "phone":
        return _at_home(plain)
    if kind == "ip":
        return _address_written(plain)
    if kind == "email":
        return plain.replace("%40", "@")
    return _SEPARATORS.sub("", plain) if kind in _SEPARATED else plain


def _at_home(number: str) -> str:
    """A Chinese or American number as it is dialled there, others as from abroad; `number` is folded."""
    plain = re.sub(r"^00(?=[1-9])", "+", _SEPARATORS.sub("", number))
    if _AMERICA.match(number) and re.fullmatch(r"\+?1\d{10}", plain):
        return plain[-10:]
    mobile = re.fullmatch(rf"\+?86({_MOBILE.pattern})", plain)
    return mobile[1] if mobile else re.sub(r"^\+860?", "0", plain)


def _address_written(address: str) -> str:
    """What a cut left of an address is as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def stand_in(key: bytes, kind: str, value: str) -> str:
    """Another value of `kind` in place of `value`, equal in format where that can be."""
    make = _MAKERS.get(kind)
    if make is None:
        return f"{MARKS[kind][:-1]}:{digest(key, kind, value)}]"
    return make(Choice(key, kind, spelled(kind, value)), value)


def _email(choice: Choice, value: str) -> str:
    word = "".join(_LETTERS[choice.below(26)] for _ in range(8))
    return f"{word}{choice.digits(2)}@example.{('com', 'net', 'org')[choice.below(3)]}"


def _ip(choice: Choice, value: str) -> str:
    """An address of the ranges for benchmarks (RFC 2544) or documentation (RFC 3849)."""
    if ":" in value:
        return f"2001:db8::{choice.below(65536):x}:{choice.below(65536):x}"
    return f"198.{18 + choice.below(2)}.{choice.below(256)}.{choice.below(256)}"


def _phone(choice: Choice, value: str) -> str:
    """Digits for digits: Chinese numbers in the segment 154, others in the American range of fiction."""
    plain = re.sub(r"\D", "", _folded(value))
    if _MOBILE.fullmatch(_at_home(_folded(value))):
        number = "154" + choice.digits(8)
        return _refilled(value, plain[:-11] + number)
    return f"555-01{choice.digits(2)}" if len(plain) < 10 else f"({200 + choice.below(700)}) 555-01{choice.digits(2)}"


def _identity_card(choice: Choice, value: str) -> str:
    """Region and birth year stay plausible; the check digit is wrong."""
    born = f"19{choice.digits(2)}{1 + choice.below(12):02}{1 + choice.below(28):02}"
    number = f"990000{born}{choice.digits(3)}"
    wrong = (int(choice.below(9)) + 1 + "0123456789X".index(identity_check(number))) % 11
    return number + "0123456789X"[wrong]


def _bank_card(choice: Choice, value: str) -> str:
    """The issuer stays; Luhn does not hold."""
    plain = re.sub(r"\D", "", _folded(value))
    number = plain[:6] + choice.digits(len(plain) - 6)
    while is_bank_card(number):
        number = number[:-1] + str((int(number[-1]) + 1) % 10)
    return _refilled(value, number)


def _credit_code(choice: Choice, value: str) -> str:
    """A region that is none: 99."""
    return f"{_folded(value)[:2]}990000{choice.digits(10)}"


def _plate(choice: Choice, value: str) -> str:
    """I and O are no letters of plates."""
    return f"{value[0]}{'IO'[choice.below(2)]}{choice.digits(5)}"


def _passport(choice: Choice, value: str) -> str:
    """Z0 begins no passport's number here."""
    return "Z0" + choice.digits(7)


def _name(choice: Choice, value: str) -> str:
    if _is_chinese(value):
        surname = _CHINESE_SURNAMES[choice.below(len(_CHINESE_SURNAMES))]
        return f"{surname}某{_ORDINALS[choice.below(len(_ORDINALS))]}"
    surname = STAND_IN_SURNAMES[choice.below(len(STAND_IN_SURNAMES))]
    return f"{_GIVEN[choice.below(len(_GIVEN))]} {surname}"


def _address(choice: Choice, value: str) -> str:
    if value.isascii():
        return f"{1 + choice.below(999)} Sample Street"
    return f"某路{1 + choice.below(999)}号"


def _is_chinese(value: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in value)


def _folded(value: str) -> str:
    return value.translate({point: point - 0xFEE0 for point in range(0xFF01, 0xFF5F)})


def _refilled(value: str, digits: str) -> str:
    """`value` with its digits replaced by `digits` in order."""
    left = iter(digits)
    return "".join(next(left) if letter.isdigit() else letter for letter in _folded(value))


_MAKERS: dict[str, Callable[[Choice, str], str]] = {
    "email": _email,
    "ip": _ip,
    "phone": _phone,
    "identity_card": _identity_card,
    "bank_card": _bank_card,
    "credit_code": _credit_code,
    "plate": _plate,
    "passport": _passport,
    "name": _name,
    "address": _address,
}
