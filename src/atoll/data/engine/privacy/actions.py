"""Actions: what is done about each finding, so that doing it twice is doing it once.

What is dropped or masked cannot be found again; a keyed digest or a stand-in is stable under its key and says nothing
of the value to those who lack the key. Values are compared by one spelling (`stand_ins.spelled`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.privacy.find import Finder
from atoll.data.engine.privacy.kinds import KINDS, MARKS, Span
from atoll.data.engine.privacy.stand_ins import digest, spelled, stand_in

ACTIONS = ("keep", "mask", "hash", "pseudonymise", "drop")

_ROUNDS_MAX = 4


@dataclass(frozen=True, slots=True)
class Applied:
    """A text after the actions, and how many findings of each kind there were, kept ones too."""

    text: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Dropped:
    """The document must go: it holds a kind whose action is drop."""

    counts: dict[str, int]


@dataclass(frozen=True)
class Actions:
    """What is done about each kind.

    default: action of kinds `actions` does not name. key: of the project, for hash and pseudonymise, of any length.
    names: looked for besides.
    """

    default: str
    actions: Mapping[str, str] = field(default_factory=dict)
    key: bytes = b""
    names: Sequence[str] = ()
    finder: Finder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for kind, action in self.actions.items():
            _check(kind, KINDS, f"privacy.actions.{kind}", "kind")
            _check(action, ACTIONS, f"privacy.actions.{kind}", "action")
        _check(self.default, ACTIONS, "privacy.default", "action")
        object.__setattr__(self, "finder", Finder(KINDS, tuple(self.names)))

    def of(self, kind: str) -> str:
        return self.actions.get(kind, self.default)

    def apply(self, text: str, document_id: str = "") -> Applied | Dropped:
        """The text with every finding acted upon, or Dropped. `document_id` changes nothing: stand-ins are the
        project's, not the document's.
        """
        data = text.encode("utf-8", "surrogatepass")
        spans = self.finder.find_bytes(data)
        counts = dict(Counter(span.kind for span in spans))
        if self.drops(counts):
            return Dropped(counts)
        return Applied(self.act([data], [spans])[0].decode("utf-8", "surrogatepass"), counts)

    def drops(self, kinds: Iterable[str]) -> bool:
        """Whether a document goes that holds these kinds."""
        return any(self.of(kind) == "drop" for kind in kinds)

    def act(self, texts: Sequence[bytes], found: Sequence[Sequence[Span]]) -> list[bytes]:
        """Texts with what was `found` in each, in bytes, acted upon, and with what that leads to be found, too."""
        made = list(texts)
        left = self._to_act_on(enumerate(found))
        for _ in range(_ROUNDS_MAX):
            if not left:
                break
            acted = [self._acted(made[text], spans) for text, spans in left]
            for (text, _), (data, _) in zip(left, acted, strict=True):
                made[text] = data
            again = self.finder.found(*_laid_out(acted))
            left = self._to_act_on((left[place][0], spans) for place, spans in again)
        return made

    def _to_act_on(self, found: Iterable[tuple[int, Sequence[Span]]]) -> list[tuple[int, list[Span]]]:
        wanted = ((text, [span for span in spans if self.of(span.kind) != "keep"]) for text, spans in found)
        return [(text, spans) for text, spans in wanted if spans]

    def _acted(self, data: bytes, spans: Sequence[Span]) -> tuple[bytes, list[tuple[int, int]]]:
        """The text with its findings replaced, and where in it the new values stand."""
        parts: list[bytes] = []
        changed: list[tuple[int, int]] = []
        place = length = 0
        for start, stop, kind in spans:
            value = self._replacement(kind, data[start:stop].decode("utf-8", "surrogatepass"))
            parts += [data[place:start], value.encode("utf-8", "surrogatepass")]
            changed.append((length + start - place, length + start - place + len(parts[-1])))
            place, length = stop, changed[-1][1]
        return b"".join([*parts, data[place:]]), changed

    def _replacement(self, kind: str, value: str) -> str:
        action = self.of(kind)
        if action in ("mask", "drop"):
            return MARKS[kind]
        if action == "hash":
            return f"{MARKS[kind][:-1]}:{digest(self.key, kind, spelled(kind, value))}]"
        return stand_in(self.key, kind, value)


def _laid_out(
    acted: Sequence[tuple[bytes, list[tuple[int, int]]]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Texts one after the other, where each starts, and where in them all they have changed."""
    starts = np.cumsum([0, *(len(data) for data, _ in acted)])
    changed = [np.array(places, np.int64) + start for (_, places), start in zip(acted, starts[:-1], strict=True)]
    return np.frombuffer(b"".join(data for data, _ in acted), np.uint8), starts, np.concatenate(changed)


def _check(value: str, known: Sequence[str], where: str, what: str) -> None:
    if value not in known:
        raise Invalid(f"there is no {what} {value!r}", field=where, hint=f"one of {', '.join(known)}")
