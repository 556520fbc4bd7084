# ruff: noqa: RUF001 - full-width forms are what is tested
"""Whatever the text: findings are disjoint, what lies outside them stays, and acting twice is acting once."""

from __future__ import annotations

import itertools

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoll.data.engine.privacy import KINDS, Actions, Applied, Finder, by_text, found_in

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
    data = text.encode("utf-8", "surrogatepass")
    acted = Actions("mask")._acted(data, FINDER.find_bytes(data))[0].decode("utf-8", "surrogatepass")
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


@settings(BUDGET, max_examples=60)
@given(TEXTS, st.sampled_from(["mask", "hash", "pseudonymise"]), st.sets(st.sampled_from(KINDS)))
@example("13979523499" * 3 + "@qq.com", "mask", set())
@example("tel 555-123-4567 ext. password: hunter2x@qq.com 6222 0241 0474 5483", "pseudonymise", {"email"})
def test_a_look_where_it_has_changed_finds_what_a_look_at_all_of_it_finds(
    text: str, action: str, kept: set[str]
) -> None:
    actions = Actions(action, dict.fromkeys(kept, "keep"), b"k")
    data = text.encode("utf-8", "surrogatepass")
    filler = b"Nothing to see here. " * 30
    texts = [filler + data + filler + data, data, filler]
    expected = [_acted_with_whole_looks(actions, each) for each in texts]
    assert actions.act(texts, [actions.finder.find_bytes(each) for each in texts]) == expected


def _acted_with_whole_looks(actions: Actions, data: bytes) -> bytes:
    for _ in range(4):
        spans = [span for span in actions.finder.find_bytes(data) if actions.of(span.kind) != "keep"]
        data = actions._acted(data, spans)[0]
    return data


@BUDGET
@given(st.lists(TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()), max_size=6))
def test_findings_of_a_batch_are_those_of_its_texts(texts: list[str]) -> None:
    found = by_text(found_in(pa.array(["before", *texts], pa.string()).slice(1), FINDER))
    assert found == {row: spans for row, text in enumerate(texts) if (spans := FINDER.find_bytes(text.encode()))}


def test_chains_of_overlapping_candidates_cost_no_more_than_their_length() -> None:
    emails, roads = "a@b.c" * 8_000, "中山路1号" * 4_000
    assert len(FINDER.find(emails)) <= 8_000
    assert len(FINDER.find(roads)) <= 4_000
