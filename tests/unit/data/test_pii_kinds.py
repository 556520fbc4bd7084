# ruff: noqa: RUF001 - full-width forms are what is tested
"""Every kind of personal data, in the spellings people use; and what only looks like it."""

from __future__ import annotations

import pytest

from atoll.data.engine.privacy import Finder
from atoll.data.engine.privacy.checks import (
    credit_check,
    identity_check,
    is_bank_card,
    is_credit_code,
    is_identity_card,
    mrz_check,
)

FINDER = Finder()

FOUND = [
    ("write to zhang.wei390@gmail.com today", "email", "zhang.wei390@gmail.com"),
    ("请联系li_na88158@qq.com谢谢", "email", "li_na88158@qq.com"),
    ("邮箱：ａｂｃ＠ｃｏｒｐ．ｃｎ。", "email", "ａｂｃ＠ｃｏｒｐ．ｃｎ"),
    ("escribe a juan@empresa.com.py hoy", "email", "juan@empresa.com.py"),
    ("https://corp.org/in?mail=ann.lee%40corp.org&x=1", "email", "ann.lee%40corp.org"),
    ("<a.b+c@sub.corp.example.cn>", "email", "a.b+c@sub.corp.example.cn"),
    ("13912345678@163.com", "email", "13912345678@163.com"),
    ("from 47.48.165.203 today", "ip", "47.48.165.203"),
    ("服务器47.113.49.236宕机", "ip", "47.113.49.236"),
    ("the DNS server 8.8.8.8 answers", "ip", "8.8.8.8"),
    ("ping 2001:4860:4860::8888 now", "ip", "2001:4860:4860::8888"),
    ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", "ip", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"),
    ("拨打13979523499咨询", "phone", "13979523499"),
    ("手机１３９７９５２３４９９。", "phone", "１３９７９５２３４９９"),
    ("call 138-1234-5678 or", "phone", "138-1234-5678"),
    ("138 1234 5678", "phone", "138 1234 5678"),
    ("+86 138 1234 5678", "phone", "+86 138 1234 5678"),
    ("tel:+8613812345678", "phone", "+8613812345678"),
    ("微信vx13812345678同号", "phone", "13812345678"),
    ("总机010-62345678转", "phone", "010-62345678"),
    ("电话：(021) 6234-5678", "phone", "(021) 6234-5678"),
    ("传真0571-87654321", "phone", "0571-87654321"),
    ("电话：62345678", "phone", "62345678"),
    ("Call +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
    ("+33 1 23 45 67 89", "phone", "+33 1 23 45 67 89"),
    ("Call (212) 736-5000 now", "phone", "(212) 736-5000"),
    ("212-736-5000", "phone", "212-736-5000"),
    ("Phone: 701-234-7556", "phone", "701-234-7556"),
    ("身份证号110101199003077731。", "identity_card", None),
    ("id 44030519610823785X end", "identity_card", "44030519610823785X"),
    ("证件４４０３０５１９６１０８２３７８５Ｘ号", "identity_card", "４４０３０５１９６１０８２３７８５Ｘ"),
    ("320106 19860318 3059", "identity_card", "320106 19860318 3059"),
    ("3201-0619-8603-1830-59", "identity_card", "3201-0619-8603-1830-59"),
    ("旧证320106860318305", "identity_card", "320106860318305"),
    ("card 6222024104745483 ok", "bank_card", "6222024104745483"),
    ("卡号6222 0241 0474 5483", "bank_card", "6222 0241 0474 5483"),
    ("4111-1111-1111-1111", "bank_card", "4111-1111-1111-1111"),
    ("amex 3782 822463 10005", "bank_card", "3782 822463 10005"),
    ("卡６２２２０２４１０４７４５４８３", "bank_card", "６２２２０２４１０４７４５４８３"),
    ("护照E12345678已过期", "passport", "E12345678"),
    ("passport no. EA1234567", "passport", "EA1234567"),
    ("Passport number: 123456789", "passport", "123456789"),
    ("车牌京A12345违停", "plate", "京A12345"),
    ("粤B·D12345", "plate", "粤B·D12345"),
    ("沪AD12345开过", "plate", "沪AD12345"),
    ("苏Ｅ８８Ｋ２１到", "plate", "苏Ｅ８８Ｋ２１"),
    ("粤Z1234港", "plate", "粤Z1234港"),
    ("key AKIAIOSFODNN7EXAMPLQ here", "secret", "AKIAIOSFODNN7EXAMPLQ"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "secret", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("密钥sk-proj-9fJ2kLm83Nx0PqRs7TuVwXyZ", "secret", "sk-proj-9fJ2kLm83Nx0PqRs7TuVwXyZ"),
    ('api_key = "9f86d081884c7d659a2feaa0c55ad015"', "secret", "9f86d081884c7d659a2feaa0c55ad015"),
    ("password: hunter2x", "secret", "hunter2x"),
    ("登录密码是Abc_2024!x", "secret", "Abc_2024!x"),
    ("postgres://admin:s3cr3tpw@db.internal/x", "secret", "s3cr3tpw"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn\n-----END RSA PRIVATE KEY-----",
        "secret",
        None,
    ),
    (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "secret",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    ),
    ("姓名：王小明，男", "name", "王小明"),
    ("联系人: 欧阳修文", "name", "欧阳修文"),
    ("我叫李雷。", "name", "李雷"),
    ("请张伟先生发言", "name", "张伟"),
    ("Dear Mr. John Smith,", "name", "John Smith"),
    ("Patient: Mary Ann Evans", "name", "Mary Ann Evans"),
    ("Name: Robert Jones", "name", "Robert Jones"),
    ("住址：浙江省杭州市西湖区文三路138号2幢301室", "address", "浙江省杭州市西湖区文三路138号2幢301室"),
    ("他住在中山路１００号", "address", "中山路１００号"),
    ("at 123 Main Street, Apt 4B today", "address", "123 Main Street, Apt 4B"),
    ("59 Temple Place, Suite 330, Boston, MA 02111-1307", "address", None),
]


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_found_whatever_stands_beside_it(text: str, kind: str, value: str | None) -> None:
    if value is None and kind == "identity_card":
        text = text.replace("110101199003077731", "11010119900307773" + identity_check("11010119900307773"))
    found = FINDER.find(text)
    assert [span.kind for span in found] == [kind]
    if value is not None:
        assert text[found[0].start : found[0].stop] == value


NOTHING = [
    "110101197707225421",  # wrong check digit
    "id 320106198402159551 x",
    "110101 19770722 5421",
    "6222024104745484",  # Luhn
    "1234567812345670",  # no issuer
    "20130821993",
    "notphone 20121002718 x",
    "a13812345678b",
    "0.13812345678",
    "x = 17022656250*p**8",
    "2^52 is 4503599627370496",
    "version 1.2.3.4",
    "10.0.0.1 and 192.168.1.1 and 127.0.0.1",
    "203.0.113.7 and 198.51.100.9",
    "sed-4.2.2.177",
    "1.3.6.1.4.1.311",
    "12:34:56 std::string a::b fe80::1 2001:db8::1",
    "user@example.com someone@host.invalid",
    "getty@tty1.service and git@github.com:atoll/atoll",
    "https://corp.org/%40angular/core%401.2.3 at 100%40.5, ann%40example.org",
    "npm package@latest.tgz, tool@1.2.3.sh, notes@main.md",
    "https://lore.kernel.org/r/20170602104048.abc@suse.de",
    "@Override def f(): pass",
    "91350100M000100Y44",  # wrong check character
    "E12345678",  # no word for passports
    "在Linux2024中",
    "京东A12345",
    "token = get_token_from_environment()",
    "password: your-password-here1",
    "api_key = os.environ['KEY_1234567890']",
    "access_token = Sam2VideoAttention(config)",
    "于是老师说",
    "Name: Read Me",
    "Dr. John Doe",
    "姓名：赵某甲",
    "线路12号机",
    "2021 Iain Lane",
    "252.227-7014",
    "001.002.003.004",
    "np.array(['+1980-02-29 01:02:03Z'])",
]


@pytest.mark.parametrize("text", NOTHING)
def test_nothing_that_only_looks_like_personal_data(text: str) -> None:
    assert FINDER.find(text) == []


def test_credit_code_by_its_check_character() -> None:
    code = "91110108MA01ABCD2"
    whole = code + credit_check(code)
    assert is_credit_code(whole)
    assert [span.kind for span in FINDER.find(f"统一代码{whole}。")] == ["credit_code"]
    assert is_credit_code("91350100M000100Y43")  # the example of GB 32100


def test_passport_zone_holds_its_check_digits() -> None:
    zone = "P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<\nL898902C36UTO7408122F1204159ZE184226B<<<<<10"
    assert mrz_check("L898902C3") == "6"
    assert FINDER.find(zone) == [(0, len(zone), "passport")]


def test_check_digits_of_the_standards() -> None:
    assert is_identity_card("11010519491231002X")  # the example of GB 11643
    assert not is_identity_card("110105194912310021")
    assert not is_identity_card("110105194913310020")
    assert is_bank_card("4111111111111111")
    assert not is_bank_card("0000000000000000")


def test_wrong_identity_card_is_no_other_kind_either() -> None:
    number = "62010219900101" + "001"
    wrong = [number + last for last in "0123456789" if last != identity_check(number)]
    assert [FINDER.find(f"号码{value}。") for value in wrong] == [[]] * len(wrong)


def test_names_of_the_recipe_are_found_anywhere() -> None:
    finder = Finder(names=("阿凡达", "Zaphod Beeblebrox"))
    text = "昨天阿凡达遇到zaphod  beeblebrox了"
    assert [text[span.start : span.stop] for span in finder.find(text)] == ["阿凡达", "zaphod  beeblebrox"]


def test_only_the_kinds_asked_for() -> None:
    text = "zhang.wei@gmail.com 13979523499"
    assert [span.kind for span in Finder(kinds=("phone",)).find(text)] == ["phone"]
