# ruff: noqa: RUF001 - full-width forms are what is tested
"""Actions: mask, hash, stand-in and drop, counted, stable and done once."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.privacy import COLUMNS, KINDS, Actions, Applied, Dropped, Finder, count
from atoll.data.engine.privacy.checks import is_bank_card, is_credit_code, is_identity_card

TEXT = (
    "联系人：王小明，手机13979523499，邮箱li_na88158@qq.com，身份证44030519610823785X，卡号6222 0241 0474 5483，"
    "车牌京A12345，护照E12345678，代码91350100M000100Y43，来自47.48.165.203，密码是Abc_2024!x，住浙江省杭州市文三路138号2幢。"
)
EACH = {kind: 1 for kind in KINDS}


def applied(action: str, text: str = TEXT, key: bytes = b"project") -> str:
    result = Actions(action, {}, key).apply(text)
    assert isinstance(result, Applied)
    return result.text


def test_mask_writes_the_kind_and_counts_each() -> None:
    result = Actions("mask").apply(TEXT, "d1")
    assert isinstance(result, Applied)
    assert result.counts == EACH
    assert result.text == (
        "联系人：[NAME]，手机[PHONE]，邮箱[EMAIL]，身份证[IDENTITY_CARD]，卡号[BANK_CARD]，"
        "车牌[PLATE]，护照[PASSPORT]，代码[CREDIT_CODE]，来自[IP]，密码是[SECRET]，住[ADDRESS]。"
    )


@pytest.mark.parametrize("action", ["mask", "hash", "pseudonymise"])
def test_acting_twice_is_acting_once(action: str) -> None:
    once = applied(action)
    assert applied(action, once) == once
    assert Finder().find(once) == []


def test_hash_is_keyed_short_and_blind_to_separators() -> None:
    plain, spaced = applied("hash", "拨13979523499吧"), applied("hash", "拨139-7952-3499吧")
    assert plain == spaced
    assert plain.startswith("拨[PHONE:")
    assert len(plain) == len("拨[PHONE:]吧") + 12
    assert applied("hash", "拨13979523499吧", b"other") != plain


def test_stand_ins_are_stable_in_a_project_and_nobodys() -> None:
    one, again = applied("pseudonymise"), applied("pseudonymise", "又及：" + TEXT)
    assert again == "又及：" + one
    assert applied("pseudonymise", key=b"other") != one
    for value in (
        "王小明",
        "13979523499",
        "li_na88158",
        "44030519610823785X",
        "E12345678",
        "47.48",
        "Abc_2024",
        "文三路",
    ):
        assert value not in one


def test_stand_in_numbers_hold_no_check() -> None:
    for last in range(200):
        key = str(last).encode()
        assert not is_identity_card(applied("pseudonymise", "44030519610823785X", key))
        assert not is_bank_card(applied("pseudonymise", "6222024104745483", key))
        assert not is_credit_code(applied("pseudonymise", "91350100M000100Y43", key))


def test_stand_in_keeps_the_format() -> None:
    assert applied("pseudonymise", "+86 139-7952-3499").startswith("+86 154-")
    assert len(applied("pseudonymise", "6222 0241 0474 5483")) == 19
    assert applied("pseudonymise", "zhang.wei@gmail.com").split("@")[1].startswith("example.")


def test_drop_says_which_kinds() -> None:
    result = Actions("keep", {"identity_card": "drop"}).apply(TEXT)
    assert isinstance(result, Dropped)
    assert result.counts == EACH
    assert isinstance(Actions("keep", {"identity_card": "drop"}).apply("nothing here"), Applied)


def test_kept_kinds_stay_and_are_counted() -> None:
    result = Actions("keep", {"phone": "mask"}).apply("13979523499 zhang.wei@gmail.com")
    assert result == Applied("[PHONE] zhang.wei@gmail.com", {"phone": 1, "email": 1})


def test_unknown_kinds_and_actions_are_refused() -> None:
    with pytest.raises(Invalid, match="no kind 'phon'"):
        Actions("mask", {"phon": "mask"})
    with pytest.raises(Invalid, match="no action 'erase'"):
        Actions("erase")


def test_count_gives_a_column_of_every_kind() -> None:
    texts = pa.array(["", TEXT, "nothing", "13979523499, 13872418535"])
    counts = count(texts.slice(1), Finder())
    assert counts.schema.names == list(COLUMNS)
    assert all(column.type == pa.int32() for column in counts.columns)
    table = np.array([column.to_numpy() for column in counts.columns])
    assert table[:, 0].tolist() == [1] * len(KINDS)
    assert table[:, 1].sum() == 0
    assert counts.column("pii_phone").to_pylist() == [1, 0, 2]


def test_count_equals_find_text_by_text() -> None:
    texts = [TEXT[start:] for start in range(0, len(TEXT), 7)]
    counted = count(pa.array(texts), Finder(names=("小明",)))
    for row, text in enumerate(texts):
        kinds = [span.kind for span in Finder(names=("小明",)).find(text)]
        assert {kind: counted.column(f"pii_{kind}")[row].as_py() for kind in set(kinds)} == {
            kind: kinds.count(kind) for kind in set(kinds)
        }


@pytest.mark.parametrize("action", ["hash", "pseudonymise"])
def test_one_value_in_many_spellings_has_one_stand_in(action: str) -> None:
    first, *others = (
        applied(action, f"拨{number}吧").replace("-", "").replace(" ", "").replace("+86", "")
        for number in ("13979523499", "139-7952-3499", "139 7952 3499", "+86 139 7952 3499", "１３９７９５２３４９９")
    )
    assert others == [first] * 4
    assert applied(action, "Li.Na@Corp.org") == applied(action, "li.na@corp.org")
    assert applied(action, "京A12345") == applied(action, "京A·12345")


@pytest.mark.parametrize(
    "spellings",
    [
        ("13979523499", "+8613979523499", "0086-13979523499", "(+86)13979523499", "(86)139-7952-3499"),
        ("+1 (415) 867-5309", "415-867-5309", "(415) 867-5309", "1-415-867-5309", "+14158675309"),
        ("010-62345678", "(010)62345678", "+86 10 62345678", "0086 10 6234 5678"),
        ("+44 20 7946 1958", "+442079461958", "0044 20 7946 1958"),
        ("+91 98765 43210", "+919876543210"),
        ("2606:2800:220:1:248:1893:25c8:1946", "2606:2800:0220:0001:0248:1893:25C8:1946"),
        ("姓名：王 芳。", "姓名：王芳。"),
        ("ann.lee@corp.org", "Ann.Lee%40corp.org"),
    ],
)
def test_spellings_of_one_value_are_one_value_and_its_stand_in_is_not_found(spellings: tuple[str, ...]) -> None:
    hashed = {applied("hash", f"拨 {value} 吧").replace("姓名：", "") for value in spellings}
    assert len(hashed) == 1 and ":" in hashed.pop()
    for value in spellings:
        once = applied("pseudonymise", f"拨 {value} 吧")
        assert value not in once and Finder().find(once) == []


@pytest.mark.parametrize(
    "number", ["13979523499", "+44 20 7946 1958", "(415) 867-5309", "010-62345678", "86-1397952 3499"]
)
def test_a_number_has_the_same_stand_in_behind_a_word_for_telephones(number: str) -> None:
    plain = applied("pseudonymise", f"拨 {number} 吧").removeprefix("拨 ").removesuffix(" 吧")
    assert plain != number
    assert applied("pseudonymise", f"电话：{number}。") == f"电话：{plain}。"
    assert applied("pseudonymise", f"tel: {number} now") == f"tel: {plain} now"


def test_a_stand_in_of_a_mobile_is_one_in_every_spelling() -> None:
    numbers = [
        applied("pseudonymise", f"拨 {value} 吧") for value in ("13979523499", "0086-13979523499", "+8613979523499")
    ]
    assert len({re.sub(r"\D", "", number)[-11:] for number in numbers}) == 1


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("**44030519610823785X**", "**[IDENTITY_CARD]**"),
        ("* 13979523499", "* [PHONE]"),
        ("*13979523499*", "*[PHONE]*"),
        ("**Tel 13979523499** or mail", "**Tel [PHONE]** or mail"),
        ("_li_na@corp.org_", "_[EMAIL]_"),
        ("info@münchen.de, josé@corp.es", "[EMAIL], [EMAIL]"),
        ("写信到info@例子.中国。", "写信到[EMAIL]。"),
        ("邮箱ann@corp.org或bob.li@corp.org", "邮箱[EMAIL]或[EMAIL]"),
        ("Authorization: Bearer 27WfXgICSKC78op5CtjwlbcazzgoDIdu", "Authorization: Bearer [SECRET]"),
        ("代码91110108551385082Q", "代码[CREDIT_CODE]"),
        ("代码９１３５０１００Ｍ０００１００Ｙ４３", "代码[CREDIT_CODE]"),
        ("护照：Ｅ１２３４５６７８", "护照：[PASSPORT]"),
        ("ＩＰ：４７．４８．１６５．２０３", "ＩＰ：[IP]"),
        ("8.8.8.8:53", "[IP]:53"),
        ("tel: 07911 223456", "tel: [PHONE]"),
        ("at 221B Baker Street", "at [ADDRESS]"),
        ("姓名：张　三，男", "姓名：[NAME]，男"),
        ("负责人：张三、李四、王五。", "负责人：[NAME]、[NAME]、[NAME]。"),
        ("姓名：李 男", "姓名：李 男"),
        ("Mrs. García and Dr. Müller", "Mrs. [NAME] and Dr. [NAME]"),
        ("Name: José López", "Name: [NAME]"),
    ],
)
def test_values_are_found_in_the_marks_and_scripts_around_them(text: str, masked: str) -> None:
    assert applied("mask", text) == masked


@pytest.mark.parametrize(
    "text", ["2**13979523499", "x * 13979523499", "13979523499 * 3", "x == 13979523499", "+12345678"]
)
def test_numbers_that_are_reckoned_with_are_no_phones(text: str) -> None:
    assert Finder().find(text) == []
