# ruff: noqa: RUF001 - full-width forms are what is tested
"""Whatever the text: findings are disjoint, what lies outside them stays, and acting twice is acting once."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoll.data.engine.privacy import Actions, Applied, Finder

PIECES = st.sampled_from(
    [
        *("13979523499", "１３９７９５２３４９９", "44030519610823785X", "110101197707225421", "6222 0241 0474 5483"),
        *(
            "zhang.wei@qq.com",
            "＠",
            "47.48.165.203",
            "2001:4860:4860::8888",
            "京A12345",
            "护照E12345678",
            "姓名：王小明",
        ),
        *("password=hunter2x", "密码是", "-----BEGIN RSA PRIVATE KEY-----\n", "Mr. John Smith", "12 Main Street"),
        *("中山路100号", "+86 ", "(021) 6234-5678", "https://a:b1@c.de/", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        *("P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", " ", "\n", "，", "-", ".", "[", "]", "x", "0", "\ud800"),
    ]
)
TEXTS = st.one_of(
    st.text(alphabet=st.characters(), max_size=60),
    st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join),
)
FINDER = Finder()
BUDGET = settings(deadline=None, max_examples=150)


@BUDGET
@given(TEXTS)
def test_spans_are_sorted_and_disjoint(text: str) -> None:
    spans = FINDER.find(text)
    assert all(0 <= span.start < span.stop <= len(text) for span in spans)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(spans))


@BUDGET
@given(TEXTS)
def test_what_lies_outside_the_findings_stays(text: str) -> None:
    spans = FINDER.find(text)
    acted = Actions("mask")._acted(text, spans)
    place = 0
    for span in spans:
        before = text[place : span.start]
        assert acted.startswith(before + f"[{span.kind.upper()}]")
        acted = acted[len(before) + len(span.kind) + 2 :]
        place = span.stop
    assert acted == text[place:]


@BUDGET
@given(TEXTS, st.sampled_from(["mask", "hash", "pseudonymise"]))
@example("13979523499" * 3 + "@qq.com", "mask")
def test_acting_twice_is_acting_once(text: str, action: str) -> None:
    actions = Actions(action, {}, b"k")
    once = actions.apply(text)
    assert isinstance(once, Applied)
    again = actions.apply(once.text)
    assert isinstance(again, Applied)
    assert again.text == once.text


def test_chains_of_overlapping_candidates_cost_no_more_than_their_length() -> None:
    emails, roads = "a@b.c" * 8_000, "中山路1号" * 4_000
    assert len(FINDER.find(emails)) <= 8_000
    assert len(FINDER.find(roads)) <= 4_000
