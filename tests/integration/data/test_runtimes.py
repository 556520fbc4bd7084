"""One worker, several and Ray Data keep the same documents and write the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curating import bytes_of, write_documents

pytest.importorskip("ray")

RECIPE = "privacy: {}\ndedup: {url: true, lines: {}, repeated_max: 0.9}\nlanguage: {keep: [en, zh], score_min: 0}\n"
LIMIT_S = 240


@pytest.mark.timeout(4 * LIMIT_S)
def test_one_worker_two_and_ray_write_the_same_bytes(tmp_path: Path) -> None:
    docs = write_documents(tmp_path / "docs")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    made = {}
    for name, options in (("one", ["--workers", "1"]), ("two", ["-w", "2"]), ("ray", ["-w", "2", "--runtime", "ray"])):
        out = tmp_path / name
        done = _curate([str(docs), "--out", str(out), "-r", str(tmp_path / "recipe.yaml"), "--json", *options])
        assert done.returncode == 0, done.stderr
        made[name] = bytes_of(out)
    assert made["one"] == made["two"] == made["ray"]
    assert {"manifest.json", "train/00000.parquet", "notes/00000.parquet"} <= set(made["one"])


def _curate(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    code = "import typer; from atoll.cli import data_curate; app = typer.Typer(); data_curate.add_to(app); app()"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", code, "curate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
