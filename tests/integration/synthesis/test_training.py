"""What a synthesis makes is trained on as it is."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the training engine is not installed (pip install atoll[train])")

import tiny_gguf
import tiny_training
from atoll.data.engine.synthesis.run import synthesise
from atoll.data.engine.synthesis.wanted import Wanted
from task_folder import TaskFolder


def test_a_model_learns_from_the_pairs_and_the_texts_beside_them(folder: TaskFolder, wanted: dict[str, Any]) -> None:
    work = folder.root / "work"
    work.mkdir()
    kinds = ["question_answer", "instruction"]
    made = synthesise(Wanted.of(wanted | {"kinds": kinds}), "sk-atoll-test", folder.store, work)
    model = tiny_gguf.write_model(folder.root / "tiny.gguf")
    options = {"steps": 2, "sequence_length": 512, "batch_tokens": 1024, "micro_batch_tokens": 512, "text_share": 0.2}
    trainer = TaskFolder(folder.root, tiny_training.TRAIN)
    told = tiny_training.train_input(folder.store, model, made["manifest"], **options)
    code, result = trainer.run(told, 120.0, ATOLL_WORK=str(folder.root / "training"))
    assert code == 0, trainer.log
    assert result["steps"] == 2
