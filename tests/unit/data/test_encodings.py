import pytest

from atoll.data.engine.read.encodings import decode, decode_line, decode_page, wide_encoding
from atoll.data.engine.read.item import Unreadable

SIMPLIFIED = "人工智能平台把数据变成模型、把模型变成服务。"
TRADITIONAL = "這個平台把資料變成模型\uff0c再把模型變成大家都可以使用的服務。"
JAPANESE = "図書館は毎日午前九時に開きます。利用者は無料で本を借りることができます。"
KOREAN = "올바른 주소를 입력하세요. 이 값은 사용할 수 없습니다."
SHORT_SIMPLIFIED = [
    "你好\uff0c世界",
    "用户可以上传文件",
    "这是第一行",
    "价格\uff1a100元",
    "我们在北京开会",
    "请参考使用说明",
    "无法打开数据库",
]
SHORT_TRADITIONAL = [
    "你好\uff0c世界",
    "使用者可以上傳檔案",
    "這是第一行",
    "我們在臺北開會",
    "請參考使用說明",
    "無法開啟資料庫",
    "電話號碼",
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "utf-16-le", "utf-16-be"])
def test_simplified_chinese_is_read_in_every_known_encoding(encoding: str) -> None:
    assert decode(SIMPLIFIED.encode(encoding)) == SIMPLIFIED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030", "big5", "utf-16-le"])
def test_traditional_chinese_is_read_in_every_known_encoding(encoding: str) -> None:
    assert decode(TRADITIONAL.encode(encoding)) == TRADITIONAL


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_known_by_its_zeros(encoding: str) -> None:
    text = "plain words and more of them\n" * 3
    assert decode(text.encode(encoding)) == text
    assert wide_encoding(text.encode(encoding)) == encoding


@pytest.mark.parametrize("text", SHORT_SIMPLIFIED)
def test_one_short_line_of_gb18030_is_enough(text: str) -> None:
    assert decode_line(text.encode("gb18030")) == text


@pytest.mark.parametrize("text", SHORT_TRADITIONAL)
def test_one_short_line_of_big5_is_enough(text: str) -> None:
    assert decode_line(text.encode("big5")) == text


def test_big_endian_utf16_is_read_by_its_mark() -> None:
    assert decode(b"\xfe\xff" + SIMPLIFIED.encode("utf-16-be")) == SIMPLIFIED


def test_a_four_byte_gb18030_character_among_common_ones_is_read() -> None:
    text = SIMPLIFIED + "㐀"
    assert decode(text.encode("gb18030")) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"ab\0cd", "NUL"),
        (b"\x01\x02\x03\x04" * 10 + b"text", "control characters"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xd8", "neither UTF-8|NUL"),
        ("été à la plage, très agréable, déjà vu".encode("latin-1"), "neither UTF-8"),
        ("Привет, как дела? Хорошо.".encode("cp1251"), "neither UTF-8"),
        ("これは日本語の文章です。".encode("shift_jis"), "neither UTF-8"),
        ("이것은 한국어 문장입니다.".encode("euc-kr"), "neither UTF-8"),
        (b"\xef\xbb\xbfbad \xff", "marked as utf-8-sig but byte"),
        (b"\xff\xfea\x00\x00\xd8", "marked as utf-16"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data)


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("iso-8859-1", "cp1252", "déjà vu \u2013 “so”"),
        ("gb2312", "gb18030", "镕\uff1a人名用字"),
        ("Big5", "big5", "生僻\uff1a龘"),
        ("shift_jis", "shift_jis", "これは日本語です"),
        ("windows-1251", "cp1251", "Привет"),
        ("euc-kr", "euc-kr", "한국어"),
    ],
)
def test_a_page_declares_its_encoding(declared: str, encoding: str, text: str) -> None:
    text = text.encode(encoding, "ignore").decode(encoding)
    page = f'<meta charset="{declared}"><p>{text}</p>'.encode(encoding)
    assert text in decode_page(page)
    assert text in decode_page(f"<p>{text}</p>".encode(encoding), declared)


def test_utf8_wins_over_a_wrong_declaration_and_an_unknown_one_is_not_used() -> None:
    page = '<meta charset="iso-8859-1"><p>déjà vu</p>'
    assert decode_page(page.encode()) == page
    with pytest.raises(Unreadable):
        decode_page(page.replace("iso-8859-1", "utf-7").encode("latin-1"))


@pytest.mark.parametrize(("text", "encoding"), [(JAPANESE, "euc-jp"), (KOREAN, "euc-kr")])
def test_japanese_and_korean_are_not_taken_for_chinese(text: str, encoding: str) -> None:
    with pytest.raises(Unreadable, match=f"seems to be {encoding}, .* convert it to UTF-8"):
        decode(text.encode(encoding))


def test_iso_2022_jp_is_known_by_its_escapes() -> None:
    assert decode(JAPANESE.encode("iso-2022-jp")) == JAPANESE
    assert JAPANESE in decode_page(f'<meta charset="iso-2022-jp"><p>{JAPANESE}'.encode("iso-2022-jp"))
    assert decode("a terminal's \x1b$B, and é".encode()) == "a terminal's \x1b$B, and é"


def test_bytes_that_do_not_fit_what_is_declared_are_refused() -> None:
    with pytest.raises(Unreadable, match="marked as shift_jis"):
        decode_page(b'<meta charset="shift_jis"><p>\xff\xff\xff</p>')
