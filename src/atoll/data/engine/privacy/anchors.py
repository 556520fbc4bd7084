"""What the candidate scan stops at: a small action for every byte, and tables of characters and beginnings.

Only bytes with an action cost more than a look; everything an anchor lets through is verified afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

NUMBER, AT, ASSIGN, LABEL, BLOCK, TOKEN, PLATE, ZONE, STREET, ROAD, PERSON, TITLE, PASSPORT, CODE, ADDRESS6 = range(
    1, 16
)
"""Kinds of candidates: digits, an @, a key's or a label's colon, a key block, a long token, a plate, a machine-readable
zone, an English street, a Chinese road, a word beside a Chinese name, an English title, a passport's number, a credit
code, an IPv6 address.
"""

DIGITS, WIDE, MAIL, DASH, ANGLE, HAN, CAPITAL, COLON, PERCENT = range(1, 10)
"""Actions of bytes."""

PLATE_HEAD, ROAD_TAIL, WORD_TAIL, SECRET_TAIL, WORD_HEAD, SURNAME = 1, 2, 4, 8, 16, 32
TAILS = PLATE_HEAD | ROAD_TAIL | WORD_TAIL
"""Flags of Han characters."""

PLATE_REGIONS = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
ROAD_ENDS = "路街道巷弄同里村苑区园厦庄城段"
PERSON_WORDS = (
    *("先生", "女士", "小姐", "同志", "老师", "教授", "医生", "大夫", "经理", "主任", "律师", "师傅", "博士"),
    *("姓名", "我叫", "名叫", "系人", "件人", "责人", "表人", "请人", "患者", "客户", "作者", "编辑", "经办"),
)
"""Two characters each: titles that follow a name, and words (or their ends) a name follows."""
SECRET_WORDS = ("密码", "口令", "密钥", "私钥", "令牌", "密鑰", "密碼")

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆"
    "郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂焦向柳邢路岳齐梅莫庄辛管祝左涂"
    "谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边"
    "張劉陳楊趙黃吳孫馬羅鄭謝韓馮蕭鄧許傅呂蘇盧蔣賈葉閻鐘汪譚鄒陸龍萬錢湯賴龔龐顏嚴溫蘆韋畢齊莊時費紀歐項陽衛關"
)
COMPOUND_SURNAMES = (
    "欧阳",
    "上官",
    "司马",
    "诸葛",
    "夏侯",
    "东方",
    "皇甫",
    "尉迟",
    "公孙",
    "慕容",
    "令狐",
    "司徒",
    "端木",
    "歐陽",
)
KEY_ENDS = ("key", "ken", "ret", "ord", "swd", "pwd", "ass", "ion", "ial", "rer", "uth", "ase", "kid", "rid", "sid")
LABEL_ENDS = ("ame", "act", "hor", "ttn", "-by", "ent", "ner", "yee", "ted", "rom", "fee", "ant", "ear", "son", "der")
TOKEN_HEADS = (
    *("sk-", "sk_", "pk_", "rk_", "ghp", "gho", "ghu", "ghs", "ghr", "git", "glp", "AKI", "ASI", "AIz", "xox", "xap"),
    *("eyJ", "hf_", "npm", "pyp", "dop", "SG.", "LTA", "AKI", "ya2", "sq0", "shp", "EAA", "dck", "tsk", "AGE", "hvs"),
    *("lin", "PMA", "NRA", "gls", "snt", "whs", "GOC", "ato", "rub", "key", "r8_", "gsk", "nva", "AQV", "pat"),
)
STREET_HEADS = (
    "St",
    "Av",
    "Ro",
    "Rd",
    "Bo",
    "Bl",
    "La",
    "Ln",
    "Dr",
    "Co",
    "Ct",
    "Wa",
    "Pl",
    "Hi",
    "Pa",
    "Sq",
    "Te",
    "Ci",
)


@dataclass(frozen=True, slots=True)
class Anchors:
    """actions: uint8 by byte. han: uint8 flags by code point. pairs: sorted uint32, two characters each. keys, labels,
    tokens: sorted uint32 of three bytes; streets: of two.
    """

    actions: NDArray[np.uint8]
    han: NDArray[np.uint8]
    pairs: NDArray[np.uint32]
    keys: NDArray[np.uint32]
    labels: NDArray[np.uint32]
    tokens: NDArray[np.uint32]
    streets: NDArray[np.uint32]


@cache
def anchors() -> Anchors:
    """The tables, built once."""
    return Anchors(
        _actions(),
        _han(),
        np.array(sorted(_pair(word) for word in PERSON_WORDS + SECRET_WORDS), np.uint32),
        _packed(KEY_ENDS),
        _packed(LABEL_ENDS),
        _packed(TOKEN_HEADS),
        _packed(STREET_HEADS),
    )


def _actions() -> NDArray[np.uint8]:
    actions = np.zeros(256, np.uint8)
    actions[ord("0") : ord("9") + 1] = DIGITS
    actions[0xEF] = WIDE
    actions[0xE4:0xEA] = HAN
    for letters, action in (("@", MAIL), ("%", PERCENT), (":=", COLON), ("-", DASH), ("<", ANGLE), ("MDP", CAPITAL)):
        actions[[ord(letter) for letter in letters]] = action
    return actions


def _han() -> NDArray[np.uint8]:
    flags = np.zeros(1 << 16, np.uint8)
    tails = (
        (PLATE_REGIONS, PLATE_HEAD),
        (ROAD_ENDS, ROAD_TAIL),
        ([word[1] for word in PERSON_WORDS + SECRET_WORDS], WORD_TAIL),
        ([word[1] for word in SECRET_WORDS], SECRET_TAIL),
        ([word[0] for word in PERSON_WORDS + SECRET_WORDS], WORD_HEAD),
        (SURNAMES + "".join(name[0] for name in COMPOUND_SURNAMES), SURNAME),
    )
    for letters, flag in tails:
        for letter in letters:
            flags[ord(letter)] |= flag
    return flags


def _pair(word: str) -> int:
    return ord(word[0]) << 16 | ord(word[1])


def _packed(words: tuple[str, ...]) -> NDArray[np.uint32]:
    return np.array(sorted({int.from_bytes(word.encode(), "big") for word in words}), np.uint32)
