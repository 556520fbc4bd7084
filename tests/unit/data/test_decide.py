"""Decisions: who stays, on which side, how often; and evaluation sets that are told apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.compose import contamination
from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.curate.curation import Curated, Place, curate
from atoll.data.engine.curate.decide import build_table, decision_in, dedup_of, repeated, tokens_of, told_apart
from atoll.data.engine.curate.intake import corpus_of
from atoll.data.engine.curate.judge import KEPT
from atoll.data.engine.curate.plan import Decontaminate, Pack
from atoll.data.engine.curate.planning import plan_of
from atoll.data.engine.runtimes.stages import Inline
from atoll.data.manifest import Manifest, Shard, Split

SENTENCE = "the quick brown fox jumps over the lazy dog while thirteen small owls watch"


def _sources(folder: Path, count: int = 60) -> list[dict[str, Any]]:
    """Two sources of documents unlike each other, each of about 100 tokens."""
    for name in ("books", "news"):
        (folder / name).mkdir()
        rows = [
            {"id": f"{name}{n}", "text": " ".join(f"{name}{n}x{i}" for i in range(40 + n % 3))} for n in range(count)
        ]
        (folder / name / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"kind": "folder", "path": str(folder / name), "name": name} for name in ("books", "news")]


def _curated(tmp_path: Path, sources: list[dict[str, Any]], seed: int = 3, **recipe: Any) -> Curated:
    wanted = {"questions": {"enabled": False}, **recipe}
    plan = plan_of({"sources": sources, "recipe": wanted, "seed": seed})
    return curate(plan, Place(tmp_path / "state"), Inline())


def test_the_budget_of_a_mix_is_spent_on_training_alone(tmp_path: Path) -> None:
    sources = _sources(tmp_path)
    split = {"heldout_fraction": 0.4}
    mixed = _curated(tmp_path, sources, split=split, mix={"tokens": 3000, "weights": {"news": 2}})
    decision = mixed.decision
    corpus = corpus_of(mixed.taken)
    tokens = np.concatenate([tokens_of(batch, None) for batch in corpus])
    kept = np.asarray(decision.reasons) == KEPT
    train = kept & (decision.sides == 0)
    assert abs(int((tokens * decision.times)[train].sum()) - 3000) <= tokens.max()
    taken = {portion["source"]: portion["taken"] for portion in decision.portions}
    assert abs(taken["news"] - 2000) <= tokens.max() and sum(taken.values()) == int(tokens[train].sum())
    heldout = decision.sides == 1
    assert heldout.sum() > 30 and kept[heldout].all() and (np.asarray(decision.times)[heldout] == 1).all()


def test_what_is_held_out_is_so_whatever_the_mix(tmp_path: Path) -> None:
    sources = _sources(tmp_path)
    every = _curated(tmp_path, sources).decision
    heldout = np.array(every.sides) == 1
    mixed = _curated(tmp_path, sources, mix={"weights": {"news": 4}, "repeat_max": 3}).decision
    assert np.array_equal(np.array(mixed.sides) == 1, heldout)
    assert (np.asarray(mixed.times)[heldout] == 1).all() and np.asarray(mixed.times).max() == 3


def test_what_an_evaluation_set_takes_costs_no_other_document_its_text(tmp_path: Path) -> None:
    shared = "a line that both have, of words enough to be compared and cut out of the second"
    alike = " ".join(f"alike{i}" for i in range(300))
    texts = {
        "a1": f"{SENTENCE}\n{shared}\nthe first goes on",
        "a2": f"the second begins in another way\n{shared}",
        "b1": f"{alike} {SENTENCE} and so it is the longest",
        "b2": f"{alike} and no more",
    }
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in texts.items()))
    (tmp_path / "exam.txt").write_text(SENTENCE)
    source = {"kind": "files", "paths": [str(tmp_path / "docs.jsonl")]}
    recipe = {"dedup": {"lines": {}, "keep": "longest"}, "decontaminate": {"sets": [str(tmp_path / "exam.txt")]}}
    made = _curated(tmp_path, [source], min_characters=1, rules=[], split={"heldout_fraction": 0}, **recipe)
    rows = [row for folder in made.written for row in pq.read_table(folder / "train.parquet").to_pylist()]
    assert {row["id"]: row["text"] for row in rows} == {name: texts[name] for name in ("a2", "b2")}
    dropped = {step["rule"]: step["dropped"] for step in made.funnel}
    assert dropped["contaminated"] == 2 and not dropped["near_duplicate"]


def test_more_than_there_is_to_train_on_is_refused(tmp_path: Path) -> None:
    sources = _sources(tmp_path, 12)
    corpus = corpus_of(_curated(tmp_path, sources).taken)
    every = sum(int(tokens_of(batch, None).sum()) for batch in corpus)
    with pytest.raises(Invalid, match="is taken at most 1 times over") as caught:
        _curated(tmp_path, sources, split={"heldout_fraction": 0.3}, mix={"tokens": every})
    assert caught.value.field == "recipe.mix.tokens"


def test_packed_bytes_are_counted_exactly(tmp_path: Path) -> None:
    sources = _sources(tmp_path, 20)
    pack = {"tokenizer": "bytes", "length": 4096}
    split = {"heldout_fraction": 0}
    mixed = _curated(tmp_path, sources, pack=pack, mix={"tokens": 6000}, split=split)
    corpus: Corpus = corpus_of(mixed.taken)
    for batch in corpus:
        sizes = [len(text.encode()) + 1 for text in batch.texts.to_pylist()]
        assert tokens_of(batch, Pack("bytes")).tolist() == sizes
        assert tokens_of(batch, None).tolist() != sizes
    tables = [pq.read_table(folder / "packed.parquet") for folder in mixed.written]
    used = sum(sum(table["used"].to_pylist()) for table in tables)
    assert used == sum(portion["taken"] for portion in mixed.decision.portions)


def test_a_budget_is_counted_by_the_tokenizer_that_packs(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")  # a token a character
    inner.save(str(tmp_path / "tokenizer.json"))
    pack = {"tokenizer": str(tmp_path / "tokenizer.json"), "length": 4096}
    sources = _sources(tmp_path, 40)
    mixed = _curated(tmp_path, sources, pack=pack, mix={"tokens": 12_000, "weights": {"news": 2}})
    sizes = {row["source"]: 0 for row in mixed.decision.portions}
    for row in (row for folder in mixed.written for row in pq.read_table(folder / "train.parquet").to_pylist()):
        sizes[row["source"].split(":")[0]] += len(row["text"]) + 1
    assert {row["source"]: row["taken"] for row in mixed.decision.portions} == sizes
    assert abs(sizes["news"] - 8000) < 500 and abs(sizes["books"] - 4000) < 500
    used = sum(sum(pq.read_table(folder / "packed.parquet")["used"].to_pylist()) for folder in mixed.written)
    assert used == sum(sizes.values())


def test_of_the_preset_code_nothing_is_cut_wherever_it_lies(tmp_path: Path) -> None:
    assert dedup_of(plan_of({"sources": _sources(tmp_path, 8), "recipe": {"preset": "code"}}), "").whole
    sources = [{"kind": "folder", "path": str(tmp_path / "news"), "name": "news"}]
    assert not dedup_of(plan_of({"sources": sources, "recipe": {}}), "").whole


def test_another_tokenizer_makes_another_decision_only_of_a_mix(tmp_path: Path) -> None:
    sources = _sources(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    from atoll.data.engine.curate import fingerprints

    def deciding(**recipe: Any) -> str:
        return fingerprints.of_deciding(plan_of({"sources": sources, "recipe": recipe}), "reading")

    bytes_, other = ({"tokenizer": name} for name in ("bytes", str(tmp_path)))
    assert deciding(pack=bytes_) == deciding(pack=other)
    assert deciding(pack=bytes_, mix={}) != deciding(pack=other, mix={})


def test_a_decision_is_what_its_folder_holds(tmp_path: Path) -> None:
    decision = _curated(tmp_path, _sources(tmp_path, 8), mix={}).decision
    again = decision_in(decision.folder)
    assert again == decision and again.names[-1] == "not_sampled"
    assert len(again.reasons) == len(again.sides) == len(again.times) == len(again.clusters) == 16


def test_of_equal_ids_the_first_member_keeps_its_own() -> None:
    hashes = np.array([7, 7, 5, 7, 5], np.uint64)
    assert repeated(hashes, np.array([True] * 5)).tolist() == [False, True, False, True, True]
    assert repeated(hashes, np.array([False, True, True, True, False])).tolist() == [False, False, False, True, False]
    assert not repeated(hashes, np.zeros(5, bool)).any()


def test_sets_are_called_by_the_shortest_end_of_their_path_that_is_their_own() -> None:
    paths = ["/a/mmlu/test.jsonl", "/a/gsm8k/test.jsonl", "/b/gsm8k/test.jsonl", "exam.txt"]
    assert list(told_apart(paths)) == ["mmlu/test.jsonl", "a/gsm8k/test.jsonl", "b/gsm8k/test.jsonl", "exam.txt"]
    assert told_apart(["x/a.txt", "x/a.txt"]) == {"a.txt": "x/a.txt"}
    assert set(told_apart(["a.txt", "x/a.txt"]).values()) == {"a.txt", "x/a.txt"}
    assert told_apart(["./a.txt", "a.txt"]) == {"./a.txt": "./a.txt", "a.txt": "a.txt"}


def test_two_sets_of_one_name_are_both_looked_for(tmp_path: Path) -> None:
    texts = {"one": SENTENCE, "two": SENTENCE.replace("fox", "hare")}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.txt").write_text(text + "\n")
    (tmp_path / "table").mkdir()
    build_table(Decontaminate(tuple(str(tmp_path / name / "test.txt") for name in texts)), tmp_path / "table")
    table = contamination.load(tmp_path / "table" / "table.npz")
    assert table.names == ("one/test.txt", "two/test.txt") and table.texts == (1, 1)
    found = contamination.find(pa.array(list(texts.values())), table)
    assert found.masks.tolist() == [1, 2]


def test_the_shards_of_a_dataset_are_one_set_however_many(tmp_path: Path) -> None:
    (tmp_path / "docs" / "train").mkdir(parents=True)
    for number in range(70):  # more than there may be sets
        rows = pa.table({"id": [f"{number}"], "text": [SENTENCE.replace("owls", f"owl{number}s")]})
        pq.write_table(rows, tmp_path / "docs" / "train" / f"{number:05d}.parquet")
    (tmp_path / "table").mkdir()
    build_table(Decontaminate((str(tmp_path / "docs"),)), tmp_path / "table")
    assert contamination.load(tmp_path / "table" / "table.npz").names == ("docs",)


def test_of_a_curated_dataset_its_splits_are_the_set_and_not_what_it_rejected(tmp_path: Path) -> None:
    fox, hare = SENTENCE, SENTENCE.replace("fox", "hare").replace("lazy dog", "tired cat").replace("small", "grey")
    for part, text in (("heldout", fox), ("rejected", hare)):
        (tmp_path / "exam" / part).mkdir(parents=True)
        pq.write_table(pa.table({"id": ["a"], "text": [text]}), tmp_path / "exam" / part / "00000.parquet")
    shards = {part: Split((Shard(f"sha256:{'0' * 64}", 1, 1),), 1) for part in ("heldout", "rejected")}
    rejected = {"rejected": shards.pop("rejected")}
    (tmp_path / "exam" / "manifest.json").write_bytes(Manifest(shards, {}, [], {}, "", [], tables=rejected).encode())
    (tmp_path / "table").mkdir()
    build_table(Decontaminate((str(tmp_path / "exam"),)), tmp_path / "table")
    found = contamination.find(pa.array([fox, hare]), contamination.load(tmp_path / "table" / "table.npz"))
    assert found.masks.tolist() == [1, 0]
    (tmp_path / "pages").mkdir()
    with pytest.raises(Invalid, match="pages holds no Parquet file"):
        build_table(Decontaminate((str(tmp_path / "pages"),)), tmp_path / "table")


def test_a_list_of_words_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n  \n")
    words = [{"name": "slurs", "path": str(tmp_path / "words.txt")}]
    with pytest.raises(Invalid, match=r"words\.txt holds no words"):
        _curated(tmp_path, _sources(tmp_path, 8), words=words)
