"""Actions: what is done about each finding, so that doing it twice is doing it once.

What is dropped or masked cannot be found again; a keyed digest or a stand-in is stable under its key and says nothing
of the value to those who lack the key. Values are compared as written, without separators and case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.core.errors import Invalid
from atoll.data.engine.privacy.find import Finder
from atoll.data.engine.privacy.kinds import KINDS, MARKS, Span
from atoll.data.engine.privacy.stand_ins import digest, stand_in

ACTIONS = ("keep", "mask", "hash", "pseudonymise", "drop")

_ROUNDS_MAX = 4
_SEPARATORS = re.compile(r"[\s().\-]+")
_SPELLED_ALIKE = frozenset({"phone", "identity_card", "bank_card", "credit_code", "passport", "plate"})


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
        spans = self.finder.find(text)
        counts = Counter(span.kind for span in spans)
        if any(self.of(kind) == "drop" for kind in counts):
            return Dropped(dict(counts))
        for _ in range(_ROUNDS_MAX):
            spans = [span for span in spans if self.of(span.kind) != "keep"]
            if not spans:
                break
            text = self._acted(text, spans)
            spans = self.finder.find(text)
        return Applied(text, dict(counts))

    def _acted(self, text: str, spans: Sequence[Span]) -> str:
        parts, place = [], 0
        for start, stop, kind in spans:
            parts += [text[place:start], self._replacement(kind, text[start:stop])]
            place = stop
        return "".join([*parts, text[place:]])

    def _replacement(self, kind: str, value: str) -> str:
        action = self.of(kind)
        if action in ("mask", "drop"):
            return MARKS[kind]
        plain = _SEPARATORS.sub("", value).lower() if kind in _SPELLED_ALIKE else value
        if action == "hash":
            return f"{MARKS[kind][:-1]}:{digest(self.key, kind, plain)}]"
        return stand_in(self.key, kind, value)


def _check(value: str, known: Sequence[str], where: str, what: str) -> None:
    if value not in known:
        raise Invalid(f"there is no {what} {value!r}", field=where, hint=f"one of {', '.join(known)}")
