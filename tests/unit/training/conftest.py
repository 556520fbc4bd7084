"""A tiny base model, converted once for all tests of the training engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_training
from atoll.core.blobs import digest_of_file
from atoll.training.engine.convert import converted
from atoll.training.engine.model import Base, load_base, load_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a GGUF file; never write to it."""
    return tiny_training.write_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: Path) -> Path:
    """The tiny model converted for torch; never write to it."""
    return converted(tiny_model, tiny_model.name, digest_of_file(tiny_model), tiny_model.parent / "cache")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> Any:
    return load_tokenizer(tiny_folder)


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    """The tiny base model in float32, fresh for each test."""
    return load_base(tiny_folder, "float32")
