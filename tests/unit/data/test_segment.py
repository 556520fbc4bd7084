# ruff: noqa: RUF001 - full-width marks of Chinese
from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid, Unavailable
from atoll.data.engine.annotate.blocks import BLOCK_CHARACTERS
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.curate.intake import notation_of, notes_of
from atoll.data.engine.curate.planning import plan_of
from atoll.data.engine.segment import cuts, jieba, route, trie
from atoll.data.engine.segment.jieba import Model
from atoll.data.recipes import parse_recipe, rules_of

PACKAGE = ("__init__.py", "dict.txt", "finalseg/prob_start.py", "finalseg/prob_trans.py", "finalseg/prob_emit.py")


@pytest.fixture(scope="module")
def model() -> Model:
    return jieba.model()


def words(text: str, model: Model) -> list[str]:
    """The words of a text, white space left out."""
    found = cuts.cuts(pa.array([text], pa.string()), model)
    data = text.encode()
    places = np.flatnonzero(np.unpackbits(found.starts, bitorder="little")).tolist()
    return [data[start:stop].decode().strip() for start, stop in zip(places, [*places[1:], len(data)], strict=True)]


@pytest.mark.parametrize(
    "parted",
    [
        "我|来到|北京|清华大学",
        "小明|硕士|毕业|于|中国科学院|计算所|，|后|在|日本京都大学|深造",
        "他|来到|了|网易|杭研|大厦",  # a word of no dictionary, by the hidden Markov model
        "研究|生命|的|起源",
        "增长|了|3.14%|到|5.6|.|7|，|见|a|.|b",
        "用|C++|写|T恤|，|AT&T|的|e|-|mail|+--|：",
        "か|な|不同|も|한|국|𠮷|和|caf|é",
    ],
)
def test_words_are_cut(parted: str, model: Model) -> None:
    assert words(parted.replace("|", ""), model) == parted.split("|")


def test_white_space_parts_words_and_is_in_none(model: Model) -> None:
    assert words("北 京\u3000清华\r\n大学\t\n", model) == ["北", "京", "清华", "大学"]


def test_words_and_stop_words_are_counted(model: Model) -> None:
    text = "我们的家在北京，不是 in The 上海……の。"
    found = cuts.cuts(pa.array(["", text, "的"], pa.string()), model)
    assert [word for word in words(text, model) if word.isalpha()] == [
        *("我们", "的", "家", "在", "北京", "不是", "in", "The", "上海", "の"),
    ]
    assert found.counts.tolist() == [[0, 0], [10, 5], [1, 1]]


def test_a_text_with_little_chinese_is_not_cut(model: Model) -> None:
    texts = pa.array(["The word 中文 means it.", "", "12 中", "中文 means Chinese", "日本語のテキスト"], pa.string())
    found = cuts.cuts(texts, model)
    assert found.is_cut.tolist() == [True, False, True, True, True]
    assert cuts.cuts(texts.slice(1, 1), model).counts.tolist() == [[0, 0]]
    sparse = cuts.cuts(pa.array(["中" + "x" * 18, "中" + "x" * 19], pa.string()), model)
    assert sparse.is_cut.tolist() == [True, False]
    assert not np.unpackbits(sparse.starts, bitorder="little")[21:].any()


def test_a_block_longer_than_the_room_is_cut_in_two(model: Model) -> None:
    text = "北京" * (route.BLOCK_CHARACTERS // 2 + 3)
    assert words(text, model) == ["北京"] * (route.BLOCK_CHARACTERS // 2 + 3)
    assert words("北" + text, model).count("北京") < route.BLOCK_CHARACTERS // 2 + 3


def test_tables_are_kept_and_shared(tmp_path: Path, model: Model) -> None:
    made = jieba.model(str(tmp_path))
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("jieba-")
    changed = kept.stat().st_mtime_ns
    jieba.model.cache_clear()
    read = jieba.model(str(tmp_path))
    assert kept.stat().st_mtime_ns == changed
    assert isinstance(_origin(read.cells), np.memmap)
    for one, two, three in zip(model, made, read, strict=True):
        assert (one.dtype, one.shape, one.flags.writeable) == (three.dtype, three.shape, three.flags.writeable)
        assert one.tobytes() == two.tobytes() == three.tobytes()


def _origin(array: np.ndarray) -> object:
    while isinstance(array.base, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


def test_weights_are_the_logarithms_of_frequencies(tmp_path: Path) -> None:
    lines = b"\xe4\xb8\xad 3 n\n\xe4\xb8\xad\xe6\x96\x87 5 n\n\xce\xb3 2 x\n\xe6\x96\x87 0 n\n\xe4\xb8\xad 4 n\n"
    cells, weights, codes = jieba._words(lines)
    assert weights.tolist() == [0.0 - math.log(14), *(math.log(count) - math.log(14) for count in (2, 3, 4, 5))]
    middle, text = (int(codes[ord(letter) - jieba.FIRST_HAN + jieba.ASCII]) for letter in "中文")
    assert np.count_nonzero(codes) == 2
    assert [_weight(cells, path) for path in ([middle], [middle, text], [text], [text, middle])] == [3, 4, 0, None]


def _weight(cells: np.ndarray, path: list[int]) -> int | None:
    """The weight at the node a path leads to; None where there is none."""
    node = 0
    for code in path:
        node = trie.child_of(cells, node, np.uint16(code))
        if node == 0:
            return None
    return trie.weight_of(cells[node])


def test_a_trie_knows_its_words_and_no_others() -> None:
    entries = [[1], [1, 2], [1, 2, 3], [2, 900, 1], [900], [900, 900], [3, 1, 1, 1], [1, 2]]
    flat = np.concatenate([np.array(entry) for entry in entries])
    lengths = np.array([len(entry) for entry in entries])
    cells = trie.build(flat, lengths, np.arange(1, len(entries) + 1))
    assert [_weight(cells, entry) for entry in entries] == [1, 8, 3, 4, 5, 6, 7, 8]
    assert [_weight(cells, path) for path in ([2], [2, 900], [3, 1])] == [0, 0, 0]
    assert [_weight(cells, path) for path in ([0], [1, 1], [2, 1], [900, 1], [1, 2, 3, 1], [899], [1, 0])] == [None] * 7


def test_without_the_package_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    jieba.model.cache_clear()
    with pytest.raises(Unavailable, match="jieba") as raised:
        jieba.model()
    assert "chinese_words: characters" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("file", "content"), [("dict.txt", None), ("dict.txt", "中 many n\n"), ("finalseg/prob_emit.py", "P = open('x')")]
)
def test_a_package_that_is_not_as_expected_is_refused(
    file: str, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jieba" / "finalseg").mkdir(parents=True)
    for name in PACKAGE:
        (tmp_path / "jieba" / name).write_text("P = {}" if name != "dict.txt" else "中 3 n\n")
    path = tmp_path / "jieba" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    monkeypatch.delitem(sys.modules, "jieba", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    jieba.model.cache_clear()
    with pytest.raises(Unavailable, match=r"jieba (has no dict.txt|is not as expected)"):
        jieba.model()


WORDS = Wanted(chinese_words="jieba", lines=True)
PROSE = "小明硕士毕业于中国科学院计算所，后在日本京都大学深造。"


def _row(text: str, wanted: Wanted = WORDS) -> dict[str, float]:
    found: dict[str, float] = annotate(pa.array([text], pa.string()), wanted).notes.to_pylist()[0]
    return found


def test_statistics_speak_of_words() -> None:
    row = _row(PROSE)
    plain = ["小明", "硕士", "毕业", "于", "中国科学院", "计算所", "后", "在", "日本京都大学", "深造"]
    length = sum(map(len, plain)) / len(plain)
    assert (row["pieces"], row["plain_words"], row["words"], row["stop_words"]) == (12, 10, 10, 2)
    assert row["mean_plain_word_length"] == row["mean_word_length"] == length
    assert row["alphabetic_word_ratio"] == 10 / 12
    assert _row(PROSE, Wanted())["pieces"] == len(PROSE)


def test_repetition_is_of_words() -> None:
    row = _row("北京大学和清华大学。" * 3)
    assert row["top_2_gram_ratio"] == len("北京大学 和") * 3 / 30
    assert row["duplicate_5_gram_ratio"] == len("北京大学和清华大学。北京大学") / 30


@pytest.mark.parametrize("count", [1, BLOCK_CHARACTERS // len(PROSE), 3 * BLOCK_CHARACTERS])
@pytest.mark.parametrize("between", ["", " ", "\n", "x"])
def test_no_word_is_cut_where_a_block_ends(count: int, between: str) -> None:
    row = _row((PROSE + between) * count)
    assert row["pieces"] == (12 + (between == "x")) * count
    assert row["mean_plain_word_length"] * row["plain_words"] == pytest.approx((25 + (between == "x")) * count)


def test_a_word_longer_than_a_block_is_several_pieces() -> None:
    row = _row(PROSE + "x" * 3 * BLOCK_CHARACTERS + PROSE * 400)
    assert 401 * 12 + 3 <= row["pieces"] <= 401 * 12 + 5
    assert _row("中" + " " * 3 * BLOCK_CHARACTERS + "文" * 1000)["pieces"] >= 2


def test_texts_in_other_languages_are_noted_as_before() -> None:
    texts = pa.array(["It's a text: see https://example.org/a-b.\nAgain, isn't it? " * 40, "", " \n"], pa.string())
    cut, uncut = annotate(texts, WORDS), annotate(texts, Wanted(lines=True))
    assert cut.notes.equals(uncut.notes)


def test_duplicates_are_told_by_characters_all_the_same() -> None:
    texts = pa.array([PROSE, PROSE + PROSE[5:]], pa.string())
    cut, uncut = annotate(texts, WORDS), annotate(texts, Wanted(lines=True))
    assert cut.signatures.tolist() == uncut.signatures.tolist()
    assert cut.lines.tolist() == uncut.lines.tolist()


def test_a_recipe_asks_for_words(tmp_path: Path) -> None:
    source = {"sources": [{"kind": "folder", "path": str(tmp_path)}]}
    plan = plan_of({**source, "recipe": {"chinese_words": "jieba"}})
    folder = tmp_path / "cache"
    notation = notation_of(plan, str(folder))
    assert notes_of(pa.array([PROSE], pa.string()), notation).notes.column("pieces").to_pylist() == [12]
    assert [path.name.split("-")[0] for path in folder.iterdir()] == ["jieba"]
    assert notation.described() != notation_of(plan_of(source), str(folder)).described()
    with pytest.raises(Invalid, match=r"recipe.chinese_words.*'pkuseg'"):
        parse_recipe({"chinese_words": "pkuseg"})


def test_chinese_is_excepted_from_short_words_only_while_a_character_is_a_word() -> None:
    recipes = [{"rule_sets": ["gopher_quality"], "chinese_words": words} for words in ("characters", "jieba")]
    rules = [{rule.name: rule.drop.text for rule in rules_of(parse_recipe(recipe))} for recipe in recipes]
    assert [name for name, drop in rules[0].items() if rules[1][name] != drop] == ["gopher_short_words"]
    assert "cjk_share" in rules[0]["gopher_short_words"]
    assert "cjk_share" not in rules[1]["gopher_short_words"]
