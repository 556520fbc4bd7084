"""Manifests: resources written down in YAML, each field traceable to its file and line.

    kind: Deployment
    name: assistant
    project: default        # optional
    labels: {team: web}     # optional
    spec: {...}

A file may hold several documents. Everything is literal: no variables, no templates. What a spec may contain
is the server's to say; its answers are mapped back to lines here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from atoll.core.errors import AtollError, Invalid, TooLarge
from atoll.core.yaml_lines import Document, read_documents

E = TypeVar("E", bound=AtollError)

FIELDS = ("kind", "name", "project", "labels", "spec")
READ_ONLY = frozenset({"uid", "version", "generation", "owner", "created_at", "updated_at", "deleting_at", "status"})
"""Fields the platform adds; passed over, so that what `get -o yaml` prints can be edited and applied."""

FILE_BYTES_MAX = 8 << 20
_SHOWN_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True)
class Manifest:
    """One resource as written down."""

    kind: str
    name: str
    project: str | None
    labels: dict[str, str]
    spec: dict[str, Any]
    file: str = ""
    document: Document | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The form `apply` sends."""
        return {"kind": self.kind, "name": self.name, "labels": self.labels, "spec": self.spec}

    def where(self, path: str = "") -> str:
        """FILE:LINE of a dotted field path such as "spec.recipe.steps" or "spec.steps.0.kind"."""
        return f"{self.file}:{self.document.line_of(path)}" if self.document else self.file

    def located(self, error: E, path: str = "") -> E:
        """The same error, its message led by file and line and naming the value it speaks of."""
        path = path or str(error.details.get("field") or "")
        details = {k: v for k, v in error.details.items() if k not in ("message", "hint")}
        message = f"{self.where(path)}: {error.message}"
        value = _shown(details["value"]) if "value" in details else ""
        if value and not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", error.message):
            message += f" (value: {value})"
        return type(error)(message, hint=error.hint, **details)


def read_manifests(path: Path | str) -> list[Manifest]:
    """Every manifest of a file; TooLarge or Invalid names the file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise Invalid(f"there is no file {str(path)!r}", field=str(path), hint="-f - reads standard input") from error
    except OSError as error:
        raise Invalid(f"cannot read {str(path)!r}: {error.strerror}", field=str(path)) from error
    return parse_manifests(data, str(path))


def parse_manifests(data: bytes | str, file: str) -> list[Manifest]:
    """Every manifest in a text; `file` is its name in errors."""
    text = _text(data, file)
    manifests = [_manifest(document, file) for document in read_documents(text, file)]
    if not manifests:
        raise Invalid(f"{file} holds no manifest", field=file, hint=f"each has {', '.join(FIELDS)}")
    _refuse_doubles(manifests)
    return manifests


def _text(data: bytes | str, file: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise TooLarge(f"{file} is larger than {FILE_BYTES_MAX} bytes", hint="put data into blobs, not manifests")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Invalid(f"{file}:{line}: not UTF-8", field=f"{file}:{line}", hint="save it as UTF-8") from error


def _manifest(document: Document, file: str) -> Manifest:
    value = document.value
    if not isinstance(value, dict):
        raise _error(document, file, "", f"a manifest must be a mapping, not {_shown(value)}")
    for name in value:
        if name not in FIELDS and name not in READ_ONLY:
            nearest = difflib.get_close_matches(name, FIELDS, 1, 0.5)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            message = f"a manifest has no field {name!r} (value: {_shown(value[name])})"
            raise _error(document, file, name, message, f"{hint}valid: {', '.join(FIELDS)}")
    return Manifest(
        _required(document, file, "kind"),
        _required(document, file, "name"),
        _optional_text(document, file, "project"),
        _labels(document, file),
        _mapping(document, file, "spec"),
        file,
        document,
    )


def _required(document: Document, file: str, name: str) -> str:
    text = _optional_text(document, file, name)
    if text is None:
        raise _error(document, file, name, f"a manifest needs {name!r}", f"fields: {', '.join(FIELDS)}")
    return text


def _optional_text(document: Document, file: str, name: str) -> str | None:
    value = document.value.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise _error(document, file, name, f"{name} cannot be {_shown(value)}", "a text; put quotes around a number")
    return value


def _mapping(document: Document, file: str, name: str) -> dict[str, Any]:
    value = document.value.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _error(document, file, name, f"{name} cannot be {_shown(value)}", "a mapping of field: value")
    return value


def _labels(document: Document, file: str) -> dict[str, str]:
    labels = _mapping(document, file, "labels")
    for name, value in labels.items():
        if not isinstance(value, str):
            path = f"labels.{name}"
            raise _error(document, file, path, f"{path} cannot be {_shown(value)}", f'a text: "{value}"')
    return labels


def _refuse_doubles(manifests: list[Manifest]) -> None:
    seen: dict[tuple[str, str, str | None], Manifest] = {}
    for manifest in manifests:
        first = seen.setdefault((manifest.kind.lower(), manifest.name, manifest.project), manifest)
        if first is not manifest:
            raise Invalid(
                f"{manifest.where('name')}: {manifest.kind} {manifest.name!r} is already on {first.where('name')}",
                field="name",
                hint="give each its own name",
            )


def _error(document: Document, file: str, path: str, message: str, hint: str = "") -> Invalid:
    return Invalid(f"{file}:{document.line_of(path)}: {message}", field=path, hint=hint)


def _shown(value: Any) -> str:
    text = repr(dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"
