"""Encodings: text out of bytes, or the reason there is none.

In this order: a byte order mark; UTF-16 by its zero bytes; ISO-2022-JP by its escapes; UTF-8; what the page or server
declares; else GB18030, Big5 or UTF-16, whichever gives the larger share of frequent Chinese characters, unless it would
be better Japanese or Korean. Nothing is guessed beyond that: bytes in another encoding are refused, not garbled. Other
Japanese and Korean encodings are read only where they are declared.
"""

from __future__ import annotations

import codecs
import re

from atoll.data.engine.read.item import Unreadable

FREQUENT_SHARE_MIN = 0.12
COMMON_SHARE_MIN = 0.7
CONTROL_SHARE_MAX = 0.05
SAMPLE_BYTES = 64 << 10
ZERO_SHARE_MIN = 0.3
ZEROS_MIN = 4

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_JAPANESE_ESCAPES = (b"\x1b$B", b"\x1b$@")
_CONTROLS = bytes({*range(0x01, 0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F} - {0x1E, 0x1F})
_DECLARED = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_:-]{1,40})", re.I)

_LATIN = "latin-1 windows-1252 iso-8859-2 iso-8859-15 windows-1250 windows-1254"
_OTHERS = "windows-1251 koi8-r koi8-u iso-8859-5 iso-8859-7 windows-1253 windows-1255 windows-1256 tis-620"
_CJK = "shift_jis euc-jp iso-2022-jp euc-kr utf-16le utf-16be utf-16"
DECLARABLE: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in f"{_LATIN} {_OTHERS} {_CJK}".split()},
    **dict.fromkeys(("iso-8859-1", "us-ascii", "ascii"), ("windows-1252", "latin-1")),
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "x-gbk", "gb_2312-80"), ("gb18030",)),
    **dict.fromkeys(("big5", "big5-hkscs", "cn-big5", "x-x-big5"), ("big5", "cp950", "big5hkscs")),
    **dict.fromkeys(("shift-jis", "sjis", "x-sjis", "windows-31j"), ("cp932",)),
    **dict.fromkeys(("ks_c_5601-1987", "windows-949"), ("cp949",)),
}
"""What a page may say its encoding is, and what to decode with, in turn. UTF-8 is tried before any of them."""

_FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事"
    "成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公"
    "此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回"
    "特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何"
    "电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白"
    "却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导"
    "争运数据用户服务模型系统文件代码函数参数类型对象方法返回值默认版本支持使用请求响应网络安全信息技术管理"
    "這個們來為國說時會對於著過發後裡種經麼學沒動還進樣開從實軍無與長機業將兩間問並應戰頭體見產話內門員義認條氣題爾變總"
    "電數報結務場計資許統區隊決馬書聽則達強難權設記類據邊張該規萬覺術領傳師觀讓識帶導爭運請參值預檔網絡訊號碼臺灣"
    "示令字引助列置选您按包供容存改标述择序页单每修查注击键退效编译输替号错览准写控源根言料语算执填跳搜载级步连片处附布"
    "爱妈爸吃喝店车票价钱买卖称姓址男岁医院校课班考试闻歌影游戏玩客品牌商费税率房屋租售晚早午昨周晨雨雪山河海花草鸟鱼"
    "選顯頁單輸標編關訪圖語擊鍵換創寫譯處確護錯連視閱覽讀說購買賣愛媽車價錢稱歲醫課試聞遊戲費屬鳥魚備註內稱幣萬億"
)
"""Characters that make up most of any running text, simplified and traditional."""

_KANA = frozenset(map(chr, range(0x3041, 0x30FB)))
_FREQUENT_HANGUL = frozenset(
    "이다는에의을를가고하지로서기도사한은인시어리나자대과해수있그정것라보일부주만들장으여상전스아니면게원구조성적제문용회"
    "거경중방동연소관선안내세공유국무당생계신발치모비마우년화진차요했며입습록료값음못합십오때개되미후저와위없등까"
)
"""Syllables that make up most of any running Korean text."""

_RIVALS = (("euc_jp", _KANA), ("cp932", _KANA), ("euc_kr", _FREQUENT_HANGUL))
"""Encodings whose bytes may look like Chinese ones, and the characters they are known by."""

_PUNCTUATION = re.compile("[\x00-\x7f\u00a0-\u00ff\u2000-\u206f\u3000-\u303f\ufe30-\ufe4f\uff00-\uffef]+")


def decode(data: bytes, declared: str = "") -> str:
    """The text in the content of a file; raises Unreadable for empty, binary and unknown content."""
    if not data:
        raise Unreadable("the file is empty")
    text = _decoded(data, declared)
    if "\0" in text:
        raise Unreadable("it holds NUL characters: binary")
    plain = text.encode("utf-8", "replace")
    if len(plain) - len(plain.translate(None, _CONTROLS)) > CONTROL_SHARE_MAX * len(text):
        raise Unreadable("it holds many control characters: binary")
    return text


def decode_line(line: bytes) -> str:
    """The text of one line, whatever encoding other lines are in; raises Unreadable."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return _chinese(line, error, ("gb18030", "big5", "cp950", "big5hkscs"))


def decode_page(data: bytes, charset: str = "") -> str:
    """The markup of a page whose server declares `charset`, or that declares one itself."""
    return decode(data, charset if known(charset) else declared_in(data))


def known(charset: str) -> bool:
    """Whether a declared encoding is one we decode."""
    return charset.lower() in DECLARABLE


def declared_in(data: bytes) -> str:
    """The encoding the head of a page declares, if we decode it."""
    found = _DECLARED.search(data[:4096])
    name = found[1].decode().lower() if found else ""
    return name if known(name) and not name.startswith("utf-16") else ""


def wide_encoding(head: bytes) -> str:
    """UTF-16 of either order if the first bytes of a file have its mark or its zero bytes, else nothing."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = head[:SAMPLE_BYTES]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    enough = max(ZEROS_MIN, ZERO_SHARE_MIN * len(head) / 2)
    if odd >= enough and even < odd / 8:
        return "utf-16-le"
    return "utf-16-be" if even >= enough and odd < even / 8 else ""


def _decoded(data: bytes, declared: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, (encoding,))
    if b"\0" in data and (wide := wide_encoding(data)):
        return _strictly(data, (wide, "utf-8"))
    if any(escape in data for escape in _JAPANESE_ESCAPES):
        return _strictly(data, ("iso2022_jp", "utf-8"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if declared:
            return _strictly(data, DECLARABLE[declared.lower()])
        return _chinese(data, error, ("gb18030", "big5", "cp950", "big5hkscs", "utf-16-le", "utf-16-be"))


def _strictly(data: bytes, encodings: tuple[str, ...]) -> str:
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            place = error.start
    raise Unreadable(f"it is marked as {encodings[0]} but byte {place} does not fit")


def _chinese(data: bytes, utf8_error: UnicodeDecodeError, encodings: tuple[str, ...]) -> str:
    """The decoding with the most frequent characters, if it looks like Chinese; others decode too, but to rare ones."""
    best, best_share, place = "", FREQUENT_SHARE_MIN, utf8_error.start
    for encoding in encodings:
        if encoding.startswith("utf-16") and len(data) % 2:
            continue
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        share = _frequent_share(text)
        if share > best_share:
            best, best_share = text, share
    if not best:
        raise Unreadable(f"it is neither UTF-8 (byte {place} does not fit), UTF-16, GB18030 nor Big5")
    if rival := _rival(data, best_share):
        raise Unreadable(f"it seems to be {rival}, which is read only where a page declares it: convert it to UTF-8")
    return best


def _rival(data: bytes, share: float) -> str:
    """A Japanese or Korean encoding in which more than this share of the characters is frequent, if there is one."""
    for encoding, letters in _RIVALS:
        try:
            wide = _wide(data.decode(encoding))
        except UnicodeDecodeError:
            continue
        if wide and sum(map(letters.__contains__, wide)) > share * len(wide):
            return encoding.replace("_", "-")
    return ""


def _wide(text: str) -> str:
    """The characters of the beginning of a text that are neither ASCII nor punctuation."""
    return _PUNCTUATION.sub("", text[:SAMPLE_BYTES])


def _frequent_share(text: str) -> float:
    """Frequent Chinese characters among those that are neither ASCII nor punctuation; 0 when many are rare."""
    wide = _wide(text)
    if not wide or "\0" in text:
        return 0.0
    common = max(len(wide.encode(encoding, "ignore")) // 2 for encoding in ("gb2312", "big5"))
    if common < COMMON_SHARE_MIN * len(wide):
        return 0.0
    return sum(map(_FREQUENT.__contains__, wide)) / len(wide)
