from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.dedup import Dedup, Lines, Near, Semantic, Substrings, Verdict, find_duplicates, index
from atoll.data.recipes.parts import DedupSpec
from duplicates import Direct, corpus_of, stages_in

WORDS = [f"word{number}" for number in range(400)]
LONG = " ".join(WORDS[:200])
NEARLY = " ".join([*WORDS[:190], *WORDS[300:306]])
OTHER = " ".join(WORDS[200:])


def _found(folder: Path, texts: list[str], spec: Dedup = Dedup(), members: list[bool] | None = None, **more) -> Verdict:  # noqa: B008
    corpus = corpus_of(folder / "corpus", texts, batch_rows=2, **more)
    wanted = np.ones(len(texts), bool) if members is None else np.array(members)
    return find_duplicates(corpus, stages_in(folder / "stages"), spec, wanted)


def _dropped(verdict: Verdict) -> dict[str, list[int]]:
    return {reason: np.flatnonzero(lost).tolist() for reason, lost in verdict.reasons.items()}


def test_each_kind_looks_at_what_the_kinds_before_it_left(tmp_path: Path) -> None:
    texts = [LONG, LONG, NEARLY, OTHER, "short text"]
    verdict = _found(tmp_path, texts, Dedup(url=True), url=["", "http://a.b/1", "", "http://a.b/1/", "http://A.b/1#x"])
    assert _dropped(verdict) == {"exact_duplicate": [1], "url_duplicate": [4], "near_duplicate": [2]}
    assert np.flatnonzero(verdict.kept).tolist() == [0, 3]
    assert verdict.clusters.tolist() == [0, 0, 0, 3, 4]
    assert verdict.cuts is None


def test_clusters_hold_documents_that_are_no_members_but_drop_nobody_for_them(tmp_path: Path) -> None:
    bridge, one, other = " ".join(WORDS[:100]), " ".join(WORDS[:82]), " ".join(WORDS[18:100])
    verdict = _found(tmp_path, [bridge, one, other], members=[False, True, True])
    assert verdict.kept.tolist() == [False, True, True]
    assert verdict.clusters.tolist() == [0, 0, 0]


def test_near_copies_stay_when_near_is_not_asked_for_but_share_a_cluster(tmp_path: Path) -> None:
    verdict = _found(tmp_path, [LONG, NEARLY], Dedup(near=None))
    assert verdict.kept.all()
    assert "near_duplicate" not in verdict.reasons
    assert verdict.clusters.tolist() == [0, 0]


def test_a_half_copy_is_dropped_whichever_comes_first(tmp_path: Path) -> None:
    lines = [f"line number {number} of a text that is long enough to be compared" for number in range(20)]
    whole, half = "\n".join(lines), "\n".join(lines[:10])
    for name, texts in (("one", [whole, half]), ("other", [half, whole])):
        for kind in (Dedup(lines=Lines()), Dedup(substrings=Substrings())):
            verdict = _found(tmp_path / name / str(bool(kind.lines)), texts, kind)
            assert _dropped(verdict)["repeated_text"] == [texts.index(half)]


def test_source_code_that_stays_is_whole_and_what_is_mostly_repeated_is_dropped(tmp_path: Path) -> None:
    shared = [f"from shelves import volume_{number} as volume_{number}_of_shelves" for number in range(4)]
    own = [[f"answer_{file}_{number} = volume_{number}_of_shelves({file})" for number in range(8)] for file in "abc"]
    first, second = ("\n".join([*shared, *lines]) for lines in own[:2])
    third = "\n".join([*shared, *own[2][:1]])
    for kind in (Dedup(near=None, lines=Lines()), Dedup(near=None, substrings=Substrings(64))):
        for name, spec, kinds in (("file", kind, "code"), ("record", replace(kind, whole=True), "text")):
            folder = tmp_path / f"{name}-{bool(kind.lines)}"
            verdict = _found(folder, [first, second, third], spec, kind=[kinds] * 3)
            assert _dropped(verdict)["repeated_text"] == [2]
            assert not len(verdict.cuts[0]) and not len(verdict.cuts[1])
        told = _found(tmp_path / f"text-{bool(kind.lines)}", [first, second, third], kind)
        assert set(told.cuts[0].rows) == {1}


def test_the_last_two_kinds_are_meaning_and_the_index(tmp_path: Path) -> None:
    texts = ["up we go", "up they went", "down it fell", "known thing"]
    earlier = corpus_of(tmp_path / "earlier", ["known thing"])
    index.add(tmp_path / "index", earlier, np.ones(1, bool), Dedup(), "run-1")
    corpus = corpus_of(tmp_path / "corpus", texts)
    spec = Dedup(semantic=Semantic(), index=str(tmp_path / "index"))
    verdict = find_duplicates(corpus, stages_in(tmp_path / "stages"), spec, np.ones(4, bool), by_first_letter)
    assert _dropped(verdict)["semantic_duplicate"] == [0]
    assert _dropped(verdict)["known_before"] == [3]


def by_first_letter(texts: list[str]) -> np.ndarray:
    return np.array([np.eye(26)[ord(text[0]) - ord("a")] for text in texts], np.float32)


def test_nothing_is_found_in_nothing(tmp_path: Path) -> None:
    spec = Dedup(url=True, lines=Lines(), substrings=Substrings(), semantic=Semantic())
    verdict = _found(tmp_path, [], spec)
    assert len(verdict.kept) == len(verdict.clusters) == 0
    verdict = _found(tmp_path / "empty", ["", "", "!!", "??"], spec, members=[True, True, True, False])
    assert verdict.clusters.tolist() == [0, 0, 2, 3]


def test_a_second_run_over_the_same_stages_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of(tmp_path / "corpus", [LONG, NEARLY, OTHER])
    spec, members = Dedup(url=True, lines=Lines(), substrings=Substrings()), np.ones(3, bool)
    first = find_duplicates(corpus, stages_in(tmp_path / "stages"), spec, members)
    monkeypatch.setattr(Direct, "run", lambda self, calls: iter([pytest.fail(f"did {call} again") for call in calls]))
    again = find_duplicates(corpus, stages_in(tmp_path / "stages"), spec, members)
    assert _dropped(again) == _dropped(first)


OF_THE_PLAN = {"known", "keep_index"}
"""Fields of a recipe's `dedup` that say which datasets a run reads and writes, not what a duplicate is."""


def test_the_recipe_and_the_plan_mean_the_same() -> None:
    assert Dedup.of(DedupSpec().model_dump(exclude=OF_THE_PLAN)) == Dedup()
    recipe = DedupSpec.model_validate(
        {"lines": {}, "substrings": {}, "semantic": {}, "near": {"cjk_characters": 3}, "keep": "best"}
    )
    wanted = Dedup(
        lines=Lines(), substrings=Substrings(), semantic=Semantic(), near=Near(cjk_characters=3), keep="best"
    )
    assert Dedup.of(recipe.model_dump(exclude=OF_THE_PLAN)) == wanted


def test_the_longest_stays_and_of_equally_long_ones_the_smaller_id(tmp_path: Path) -> None:
    verdict = _found(tmp_path, [NEARLY, LONG, LONG], ids=["a", "c", "b"])
    assert verdict.kept.tolist() == [False, False, True]


def test_the_best_stays_then_the_longest(tmp_path: Path) -> None:
    notes = {"quality_prose": [0.2, 0.9, 0.9]}
    verdict = _found(tmp_path, [LONG, NEARLY, NEARLY + " end"], Dedup(keep="best"), notes=notes)
    assert verdict.kept.tolist() == [False, False, True]


def test_the_first_stays(tmp_path: Path) -> None:
    verdict = _found(tmp_path, [NEARLY, LONG, LONG], Dedup(keep="first"))
    assert verdict.kept.tolist() == [True, False, False]


def test_an_unknown_policy_or_quality_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="keep is 'worst'"):
        _found(tmp_path / "a", [LONG], Dedup(keep="worst"))
    with pytest.raises(Invalid, match="no column"):
        _found(tmp_path / "b", [LONG], Dedup(keep="best"))
    with pytest.raises(Invalid, match="quality_prose"):
        _found(tmp_path / "c", [LONG], Dedup(keep="best", quality="quality_prose"), notes={"quality_other": [1.0]})
