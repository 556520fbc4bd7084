"""Scan a model's files before they enter the library: nothing stored may run code when it is loaded.

Refused: pickles, by name and by content, whatever they are called; chat templates that are too large, do not parse or
reach for Python's internals. Flagged: a configuration that asks for code of its own (`auto_map`), and the code itself.
Templates are parsed, never rendered. It does not judge what a model says, and a clean scan is no proof of good intent.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atoll.core.errors import Invalid

TEMPLATE_CHARS_MAX = 128 << 10
JSON_BYTES_MAX = 4 << 20
PICKLE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".keras", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".t7"}
)
CODE_SUFFIXES = frozenset({".dll", ".dylib", ".exe", ".js", ".pyc", ".py", ".sh", ".so"})
_SNIFFED_BYTES = 4096
_PICKLE_OPCODES_MIN = 3
_ARCHIVE_MAGIC = b"PK\x03\x04"
_NEWEST_PROTOCOL = 5
_IMPORTED = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: `severity` is "refused" or "flagged"."""

    file: str
    severity: str
    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Scan:
    """All findings; ok unless one of them is a refusal."""

    findings: tuple[Finding, ...]

    @property
    def is_ok(self) -> bool:
        return all(finding.severity != "refused" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The wire form of a model version's status."""
        return {"ok": self.is_ok, "findings": [asdict(finding) for finding in self.findings]}


def scan(files: Mapping[str, Path], templates: Iterable[str] = ()) -> Scan:
    """Look at every file (name -> path) and chat template of a model."""
    findings = [finding for name, path in files.items() for finding in scan_file(name, path)]
    for text in templates:
        findings += scan_template(text)
    return Scan(tuple(findings))


def require_safe(result: Scan) -> Scan:
    """`result` itself, or Invalid naming what was refused."""
    if result.is_ok:
        return result
    refused = [finding for finding in result.findings if finding.severity == "refused"]
    raise Invalid(
        "refused by the safety scan: " + "; ".join(f"{f.file}: {f.message}" for f in refused[:5]),
        field="files",
        hint="take a safetensors or GGUF version of the model",
        findings=[asdict(finding) for finding in result.findings],
    )


def scan_file(name: str, path: Path) -> list[Finding]:
    """Findings about one file, by its name and by its first bytes."""
    suffix = Path(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return [Finding(name, "refused", "pickle-name", f"{suffix} files may run code when they are loaded")]
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if looks_like_pickle(head) or _is_pickle_archive(path, head):
        return [Finding(name, "refused", "pickle-content", "its content is a pickle, which may run code")]
    if suffix in CODE_SUFFIXES:
        return [Finding(name, "flagged", "code", "is code; Atoll never runs code that comes with a model")]
    return _scan_json(name, path) if suffix == ".json" else []


def looks_like_pickle(head: bytes) -> bool:
    """Whether `head` begins as a pickle of protocol 2 or later does, or reads as an older one."""
    if len(head) > 1 and head[0] == 0x80:
        return 2 <= head[1] <= _NEWEST_PROTOCOL
    return _reads_as_old_pickle(head)


def scan_template(text: str, name: str = "chat template") -> list[Finding]:
    """Findings about one chat template: its size, its syntax, and what it reaches for."""
    if len(text) > TEMPLATE_CHARS_MAX:
        message = f"has {len(text)} characters, the limit is {TEMPLATE_CHARS_MAX}"
        return [Finding(name, "refused", "template-size", message)]
    try:
        tree = _environment().parse(text)
        private = sorted({word for word in _names(tree) if word.startswith("_")})
    except TemplateSyntaxError as error:
        return [Finding(name, "refused", "template-syntax", f"line {error.lineno}: {error.message}")]
    except RecursionError:
        return [Finding(name, "refused", "template-syntax", "is nested too deeply")]
    if private:
        return [Finding(name, "refused", "template-private", f"reaches for {', '.join(private[:5])}")]
    return []


class _Generation(Extension):
    """The `{% generation %}` block of training templates: marks text, renders as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])


def _names(tree: nodes.Template) -> Iterable[str]:
    """Every attribute, and every constant subscript or filter argument, the template uses."""
    for attribute in tree.find_all(nodes.Getattr):
        yield attribute.attr
    for item in tree.find_all(nodes.Getitem):
        yield from _texts([item.arg])
    for filtered in tree.find_all(nodes.Filter):
        if filtered.name in ("attr", "map"):
            yield from _texts([*filtered.args, *(keyword.value for keyword in filtered.kwargs)])


def _texts(arguments: Iterable[nodes.Node]) -> Iterable[str]:
    return (a.value for a in arguments if isinstance(a, nodes.Const) and isinstance(a.value, str))


def _reads_as_old_pickle(head: bytes) -> bool:
    """Protocols 0 and 1 have no header: true when they import a name, or are a pickle to their very end."""
    opcodes = 0
    try:
        for opcode, argument, position in pickletools.genops(head):
            opcodes += 1
            if opcode.name in ("GLOBAL", "INST"):
                return _IMPORTED.fullmatch(str(argument)) is not None
            if opcode.name == "STOP":
                return opcodes >= _PICKLE_OPCODES_MIN and position == len(head.rstrip()) - 1
    except (ValueError, OverflowError, IndexError):
        return False
    return False


def _is_pickle_archive(path: Path, head: bytes) -> bool:
    """Whether the file is a ZIP that holds pickles, as torch.save writes them."""
    if not head.startswith(_ARCHIVE_MAGIC):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith((".pkl", ".pickle")) for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return True


def _scan_json(name: str, path: Path) -> list[Finding]:
    if path.stat().st_size > JSON_BYTES_MAX:
        return []
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return []
    if isinstance(value, dict) and value.get("auto_map"):
        return [Finding(name, "flagged", "auto-map", "asks for code of its own, which Atoll does not run")]
    return []
