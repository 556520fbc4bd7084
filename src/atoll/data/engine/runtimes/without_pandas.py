"""Doing without pandas, for processes of our own: Arrow looks for it when it makes its first array.

Where it is installed that takes 30 MB and a quarter of a second of every process, and no operator uses it.
"""

from __future__ import annotations

import sys


def do_without_pandas() -> None:
    """From now on nobody in this process finds pandas who has not found it before."""
    sys.meta_path.insert(0, _Nowhere())


class _Nowhere:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("this process does without pandas", name=name)
