"""The safety scan: what may run code is refused by name and by content, templates are parsed and bounded."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_gguf
from atoll.core.errors import Invalid
from atoll.models.safety import (
    TEMPLATE_CHARS_MAX,
    looks_like_pickle,
    require_safe,
    scan,
    scan_file,
    scan_template,
)


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("true",))


def _rules(name: str, content: bytes, folder: Path) -> list[str]:
    path = folder / "content"
    path.write_bytes(content)
    return [finding.rule for finding in scan_file(name, path)]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.PTH", "m.pkl", "m.ckpt", "m.joblib", "m.npy"])
def test_a_pickle_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    assert _rules(name, b"anything", tmp_path) == ["pickle-name"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.safetensors", "m.gguf", "tokenizer.model", "README"])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, name: str, protocol: int) -> None:
    assert _rules(name, pickle.dumps(_Dangerous(), protocol), tmp_path) == ["pickle-content"]


def test_a_torch_archive_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert _rules("model.safetensors", buffer.getvalue(), tmp_path) == ["pickle-content"]
    assert _rules("model.safetensors", buffer.getvalue()[:40], tmp_path) == ["pickle-content"]


@pytest.mark.parametrize(
    "text", ["hello world, this is a README", "c\nbuilt from source.\n", '{"a": 1}', "<s> 0\n</s> 1\n", "N.", ""]
)
def test_plain_text_is_no_pickle(text: str) -> None:
    assert not looks_like_pickle(text.encode())


def test_a_model_is_no_pickle(tmp_path: Path) -> None:
    model = tiny_gguf.write_model(tmp_path / "tiny.gguf")
    assert scan({"tiny.gguf": model}, [tiny_gguf.CHAT_TEMPLATE]).findings == ()


@given(st.binary(max_size=512))
def test_any_bytes_are_judged_without_a_crash(head: bytes) -> None:
    assert looks_like_pickle(head) in (True, False)


def test_code_and_what_asks_for_it_are_flagged_not_refused(tmp_path: Path) -> None:
    assert _rules("modeling_x.py", b"import os\n", tmp_path) == ["code"]
    assert _rules("config.json", json.dumps({"auto_map": {"AutoModel": "x.Y"}}).encode(), tmp_path) == ["auto-map"]
    assert _rules("config.json", b"{}", tmp_path) == []
    (tmp_path / "content").write_bytes(b"import os\n")
    assert require_safe(scan({"modeling_x.py": tmp_path / "content"})).is_ok


@pytest.mark.parametrize(
    "text",
    [
        tiny_gguf.CHAT_TEMPLATE,
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% generation %}{{ m }}{% endgeneration %}",
    ],
)
def test_templates_models_really_carry_pass(text: str) -> None:
    assert scan_template(text) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{% for", "template-syntax"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "template-syntax"),
        ("{% if a %}" * 3000 + "{% endif %}" * 3000, "template-syntax"),
        ("x" * (TEMPLATE_CHARS_MAX + 1), "template-size"),
        ("{{ ''.__class__.__mro__ }}", "template-private"),
        ("{{ messages['__init__'] }}", "template-private"),
        ("{{ messages|attr('_x') }}", "template-private"),
        ("{{ messages|map(attribute='__class__')|list }}", "template-private"),
    ],
)
def test_a_bad_template_is_refused_by_its_fault(text: str, rule: str) -> None:
    assert [(f.severity, f.rule) for f in scan_template(text)] == [("refused", rule)]


def test_a_refusal_names_file_reason_and_way_out(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"")
    result = scan({"m.pt": tmp_path / "m.pt"})
    assert result.to_dict()["ok"] is False
    with pytest.raises(Invalid, match=r"m\.pt: \.pt files may run code") as caught:
        require_safe(result)
    assert "safetensors" in caught.value.hint
    assert caught.value.details["findings"][0]["rule"] == "pickle-name"
