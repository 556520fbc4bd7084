"""One platform with a tiny model for all tests of the stateful OpenAI routes, and clients of two tenants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from running import Platform, platform
from tiny_training import write_model

Doors = Callable[..., openai.OpenAI]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("openai")
    with platform(root / "home") as made:
        serve(made, write_model(root / "tiny.gguf"))
        yield made


def serve(made: Platform, model: Path) -> None:
    """Serve the tiny model as `tiny`."""
    with made.client() as client:
        client.put("ModelVersion", "tiny.v1", {"model": "tiny", "source": f"file:{model}", "licence": "MIT"})
        client.put("Deployment", "tiny", {"model": "tiny", "context": 512, "slots": 2, "cpu": 0.1, "threads": 1})
    made.reaches("Deployment", "tiny", "ready")


def server_of(up: Platform) -> str:
    """The address of the server behind the door."""
    return str(json.loads((up.home / "run" / "server.json").read_text())["address"])


@pytest.fixture(scope="session")
def door_of(up: Platform) -> Doors:
    """Official clients at the door, by key; the administrator's when none is given."""
    return up.openai


@pytest.fixture(scope="session")
def door(door_of: Doors) -> openai.OpenAI:
    return door_of()


@pytest.fixture(scope="session")
def stranger(up: Platform, door_of: Doors) -> openai.OpenAI:
    """A client with a key of another project."""
    with up.client() as client:
        client.put("Project", "elsewhere", {}, project="system")
        key = client.create_key(description="stranger", project="elsewhere")
    return door_of(key.key)
