from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.compose.pack import SCHEMA, Packer, best_fit, concatenated
from atoll.data.engine.compose.tokenizer import Bytes, tokenizer_of


def packed(texts: list[str], length: int) -> pa.Table:
    packer = Packer(Bytes(), length)
    packer.add(pa.array([f"d{number}" for number in range(len(texts))]), pa.array(texts))
    return packer.table()


def test_documents_that_fit_together_share_a_sequence_uncut() -> None:
    table = packed(["aaaaa", "bb", "cccccc", "d"], 10)
    assert table.schema == SCHEMA
    first, second = table.to_pylist()
    assert bytes(t if t < 256 else 46 for t in first["tokens"]) == b"cccccc.bb."
    assert (first["starts"], first["used"], first["documents"]) == ([0, 7], 10, ["d2", "d1"])
    assert bytes(t if t < 256 else 46 for t in second["tokens"]) == b"aaaaa.d..."
    assert (second["starts"], second["used"], second["documents"]) == ([0, 6], 8, ["d0", "d3"])


def test_a_long_document_is_cut_into_full_sequences_and_a_rest() -> None:
    rows = packed(["abcdefghijklm", "z"], 5).to_pylist()
    assert [row["documents"] for row in rows] == [["d0"], ["d0"], ["d0"], ["d1"]]
    assert [row["used"] for row in rows] == [5, 5, 4, 2]
    assert rows[2]["tokens"] == [*b"klm", 256, 256]


def test_an_end_that_would_stand_alone_is_left_out() -> None:
    (row,) = packed(["abcde"], 5).to_pylist()
    assert (row["tokens"], row["used"]) == (list(b"abcde"), 5)
    (empty,) = packed([""], 5).to_pylist()
    assert (empty["tokens"], empty["used"]) == ([256] * 5, 1)


def test_nothing_packs_into_nothing() -> None:
    assert Packer(Bytes(), 8).table().num_rows == 0
    assert Packer(Bytes(), 8).table().schema == SCHEMA


def test_best_fit_takes_the_fullest_sequence_that_has_room() -> None:
    assert best_fit([6, 5, 4, 3, 1], 10) == [[0, 2], [1, 3, 4]]
    assert best_fit([], 10) == []


def test_concatenation_cuts_documents_that_would_fit() -> None:
    assert concatenated([6, 6, 6], 10) == (2, 1)
    assert concatenated([], 10) == (0, 0)


def test_a_file_says_what_packing_came_to(tmp_path: Path) -> None:
    packer = Packer(Bytes(), 16)
    for number in range(3):
        packer.add(pa.array([f"d{number}"]), pa.array(["x" * (7 + number * 20)]))
    packed = packer.write(tmp_path / "packed.parquet")
    table = pq.read_table(tmp_path / "packed.parquet")
    assert table.schema.equals(SCHEMA)
    assert (packed.sequences, packed.documents, packed.cut) == (table.num_rows, 3, 2)
    assert packed.tokens == 8 + 28 + 48
    assert packed.padding == table.num_rows * 16 - packed.tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "</s>": 1, "ring": 2, "of": 3, "islands": 4}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_folder_with_a_tokenizer_gives_its_tokens_and_its_end(folder: Path) -> None:
    tokenizer = tokenizer_of(str(folder))
    tokens, sizes = tokenizer.encode(pa.array(["ring of islands", "", "of reefs"]))
    assert (tokens.tolist(), sizes.tolist()) == ([2, 3, 4, 3, 0], [3, 0, 2])
    assert tokens.dtype == np.int32
    assert (tokenizer.end, tokenizer.size) == (1, 5)


def test_the_folder_may_name_the_end_itself(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "ring"}}')
    assert tokenizer_of(str(folder / "tokenizer.json")).end == 2


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no tokenizer"):
        tokenizer_of(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Invalid, match="is not a tokenizer"):
        tokenizer_of(str(tmp_path / "tokenizer.json"))
