"""How a command ends that cannot be carried out here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from atoll.cli.exits import FAILED, extra_of

PROGRAM = "import sys; sys.modules[sys.argv.pop(1)] = None; from atoll.cli.main import run; run()"


def test_a_package_that_is_not_there_is_named_with_the_extra_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    words = ["data", "curate", tmp_path / "a.txt", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", PROGRAM, "pyarrow", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == FAILED and "Traceback" not in done.stderr
    assert done.stderr == "error: the package pyarrow is not installed\nhint: pip install 'atoll[data]'\n"


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "data"), ("torch", "train"), ("psycopg", "postgres")])
def test_extras_are_those_of_the_distribution(package: str, extra: str) -> None:
    assert extra_of(package) == extra
    assert extra_of(f"{package}_unknown") == ""


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
def test_a_command_works_where_its_output_is_closed(tmp_path: Path, closed: str) -> None:
    (tmp_path / "a.txt").write_text("Some words that are a document of their own. " * 10)
    out = tmp_path / "out"
    program = "from atoll.cli.main import run; run()"
    shell = f'exec "$0" -c "{program}" data curate "$1" --out "$2" {closed}'
    command = ["sh", "-c", shell, sys.executable, str(tmp_path / "a.txt"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (out / "manifest.json").is_file()
