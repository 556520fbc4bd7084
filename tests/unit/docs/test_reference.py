"""The reference pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "docs/reference/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_field_of_every_kind_is_described() -> None:
    page = (ROOT / "docs/reference/kinds.md").read_text()
    undescribed = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert undescribed == []


def test_the_pages_people_start_with_name_only_files_that_exist() -> None:
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text()
        links = [part.split(")")[0] for part in text.split("](")[1:]]
        missing = [link for link in links if "://" not in link and not (ROOT / link.split("#")[0]).exists()]
        assert missing == [], page
