"""Sources as people write them: pypi:NAME==VERSION, hf:OWNER/NAME[@REVISION], file:/path.

Pure: a text in, a Source out. Whether it exists, and what is wanted of it, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from atoll.core.errors import Invalid

_HINT = "pypi:name==version, hf:owner/name[@revision] or file:/path"
_PYPI = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)", re.ASCII)
_HUB = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w][\w./-]{0,199}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source: `kind` is pypi, hf or file; `name` the package, repository or path; `version` may be empty."""

    kind: str
    name: str
    version: str = ""

    def __str__(self) -> str:
        separator = {"pypi": "==", "hf": "@"}.get(self.kind, "")
        return f"{self.kind}:{self.name}" + (f"{separator}{self.version}" if self.version else "")


def parse(text: str, what: str = "source") -> Source:
    """The source `text` names; Invalid, saying it is no `what`, when it names none."""
    kind, _, rest = text.partition(":")
    if kind == "pypi" and (match := _PYPI.fullmatch(rest)):
        return Source("pypi", match[1], match[2])
    if kind == "hf" and (match := _HUB.fullmatch(rest)):
        return Source("hf", match[1], match[2] or "")
    if kind == "file" and rest.startswith("/") and "\0" not in rest:
        return Source("file", rest)
    raise Invalid(f"{text!r} is not a {what}", field="source", hint=_HINT)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's path, or its last part, fits one of the patterns."""
    last = PurePosixPath(name).name
    return any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in patterns)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Full name -> name under the folder all of `names` share."""
    parents = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    return {name: "/".join(PurePosixPath(name).parts[shared:]) for name in names}


def listed(names: Sequence[str]) -> str:
    """The first of `names` for a message."""
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + rest
