"""Embeddings of a deployment: asked for in portions, kept, and refused by name when they are none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atoll.core.errors import Invalid, NotFound, Unavailable
from atoll.data.engine.curate.alone import curate_alone
from atoll.data.engine.dedup import Semantic, semantic
from atoll.data.engine.dedup.embedder import KEY_VARIABLE, Asking, check_embedder
from atoll.data.recipes import parse_recipe
from duplicates import corpus_of, stages_in
from embedding_server import Embedder

TEXTS = [f"the {subject} keeps the {subject} of {subject} number {n}" for n, subject in enumerate("abcdefghij" * 5)]


@pytest.fixture
def server() -> Iterator[Embedder]:
    made = Embedder()
    yield made
    made.close()


@pytest.fixture
def asked(server: Embedder, monkeypatch: pytest.MonkeyPatch) -> Semantic:
    monkeypatch.setenv(KEY_VARIABLE, "a-key")
    return Semantic(0.9, deployment="words", door=server.url, project="red")


def _vectors(server: Embedder, asked: Semantic, texts: list[str], waiting_s_max: float = 5.0) -> np.ndarray:
    asking = Asking(asked, "a-key", waiting_s_max)
    try:
        return asking(texts)
    finally:
        asking.close()


def test_vectors_come_in_the_order_of_the_texts(server: Embedder, asked: Semantic) -> None:
    found = _vectors(server, asked, TEXTS)
    assert found.shape == (50, 64) and found.dtype == np.float32
    for place in (0, 17, 49):
        alone = _vectors(server, asked, [TEXTS[place]])[0]
        assert np.allclose(found[place], alone, rtol=1e-3)
    assert server.keys == {"Bearer a-key"}


def test_a_deployment_is_shown_the_beginning_of_a_text(server: Embedder, asked: Semantic) -> None:
    _vectors(server, Semantic(0.9, deployment="words", door=server.url, characters_max=16), ["word " * 100])
    assert server.asked == ["word word word w"]


def test_what_cannot_be_answered_now_is_asked_again(server: Embedder, asked: Semantic) -> None:
    busy = {"error": {"message": "no replica", "code": "unavailable"}}
    server.first = [
        (503, busy, {"Retry-After": "0"}),
        (429, busy, {"Retry-After": "0"}),
        (502, busy, {"Retry-After": "0"}),
    ]
    assert len(_vectors(server, asked, TEXTS[:5])) == 5
    assert sorted(server.asked) == sorted(TEXTS[:5])


def test_a_door_that_stays_away_ends_the_attempt_after_a_bounded_time(asked: Semantic) -> None:
    away = Semantic(0.9, deployment="words", door="http://127.0.0.1:9", project="red")
    asking = Asking(away, "a-key", waiting_s_max=0.0)
    with pytest.raises(Unavailable, match=r"words gave no answer for 0 s: .*not reached"):
        asking(["a"])
    asking.close()


def test_what_is_refused_is_said_in_the_doors_words(server: Embedder, asked: Semantic) -> None:
    server.first = [(400, {"error": {"message": "the input has 9000 tokens, the context is 512"}}, {})]
    with pytest.raises(Invalid, match=r"9000 tokens.*characters_max"):
        _vectors(server, asked, ["a"])
    told = {"message": "model 'words' is gone", "code": "not_found", "hint": "look", "details": {}}
    server.first = [(404, {"error": told}, {})]
    with pytest.raises(NotFound, match="model 'words' is gone"):
        _vectors(server, asked, ["a"])


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": [1.0, 1e39]}]},
        {"data": [{"index": 0, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]},
        {"choices": []},
    ],
)
def test_an_answer_that_is_no_embedding_is_refused(server: Embedder, asked: Semantic, answer: dict) -> None:
    server.first = [(200, answer, {})]
    with pytest.raises(Invalid, match=r"words answered .*task `embed`"):
        _vectors(server, asked, ["a"])


def test_a_deployment_nobody_knows_is_told_before_anything_is_read(server: Embedder, asked: Semantic) -> None:
    check_embedder(asked)
    with pytest.raises(Invalid, match=r"nobody was asked.*no such model"):
        check_embedder(Semantic(0.9, deployment="nobody", door=server.url))
    assert server.asked == []


def test_what_was_answered_is_kept_and_a_run_that_goes_on_compares_the_same(
    server: Embedder, asked: Semantic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic, "ASKED_AT_ONCE", 8)
    texts = [*TEXTS, *TEXTS[:10]]
    corpus, stages = corpus_of(tmp_path / "corpus", texts, batch_rows=30), stages_in(tmp_path / "stages")
    members = np.ones(len(texts), bool)
    whole = semantic.clusters(corpus, stages, asked, members)
    assert len(server.asked) == len(texts)
    assert [place for place, first in enumerate(whole) if place != first][-10:] == list(range(50, 60))
    kept = {path: path.read_bytes() for path in (tmp_path / "stages").rglob("vectors.npy")}
    assert len(kept) == 8
    lost = sorted(kept)[5].parent
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    assert np.array_equal(semantic.clusters(corpus, stages, asked, members), whole)
    assert len(server.asked) == len(texts) + len(np.load(sorted(kept)[5]))
    same = {path: path.read_bytes() for path in kept if path.parent != lost}
    assert same == {path: data for path, data in kept.items() if path.parent != lost}


def test_a_deployment_that_was_changed_under_a_run_is_refused(
    server: Embedder, asked: Semantic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic, "ASKED_AT_ONCE", 8)
    corpus, stages = corpus_of(tmp_path / "corpus", TEXTS[:16], batch_rows=30), stages_in(tmp_path / "stages")
    semantic.clusters(corpus, stages, asked, np.arange(16) < 8)
    server.width = 32
    with pytest.raises(Invalid, match="embeddings of 32 and 64 numbers"):
        semantic.clusters(corpus, stages, asked, np.ones(16, bool))


def test_without_a_platform_there_is_nobody_to_ask(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text of its own. " * 20)
    recipe = parse_recipe({"dedup": {"semantic": {"deployment": "words"}}})
    with pytest.raises(Invalid, match="deployment 'words': deployments are asked through the platform alone"):
        curate_alone([str(tmp_path / "a.txt")], recipe, tmp_path / "out")
