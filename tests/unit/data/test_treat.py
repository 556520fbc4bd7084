"""Texts are treated portion by portion: what was noted is acted on, what is cut is looked at again, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.data.engine.curate import tables
from atoll.data.engine.curate.corpus import SCHEMA, TEXTS, write_batch
from atoll.data.engine.curate.intake import findings_in, notation_of, noted
from atoll.data.engine.curate.mapped import portions
from atoll.data.engine.curate.plan import Plan, Privacy, Words
from atoll.data.engine.curate.tables import Tables
from atoll.data.engine.curate.treat import Treated, Treatment, treat, treated_titles
from atoll.data.engine.dedup import Spans
from atoll.data.engine.privacy import by_text, counted

PHONE, MAIL = "13979523499", "zhang.wei@gmail.com"


def batch_of(texts: list[str]) -> pa.RecordBatch:
    columns = {name: pa.array([""] * len(texts), pa.string()) for name in SCHEMA.names}
    ids = pa.array([f"d{number}" for number in range(len(texts))], pa.string())
    return pa.record_batch(columns | {"id": ids, "text": pa.array(texts, pa.string())}, SCHEMA)


def treated(
    texts: list[str], folder: Path, privacy: Privacy, cut: Spans | None = None, words: tuple[Words, ...] = ()
) -> Treated:
    batch = batch_of(texts)
    noted(batch, notation_of(Plan((), privacy=privacy, words=words)), folder / "batch")
    notes = pa.ipc.open_file(pa.memory_map(str(folder / "batch" / "notes.arrow"))).get_batch(0)
    wanted = Treatment(privacy, b"key", words)
    return treat(batch.column("text"), notes, findings_in(folder / "batch"), cut, wanted)


def cut_of(*spans: tuple[int, int, int]) -> Spans:
    rows, starts, stops = np.array(spans, np.int64).reshape(-1, 3).T
    return Spans(rows.astype(np.int32), starts, stops)


def test_what_was_noted_is_acted_on_and_told(tmp_path: Path) -> None:
    result = treated([f"拨{PHONE}吧", "nothing", f"{MAIL} and {MAIL}"], tmp_path, Privacy())
    assert result.texts.to_pylist() == ["拨[PHONE]吧", "nothing", "[EMAIL] and [EMAIL]"]
    assert result.changed.tolist() == [True, False, True]
    assert result.found == {0: {"phone": 1}, 2: {"email": 2}}
    assert not result.refused.any()


def test_no_value_is_kept_beside_the_notes(tmp_path: Path) -> None:
    treated([f"a {PHONE}", f"b {MAIL}"], tmp_path, Privacy())
    findings = findings_in(tmp_path / "batch")
    assert findings is not None
    assert by_text(findings) == {0: [(2, 13, "phone")], 1: [(2, 21, "email")]}
    assert counted(findings, 2).column("pii_email").to_pylist() == [0, 1]
    kept = [path for path in (tmp_path / "batch").iterdir() if path.name != TEXTS]
    assert not any(value.encode() in path.read_bytes() for path in kept for value in (PHONE, MAIL))


def test_a_cut_that_joins_a_number_has_it_found_and_one_that_takes_it_has_nothing(tmp_path: Path) -> None:
    texts = ["call 139 repeated 79523499", f"call {PHONE} now", f"{MAIL} stays, this goes"]
    cut = cut_of((0, 8, 18), (1, 5, 16), (2, 26, 36))
    result = treated(texts, tmp_path, Privacy(), cut)
    assert result.texts.to_pylist() == ["call [PHONE]", "call  now", "[EMAIL] stays,"]
    assert result.found == {0: {"phone": 1}, 2: {"email": 1}}
    assert result.changed.all()


def test_what_was_noted_is_acted_on_beside_whatever_a_cut_puts_it(tmp_path: Path) -> None:
    texts = [f"it,call {PHONE}, repeated words and {PHONE} repeated again", f"{PHONE} repeated {MAIL}"]
    cut = cut_of((0, 2, 8), (0, 19, 36), (0, 43, 61), (1, 8, 27))
    assert cut.apply(pa.array(texts)).to_pylist() == ["it13979523499and 139again", "13979523wei@gmail.com"]
    result = treated(texts, tmp_path, Privacy(), cut)
    assert result.texts.to_pylist() == ["it[PHONE]and [PHONE]again", "[EMAIL]"]
    assert result.found == {0: {"phone": 2}, 1: {"email": 1}}


def test_a_document_that_is_refused_is_left_empty(tmp_path: Path) -> None:
    result = treated([f"{PHONE} {MAIL}", MAIL], tmp_path, Privacy("mask", (("phone", "drop"),)))
    assert result.texts.to_pylist() == ["", "[EMAIL]"]
    assert result.refused.tolist() == [True, False]


def test_words_are_masked_in_what_the_actions_left(tmp_path: Path) -> None:
    words = (Words("w", ("secret plan",), action="mask"),)
    result = treated([f"the secret plan of {MAIL}", "the secret plan"], tmp_path, Privacy(), words=words)
    assert result.texts.to_pylist() == ["the *** of [EMAIL]", "the ***"]


@pytest.mark.parametrize("action", ["mask", "drop"])
def test_titles_are_treated_as_texts_are(action: str) -> None:
    titles = pa.array([f"Letter of {MAIL}", "", f"the secret plan {PHONE}"], pa.string())
    privacy = Privacy("keep", (("email", action), ("phone", action)))
    wanted = Treatment(privacy, b"key", (Words("w", ("secret plan",), action="mask"), Words("v", ("letter",))))
    assert treated_titles(titles, wanted).to_pylist() == ["Letter of [EMAIL]", "", "the *** [PHONE]"]
    assert treated_titles(titles, Treatment()).equals(titles)


def test_a_batch_is_read_in_portions_that_are_all_of_it(tmp_path: Path) -> None:
    batch = batch_of(["", "a" * 50, "b" * 50, "", "c" * 500, "d"])
    write_batch(tmp_path / TEXTS, batch)
    parts = list(portions(tmp_path / TEXTS, 100))
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 3), (3, 5), (5, 6)]
    assert pa.Table.from_batches([part for _, part in parts]) == pa.Table.from_batches([batch])
    assert [part.num_rows for _, part in portions(tmp_path / TEXTS, 1 << 20)] == [6]


def test_row_groups_have_a_least_size_and_no_row_is_lost(tmp_path: Path) -> None:
    rows = pa.record_batch({"text": pa.array(["x" * (tables.ROW_GROUP_BYTES // 4)])})
    with Tables(tmp_path) as written:
        for _ in range(10):
            written.add("t", rows)
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [4, 4, 2]
    assert written.rows == {"t": 10}
