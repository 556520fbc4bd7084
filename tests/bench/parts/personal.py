# ruff: noqa: RUF001 - full-width forms are part of the truth
"""Invented personal data of every kind in the spellings people use, and controls that only look like it."""

from __future__ import annotations

import random
from collections.abc import Callable

from atoll.data.engine.privacy.anchors import PLATE_REGIONS, SURNAMES
from atoll.data.engine.privacy.checks import credit_check, identity_check, is_bank_card, luhn

WIDE = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}
AROUND = (" {} ", "：{}。", "请记下{}谢谢", " is {}, ok", " ({})", "\n{}\n")


def digits(choice: random.Random, length: int) -> str:
    return "".join(choice.choices("0123456789", k=length))


def spelled(choice: random.Random, groups: list[str]) -> str:
    """As it is, in groups, or in full-width digits."""
    joined = choice.choice(("", " ", "-", "")).join(groups)
    return joined.translate(WIDE) if choice.random() < 0.2 else joined


def email(choice: random.Random) -> str:
    return (
        f"{choice.choice(('li.na', 'zhang_wei', 'j-smith', 'anna'))}{digits(choice, 3)}@mail{digits(choice, 2)}.com.cn"
    )


def ip(choice: random.Random) -> str:
    if choice.random() < 0.3:
        return f"240e:{choice.randrange(65536):x}:{choice.randrange(65536):x}::{choice.randrange(1, 65536):x}"
    return ".".join(str(choice.randrange(60, 100)) for _ in range(4))


def phone(choice: random.Random) -> str:
    form = choice.randrange(5)
    if form == 0:
        return f"+44 20 7{digits(choice, 3)} {digits(choice, 4)}"
    if form == 1:
        return f"({choice.randrange(201, 400)}) {choice.randrange(200, 500)}-{digits(choice, 4)}"
    if form == 2:
        return f"0{choice.choice(('10', '21', '755'))}-{choice.randrange(2, 9)}{digits(choice, 7)}"
    return spelled(choice, [choice.choice(("138", "159", "186", "199")), digits(choice, 4), digits(choice, 4)])


def _identity_head(choice: random.Random) -> str:
    born = f"{choice.randrange(1950, 2010)}{choice.randrange(1, 13):02}{choice.randrange(1, 29):02}"
    return f"{choice.choice(('110101', '320106', '440305', '620102'))}{born}{digits(choice, 3)}"


def identity_card(choice: random.Random) -> str:
    head = _identity_head(choice)
    whole = head + identity_check(head)
    return spelled(choice, [whole[:6], whole[6:14], whole[14:]])


def bank_card(choice: random.Random) -> str:
    while True:
        number = choice.choice(("622202", "411111", "550000", "621700")) + digits(choice, 10)
        if is_bank_card(number):
            return spelled(choice, [number[at : at + 4] for at in range(0, 16, 4)])


def credit_code(choice: random.Random) -> str:
    head = f"91{choice.choice(('110108', '310115'))}{''.join(choice.choices('0123456789ABCDEFGHJKLMNPQRTUWXY', k=9))}"
    return head + credit_check(head)


def passport(choice: random.Random) -> str:
    return f"{choice.choice(('护照', 'passport no. ', '护照号码：'))}{choice.choice('EG')}{digits(choice, 8)}"


def plate(choice: random.Random) -> str:
    tail = choice.choice((digits(choice, 5), f"D{digits(choice, 5)}", f"{digits(choice, 3)}{choice.choice('ABC')}8"))
    return f"{choice.choice(PLATE_REGIONS)}{choice.choice('ABCDE')}{choice.choice(('', '·'))}{tail}"


def secret(choice: random.Random) -> str:
    letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    body = "".join(choice.choices(letters, k=38)) + "7a4"
    return choice.choice((f"ghp_{body[:36]}", f"sk-proj-{body}", f'api_key="{body[-32:]}"', f"密码：{body[-12:]}"))


def name(choice: random.Random) -> str:
    if choice.random() < 0.5:
        given = "".join(choice.choices("伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰", k=choice.choice((1, 2))))
        return f"{choice.choice(('姓名：', '联系人：', '我叫'))}{choice.choice(SURNAMES[:60])}{given}，"
    who = f"{choice.choice(('John', 'Mary', 'David', 'Linda'))} {choice.choice(('Smith', 'Miller', 'Brown', 'Clark'))}"
    return choice.choice(("Mr. ", "Dr. ", "Name: ", "Patient: ")) + who


def address(choice: random.Random) -> str:
    number = choice.randrange(1, 900)
    if choice.random() < 0.5:
        road = choice.choice(("中山路", "人民大道", "文三路", "解放街"))
        lead = choice.choice(("浙江省杭州市西湖区", "北京市海淀区", "住在", ""))
        return f"{lead}{road}{number}号{choice.choice(('', '3栋201室'))}"
    return f"{number} {choice.choice(('Main Street', 'Oak Avenue', 'Park Road', 'Elm Street, Apt 4'))}"


MAKERS: dict[str, Callable[[random.Random], str]] = {
    **{"email": email, "ip": ip, "phone": phone, "identity_card": identity_card, "bank_card": bank_card},
    **{"credit_code": credit_code, "passport": passport, "plate": plate, "secret": secret},
    **{"name": name, "address": address},
}


def control(choice: random.Random) -> str:
    """A number of no kind: wrong check digits, dates with a tail, versions, private addresses, hashes."""
    head = _identity_head(choice)
    wrong = choice.choice([last for last in "0123456789" if last != identity_check(head)])
    card = "622202" + digits(choice, 10)
    card = card if not luhn(card) else card[:-1] + str((int(card[-1]) + 1) % 10)
    date = f"20{choice.randrange(10, 24)}{choice.randrange(1, 13):02}{choice.randrange(1, 29):02}{digits(choice, 3)}"
    other = (
        f"192.168.{choice.randrange(256)}.{choice.randrange(256)}",
        f"a{digits(choice, 11)}f",
        f"3.{digits(choice, 11)}",
    )
    return choice.choice((head + wrong, card, date, *other))


def planted(texts: list[str], per_kind: int, seed: int = 5) -> tuple[list[str], list[tuple[int, str, str]]]:
    """The texts with values planted at line ends, and (text, kind, value) of each; controls are of kind control."""
    choice = random.Random(seed)
    truth: list[tuple[int, str, str]] = []
    new = list(texts)
    for kind, make in {**MAKERS, "control": control}.items():
        for _ in range(per_kind):
            number = choice.randrange(len(new))
            value = make(choice)
            lines = new[number].split("\n")
            at = choice.randrange(len(lines))
            lines[at] += choice.choice(AROUND[:3] if kind == "control" else AROUND).format(value)
            new[number] = "\n".join(lines)
            truth.append((number, kind, value))
    return new, truth
