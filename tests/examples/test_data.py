"""The example of a curation without a server, run as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

EXAMPLE = Path(__file__).parents[2] / "examples" / "04-data"


def test_code_is_curated_previewed_and_curated_again_without_being_read_again(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "curate.py"), str(tmp_path / "code")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "short_module" in done.stdout
    kept, notes = _rows(tmp_path / "code" / "train"), _rows(tmp_path / "code" / "notes")
    assert len(kept) > 50
    fates = {row["id"]: row["reason"] for row in notes}
    assert "short_module" in fates.values()
    assert not any(fates[row["id"]] for row in kept)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
