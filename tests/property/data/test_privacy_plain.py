# ruff: noqa: RUF001 - texts in many scripts
"""Without numba the same functions give the same findings, words and languages, in plain Python."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pyarrow as pa

from atoll.data.engine.language.identify import identify
from atoll.data.engine.privacy import Finder, count
from atoll.data.engine.words import WordFinder

PIECES = (
    *(
        "13979523499",
        "１３９７９５２３４９９",
        "44030519610823785X",
        "6222 0241 0474 5483",
        "zhang.wei@qq.com",
        "47.48.165.203",
    ),
    *(
        "2001:4860:4860::8888",
        "京A12345",
        "护照E12345678",
        "姓名：王小明",
        "password=hunter2x",
        "密码是Abc_2024!x",
        "-----BEGIN",
    ),
    *(
        "Mr. John Smith",
        "12 Main Street",
        "中山路100号",
        "+86 10 6234 5678",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    ),
    *(
        "坏词",
        "bad word",
        "жили-были",
        "おはよう",
        "한국어",
        "Straße",
        "頭髮",
        "头发",
        "😀",
        "é",
        "\n",
        " ",
        "，",
        "x" * 40,
        "@",
        "：",
    ),
)
WORDS = ["坏词", "bad word", "жили", "😀", "é", "x" * 40]
PROGRAM = """
import json, sys
sys.modules["numba"] = None
import pyarrow as pa
from atoll.data.engine import kernel
from atoll.data.engine.language.identify import identify
from atoll.data.engine.privacy import Finder, count
from atoll.data.engine.words import WordFinder
texts, words = json.load(sys.stdin)
assert kernel.numba is None
codes, scores = identify(pa.array(texts))
found = [Finder().find(text) for text in texts]
counts = count(pa.array(texts), Finder()).to_pydict()
hits = WordFinder(words).count(pa.array(texts)).tolist()
print(json.dumps([found, counts, hits, codes.to_pylist(), scores.tolist()]))
"""


def test_plain_python_gives_the_same() -> None:
    choice = random.Random(7)
    texts = ["".join(choice.choices(PIECES, k=choice.randint(0, 30))) for _ in range(40)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        input=json.dumps([texts, WORDS]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found, counts, words, codes, scores = json.loads(done.stdout)
    expected_codes, expected_scores = identify(pa.array(texts))
    assert found == [[list(span) for span in Finder().find(text)] for text in texts]
    assert counts == count(pa.array(texts), Finder()).to_pydict()
    assert words == WordFinder(WORDS).count(pa.array(texts)).tolist()
    assert codes == expected_codes.to_pylist()
    assert scores == expected_scores.tolist()
