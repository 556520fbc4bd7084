"""Why a request went where it went, in one line for its usage record (`atoll explain request`). Pure.

The line has one part for each thing that happened, in order. It is cut at NOTE_CHARACTERS_MAX.
"""

from __future__ import annotations

from collections.abc import Sequence

NOTE_CHARACTERS_MAX = 500


def note(parts: Sequence[str]) -> str:
    """The line."""
    text = "; ".join(parts)
    return text if len(text) <= NOTE_CHARACTERS_MAX else text[: NOTE_CHARACTERS_MAX - 1] + "…"


def asked(replica: str, why: str) -> str:
    return f"{replica}: {why}"


def fell_back(model: str, to: str) -> str:
    return f"{model} could not answer, its fallback {to} did"


def waited(waited_s: float) -> str:
    return f"waited {waited_s:.2f} s"


def failed(replica: str, code: str) -> str:
    return f"{replica} failed: {code}"


def hedged(after_s: float) -> str:
    return f"no token within {after_s:g} s, asked another beside it"


def went_on(tokens: int) -> str:
    return f"another went on after {tokens} tokens"
