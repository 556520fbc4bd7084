"""The documentation of Python's standard library, as found on any machine: pydoc topics and docstrings.

Python modules are parsed, never imported; modules written in C have no source, so those are imported, from a list
found beside the interpreter and without those that touch a terminal. What cannot be parsed or imported is
quarantined. Docstrings of tests, of nested functions and inherited ones are not documents.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll.data.engine.read.item import Found, Item, Quarantined

_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "_bundled", "__pycache__", "pydoc_data"}
_SKIPPED_MODULES = {"test", "idlelib", "turtledemo", "this", "antigravity", "__phello__", "__hello__"}
_SKIPPED_EXTENSIONS = ("_test", "_xx", "xx", "readline", "_tkinter", "_curses")
_PUBLIC_NAMES = {"posix": "os", "nt": "os", "_io": "io"}

# wrappers of slots are not among them: they repeat "Return repr(self)." for every type
_MEMBERS = (
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    staticmethod,
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def read() -> Iterator[Item]:
    """Every document in a fixed order, and what cannot be read."""
    library = Path(sysconfig.get_path("stdlib"))
    yield from _topics()
    for file in _source_files(library):
        yield from _documents_of_source(file, _module_name(file.relative_to(library)))
    for name in _extensions(library):
        yield from _documents_of_extension(name)


def _topics() -> Iterator[Item]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError) as error:
        yield Quarantined("pydoc_data.topics", 0, f"cannot be imported: {error}")
        return
    for name in sorted(topics):
        yield Found(f"pydoc:topic/{name}", topics[name], f"pydoc:topic/{name}", name, "topic")


def _source_files(library: Path) -> list[Path]:
    tops = [library / f"{name}.py" for name in sys.stdlib_module_names - _SKIPPED_MODULES]
    packages = [library / name for name in sys.stdlib_module_names - _SKIPPED_MODULES - _SKIPPED_FOLDERS]
    inside = [file for package in packages for file in package.rglob("*.py")]
    kept = [file for file in inside if not _SKIPPED_FOLDERS & set(file.relative_to(library).parts)]
    return sorted(file for file in tops + kept if file.is_file())


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _documents_of_source(file: Path, module: str) -> Iterator[Item]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        yield Quarantined(module, getattr(error, "lineno", 0) or 0, f"cannot be parsed: {error}")
        return
    docstring = ast.get_docstring(tree)
    if docstring:
        yield Found(module, f"module {module}\n\n{docstring}", module, module, "module")
    yield from _documents_of_body(tree.body, module, is_class=False)


def _documents_of_body(body: list[ast.stmt], owner: str, *, is_class: bool) -> Iterator[Found]:
    """Documents of the definitions in `body`, through conditions and try blocks but not into functions."""
    for node in body:
        if isinstance(node, Definition):
            yield from _documents_of_definition(node, owner, is_class)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _documents_of_body(getattr(node, block, []), owner, is_class=is_class)


def _documents_of_definition(node: Definition, owner: str, is_method: bool) -> Iterator[Found]:
    name = f"{owner}.{node.name}"
    docstring = ast.get_docstring(node)
    if docstring:
        kind = "class" if isinstance(node, ast.ClassDef) else "function"
        yield Found(name, f"{_signature(node, name, is_method)}\n\n{docstring}", name, name, kind)
    if isinstance(node, ast.ClassDef):
        yield from _documents_of_body(node.body, name, is_class=True)


def _signature(node: Definition, name: str, is_method: bool) -> str:
    if isinstance(node, ast.ClassDef):
        made_by = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return f"class {name}{_parameters(made_by[0].args, True)}" if made_by else f"class {name}"
    is_bound = is_method and "staticmethod" not in [ast.unparse(item) for item in node.decorator_list]
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{prefix}{name}{_parameters(node.args, is_bound)}{result}"


def _parameters(arguments: ast.arguments, is_bound: bool) -> str:
    """The parameters as a caller sees them: without self or cls."""
    text = ast.unparse(arguments)
    return f"({re.sub(r'^(self|cls|mcls|metacls)(, /)?(, |$)', '', text) if is_bound else text})"


def _extensions(library: Path) -> list[str]:
    """Modules of the standard library written in C that are safe to import."""
    shared = {file.name.split(".")[0] for file in (library / "lib-dynload").glob("*.*")}
    found = (shared | set(sys.builtin_module_names)) & sys.stdlib_module_names
    return sorted(name for name in found if not name.startswith(_SKIPPED_EXTENSIONS))


def _documents_of_extension(name: str) -> Iterator[Item]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        yield Quarantined(name, 0, f"cannot be imported: {error}")
        return
    public = _PUBLIC_NAMES.get(name, name)
    if module.__doc__:
        yield Found(name, f"module {name}\n\n{inspect.cleandoc(module.__doc__)}", name, name, "module")
    for key, value in sorted(vars(module).items()):
        if key.startswith("__"):
            continue  # what every module has, such as its loader
        if isinstance(value, type):
            yield from _documents_of_type(value, f"{_PUBLIC_NAMES.get(value.__module__, value.__module__)}.{key}")
        elif isinstance(value, types.BuiltinFunctionType):
            yield from _document_of(value, f"{public}.{key}", "function")


def _documents_of_type(kind: type, name: str) -> Iterator[Item]:
    yield from _document_of(kind, name, "class")
    for key, value in sorted(vars(kind).items()):
        if isinstance(value, _MEMBERS) and key not in ("__dict__", "__weakref__"):
            yield from _document_of(value, f"{name}.{key}", "function")


def _document_of(value: Any, name: str, kind: str) -> Iterator[Found]:
    docstring = getattr(value, "__doc__", None)
    if isinstance(docstring, str) and docstring.strip():
        head = f"class {name}" if kind == "class" else name
        text = f"{head}{_text_signature(value)}\n\n{inspect.cleandoc(docstring)}"
        yield Found(name, text, name, name, kind)


def _text_signature(value: Any) -> str:
    """The signature C code declares, without self and without addresses; empty where it declares none."""
    if not getattr(value, "__text_signature__", None):
        return ""
    try:
        text = str(inspect.signature(value))
    except (ValueError, TypeError):
        return ""
    return re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"^\((self|type|module)(, /)?(, |(?=\)))", "(", text))
