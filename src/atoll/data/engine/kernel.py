"""Kernels: loops over bytes, compiled by numba where it is installed and run by Python itself where it is not.

Both ways give the same bits, for it is one source: a kernel uses numpy scalars of 64 or 32 bits whose arithmetic wraps
around, and casts back whenever two widths meet. Machine code is kept in NUMBA_CACHE_DIR (or beside the source) where
that can be written, by the sources a kernel was made of, its own and those it calls, so none is ever out of date.
Without numba a kernel is some hundred times slower; nothing else changes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

try:
    import numba
    from numba.core.runtime.nrt import rtsys
except ImportError:
    numba = None

Function = TypeVar("Function", bound=Callable[..., Any])

IS_COMPILED = numba is not None

_PACKAGE = Path(__file__).parents[2]
_IMPORT = re.compile(r"^from atoll\.([\w.]+) import ([^(\n]+|\([^)]*\))", re.MULTILINE)


def kernel(function: Function) -> Function:
    """`function` compiled at its first call, without the GIL; `.py_func` is the function as Python."""
    return _made(function)


def bare(function: Function) -> Function:
    """A kernel that neither makes nor returns arrays, so that nobody counts references to them.

    Counting costs more than the work where a function is called for every word.
    """
    return _made(function, _nrt=False)


def inner(function: Function) -> Function:
    """A bare kernel that only kernels call: it has no door for Python, and its code is kept within theirs.

    That door, made and optimised for every one of them, is a quarter of the time it takes to compile them all. Called
    from Python it runs as Python, slowly.
    """
    return _inner(function)


def inlined(function: Function) -> Function:
    """An inner kernel whose code is put wherever it is called.

    For what is called for every word: handing a dozen arrays over costs more than the work.
    """
    return _inner(function, forceinline=True)


def _inner(function: Function, **options: bool) -> Function:
    if numba is None:
        return _plain(function)
    options |= {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled: Function = _within(numba.njit(function, nogil=True, **options), _plain(function))
    return compiled


def _made(function: Function, **options: bool) -> Function:
    if numba is None:
        return _plain(function)
    options["no_cfunc_wrapper"] = True
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_folder(Path(function.__code__.co_filename)))
    try:
        compiled = numba.njit(function, nogil=True, cache=True, **options)
    except RuntimeError:  # no folder to write a cache to
        compiled = numba.njit(function, nogil=True, **options)
    else:
        _load_lightly(compiled)
    finally:
        numba.config.CACHE_DIR = before
    made: Function = compiled
    return made


def _load_lightly(compiled: Any) -> None:
    """Have the kernel's machine code loaded without what only compiling needs.

    Numba has all it can compile at hand before it looks into the cache: 14 MB and .3 s in every process. Where the
    cache has nothing, the compiler fetches the same.
    """
    cache = compiled._cache

    def load(signature: Any, context: Any) -> Any:
        rtsys.initialize(context)
        return cache._load_overload(signature, context)

    cache.load_overload = load


def is_kept(function: Callable[..., Any]) -> bool:
    """Whether there is machine code of a kernel in the cache."""
    code = function.py_func.__code__  # type: ignore[attr-defined]
    return any(_folder(Path(code.co_filename)).rglob(f"*.{code.co_name}-*.nbi"))


def _within(compiled: Any, plain: Callable[..., Any]) -> Any:
    """The kernel, compiled for the type of a number only, not anew for a variable that begins as 0."""
    template = compiled.get_call_template

    def widened(arguments: Any, named: Any) -> Any:
        return template(tuple(map(numba.types.unliteral, arguments)), named)

    compiled.get_call_template = widened
    compiled._insert = lambda *compiled_for: None  # numba must not call from Python what has no door
    compiled._compile_for_args = lambda *arguments, **named: plain
    return compiled


def _plain(function: Function) -> Function:
    @wraps(function)
    def run(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*arguments)

    run.py_func = function  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


@cache
def _folder(path: Path) -> Path:
    """Where the machine code of the kernels in the file at `path` is kept."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(_sources(path)):
        digest.update(source.name.encode() + source.read_bytes())
    home = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(home) if home else path.parent / "__pycache__") / "kernels" / f"{path.stem}-{digest.hexdigest()}"


def _sources(path: Path) -> set[Path]:
    """The file at `path` and all files of the package that it imports, however far away."""
    found, new = set(), {path} if path.exists() else set()
    while new:
        found |= new
        new = {file for known in new for file in _imported(known)} - found
    return found


@cache
def _imported(path: Path) -> frozenset[Path]:
    places = []
    for module, names in _IMPORT.findall(path.read_text()):
        base = _PACKAGE.joinpath(*module.split("."))
        places += [base, *(base / name for name in re.findall(r"\w+", names))]
    return frozenset(file for place in places if (file := place.with_suffix(".py")).exists())
