"""A disk that is full: the run says which file, and leaves no dataset."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.core.blobs import BlobStore
from curating import RECIPE, task_in, write_documents


@pytest.mark.parametrize(("workers", "bytes_max"), [(1, 8_000), (2, 8_000), (1, 40_000)])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, workers: int, bytes_max: int) -> None:
    docs = write_documents(tmp_path / "docs")
    folder = tmp_path / "task"
    task_input = {"sources": [{"kind": "folder", "path": str(docs)}], "recipe": RECIPE, "workers": workers}
    environment = task_in(folder, task_input)
    done = subprocess.run(
        [sys.executable, "-m", "atoll.data.engine.curate.run"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max)),
    )
    assert done.returncode == 3, done.stderr.decode()
    result = (folder / "result.json").read_text()
    assert '"code":"exhausted"' in result and "cannot write" in result and str(folder / "work") in result
    assert list(BlobStore(str(folder / "blobs")).digests()) == []
