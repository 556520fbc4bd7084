"""One platform for all tests of the command line, and a way to run commands against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from atoll.cli.main import app
from running import Platform, platform

Atoll = Callable[..., Result]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("cli") / "home") as made:
        yield made


@pytest.fixture
def atoll(up: Platform, monkeypatch: pytest.MonkeyPatch) -> Atoll:
    """Run one command; fails unless its exit code is `code`."""
    monkeypatch.delenv("ATOLL_CONTEXT", raising=False)
    gone = {"ATOLL_ADDRESS": None, "ATOLL_KEY": None, "ATOLL_PROJECT": None}
    runner = CliRunner(env={**gone, "ATOLL_HOME": str(up.home), "COLUMNS": "200"})

    def run(*words: str, code: int = 0, text: str | None = None) -> Result:
        result = runner.invoke(app, list(words), input=text)
        assert result.exit_code == code, f"{words}: exit code {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """A manifest file with this text."""

    def write(text: str) -> str:
        path = tmp_path / "m.yaml"
        path.write_text(text)
        return str(path)

    return write
