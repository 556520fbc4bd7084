import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from atoll.data.engine import kernel as kernel_module
from atoll.data.engine.hashing import MASK, mix, mix_one
from atoll.data.engine.kernel import IS_COMPILED, bare, inner, kernel

ENGINE = Path(kernel_module.__file__).parent

SOURCE = """
from atoll.data.engine.kernel import kernel

@kernel
def total(values):
    result = 0
    for i in range(len(values)):
        result += values[i] * {factor}
    return result
"""


def _module(path: Path, factor: int) -> ModuleType:
    path.parent.mkdir()
    path.write_text(SOURCE.format(factor=factor))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_machine_code_is_kept_by_the_source_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    totals = [_module(tmp_path / str(factor) / "sums.py", factor).total(np.arange(4)) for factor in (1, 2)]
    assert totals == [6, 12]
    assert IS_COMPILED
    kept = sorted((tmp_path / "cache" / "kernels").iterdir())
    assert len(kept) == 2
    assert all(folder.name.startswith("sums-") and list(folder.rglob("*.nbc")) for folder in kept)


def test_a_function_without_a_file_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    exec("def double(value):\n    return value + value", names)
    assert kernel(names["double"])(4) == 8


def test_a_bare_kernel_changes_arrays_in_place() -> None:
    @bare
    def fill(values, value):  # type: ignore[no-untyped-def]
        values[:] = value

    values = np.zeros(3, np.int64)
    fill(values, 7)
    assert values.tolist() == [7, 7, 7]


@pytest.mark.parametrize("value", [0, 1, 2**63, MASK])
def test_words_wrap_around_compiled_as_in_numpy(value: int) -> None:
    assert mix_one(np.uint64(value)) == mix(np.array([value], np.uint64))[0]


def test_an_inner_kernel_is_compiled_once_for_numbers_and_has_no_door_for_python() -> None:
    @inner
    def twice(value):  # type: ignore[no-untyped-def]
        return value + value

    @bare
    def sums(values):  # type: ignore[no-untyped-def]
        total = 0
        for value in values:
            total = total + twice(total) + value
        return total

    assert sums(np.arange(4)) == sums.py_func(np.arange(4)) == 18  # type: ignore[attr-defined]
    assert len(twice.signatures) == 1  # type: ignore[attr-defined]


def test_only_kernels_call_inner_kernels() -> None:
    found = {path: ast.parse(path.read_text()) for path in ENGINE.rglob("*.py")}
    inners = {
        name
        for tree in found.values()
        for name in _decorated(tree, {"inner", "inlined"})
        if name not in {other for more in found.values() for other in _decorated(more, {"kernel", "bare"})}
    }
    assert len(inners) > 100
    for path, tree in found.items():
        own = inners & (_decorated(tree, {"inner", "inlined"}) | _imported(tree))
        called = {
            node.func.id
            for function in _others(tree)
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not own & called, f"{path.name} calls {own & called} from Python"


def _decorators(function: ast.stmt) -> set[str]:
    listed = function.decorator_list if isinstance(function, ast.FunctionDef) else []
    return {decorator.id for decorator in listed if isinstance(decorator, ast.Name)}


def _decorated(tree: ast.Module, names: set[str]) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _decorators(node) & names}


def _imported(tree: ast.Module) -> set[str]:
    return {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def _others(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if not _decorators(node) & {"kernel", "bare", "inner", "inlined"}]


def test_kept_machine_code_is_loaded_without_what_only_compiling_needs(tmp_path: Path) -> None:
    """In processes of their own: the first compiles; the second loads, and can compile another all the same."""
    path = tmp_path / "sums.py"
    path.write_text(SOURCE.format(factor=3))
    ask = "import sys, numpy as np, numba, sums; said = [sums.total(np.arange(4)), 'numba.np.linalg' in sys.modules]; "
    ask += "print(*said, numba.njit(lambda value: value + sums.total(np.arange(3)))(1))"
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True, timeout=300)
        for _ in range(2)
    ]
    assert [one.stdout.split() for one in said] == [["18", "True", "10"], ["18", "False", "10"]]
