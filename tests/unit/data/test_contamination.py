import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.compose import contamination
from atoll.data.engine.compose.contamination import Table, build, find, token_spans, words_at
from atoll.data.engine.curate.corpus import TEXTS, Corpus, Document, write_batch

EXAM = "Which ring of coral islands encloses a lagoon that once held a sunken volcano in the open ocean?"
CHINESE = "环礁是由珊瑚礁围成的环形岛屿、中间有一个潟湖。"
SHORT = "How deep is the lagoon of the atoll"


def table(words: int = 13, **sets: list[str]) -> Table:
    return build({name: [texts] for name, texts in (sets or {"exam": [EXAM, CHINESE]}).items()}, words)


def hits(texts: list[str], found_in: Table) -> list[int]:
    return find(pa.array(texts, pa.string()), found_in).masks.tolist()


def test_thirteen_words_in_common_are_contamination_whatever_their_case_and_punctuation() -> None:
    words = EXAM.lower().replace("?", "").split()
    inside = "Before it: " + " -- ".join(words[2:15]).upper() + ". And after."
    fewer = " ".join(words[2:14])
    assert hits([EXAM, inside, fewer, "", "Another text."], table()) == [1, 1, 0, 0, 0]


def test_a_chinese_character_counts_as_a_word() -> None:
    assert hits(["前" + CHINESE[1:14] + "后", CHINESE[1:13]], table()) == [1, 0]


def test_a_text_of_fewer_words_is_compared_as_a_whole() -> None:
    found_in = table(exam=[SHORT])
    assert hits([f"They asked: {SHORT}?", SHORT[:-6]], found_in) == [1, 0]


def test_a_very_short_text_is_only_found_where_it_is_all_there_is() -> None:
    found_in = table(exam=["the lagoon"])
    assert hits(["The lagoon!", "Behind the lagoon"], found_in) == [1, 0]


def test_every_set_a_document_shares_text_with_is_named() -> None:
    found_in = table(a=[EXAM], b=[EXAM, SHORT], c=[CHINESE])
    assert hits([EXAM, SHORT, CHINESE, EXAM + CHINESE], found_in) == [0b011, 0b010, 0b100, 0b111]


def test_the_words_in_common_can_be_shown() -> None:
    text = f"It is said -- {EXAM} -- and so on. {CHINESE}"
    found = find(pa.array([text]), table())
    shown = words_at(text, int(found.places[0]), int(found.lengths[0]))
    assert shown == "Which ring of coral islands encloses a lagoon that once held a sunken"


def test_tokens_are_placed_as_the_scan_counts_them() -> None:
    text = "Ünïcode_1, don't; 日本の  x\u0301y 한국어 \U000e0041"
    spans = token_spans(text)
    assert build({"a": [[text]]}, len(spans)).grams.lengths.tolist() == [len(spans)]
    assert build({"a": [[text]]}, len(spans) - 1).grams.lengths.tolist() == [len(spans) - 1]
    assert [text[slice(*span)] for span in spans][:6] == ["Ünïcode_1", "don", "t", "日", "本", "の"]


def test_a_run_is_found_however_far_into_a_long_text_it_stands() -> None:
    for before in (0, 1000, 1010, 1011, 1022, 1023, 5000):
        text = " ".join(f"w{number}" for number in range(before)) + " " + EXAM
        found = find(pa.array([text]), table())
        assert (found.masks[0], found.places[0]) == (1, before)


def test_a_table_is_the_same_after_saving(tmp_path: Path) -> None:
    made = table(a=[EXAM, "short"], b=[CHINESE])
    made.save(tmp_path / "table.npz")
    read = contamination.load(tmp_path / "table.npz")
    assert (read.words, read.names, read.texts) == (13, ("a", "b"), (2, 1))
    assert hits([EXAM, CHINESE, "short"], read) == hits([EXAM, CHINESE, "short"], made) == [1, 2, 1]


def test_a_stage_finds_what_a_call_finds_and_the_report_says_where(tmp_path: Path) -> None:
    texts = [["Nothing.", f"x {EXAM}"], [CHINESE, EXAM]]
    folders = []
    for number, batch in enumerate(texts):
        folders.append(tmp_path / f"{number}")
        folders[-1].mkdir()
        rows = [Document(f"d{number}{row}", text, "s0:f", "", "text") for row, text in enumerate(batch)]
        columns = {name: [getattr(row, name) for row in rows] for name in Document.__dataclass_fields__}
        write_batch(folders[-1] / TEXTS, pa.record_batch(columns))
    made = table(a=[EXAM], b=[CHINESE])
    made.save(tmp_path / "table.npz")
    for folder in folders:
        contamination.find_in_batch((folder / TEXTS, tmp_path / "table.npz"), folder)
    found = contamination.collect(folders)
    assert found.is_contaminated.tolist() == [False, True, True, True]
    rows = contamination.report(found, made, Corpus.of(folders, [2, 2]), np.array([True, True, True, False]))
    assert [(row["set"], row["texts"], row["documents"]) for row in rows] == [("a", 1, 1), ("b", 1, 1)]
    assert rows[0]["samples"] == ["d01: Which ring of coral islands encloses a lagoon that once held a sunken"]


def test_without_a_compiler_it_finds_the_same() -> None:
    texts = [f"{'w ' * count}{EXAM[: 10 * count]} {CHINESE[count:]}" for count in range(12)]
    found = find(pa.array(texts), table(5, a=[EXAM, "w w"], b=[CHINESE]))
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import pyarrow as pa\n"
        "from atoll.data.engine.compose.contamination import build, find\n"
        f"found = find(pa.array({texts!r}), build({{'a': [[{EXAM!r}, 'w w']], 'b': [[{CHINESE!r}]]}}, 5))\n"
        "print(found.masks.tolist(), found.places.tolist(), found.lengths.tolist())"
    )
    plain = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    shown = f"{found.masks.tolist()} {found.places.tolist()} {found.lengths.tolist()}"
    assert (plain.stdout.strip(), plain.stderr) == (shown, "")
    assert found.is_contaminated.any()


def test_a_set_without_words_and_too_many_sets_are_refused() -> None:
    with pytest.raises(Invalid, match="'empty' holds no words"):
        table(exam=[EXAM], empty=["", "?!"])
    with pytest.raises(Invalid, match="65 evaluation sets"):
        build({str(number): [[EXAM]] for number in range(65)}, 13)
