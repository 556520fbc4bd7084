from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.annotate import repetition
from atoll.data.engine.annotate.repetition import FIGURES, SHORTEST, TOP_LONGEST
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.hashing import hash_words


def _figures(words: list[str]) -> list[int]:
    path, room, result = repetition.trail(len(words)), repetition.grams(len(words)), np.zeros(FIGURES, np.int32)
    path.hashes[:] = hash_words(words) if words else 0
    path.ends[1:] = np.cumsum([len(word) for word in words])
    repetition.repetition(path, len(words), room, result)
    return result.tolist()


def _defined(words: list[str]) -> list[int]:
    """The figures by their definition."""
    figures = []
    for length in range(SHORTEST, SHORTEST + FIGURES):
        grams = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
        if length <= TOP_LONGEST:
            best = Counter(grams).most_common(1)
            figures.append(len(" ".join(best[0][0])) * best[0][1] if best else 0)
            continue
        seen, place, total = set(), 0, 0
        while place < len(grams):
            is_repeated = grams[place] in seen
            total += len("".join(grams[place])) if is_repeated else 0
            seen.add(grams[place])
            place += length if is_repeated else 1
        figures.append(total)
    return figures


@pytest.mark.parametrize(
    "text",
    ["", "one", "one two", "a a a a a a a a a a a a", "a b c d e f g h i j k " * 3, "to be or not to be or not to do"],
)
def test_figures_are_what_the_definition_says(text: str) -> None:
    assert _figures(text.split()) == _defined(text.split())


@pytest.mark.parametrize("seed", range(20))
def test_figures_of_random_words_are_what_the_definition_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    words = [f"w{'x' * int(number)}" for number in random.integers(0, random.integers(2, 9), 200)]
    assert _figures(words) == _defined(words)


def test_a_text_beyond_the_limit_is_measured_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "PIECES_MAX", 40)
    repeated, other = "a b c d e f g h i j " * 4, " ".join(f"w{number}" for number in range(500))
    row = annotate(pa.array([repeated + other]), Wanted()).notes.to_pylist()[0]
    assert row["duplicate_5_gram_ratio"] == pytest.approx(30 / 79)
