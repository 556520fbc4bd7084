from pathlib import Path

import numpy as np
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.dedup import Dedup, Near, index
from duplicates import corpus_of, stages_in

WORDS = [f"word{number}" for number in range(400)]
LONG = " ".join(WORDS[:200])
NEARLY = " ".join([*WORDS[:190], *WORDS[300:306]])
HALF = " ".join(WORDS[:120])
OTHER = " ".join(WORDS[200:])


def _add(folder: Path, texts: list[str], run: str = "run-1", kept: list[bool] | None = None, **columns) -> bool:
    corpus = corpus_of(folder / f"corpus-{run}", texts, batch_rows=2, **columns)
    mask = np.ones(len(texts), bool) if kept is None else np.array(kept)
    return index.add(folder / "index", corpus, mask, Dedup(), run)


def _known(folder: Path, texts: list[str], run: str = "", members: list[bool] | None = None, **columns) -> list[bool]:
    name = f"{len(list(folder.iterdir()))}"
    corpus = corpus_of(folder / f"asked-{name}", texts, batch_rows=2, **columns)
    spec = Dedup(index=str(folder / "index"), url=True, run=run)
    mask = np.ones(len(texts), bool) if members is None else np.array(members)
    return index.known(corpus, stages_in(folder / f"stages-{name}"), spec, mask).tolist()


def test_equal_and_near_texts_are_known(tmp_path: Path) -> None:
    assert _add(tmp_path, [LONG, OTHER, "!!"])
    assert _known(tmp_path, [NEARLY, HALF, OTHER, "!!", "??"]) == [True, False, True, True, False]


def test_pages_of_a_known_url_are_known(tmp_path: Path) -> None:
    _add(tmp_path, [LONG, OTHER], url=["http://a.b/1", ""])
    assert _known(tmp_path, ["x", "y"], url=["http://A.b/1/#top", ""]) == [True, False]


def test_only_what_was_kept_is_known_and_only_members_are_asked(tmp_path: Path) -> None:
    _add(tmp_path, [LONG, OTHER], kept=[True, False])
    assert _known(tmp_path, [LONG, OTHER, LONG], members=[True, True, False]) == [True, False, False]


def test_a_run_is_added_once_and_does_not_know_itself(tmp_path: Path) -> None:
    assert _add(tmp_path, [LONG])
    before = index.describe(tmp_path / "index")
    assert not index.add(tmp_path / "index", corpus_of(tmp_path / "c", [OTHER]), np.ones(1, bool), Dedup(), "run-1")
    assert index.describe(tmp_path / "index") == before
    assert before["runs"] == before["documents"] == 1
    assert _known(tmp_path, [LONG], run="run-1") == [False]


def test_runs_add_up(tmp_path: Path) -> None:
    _add(tmp_path, [LONG], "run-1")
    _add(tmp_path, [OTHER], "run-2")
    assert _known(tmp_path, [LONG, OTHER, HALF]) == [True, True, False]


def test_a_run_that_was_killed_half_way_is_not_there_and_can_be_added(tmp_path: Path) -> None:
    half = tmp_path / "index" / ".run-1.99"
    half.mkdir(parents=True)
    (half / "digests.npy").write_bytes(b"half")
    assert _known(tmp_path, [LONG]) == [False]
    assert _add(tmp_path, [LONG])
    assert _known(tmp_path, [LONG]) == [True]


def test_an_index_of_nothing_knows_nothing(tmp_path: Path) -> None:
    assert _known(tmp_path, [LONG]) == [False]
    _add(tmp_path, [LONG], kept=[False])
    assert _known(tmp_path, [LONG]) == [False]
    assert index.describe(tmp_path / "nowhere") == {"runs": 0, "documents": 0, "near": None}


def test_many_near_equal_texts_in_the_index_are_looked_up_by_a_few(tmp_path: Path) -> None:
    _add(tmp_path, [f"{LONG} end{number}" for number in range(60)])
    assert _known(tmp_path, [f"{LONG} start", OTHER]) == [True, False]


def test_an_index_made_with_other_shingles_is_refused(tmp_path: Path) -> None:
    _add(tmp_path, [LONG])
    corpus = corpus_of(tmp_path / "c", [LONG])
    with pytest.raises(Invalid, match="was made with"):
        index.add(tmp_path / "index", corpus, np.ones(1, bool), Dedup(near=Near(cjk_characters=3)), "run-2")
    with pytest.raises(Invalid, match="cannot name a run"):
        index.add(tmp_path / "index", corpus, np.ones(1, bool), Dedup(), "../run")
