"""Formats: which reader a file name calls for, and where that reader runs.

A name's last suffix decides; a suffix of compression is taken off first. What a file holds is not looked at here.
"""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from typing import NamedTuple


class Format(NamedTuple):
    """`reader` is the module below `read` that knows it; `kind` what its documents are; `codec` what it is packed in.

    `is_risky` formats are parsed in a child process.
    """

    reader: str
    kind: str = "text"
    codec: str = ""
    is_risky: bool = False


CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
_SHORT = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}

_CODE = (
    *("py", "pyi", "js", "mjs", "cjs", "jsx", "ts", "tsx", "java", "kt", "scala", "go", "rs", "c", "h", "cc", "cpp"),
    *("cxx", "hh", "hpp", "cs", "m", "mm", "swift", "rb", "php", "pl", "lua", "r", "jl", "sh", "bash", "sql", "vue"),
    *("dart", "ex", "exs", "erl", "hs", "ml", "clj", "zig", "cu", "proto", "toml", "yaml", "yml", "css", "scss"),
)
_RECORDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
_RISKY_RECORDS = frozenset({".parquet"})
_RISKY = {
    **{".json": "array", ".pdf": "pdf", ".docx": "docx", ".xlsx": "xlsx", ".warc": "warc", ".wet": "warc"},
    **{".zip": "archive", ".tar": "archive", ".html": "page", ".htm": "page"},
}
_TEXTS = {".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".rst": "rst"}

FORMATS: dict[str, Format] = {
    **{suffix: Format(reader, is_risky=suffix in _RISKY_RECORDS) for suffix, reader in _RECORDS.items()},
    **{suffix: Format(reader, is_risky=True) for suffix, reader in _RISKY.items()},
    **{suffix: Format("text", kind) for suffix, kind in _TEXTS.items()},
    **{f".{suffix}": Format("text", "code") for suffix in _CODE},
}
"""By suffix, without compression."""

PACKAGES = {
    **{"pdf": "pypdf", "docx": "docx", "xlsx": "openpyxl", "page": "selectolax"},
    **{"warc": "fastwarc", "zstd": "zstandard"},
}
"""Modules that readers and codecs need besides those every curation needs."""

ARCHIVES = tuple(f"*{suffix}" for suffix in (".zip", ".tar", *_SHORT, *(f".tar{packed}" for packed in CODECS)))


SUFFIX_CHARACTERS_MAX = 16


def _patterns(suffixes: list[str]) -> tuple[str, ...]:
    return tuple(f"*{suffix}{packed}" for suffix in suffixes for packed in ("", *CODECS))


_KEPT_RECORDS = [*_RECORDS, ".json"]
DOCUMENTS = (
    *_patterns([suffix for suffix, known in FORMATS.items() if known.kind != "code" and known.reader != "archive"]),
    *ARCHIVES,
)
CODE = (*_patterns([f".{suffix}" for suffix in _CODE]), *_patterns([*_RECORDS]), *ARCHIVES)
"""File names to read by default: of documents and records, and of source code and records."""


def patterns_of(preset: str) -> tuple[str, ...]:
    """The file names a recipe with this preset reads if its source names none."""
    return CODE if preset == "code" else DOCUMENTS


def format_of(name: str) -> Format:
    """The format of a file by its name; a name that is not known is plain text."""
    lower = name.lower()
    for short, long in _SHORT.items():
        lower = lower.removesuffix(short) + long if lower.endswith(short) else lower
    codec = ""
    for suffix, known in CODECS.items():
        if lower.endswith(suffix):
            codec, lower = known, lower.removesuffix(suffix)
            break
    found = FORMATS.get(suffix_of(lower), Format("text"))
    return found._replace(codec=codec, is_risky=found.is_risky)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path or its last part is like one of the patterns, whatever the case of letters."""
    lower = name.lower()
    matcher = _matcher(patterns)
    return bool(matcher.match(lower.rsplit("/", 1)[-1]) or matcher.match(lower))


@cache
def member_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that choose among the members of an archive: those that do not name archives, or all known."""
    return tuple(pattern for pattern in patterns if format_of(pattern).reader != "archive") or DOCUMENTS


@cache
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns) or r"\Z.")


def suffix_of(name: str) -> str:
    """What a file's name ends in, from its last dot on; "" without one."""
    last = name.rsplit("/", 1)[-1]
    place = last.rfind(".")
    return last[place:] if place >= 0 else ""


def counted_suffix(name: str) -> str:
    """The suffix that a file nobody reads is counted under; "" where its last dot begins a number or a sentence, for
    those are as many as files."""
    suffix = suffix_of(name.lower())
    is_one = any(map(str.isalpha, suffix)) and len(suffix) <= SUFFIX_CHARACTERS_MAX and " " not in suffix
    return suffix if is_one else ""
