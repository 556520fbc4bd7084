"""Curation without a platform: a folder of results, re-use of what was read, previews."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atoll.core.errors import Conflict, Invalid
from atoll.data import archive
from atoll.data.engine.curate import intake
from atoll.data.engine.curate.alone import curate_alone, recipe_from, sources_of
from atoll.data.engine.curate.preview import preview
from atoll.data.engine.versions.describe import describe
from atoll.data.manifest import Manifest
from atoll.data.recipes import parse_recipe
from curating import bytes_of, write_documents

RECIPE: dict[str, Any] = {"min_characters": 100, "privacy": {}, "questions": {"enabled": False}}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "docs", 60)


def _curate(docs: Path, out: Path, **changes: Any) -> Manifest:
    return curate_alone([str(docs)], parse_recipe({**RECIPE, **changes}), out, seed=5)[0]


def test_a_folder_gets_the_dataset_its_notes_and_a_report(docs: Path, tmp_path: Path) -> None:
    manifest = _curate(docs, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "train").num_rows
    assert rows == manifest.counts["train"] == manifest.splits["train"].rows
    notes = pq.read_table(tmp_path / "out" / "notes")
    assert notes.num_rows == 60 and "text" not in notes.column_names
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"] == manifest.counts and report["cpu_s"] > 0
    assert report["privacy"] == {"email": {"mask": manifest.privacy["email"]["mask"]}}
    assert report["quarantined"][0]["line"] == 16


def test_changed_thresholds_use_what_was_read_and_give_the_bytes_of_a_fresh_run(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _curate(docs, tmp_path / "out")
    _curate(docs, tmp_path / "fresh", min_characters=500)

    def not_again(item: object, folder: Path) -> None:
        raise AssertionError("it was read already")

    monkeypatch.setattr(intake, "take_in", not_again)
    _curate(docs, tmp_path / "out", min_characters=500)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")
    with pytest.raises(AssertionError, match="it was read already"):
        raise_cause(docs, tmp_path / "out")


def raise_cause(docs: Path, out: Path) -> None:
    """Curate with another normal form, which has to be read anew."""
    from atoll.data.engine.runtimes.stages import OperatorFailed

    try:
        _curate(docs, out, normalise={"unicode": "nfkc"})
    except OperatorFailed as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None


def test_changed_documents_are_read_anew(docs: Path, tmp_path: Path) -> None:
    before = _curate(docs, tmp_path / "out")
    (docs / "more.txt").write_text("A text of its own. " * 20)
    assert _curate(docs, tmp_path / "out").counts["documents_in"] == before.counts["documents_in"] + 1


def test_files_that_no_pattern_names_are_counted_and_change_nothing_else(docs: Path, tmp_path: Path) -> None:
    before = _curate(docs, tmp_path / "out")
    assert before.passed_over == {}
    for name in ("a.PNG", "b.png", "Makefile", ".hidden.bin"):
        (docs / name).write_text("no document")
    after = _curate(docs, tmp_path / "out")
    assert after.passed_over == {"": 1, ".png": 2}
    assert after.splits == before.splits and after.counts == before.counts
    assert json.loads((tmp_path / "out" / "report.json").read_text())["passed_over"] == after.passed_over
    with archive.open_archive(tmp_path / "out") as opened:
        assert describe(opened)["passed_over"] == after.passed_over


@pytest.mark.parametrize("name", ["more.zip", "more.tar.gz"])
def test_members_that_no_pattern_names_are_counted(docs: Path, tmp_path: Path, name: str) -> None:
    members = tmp_path / "members"
    (members / ".git").mkdir(parents=True)
    for member in ("a.bin", "b.bin", ".git/config"):
        (members / member).write_text("no document")
    (members / "c.txt").write_text("A document in an archive. " * 20)
    kind = "zip" if name.endswith(".zip") else "gztar"
    shutil.make_archive(str(docs / "more"), kind, members)
    assert _curate(docs, tmp_path / "out").passed_over == {".bin": 2}


def test_an_archive_of_nothing_but_pictures_is_an_error_that_counts_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "b.png", "c.jpg"):
            archive.writestr(name, b"x")
    with pytest.raises(Invalid, match=r"a.zip hold no document, 3 other files \(2 .png, 1 .jpg\)"):
        curate_alone([str(tmp_path / "a.zip")], parse_recipe({}), tmp_path / "out", seed=5)


def test_a_preview_tells_what_a_new_run_would_drop_by_its_rules(docs: Path, tmp_path: Path) -> None:
    _curate(docs, tmp_path / "out")
    stricter = parse_recipe({**RECIPE, "min_characters": 500})
    told = preview(archive.Folder(tmp_path / "out"), stricter)
    changes = {change.rule: change for change in told.changes}
    after = _curate(docs, tmp_path / "fresh", min_characters=500)
    dropped = {step["rule"]: step["dropped"] for step in after.funnel}
    assert changes["too_short"].after == dropped["too_short"] > changes["too_short"].before
    assert changes["kept"].after == after.counts["documents_out"]
    assert changes["too_short"].added[0].startswith("d0") and told.untold == ()


def test_a_preview_does_not_count_on_the_copies_of_what_goes(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(120)]
    texts = {"a": " ".join([*words, "#"]), "b": " ".join(words), "c": "an answer of its own " * 20}
    (tmp_path / "docs").mkdir()
    rows = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    (tmp_path / "docs" / "a.jsonl").write_text(rows)
    _curate(tmp_path / "docs", tmp_path / "out", rules=[])
    recipe = {"rules": [{"rule": "hashes", "drop": "hash_ratio > 0"}]}
    told = preview(archive.Folder(tmp_path / "out"), parse_recipe({**RECIPE, **recipe}))
    after = {change.rule: change.after for change in told.changes}
    assert (after["hashes"], after["near_duplicate"], after["to_compare"], after["kept"]) == (1, 0, 1, 1)
    assert _curate(tmp_path / "docs", tmp_path / "out", **recipe).counts["documents_out"] == 2


def test_a_preview_says_what_it_cannot_tell(docs: Path, tmp_path: Path) -> None:
    _curate(docs, tmp_path / "out", min_characters=500)
    looser = parse_recipe({**RECIPE, "dedup": {"near": None}})
    told = preview(archive.Folder(tmp_path / "out"), looser)
    changes = {change.rule: change for change in told.changes}
    released = changes["too_short"].before - changes["too_short"].after
    assert released - changes["few_letters"].after <= changes["to_compare"].after <= released
    assert changes["to_compare"].after > 0
    assert told.untold == ("dedup",)
    asks = parse_recipe({**RECIPE, "language": {"keep": ["en"]}})
    with pytest.raises(Invalid, match="language_score"):
        preview(archive.Folder(tmp_path / "out"), asks)


def test_a_folder_of_ones_own_is_never_touched(docs: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"holds '0\.jsonl', which no curation made"):
        _curate(docs, docs)
    assert len(list(docs.iterdir())) == 4


def test_a_dataset_inside_its_input_is_not_read(docs: Path, tmp_path: Path) -> None:
    outside = _curate(docs, tmp_path / "out")
    inside = [_curate(docs, docs / "out") for _ in range(2)]
    assert inside[0] == inside[1]
    assert inside[0].counts["documents_out"] == outside.counts["documents_out"]
    refused = json.loads((docs / "out" / "report.json").read_text())["quarantined"][0]
    assert refused == {"name": "out", "line": 0, "reason": "a curation made it: give it as an input of its own"}


def test_of_a_dataset_only_its_documents_are_read(docs: Path, tmp_path: Path) -> None:
    made = _curate(docs, tmp_path / "made")
    again = _curate(tmp_path / "made", tmp_path / "again", min_characters=1)
    assert made.counts["documents_out"] < made.counts["documents_in"]
    assert again.counts["documents_in"] == made.counts["documents_out"]
    assert sources_of([f"own={tmp_path / 'made'}"]) == [
        {"kind": "dataset", "reference": str(tmp_path / "made"), "name": "own"}
    ]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(docs: Path) -> None:
    with pytest.raises(Invalid, match="/dev/null/out cannot be the folder of the dataset: Not a directory"):
        _curate(docs, Path("/dev/null/out"))


def test_processor_seconds_of_parsers_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<p>{'Words of a page. ' * 20}")
    before_s = os.times().children_user
    _curate(tmp_path / "a.html", tmp_path / "out")
    assert os.times().children_user > before_s


def test_two_curations_do_not_share_a_folder(docs: Path, tmp_path: Path) -> None:
    def again(*_: object) -> None:
        with pytest.raises(Conflict, match="another curation works on"):
            _curate(docs, tmp_path / "out")

    curate_alone([str(docs)], parse_recipe(RECIPE), tmp_path / "out", report=again)


def test_pseudonyms_stay_the_same_in_a_folder_and_differ_elsewhere(docs: Path, tmp_path: Path) -> None:
    def texts(out: Path) -> list[str]:
        _curate(docs, out, privacy={"default": "pseudonymise"})
        return sorted(pq.read_table(out / "train")["text"].to_pylist())

    assert texts(tmp_path / "one") == texts(tmp_path / "one")
    assert texts(tmp_path / "one") != texts(tmp_path / "two")
    assert (tmp_path / "one" / ".work" / "privacy.key").stat().st_mode & 0o777 == 0o600


def test_what_is_masked_is_nowhere_in_the_dataset(tmp_path: Path) -> None:
    own = [" ".join(f"word{61 * number + place}" for place in range(60)) for number in range(3)]
    repeated = "This line stands in each of the documents, and a number stands right before it, word for word"
    rows: list[dict[str, Any]] = [
        {"id": f"d{number}", "title": f"Letter of 1397952{number:04}", "text": f"{own[number]} {said}{repeated}."}
        for number, said in enumerate(("one ", "call 13979523400,", "or 13979523401 "))
    ]
    rows += [{"messages": [{"role": "13979523402", "content": "x"}]}]
    rows += [{"messages": [{"role": "user", "content": {"call": "13979523403"}}]}]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dedup = {"near": None, "substrings": {"bytes_min": 60}}
    manifest = _curate(tmp_path / "docs", tmp_path / "out", dedup=dedup, questions={"answer_characters_min": 10})
    assert manifest.counts["documents_cut"] == 2 and manifest.counts["qa_train"] > 0
    assert manifest.privacy == {"phone": {"mask": 2}}
    for path in (tmp_path / "out").rglob("*.*"):
        if path.is_file() and ".work" not in path.parts:
            held = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
            assert "1397952" not in held, path


def test_what_an_index_holds_is_not_new(docs: Path, tmp_path: Path) -> None:
    dedup = {"index": str(tmp_path / "index")}
    first = _curate(docs, tmp_path / "one", dedup=dedup)
    (docs / "more.txt").write_text("A text that no earlier run has ever seen. " * 20)
    second = _curate(docs, tmp_path / "two", dedup=dedup)
    assert first.counts["documents_out"] > 10 and second.counts["documents_out"] == 1
    assert _curate(docs, tmp_path / "two", dedup=dedup) == second


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("recipe.yaml", "min_characters: 7\n"),
        ("recipe.json", '{"min_characters": 7}'),
        ("recipe.py", "recipe = {'min_characters': 3 + 4}\n"),
        ("recipe.py", "from atoll.data.recipes import Recipe\nrecipe = Recipe(min_characters=7)\n"),
    ],
)
def test_a_recipe_is_a_file_of_several_kinds(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert recipe_from(tmp_path / name, None) == parse_recipe({"min_characters": 7})
    assert recipe_from(tmp_path / name, "web-en").preset == "web-en"
    assert recipe_from(tmp_path / name, "web-en").min_characters == 7


def test_no_is_norwegian_and_true_is_true(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("language: {keep: [en, no]}\ndedup: {exact: false, url: true}\n")
    recipe = recipe_from(tmp_path / "recipe.yaml", None)
    assert recipe.language is not None and recipe.language.keep == ["en", "no"]
    assert (recipe.dedup.exact, recipe.dedup.url) == (False, True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("recipe.yaml", "[1, 2]", "holds no recipe"),
        ("recipe.yaml", "a: [", r"recipe.yaml:\d: not valid YAML"),
        ("recipe.yaml", "seed: 1\nmin_character: 7", "recipe.yaml:1: there is no field"),
        ("recipe.yaml", "rules:\n- {rule: a, drop: words < 3}\n- rule: b\n  drop: wordz < 3", "recipe.yaml:4: .*wordz"),
        ("recipe.yaml", "a: 1\n---\nb: 2\n", "holds 2 documents"),
        ("recipe.yaml", "rules: []\nmin_characters: 7\nrules: []", "'rules' is given twice"),
        ("recipe.json", '{"dedup": {"exact": true, "exact": false}}', "'exact' is given twice"),
        ("recipe.py", "rules = []", "defines no `recipe`"),
        ("recipe.py", "recipe = {\n", r"recipe.py, line 1: SyntaxError: '\{' was never closed"),
        ("recipe.py", "import json\nrecipe = json.loads('')\n", "recipe.py, line 2: JSONDecodeError"),
        ("recipe.py", "open('nowhere.json')\n", "recipe.py, line 1: FileNotFoundError: .*nowhere.json"),
    ],
)
def test_a_wrong_recipe_file_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Invalid, match=said):
        recipe_from(tmp_path / name, None)


def test_inputs_are_one_source_and_named_ones_their_own(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    folder, pattern = str(tmp_path), str(tmp_path / "*.txt")
    assert sources_of([folder]) == [{"kind": "folder", "path": folder}]
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert sources_of([pattern]) == [{"kind": "files", "paths": files}]
    assert sources_of([f"books={folder}", files[0]]) == [
        {"kind": "folder", "path": folder, "name": "books"},
        {"kind": "files", "paths": files[:1]},
    ]
    assert sources_of(["pypi:texts==1.0", "own=hf:me/texts", files[0]]) == [
        {"kind": "files", "paths": files[:1]},
        {"kind": "package", "reference": "pypi:texts==1.0"},
        {"kind": "hub", "reference": "hf:me/texts", "name": "own"},
    ]
    with pytest.raises(Invalid, match="there is nothing at"):
        sources_of([str(tmp_path / "*.pdf")])
