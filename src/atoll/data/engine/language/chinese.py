"""Conversion of Chinese from one script to the other by OpenCC's dictionaries, which are loaded when it is asked for.

Regional words (軟體, 软件) are kept: script is converted, not vocabulary.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

Target = Literal["keep", "simplified", "traditional"]

_HAN = [chr(point) for point in (*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000))]
_OTHERS = "\uf900-\ufaff\U00020000-\U0003ffff"
"""Compatibility forms and rare characters: always given to OpenCC."""
_IN_PHRASES = {
    "simplified": "哩坏沈甦瞭藉衹覆",
    "traditional": (
        "了仇仿佛俊修借僵克具冬凌出刮制千升卜卷只合吊同向吣呆周咽哄喂噪回困夫奸姜娘家局巨布席幸庵弦彩御志念恤愈戚扇才扎托扣折"
        "抵拐挨挽捆搜斤昆暗曲朱杆杯松板栗核梁棱欲沈沾泛注浚溪漓澄狸玩私秋穗糊系耇胄背胡致舍芸苔蒙蔑表谷象酸雕面"
    ),
}
"""Characters that change only in some phrase of OpenCC's."""
_CONFIGURATIONS = {"simplified": "t2s", "traditional": "s2t"}


def convert(text: str, target: Target) -> str:
    """`text` in the script `target`; what is not Chinese, and what has no other form, stays as it is."""
    if target == "keep" or text.isascii() or not _changing(target).search(text):
        return text
    converted: str = _converter(target).convert(text)
    return converted


@cache
def _changed(target: str) -> set[str]:
    """Han characters that OpenCC writes otherwise in `target`, each by itself."""
    converted = _converter(target).convert("\n".join(_HAN)).split("\n")
    return {letter for letter, other in zip(_HAN, converted, strict=True) if letter != other}


@cache
def _changing(target: str) -> re.Pattern[str]:
    """Finds a character that may change: without one the text is what it would become."""
    return re.compile(f"[{''.join(sorted(_changed(target)))}{_IN_PHRASES[target]}{_OTHERS}]")


@cache
def _converter(target: str) -> Any:
    from opencc import OpenCC

    return OpenCC(_CONFIGURATIONS[target])
