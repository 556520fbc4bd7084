"""What is known already: datasets as the memory of later runs, beside a kept folder."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.curate.alone import curate_alone
from atoll.data.engine.curate.run import curate
from atoll.data.engine.dedup import Near, index
from atoll.data.engine.versions.erase import erase
from atoll.data.manifest import Manifest, read_manifest, read_split
from atoll.data.recipes import parse_recipe
from curating import bytes_of

RECIPE: dict[str, Any] = {"preset": "instructions", "privacy": {"default": "mask"}, "split": {"heldout_fraction": 0.2}}
KEPT = {"dedup": {"keep_index": True, "url": True, "lines": {}}}


def _words(first: int, count: int = 80) -> str:
    return " ".join(f"lagoon{first + place}" for place in range(count))


def _row(number: int, text: str = "", url: str = "") -> dict[str, str]:
    words = text or f"Write to keeper{number}@lagoon-works.net about it. {_words(number * 1000)}"
    return {"id": f"d{number:03d}", "text": words, "url": url}


def _file(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def first(tmp_path: Path) -> str:
    """Twenty documents, half of them with a line in common and one with a page."""
    common = "This line stands in many of these documents, word for word, again and again.\n"
    rows = [_row(n, f"{common * (n % 2)}{_words(n * 1000)}\nMail m{n}@lagoon-works.net") for n in range(20)]
    return _file(tmp_path / "first.jsonl", [*rows, _row(20, url="https://lagoon.net/20")])


@pytest.fixture
def second(tmp_path: Path, first: str) -> str:
    """Copies of the first, near copies, another page of a known URL, and ten that are new."""
    rows = [json.loads(line) for line in Path(first).read_text().splitlines()]
    copies = [{**row, "id": f"c{n}"} for n, row in enumerate(rows[:6])]
    near = [
        {**row, "id": f"n{n}", "text": row["text"].replace("lagoon", "atoll", 1)} for n, row in enumerate(rows[6:12])
    ]
    page = {**_row(70), "url": "https://LAGOON.net/20#top"}
    return _file(tmp_path / "second.jsonl", [*copies, *near, page, *(_row(n) for n in range(50, 60))])


def _alone(out: Path, given: str, **changes: Any) -> Manifest:
    return curate_alone([given], parse_recipe({**RECIPE, **changes}), out, seed=3)[0]


def _fates(folder: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in pq.read_table(folder / "notes").to_pylist()}


def test_a_dataset_knows_what_a_kept_folder_knows(tmp_path: Path, first: str, second: str) -> None:
    folder = {"dedup": {"index": str(tmp_path / "index"), "url": True, "lines": {}}}
    for name, given in (("a", first), ("b", second)):
        _alone(tmp_path / name, given, **folder)
    _alone(tmp_path / "v1", first, **KEPT)
    known = {"dedup": {"known": [str(tmp_path / "v1")], "url": True, "lines": {}}}
    manifest = _alone(tmp_path / "v2", second, **known)
    fates = _fates(tmp_path / "v2")
    assert fates == _fates(tmp_path / "b")
    assert [name for name, reason in fates.items() if not reason] == [f"d{n:03d}" for n in range(50, 60)]
    assert set(fates.values()) == {"", "known_before"}
    assert manifest.splits["train"].rows + manifest.splits["heldout"].rows == manifest.tables["index"].rows == 10


def test_the_index_made_of_a_table_is_that_of_the_run_to_the_last_byte(tmp_path: Path, first: str) -> None:
    _alone(tmp_path / "a", first, dedup={"index": str(tmp_path / "index"), "keep_index": True, "near": {"words": 3}})
    (run,) = index.runs(tmp_path / "index", Near(0.85, words=3))
    tables = sorted((tmp_path / "a" / "index").glob("*.parquet"))
    assert index.add_tables(tmp_path / "again", tables, Near(0.85, words=3), run.name)
    for path in run.iterdir():
        assert (tmp_path / "again" / run.name / path.name).read_bytes() == path.read_bytes(), path.name


def test_texts_are_known_of_a_dataset_that_keeps_no_index(tmp_path: Path, first: str, second: str) -> None:
    _alone(tmp_path / "v1", first)
    assert not (tmp_path / "v1" / "index").exists()
    _alone(tmp_path / "v2", second, dedup={"known": [str(tmp_path / "v1")]})
    new = [name for name, reason in _fates(tmp_path / "v2").items() if not reason]
    assert new == ["d070", *(f"d{n:03d}" for n in range(50, 60))]


@pytest.mark.parametrize("keeps", [True, False])
def test_two_workers_give_the_bytes_of_one(tmp_path: Path, first: str, second: str, keeps: bool) -> None:
    _alone(tmp_path / "v1", first, dedup={"keep_index": keeps})
    recipe = parse_recipe({**RECIPE, "dedup": {"known": [str(tmp_path / "v1")]}})
    for workers in (1, 2):
        curate_alone([second], recipe, tmp_path / f"by-{workers}", seed=3, workers=workers)
    assert bytes_of(tmp_path / "by-1") == bytes_of(tmp_path / "by-2")
    assert any(name.startswith("index/") for name in bytes_of(tmp_path / "by-1"))


def test_a_folder_curated_again_is_known_as_it_is_now(tmp_path: Path, first: str, second: str) -> None:
    known = {"dedup": {"known": [str(tmp_path / "v1")]}}
    _alone(tmp_path / "v1", first, **KEPT)
    _alone(tmp_path / "v2", second, **known)
    _alone(tmp_path / "v1", second, **KEPT)
    with pytest.raises(Invalid, match=r"known_before 23 \(none of them is new"):
        _alone(tmp_path / "v2", second, **known)


def test_another_threshold_is_served_by_the_same_index_other_shingles_are_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    _alone(tmp_path / "v1", first, **KEPT)
    known = {"known": [str(tmp_path / "v1")]}
    _alone(tmp_path / "v2", second, dedup={**known, "near": {"threshold": 0.9}})
    assert _fates(tmp_path / "v2")["n0"] == "known_before"
    with pytest.raises(Invalid) as refused:
        _alone(tmp_path / "v2", second, dedup={**known, "near": {"words": 3, "permutations": 64}})
    assert "v1 keeps an index made with permutations 112, words 5, cjk_characters 5" in str(refused.value)
    assert "not with permutations 64, words 3, cjk_characters 5" in str(refused.value)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, first: str) -> None:
    with pytest.raises(Invalid, match="web is not a dataset"):
        _alone(tmp_path / "out", first, dedup={"known": ["web"]})
    with pytest.raises(Invalid, match="not both"):
        parse_recipe({"dedup": {"known": ["web"], "index": "/tmp/index"}})


def test_a_run_of_the_platform_knows_versions_and_an_erasure_makes_new_what_it_removes(
    tmp_path: Path, first: str, second: str
) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    recipe = {**RECIPE, "dedup": {"known": ["web"], "url": True, "lines": {}}}

    def run(given: str, known: dict[str, str]) -> tuple[str, Manifest]:
        sources = [{"kind": "files", "paths": [given]}]
        wanted = {"sources": sources, "recipe": recipe, "seed": 3, "known": known}
        digest = curate(wanted, store, tmp_path / "work")["manifest"]
        assert list((tmp_path / "work").iterdir()) == []
        return digest, read_manifest(store, digest)

    v1, manifest = run(first, {})
    assert manifest.tables["index"].rows == 21
    v2, manifest = run(second, {"web.v1": v1})
    assert manifest.tables["index"].rows == 10
    with pytest.raises(Invalid, match=r"known_before 23 \(none of them is new"):
        run(second, {"web.v1": v1, "web.v2": v2})
    after = _erased(store, tmp_path / "erase", v1, ["d003"])
    assert read_manifest(store, after).tables["index"].rows == 20
    _, manifest = run(second, {"web.v1": after, "web.v2": v2})
    assert manifest.splits["train"].rows + manifest.splits["heldout"].rows == 1


def _erased(store: BlobStore, work: Path, manifest: str, documents: list[str]) -> str:
    match = {"documents": documents, "sources": [], "texts": [], "digests": []}
    told = {**match, "files": []}
    versions = [{"name": "web.v1", "manifest": manifest}]
    wanted = {"versions": versions, "files": [], "match": match, "told": told, "salt": "salt"}
    result = erase(wanted, store, work)
    left = result["versions"][0]["after"]
    assert "d003" not in read_split(store, left, "index")["id"].to_pylist()
    return str(left)
