import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.hashing import hash_words
from atoll.data.engine.scan import COUNTS, STOP_WORDS, Scan, scan_compiled, scan_plain, utf8_of

BOTH = pytest.mark.parametrize("scan", [scan_compiled, scan_plain])


def _counts(scan: Scan, index: int = 0) -> dict[str, int]:
    return dict(zip(COUNTS, scan.counts[index].tolist(), strict=True))


@BOTH
def test_words_are_lower_cased_runs_and_han_characters_stand_alone(scan) -> None:
    found = scan(pa.array(["The Äpfel_7, 中文x!"]))
    assert found.tokens.tolist() == hash_words(["the", "äpfel_7", "中", "文", "x"]).tolist()


@BOTH
def test_counts_are_what_they_say(scan) -> None:
    counts = _counts(scan(pa.array(["The 12 Ünits\n的 …"])))
    assert counts == {
        "characters": 16,
        "spaces": 4,
        "letters": 9,
        "digits": 2,
        "latin": 8,
        "cjk": 1,
        "word_characters": 11,
        "stop_words": 2,
    }


@BOTH
def test_every_stop_word_is_found(scan) -> None:
    assert _counts(scan(pa.array([" ".join(STOP_WORDS)])))["stop_words"] == len(STOP_WORDS)
    assert _counts(scan(pa.array(["table cat 猫"])))["stop_words"] == 0


@BOTH
def test_lines_are_hashed_without_their_spaces_and_blank_ones_left_out(scan) -> None:
    found = scan(pa.array(["one line\n\n  \n  one  line \nother"]))
    assert len(found.lines) == 3
    assert found.lines[0] == found.lines[1] != found.lines[2]


@BOTH
def test_texts_of_a_batch_are_apart(scan) -> None:
    found = scan(pa.array(["a b", "", "c", "\n"]))
    assert found.token_starts.tolist() == [0, 2, 2, 3, 3]
    assert found.line_starts.tolist() == [0, 1, 1, 2, 2]
    assert found.tokens_of(2).tolist() == hash_words(["c"]).tolist()


@BOTH
def test_a_slice_of_a_batch_is_scanned_as_if_alone(scan) -> None:
    texts = pa.array(["first text", "zweiter Text über", "third"])
    assert scan(texts.slice(1, 1)).tokens.tolist() == scan(pa.array(["zweiter Text über"])).tokens.tolist()


@BOTH
def test_no_texts_scan_to_nothing(scan) -> None:
    found = scan(pa.array([], pa.string()))
    assert found.counts.shape == (0, len(COUNTS))
    assert found.token_starts.tolist() == [0]


@BOTH
def test_code_points_beyond_the_tables_are_symbols(scan) -> None:
    assert _counts(scan(pa.array(["\U000e0041\U0010ffff"]))) == dict.fromkeys(COUNTS, 0) | {"characters": 2}


def test_bytes_are_not_copied() -> None:
    texts = pa.array(["ab", "cé"])
    data, starts = utf8_of(texts)
    assert starts.tolist() == [0, 2, 5]
    assert bytes(data) == "abcé".encode()
    assert np.shares_memory(data, utf8_of(texts)[0])
