"""Datasets among the input: folders that a curation made, or works in, which are no documents but hold some."""

from __future__ import annotations

import os
from pathlib import Path

from atoll.core.errors import Invalid
from atoll.data.layout import MANIFEST
from atoll.data.manifest import decode_manifest

STATE = ".work"
"""Where a curation without a platform keeps its state, below the folder of its dataset."""


def is_dataset(folder: Path) -> bool:
    """Whether the folder holds a dataset with its manifest."""
    try:
        decode_manifest((folder / MANIFEST).read_bytes())
    except (OSError, Invalid):
        return False
    return True


def is_of_curation(folder: Path) -> bool:
    """Whether the folder holds a dataset, or that of a curation which has not come to its end."""
    return os.path.isdir(folder / STATE) or is_dataset(folder)
