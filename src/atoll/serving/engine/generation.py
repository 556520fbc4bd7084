"""One answer while it is generated: its tokens as text, its end, and where its pieces go.

Text comes out as soon as it cannot change any more: bytes of a character are held until it is whole, and the
beginning of a stop string until it is clear that it is none. A stop string itself is not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import DecodeStream

from atoll.core.errors import AtollError
from atoll.serving.engine.constraints import Constraint
from atoll.serving.engine.sampling import Likelihood, Sampling


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one token. `finish` ends the answer: "stop" or "length"; `error` ends it too."""

    text: str
    token: int | None = None
    likelihood: Likelihood | None = None
    finish: str = ""
    error: AtollError | None = None


class TextStream:
    """Tokens as text, up to a stop string."""

    def __init__(self, backend: Any, stop: Sequence[str] = ()) -> None:
        self._backend, self._stop = backend, tuple(stop)
        self._stream, self._held = DecodeStream(skip_special_tokens=True), ""

    def push(self, token: int) -> tuple[str, bool]:
        """The text that is sure now, and whether a stop string ended it."""
        return self._release(self._stream.step(self._backend, token) or "")

    def rest(self) -> str:
        """What was held, at the end of the answer."""
        held, self._held = self._held, ""
        return held

    def _release(self, text: str) -> tuple[str, bool]:
        if not self._stop:
            return text, False
        self._held += text
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            told, self._held = self._held[: min(found)], ""
            return told, True
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        told, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return told, False


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


@dataclass(eq=False)
class Generation:
    """An answer on its way: what it begins with, what it may become, what it is so far.

    `receive` gets the pieces, where the batcher delivers them. `is_cancelled` may be set by anybody.
    """

    prompt: Sequence[int]
    tokens_max: int
    text: TextStream
    receive: Callable[[Piece], None]
    sampling: Sampling = field(default_factory=Sampling)
    end_tokens: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    is_cancelled: bool = False
    last: int = -1
    count: int = 0
    seen: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.generator = self.sampling.generator()

    def take(self, token: int, likelihood: Likelihood | None) -> Piece:
        """The next token; what came of it."""
        self.last = token
        self.count += 1
        self.seen[token] += 1
        if token in self.end_tokens:
            return Piece(self.text.rest(), token, likelihood, "stop")
        text, is_stopped = self.text.push(token)
        if self.constraint is not None:
            self.constraint.take(token)
            is_stopped = is_stopped or self.constraint.is_over
        finish = "stop" if is_stopped else "length" if self.count >= self.tokens_max else ""
        return Piece(text + (self.text.rest() if finish else ""), token, likelihood, finish)
