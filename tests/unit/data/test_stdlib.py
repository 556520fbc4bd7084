import sys
from collections import Counter
from pathlib import Path

import pytest

from atoll.data.engine.read import stdlib
from atoll.data.engine.read.item import Found, Item, Quarantined


@pytest.fixture(scope="module")
def found() -> list[Item]:
    return list(stdlib.read())


@pytest.fixture(scope="module")
def by_id(found) -> dict[str, Found]:
    return {item.id: item for item in found if isinstance(item, Found)}


def test_there_are_thousands_of_documents_of_every_kind(found) -> None:
    kinds = Counter(item.kind for item in found if isinstance(item, Found))
    assert kinds["topic"] > 50
    assert kinds["module"] > 200
    assert kinds["class"] > 500
    assert kinds["function"] > 4000


def test_a_function_has_its_signature_before_its_docstring(by_id) -> None:
    head, _, rest = by_id["json.loads"].text.partition("\n\n")
    assert head.startswith("json.loads(s, *, cls=None")
    assert rest.startswith("Deserialize")


def test_methods_are_shown_as_a_caller_sees_them(by_id) -> None:
    assert by_id["logging.Logger.critical"].text.startswith("logging.Logger.critical(msg, *args, **kwargs)\n")
    assert by_id["argparse.ArgumentParser"].text.startswith("class argparse.ArgumentParser(prog=None,")
    assert by_id["collections.OrderedDict.fromkeys"].text.startswith("collections.OrderedDict.fromkeys(iterable")


def test_c_modules_are_documented_under_their_public_names(by_id) -> None:
    assert by_id["builtins.str.split"].text.startswith("builtins.str.split(sep=None, maxsplit=-1)\n")
    assert "collections.deque" in by_id
    assert "math.sin" in by_id
    if sys.platform != "win32":
        assert by_id["os.open"].text.startswith("os.open(path, flags, mode=511")


def test_no_document_holds_an_address(found) -> None:
    assert not [item.id for item in found if isinstance(item, Found) and " at 0x7" in item.text]


def test_tests_and_modules_with_side_effects_are_left_out(by_id) -> None:
    tops = {name.split(".")[0] for name in by_id}
    assert not tops & {"test", "idlelib", "this", "antigravity", "turtledemo"}
    assert "antigravity" not in sys.modules and "this" not in sys.modules


def test_reading_twice_gives_the_same_documents_in_the_same_order(found) -> None:
    assert list(stdlib.read()) == found


def test_a_module_that_cannot_be_parsed_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text('"""A fine module."""')
    (tmp_path / "json" / "bad.py").write_text("def (:")
    (tmp_path / "json" / "nul.py").write_bytes(b"x = 1\0")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    items = list(stdlib.read())
    refused = {item.name: item.reason for item in items if isinstance(item, Quarantined)}
    assert "cannot be parsed" in refused["json.bad"] and "cannot be parsed" in refused["json.nul"]
    assert next(item.id for item in items if isinstance(item, Found) and item.kind == "module") == "json"


def test_a_module_that_cannot_be_imported_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib-dynload").mkdir()
    (tmp_path / "lib-dynload" / "_msi.so").write_bytes(b"")
    (tmp_path / "lib-dynload" / "not_of_the_library.so").write_bytes(b"")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    refused = {item.name: item.reason for item in stdlib.read() if isinstance(item, Quarantined)}
    assert list(refused) == ["_msi"]
    assert "cannot be imported" in refused["_msi"]
