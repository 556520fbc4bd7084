"""What is asked of deduplication, as plain values that travel to other processes. Fields mean what the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.data.engine.curate.plan import Lines, Near, Semantic, Substrings

__all__ = ["Dedup", "Lines", "Near", "Semantic", "Substrings"]


_NEAR = Near()


@dataclass(frozen=True, slots=True)
class Dedup:
    """All of it; None leaves a kind out.

    `quality` names the column that `keep="best"` goes by; empty: the first one. `index` is a folder, `run` the
    fingerprint of this run, whose own documents in the index are not known from before. `whole`: every text is source
    code, also where its file does not say so, and nothing is cut out of it.
    """

    exact: bool = True
    url: bool = False
    near: Near | None = _NEAR
    lines: Lines | None = None
    substrings: Substrings | None = None
    repeated_max: float = 0.5
    semantic: Semantic | None = None
    keep: str = "longest"
    index: str = ""
    quality: str = ""
    run: str = ""
    whole: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Dedup:
        """The plain form of a recipe's `dedup` as a mapping."""
        kinds = {"near": Near, "lines": Lines, "substrings": Substrings, "semantic": Semantic}
        built = {
            name: kinds[name](**value) if name in kinds and value is not None else value
            for name, value in fields.items()
        }
        return cls(**built)
