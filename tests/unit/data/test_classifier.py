"""Quality models: what they learn, how their files are read back, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.quality import classifier, perplexity
from atoll.data.engine.quality.classifier import Classifier, Settings, load, train
from atoll.data.engine.quality.examples import Label
from atoll.data.engine.quality.measures import auc, calibrate, measure
from atoll.data.engine.quality.model_file import MAGIC, ModelFile, decode
from atoll.data.engine.quality.train import TEXT_BYTES_MAX, train_from_datasets, train_from_files
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import Manifest, Shard, Split, write_manifest
from atoll.data.quality import QUALITY_MODEL

WORDS = ["the", "office", "opens", "at", "nine", "and", "closes", "at", "noon", "bring", "a", "form", "with", "your"]
WORDS += ["name", "to", "the", "desk", "on", "the", "first", "floor"]
SETTINGS = Settings(bits=12, epochs=3)
WANTED: dict[str, Any] = {
    "method": "classifier",
    "text_column": "text",
    "epochs": 3,
    "rate": 2.0,
    "bits": 12,
    "shortest": 3,
    "longest": 4,
    "seed": 0,
    "text_bytes_max": TEXT_BYTES_MAX,
}


def good(number: int) -> str:
    return " ".join(WORDS[number % 7 : number % 7 + 12]) + f" room {number}"


def other(number: int) -> str:
    return f"win {number} free click 办证 here now now buy {number * 7} cheap"


@pytest.fixture(scope="module")
def texts() -> pa.StringArray:
    return pa.array([good(n) for n in range(150)] + [other(n) for n in range(150)])


LABELS = [True] * 150 + [False] * 150


@pytest.fixture(scope="module")
def model(texts: pa.StringArray) -> Classifier:
    return train(texts, LABELS, SETTINGS)


def test_it_tells_apart_what_it_never_saw_and_says_how_well(model: Classifier) -> None:
    scores = model.score(pa.array([good(9_999), other(9_999)]))
    assert scores.dtype == np.float32
    assert scores[0] > 0.9
    assert scores[1] < 0.1
    assert model.report["auc"] == 1.0
    assert model.report["accuracy"] == 1.0
    assert model.report["texts"] == 300
    assert model.report["trained_on"] + model.report["tested"] < 300
    assert 0 <= model.report["calibration_error"] < 0.2
    assert sum(part["texts"] for part in model.report["reliability"]) == model.report["tested"]


def test_equal_texts_labels_and_seed_give_equal_bytes(texts: pa.StringArray, model: Classifier) -> None:
    assert train(texts, LABELS, SETTINGS).file().encode() == model.file().encode()
    assert train(texts, LABELS, Settings(bits=12, epochs=3, seed=1)).file().encode() != model.file().encode()


def test_a_model_is_one_file_that_scores_the_same(texts: pa.StringArray, model: Classifier, tmp_path: Path) -> None:
    data = model.file().save(tmp_path / "m.aqm")
    again = load(tmp_path / "m.aqm")
    assert np.array_equal(again.score(texts), model.score(texts))
    assert again.file().encode() == data
    assert again.digest.startswith("sha256:")
    assert load(str(tmp_path / "m.aqm")) is again
    other_model = train(texts, LABELS, Settings(bits=10, epochs=1))
    other_model.file().save(tmp_path / "m.aqm")
    assert load(tmp_path / "m.aqm") is not again


def test_scores_do_not_depend_on_the_batch(texts: pa.StringArray, model: Classifier) -> None:
    whole = model.score(texts)
    assert np.array_equal(model.score(texts.slice(40, 17)), whole[40:57])
    assert np.array_equal(model.score(texts.cast(pa.large_string())), whole)


def test_nothing_and_nulls_score_as_empty_texts(model: Classifier) -> None:
    empty, null, blank = model.score(pa.array(["", None, " \n "]))
    assert empty == null == blank
    assert 0 < empty < 1
    assert len(model.score(pa.array([], pa.string()))) == 0
    assert len(model.score(pa.array([None, None], pa.string()))) == 2


def test_chinese_is_read_by_the_character() -> None:
    kinds = ["请携带身份证到窗口办理手续", "点击领取免费大奖赢现金"]
    texts = pa.array([f"{kinds[n % 2]}{n}" for n in range(120)])
    found = train(texts, [n % 2 == 0 for n in range(120)], SETTINGS)
    assert found.report["auc"] == 1.0


def test_noise_cannot_be_learnt_and_the_figures_say_so(texts: pa.StringArray) -> None:
    rng = np.random.default_rng(0)
    found = train(texts, rng.random(300) < 0.5, SETTINGS)
    assert 0.2 < found.report["auc"] < 0.8


@pytest.mark.parametrize(("count", "labels"), [(20, True), (6, None), (0, None)])
def test_too_few_texts_of_a_kind_are_refused(count: int, labels: bool | None) -> None:
    wanted = [labels if labels is not None else n % 2 == 0 for n in range(count)]
    with pytest.raises(Invalid, match="are needed"):
        train(pa.array([good(n) for n in range(count)], pa.string()), wanted, SETTINGS)


@pytest.mark.parametrize("wrong", [{"bits": 30}, {"epochs": 0}, {"rate": 0.0}, {"shortest": 5, "longest": 4}])
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        Settings(**wrong)
    assert refused.value.field in {*wrong}


def broken(data: bytes) -> dict[str, bytes]:
    header = json.dumps({"kind": "dream", "arrays": [], "sha256": "", "model": {}}).encode()
    return {
        "empty": b"",
        "a pickle": b"\x80\x04\x95",
        "cut": data[:-5],
        "longer": data + b"\0",
        "changed": data[:-1] + bytes([data[-1] ^ 1]),
        "only a beginning": MAGIC,
        "a huge header": MAGIC + (1 << 40).to_bytes(8, "little"),
        "of another kind": MAGIC + len(header).to_bytes(8, "little") + header,
    }


@pytest.mark.parametrize("how", broken(b"12345678"))
def test_a_file_that_is_no_model_is_refused_by_name(how: str, model: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "broken.aqm"
    path.write_bytes(broken(model.file().encode())[how])
    with pytest.raises(Invalid, match=r"broken\.aqm"):
        load(path)


def test_a_model_that_is_not_there_or_lies_about_its_shape_is_refused(model: Classifier, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"none.aqm cannot be read: No such file"):
        load(tmp_path / "none.aqm")
    file = model.file()
    ModelFile(file.kind, {**file.header, "settings": {"bits": 11}}, file.arrays).save(tmp_path / "lies.aqm")
    with pytest.raises(Invalid, match="no quality model we know"):
        load(tmp_path / "lies.aqm")
    ModelFile("dream", {}, {}).save(tmp_path / "dream.aqm")
    with pytest.raises(Invalid, match="'dream'"):
        load(tmp_path / "dream.aqm")
    assert decode(file.encode(), "x").kind == "classifier"


def test_the_area_under_the_curve_counts_pairs_in_order() -> None:
    scores, truth = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    assert auc(scores, truth) == (1 + 0.5 + 1 + 1) / 4


def test_calibration_makes_scores_shares() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=20_000) * 3
    truth = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores - 1)))
    found = calibrate(scores, truth)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.offset == pytest.approx(-1, abs=0.06)
    assert measure(found.probabilities(scores), truth).calibration_error < 0.02


def test_calibration_never_turns_the_order_around() -> None:
    found = calibrate(np.array([3.0, 2.0, -2.0, -3.0]), np.array([False, False, True, True]))
    assert found.slope == 0.0
    assert np.allclose(found.probabilities(np.array([5.0, -5.0])), 0.5)


def test_perplexity_knows_order_that_good_texts_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    found = perplexity.train(pa.array([good(n) for n in range(200)]), seed=0, bits=14)
    shuffled = [" ".join(rng.permutation(good(n).split())) for n in range(50)]
    assert found.score(pa.array([good(n) for n in range(300, 350)])).mean() > 0.2
    assert found.score(pa.array(shuffled)).max() < 0.05
    assert found.score(pa.array(["", "... !", None])).tolist() == [0.0, 0.0, 0.0]
    found.file().save(tmp_path / "p.aqm")
    again = load(tmp_path / "p.aqm")
    assert again.kind == "perplexity"
    assert np.array_equal(again.score(pa.array(shuffled)), found.score(pa.array(shuffled)))
    assert again.file().encode() == found.file().encode()
    with pytest.raises(Invalid, match="too few"):
        perplexity.train(pa.array(["one text"]))


def test_training_reads_files_of_many_forms(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    (folder / "a.txt").write_text(good(0))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({"text": good(n)}) for n in range(1, 60)))
    pq.write_table(pa.table({"text": [other(n) for n in range(60)]}), tmp_path / "other.parquet")
    found = train_from_files([folder], [tmp_path / "other.parquet"], tmp_path / "m.aqm", WANTED)
    assert found["figures"]["texts"] == 120
    assert load(tmp_path / "m.aqm").score(pa.array([good(77)]))[0] > 0.5


@pytest.mark.parametrize(("name", "data"), [("x.jsonl", "{"), ("x.jsonl", '{"body": "t"}'), ("x.exe", "MZ")])
def test_a_file_that_holds_no_texts_is_refused(name: str, data: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(data)
    with pytest.raises(Invalid, match=name):
        train_from_files([tmp_path / name], [], tmp_path / "m.aqm", WANTED)


def labelled(path: Path) -> Path:
    """Lines with labels: good, poor and none."""
    kinds = [("good", good), ("poor", other), (None, good)]
    rows = [{"text": make(n), "label_edu": label} for n in range(60) for label, make in kinds]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_label_tells_the_kinds_of_one_file_apart(tmp_path: Path) -> None:
    lines = labelled(tmp_path / "edu.jsonl")
    found = train_from_files([lines], [], tmp_path / "m.aqm", WANTED, Label("label_edu", ("good", "fine")))
    assert (found["figures"]["texts"], found["figures"]["good"]) == (120, 60)
    for column, labels, said in (
        ("label_edu", ("gut",), r"no example has the label gut in 'label_edu' .*good \(60\), poor \(60\)"),
        ("edu", ("good",), "none has any label there"),
    ):
        with pytest.raises(Invalid, match=said):
            train_from_files([lines], [], tmp_path / "x.aqm", WANTED, Label(column, labels))
    with pytest.raises(Invalid, match="good texts alone"):
        wanted = {**WANTED, "method": "perplexity"}
        train_from_files([lines], [], tmp_path / "x.aqm", wanted, Label("label_edu", ("good",)))
    assert not (tmp_path / "x.aqm").exists()


def test_an_exported_dataset_is_read_by_its_splits_and_never_by_its_tables(tmp_path: Path) -> None:
    columns = {"text": "string", "label_edu": "string"}
    split = pa.table({"text": [good(n) for n in range(40)] + [other(n) for n in range(40)]})
    split = split.append_column("label_edu", pa.array(["good"] * 40 + ["poor"] * 40))
    for name in ("labels", "rejected"):
        (tmp_path / "edu" / name).mkdir(parents=True)
        pq.write_table(split, tmp_path / "edu" / name / "00000.parquet")
    (tmp_path / "edu" / ".work").mkdir()
    (tmp_path / "edu" / ".work" / "state.npy").write_bytes(b"state")
    shards = {name: Split((Shard("sha256:" + "0" * 64, 80, 1),), 80) for name in ("labels", "rejected")}
    tables, schema = {"rejected": shards.pop("rejected")}, {"labels": columns, "rejected": columns}
    manifest = Manifest(shards, {}, [], {}, "MIT", [], schema=schema, tables=tables)
    (tmp_path / "edu" / "manifest.json").write_bytes(manifest.encode())
    label = Label("label_edu", ("good",))
    found = train_from_files([tmp_path / "edu"], [], tmp_path / "m.aqm", WANTED, label)
    assert (found["figures"]["texts"], found["figures"]["good"]) == (80, 40)
    with pytest.raises(Invalid, match=r"no split of the dataset .*edu has the columns body.*labels: text, label_edu"):
        train_from_files([tmp_path / "edu"], [], tmp_path / "m.aqm", {**WANTED, "text_column": "body"})


def test_what_is_not_there_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    lines = labelled(tmp_path / "edu.jsonl")
    with pytest.raises(Invalid, match=r"there is nothing at .*nowhere"):
        train_from_files([tmp_path / "nowhere"], [lines], tmp_path / "m.aqm", WANTED)
    with pytest.raises(Invalid, match="there is no folder for"):
        train_from_files([lines], [lines], tmp_path / "no" / "m.aqm", WANTED)
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(Invalid, match="has no column 'text'"):
        train_from_files([tmp_path / "x.parquet"], [lines], tmp_path / "m.aqm", WANTED)


def stored(store: BlobStore, folder: Path) -> str:
    """A dataset with labels: good, poor and none."""
    columns = {"text": "string", "label_tone": "string"}
    writer = SplitWriter(store, folder, columns)
    for n in range(60):
        writer.add({"text": good(n), "label_tone": "good"})
        writer.add({"text": other(n), "label_tone": "poor"})
        writer.add({"text": "not labelled", "label_tone": None})
    split = writer.close()
    return write_manifest(store, Manifest({"labels": split}, {}, [], {}, "MIT", [], schema={"labels": columns}))


def test_training_from_labels_leaves_out_what_nobody_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    store = BlobStore((tmp_path / "blobs").as_uri())
    source = {"dataset": "d", "split": "labels", "column": "label_tone", "good": ["good"]}
    manifest = stored(store, tmp_path)
    wanted = {**WANTED, "good": [], "other": [], "labels": [{**source, "manifest": manifest}]}
    found = train_from_datasets(wanted, store)
    assert (found["figures"]["texts"], found["figures"]["good"]) == (120, 60)
    assert store.size_bytes(found["model"]) == found["size_bytes"]
    with pytest.raises(Invalid, match=r"no example has the label great .*good \(60\), poor \(60\)"):
        train_from_datasets({**wanted, "labels": [{**source, "good": ["great"], "manifest": manifest}]}, store)
    with pytest.raises(Invalid, match="no column 'nothing'"):
        train_from_datasets({**wanted, "text_column": "nothing"}, store)


def test_texts_beyond_the_bound_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    store = BlobStore((tmp_path / "blobs").as_uri())
    example = {"dataset": "d", "split": "labels", "manifest": stored(store, tmp_path)}
    wanted = {**WANTED, "labels": [], "good": [example, example], "other": [], "text_bytes_max": 16_000, "bits": 12}
    found = train_from_datasets({**wanted, "method": "perplexity"}, store)
    assert found["figures"]["left_out"] == 180


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "needs labels"),
        ({"method": "perplexity"}, "good examples alone"),
        ({"good": [{"dataset": "a"}]}, "both good and other"),
        ({"labels": [{"dataset": "a", "column": "c", "good": []}]}, "good"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        QUALITY_MODEL.parse_spec(spec)


def test_kinds_of_models_have_different_names() -> None:
    assert classifier.KIND != perplexity.KIND
