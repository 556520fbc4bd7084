import itertools
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from atoll.data.engine.curate.corpus import SCHEMA, Document
from atoll.data.engine.curate.plan import Normalise, Source
from atoll.data.engine.normalise.text import normalise
from atoll.data.engine.read import Limits, Quarantined, batches, documents, plan_parts


def _source(path: Path) -> Source:
    return Source("folder", path=str(path))


def _written(tmp_path: Path, records: list[object]) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))


@pytest.mark.parametrize("form", ["nfc", "nfkc"])
def test_batches_hold_the_documents_of_the_part_normalised(tmp_path: Path, form: str) -> None:
    texts = [
        "plain",
        "tail \r\nline",
        "cafe\u0301",
        "\uff21\uff22\uff0c……",
        "nul \0 inside",
        "的" * 50,
        "\n\n\nx\n\n\n\ny",
    ]
    _written(tmp_path, [{"text": text, "url": f"http://h/{n}", "title": f"t{n}"} for n, text in enumerate(texts)] + [5])
    (tmp_path / "b.md").write_text("# T\n\n<!-- no -->words  \n")
    (part,) = plan_parts(_source(tmp_path), "s", prefix="x/")
    wanted, refused = [], []
    for item in documents(part):
        refused.append(item) if isinstance(item, Quarantined) else wanted.append(item)
    found = list(batches(part, normalise=Normalise(form)))
    assert [item for item in found if isinstance(item, Quarantined)] == refused
    (batch,) = [item for item in found if isinstance(item, pa.RecordBatch)]
    assert batch.schema == SCHEMA
    assert [Document(**row) for row in batch.to_pylist()] == [
        Document(item.id, normalise(item.text, item.kind, form), item.source, item.title, item.kind, item.url)
        for item in wanted
    ]
    assert wanted[0].id == "x/a.jsonl:1"


def test_a_batch_keeps_to_its_size_unless_it_is_one_document(tmp_path: Path) -> None:
    sizes = [100] * 30 + [5000] + [900] * 5
    _written(tmp_path, [{"text": "x" * size, "id": number} for number, size in enumerate(sizes)])
    (part,) = plan_parts(_source(tmp_path), "s")
    found = [item for item in batches(part, batch_bytes=1000) if isinstance(item, pa.RecordBatch)]
    texts = [[len(text.as_py()) for text in batch.column("text")] for batch in found]
    assert list(itertools.chain(*texts)) == sizes
    assert all(sum(each) <= 1000 or len(each) == 1 for each in texts)
    assert len(texts) < 15


def test_a_part_that_holds_nothing_readable_gives_no_batch(tmp_path: Path) -> None:
    _written(tmp_path, [1, 2])
    (part,) = plan_parts(_source(tmp_path), "s")
    assert [type(item) for item in batches(part)] == [Quarantined, Quarantined]


def test_a_line_of_a_thousand_million_bytes_is_refused_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n{"text": "')
    with path.open("r+b") as file:
        file.truncate(1 << 30)
        file.seek(0, 2)
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    found = [item for part in plan_parts(_source(tmp_path), "s") for item in documents(part, Limits())]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [item.text for item in found if isinstance(item, Document)] == ["before", "after"]
    assert [item for item in found if isinstance(item, Quarantined)] == [
        Quarantined("a.jsonl", 2, "the line has more than 33554432 bytes")
    ]
    assert peak_bytes < 100 << 20
