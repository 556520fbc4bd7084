import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.compose.evaluation_texts import texts_of
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import SPLITS, Manifest, Split, write_manifest


def texts(reference: Path | str, store: BlobStore | None = None) -> list[str]:
    return [text for portion in texts_of(str(reference), store) for text in portion]


def test_a_text_file_has_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_bytes("\ufeffWhat is an atoll?\r\n\n环礁是什么。".encode())
    assert texts(tmp_path / "set.txt") == ["What is an atoll?", "环礁是什么。"]


def test_every_string_of_a_record_is_a_text(tmp_path: Path) -> None:
    record = b'{"id": 7, "question": "Which?", "choices": {"text": ["a", "b"]}, "answer": null}\n\n"plain"\n'
    (tmp_path / "set.jsonl").write_bytes(record)
    (tmp_path / "set.jsonl.gz").write_bytes(gzip.compress(record))
    assert texts(tmp_path / "set.jsonl") == texts(tmp_path / "set.jsonl.gz") == ["Which?", "a", "b", "plain"]


def test_compression_by_zstandard_is_read(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "set.txt.zst").write_bytes(zstandard.compress(b"one\ntwo\n"))
    assert texts(tmp_path / "set.txt.zst") == ["one", "two"]


def test_parquet_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2], "q": ["a", None], "c": [["x"], []]}), tmp_path / "set.parquet")
    assert texts(tmp_path / "set.parquet") == ["a", "x"]


def test_a_dataset_of_the_platform_is_read_whole(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    splits = {name: Split((), 0) for name in SPLITS}
    writer = SplitWriter(store, tmp_path, SPLITS["qa_heldout"])
    writer.add({"id": "1", "question": "Q?", "answer": "A.", "document": "d", "span_start": 0, "span_end": 2})
    splits["qa_heldout"] = writer.close()
    digest = write_manifest(store, Manifest(splits, {}, [], {}, "MIT", []))
    assert texts(digest, store) == ["Q?", "A."]
    with pytest.raises(Invalid, match="there is no platform here"):
        texts(digest)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "there is no evaluation set"),
        ("set.pdf", b"", "of no format"),
        ("set.jsonl", b'"a"\n{"b": \n', "line 2: is not JSON"),
        ("set.parquet", b"none", "is not Parquet"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Invalid, match=words) as refused:
        texts(tmp_path / name)
    assert name in str(refused.value)
