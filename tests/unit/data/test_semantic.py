from pathlib import Path

import numpy as np
import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.dedup import Semantic, semantic
from duplicates import corpus_of, stages_in


def on_a_circle(texts: list[str]) -> np.ndarray:
    """A text is an angle in degrees, embedded at some length."""
    angles = np.radians([float(text) for text in texts])
    return (3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def _clusters(folder: Path, texts: list[str], members: list[bool] | None = None, threshold: float = 0.95) -> list[int]:
    corpus = corpus_of(folder / "corpus", texts, batch_rows=3)
    mask = np.ones(len(texts), bool) if members is None else np.array(members)
    stages = stages_in(folder / "stages")
    return semantic.clusters(corpus, stages, Semantic(threshold), mask, on_a_circle).tolist()


def test_texts_of_one_direction_are_a_cluster_and_chains_are_joined(tmp_path: Path) -> None:
    assert _clusters(tmp_path, ["0", "90", "15", "30", "100"]) == [0, 1, 0, 0, 1]


def test_a_document_that_is_no_member_joins_nothing(tmp_path: Path) -> None:
    assert _clusters(tmp_path, ["0", "15", "30"], [True, False, True]) == [0, 1, 2]
    assert _clusters(tmp_path / "none", ["0", "0"], [False, False]) == [0, 1]


def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(angle % 360) for angle in range(0, 4000, 97)]
    whole = _clusters(tmp_path / "whole", texts, threshold=0.999)
    monkeypatch.setattr(semantic, "BLOCK", 4)
    assert _clusters(tmp_path / "blocks", texts, threshold=0.999) == whole
    angles = np.array([int(text) for text in texts])
    apart = np.abs(angles[:, None] - angles[None, :])
    close = np.minimum(apart, 360 - apart) <= 2
    assert all(whole[one] == whole[other] for one, other in zip(*np.nonzero(close), strict=True))
    assert len(set(whole)) > 1


def test_a_model_that_is_not_built_in_needs_an_embedder(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", ["0"])
    with pytest.raises(Invalid, match="my-embedder"):
        semantic.clusters(corpus, stages_in(tmp_path / "stages"), Semantic(0.9, "my-embedder"), np.ones(1, bool))
