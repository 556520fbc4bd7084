import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.characters import characters
from atoll.data.engine.hashing import hash_words
from atoll.data.engine.scan import (
    BLOCK_TOKENS,
    BUCKET_SLOTS,
    BUCKETS,
    CHUNK_CHARACTERS,
    STOP_WORDS,
    decode,
    eight,
    find,
    lookup,
    scan_block,
    stop_words,
    tokens_room,
    utf8_of,
)


def _tokens(text: str) -> tuple[list[int], list[bool]]:
    """All tokens of a text, block by block."""
    data, room = np.frombuffer(text.encode(), np.uint8), tokens_room()
    hashes: list[int] = []
    singles: list[bool] = []
    place = 0
    while place < len(data):
        place = scan_block(data, place, len(data), characters(), room)
        hashes += room.hashes[: room.held[0]].tolist()
        singles += room.is_single[: room.held[0]].tolist()
        room.held[0] = 0
    return hashes, singles


def test_words_are_lower_cased_runs_and_han_characters_stand_alone() -> None:
    hashes, singles = _tokens("The Äpfel_7, 中文x!")
    assert hashes == hash_words(["the", "äpfel_7", "中", "文", "x"]).tolist()
    assert singles == [False, False, True, True, False]


@pytest.mark.parametrize("text", ["word " * 3000, "中文" * 2000, "w" * 5000 + " 中", "a中" * (BLOCK_TOKENS // 2)])
def test_blocks_cut_no_word(text: str) -> None:
    words = text.replace("中", " 中 ").replace("文", " 文 ").split()
    assert _tokens(text)[0] == hash_words(words).tolist()


@pytest.mark.parametrize("gap", ["", " ", "中", "é"])
@pytest.mark.parametrize("length", [*range(1, 20), *range(CHUNK_CHARACTERS - 9, CHUNK_CHARACTERS + 10)])
def test_where_a_chunk_ends_changes_no_token(length: int, gap: str) -> None:
    text = f"{'w' * length}{gap}Ab,{gap}c"
    words = text.lower().replace(",", " ").replace("中", " 中 ").split()
    assert _tokens(text)[0] == hash_words(words).tolist()


def test_eight_bytes_are_one_word_the_first_lowest() -> None:
    data = np.arange(200, 220, dtype=np.uint8)
    assert [int(eight(data, place)) for place in range(12)] == [
        int.from_bytes(bytes(data[place : place + 8]), "little") for place in range(12)
    ]


def test_a_word_is_found_in_whichever_slot_of_its_bucket_it_lies() -> None:
    words = [f"w{number}" for number in range(5000)]
    full = [word for word, key in zip(words, hash_words(words).tolist(), strict=True) if key % BUCKETS == 5]
    known, others = full[: BUCKET_SLOTS - 1], full[BUCKET_SLOTS - 1 :]
    table = lookup({number: [word] for number, word in enumerate(known, 1)})
    assert [find(key, table) for key in hash_words(known)] == list(range(1, BUCKET_SLOTS))
    assert not any(find(key, table) for key in hash_words(others))
    with pytest.raises(AssertionError, match="too many words"):
        lookup({1: full[:BUCKET_SLOTS]})


@pytest.mark.parametrize("character", ["a", "é", "中", "\U0001f600", "\U0010ffff", "\0"])
def test_a_code_point_is_decoded(character: str) -> None:
    data = np.frombuffer(character.encode(), np.uint8)
    assert decode(data, 0) == (ord(character), len(data))


def test_every_stop_word_is_found_and_no_other() -> None:
    assert all(find(word, stop_words()) for word in hash_words(list(STOP_WORDS)))
    assert not any(find(word, stop_words()) for word in hash_words(["table", "cat", "猫"]))


def test_bytes_are_not_copied() -> None:
    texts = pa.array(["ab", "cé"])
    data, starts = utf8_of(texts)
    assert starts.tolist() == [0, 2, 5]
    assert bytes(data) == "abcé".encode()
    assert np.shares_memory(data, utf8_of(texts)[0])
    assert bytes(utf8_of(texts.slice(1, 1))[0]) == "cé".encode()
