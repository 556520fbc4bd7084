"""Readers: documents out of files of every known format, whatever is wrong with them.

Names are looked up when they are used: the parsers' child process is inside this package and must stay small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.data.engine.read.formats import CODE, DOCUMENTS, patterns_of
    from atoll.data.engine.read.item import File, Limits, Part, PassedOver, Quarantined
    from atoll.data.engine.read.planning import fingerprint, nothing_readable, plan_parts
    from atoll.data.engine.read.reading import batches, documents
    from atoll.data.engine.read.sandbox import close

_HOMES = {
    **dict.fromkeys(("CODE", "DOCUMENTS", "patterns_of"), "formats"),
    **dict.fromkeys(("File", "Limits", "Part", "PassedOver", "Quarantined"), "item"),
    **dict.fromkeys(("fingerprint", "nothing_readable", "plan_parts"), "planning"),
    **dict.fromkeys(("batches", "documents"), "reading"),
    "close": "sandbox",
}

__all__ = [
    "CODE",
    "DOCUMENTS",
    "File",
    "Limits",
    "Part",
    "PassedOver",
    "Quarantined",
    "batches",
    "close",
    "documents",
    "fingerprint",
    "nothing_readable",
    "patterns_of",
    "plan_parts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
