"""Check digits and number ranges: what tells an identity card, a bank card or a company code from any other digits.

They say that a number is well formed, never that it was issued.
"""

from __future__ import annotations

from datetime import date

PROVINCES = frozenset(
    {
        *(11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46),
        *(50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83),
    }
)
"""GB/T 2260: the first two digits of a region."""

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"
_CODE_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CODE_WEIGHTS = tuple(3**place % 31 for place in range(17))
_CODE_HEADS = {
    **{"1": "123459", "2": "19", "3": "123459", "4": "19", "5": "1239", "6": "129", "7": "129", "8": "19"},
    **{"9": "123", "A": "19", "N": "1239", "Y": "1"},
}
_BIRTH_YEAR_MIN = 1890

_ISSUERS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4, 4, (13, 16, 19)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),
    (62, 62, (16, 17, 18, 19)),  # UnionPay
    (81, 81, (16, 17, 18, 19)),
    (95588, 95588, (19,)),  # the oldest cards of ICBC
    (6011, 6011, (16, 19)),  # Discover
    (644, 649, (16, 19)),
    (65, 65, (16, 19)),
    (3528, 3589, (16, 19)),  # JCB
    (300, 305, (14, 16)),  # Diners Club
    (36, 36, (14,)),
    (38, 39, (14, 16)),
    (2200, 2204, (16,)),  # Mir
    (5018, 5018, (16, 18, 19)),  # Maestro
    (5020, 5020, (16, 18, 19)),
    (5038, 5038, (16, 18, 19)),
    (6304, 6304, (16, 18, 19)),
    (6759, 6763, (16, 18, 19)),
)
"""First and last issuer prefix (ISO/IEC 7812), and the lengths its numbers have."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812-1 annex B."""
    odd = sum(map(int, digits[-1::-2]))
    even = sum(2 * int(digit) - 9 * (digit > "4") for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def is_bank_card(digits: str) -> bool:
    """Luhn, an issuer's prefix, and a length that issuer has; one digit over and over is none."""
    return _has_issuer(digits) and luhn(digits) and len(set(digits)) > 1


def _has_issuer(digits: str) -> bool:
    length = len(digits)
    return any(
        length in lengths and first <= int(digits[: len(str(first))]) <= last for first, last, lengths in _ISSUERS
    )


def looks_like_identity_card(number: str) -> bool:
    """Whether 18 characters have the region and the birth date of an identity card (GB 11643), whatever the check."""
    return _is_region(number[:6]) and _is_birth_date(number[6:14])


def is_identity_card(number: str) -> bool:
    """A Chinese identity card: 18 characters with region, birth date and the check digit of ISO 7064 MOD 11-2; or the
    15 digits given out until 1999, which have no check digit.
    """
    if len(number) == 15:
        return _is_region(number[:6]) and _is_birth_date("19" + number[6:12])
    return looks_like_identity_card(number) and identity_check(number[:17]) == number[17].upper()


def identity_check(digits: str) -> str:
    """The check digit of 17 digits: ISO 7064 MOD 11-2."""
    return _ID_CHECKS[sum(int(digit) * weight for digit, weight in zip(digits, _ID_WEIGHTS, strict=True)) % 11]


def is_credit_code(code: str) -> bool:
    """A unified social credit code: department, category, region and the check character of GB 32100."""
    if len(code) != 18 or code[1] not in _CODE_HEADS.get(code[0], "") or not code[2:8].isdigit():
        return False
    if int(code[2:4]) not in PROVINCES | {10} or not set(code) <= set(_CODE_ALPHABET):
        return False
    return credit_check(code[:17]) == code[17]


def credit_check(code: str) -> str:
    """The check character of 17 characters: GB 32100, modulo 31."""
    total = sum(_CODE_ALPHABET.index(letter) * weight for letter, weight in zip(code, _CODE_WEIGHTS, strict=True))
    return _CODE_ALPHABET[-total % 31]


def mrz_check(field: str) -> str:
    """The check digit of a field of a machine-readable zone: ICAO Doc 9303 part 3, weights 7 3 1."""
    total = 0
    for place, letter in enumerate(field):
        value = 0 if letter == "<" else int(letter, 36)
        total += value * (7, 3, 1)[place % 3]
    return str(total % 10)


def _is_region(digits: str) -> bool:
    return int(digits[:2]) in PROVINCES and digits[2:6] != "0000" and (digits[2:4] < "71" or digits[2:4] == "90")


def _is_birth_date(digits: str) -> bool:
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return born.year >= _BIRTH_YEAR_MIN and born <= date(2100, 1, 1)
