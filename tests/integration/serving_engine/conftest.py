"""Engines the tests share, and a way to start more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_gguf
from running_engine import Running, serve


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`serve` in this test's folder; what it started is killed afterwards."""
    started: list[Running] = []

    def start(model: Path, *adapters: Path, **changes: Any) -> Running:
        started.append(serve(tmp_path / f"engine-{len(started)}", model, *adapters, **changes))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context so long that a stream of it lasts."""
    return tiny_gguf.write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", context=1 << 20)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Running]:
    """A tiny engine the tests of a module share."""
    running = serve(tmp_path_factory.mktemp("shared"), tiny, context=1 << 16, slots=4)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An engine on a real model, where one is at hand."""
    named = os.environ.get("ATOLL_TEST_MODEL")
    paths = [Path(named)] if named else []
    if not paths:
        pytest.skip("no real model here: set ATOLL_TEST_MODEL to a GGUF chat model")
    running = serve(
        tmp_path_factory.mktemp("real"),
        paths[0],
        alias="smollm",
        context=2048,
        slots=4,
        prompt_cache_bytes=0,
        threads=0,
    )
    yield running
    running.process.kill()
    running.process.wait()
