"""Manifests are read whole or refused with file, line, field, value and what would be valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.core.errors import Conflict, Invalid, TooLarge
from atoll.sdk.manifest import FILE_BYTES_MAX, Manifest, parse_manifests, read_manifests

GOOD = """\
# two things
kind: Deployment
name: assistant
labels: {team: web}
spec:
  model: smollm2
  replicas: 2
---
kind: Dataset
name: docs
project: other
"""


def test_a_file_may_hold_several_documents(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(GOOD)
    first, second = read_manifests(path)
    assert first == Manifest(
        "Deployment", "assistant", None, {"team": "web"}, {"model": "smollm2", "replicas": 2}, str(path)
    )
    assert (second.kind, second.project, second.spec) == ("Dataset", "other", {})
    assert first.where("spec.replicas") == f"{path}:7"
    assert second.where("name") == f"{path}:10"


def test_json_is_a_manifest_too() -> None:
    [manifest] = parse_manifests('{"kind": "Dataset", "name": "docs", "spec": {"description": "x"}}', "m.json")
    assert manifest.to_dict() == {"kind": "Dataset", "name": "docs", "labels": {}, "spec": {"description": "x"}}


def test_what_get_prints_can_be_applied_again() -> None:
    text = "kind: Dataset\nname: docs\nuid: 7f\nversion: 3\nstatus: {phase: ready}\nspec: {description: x}\n"
    [manifest] = parse_manifests(text, "m.yaml")
    assert manifest.spec == {"description": "x"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("kind: A\nname: b\nspce: {x: 1}\n", "m.yaml:3: a manifest has no field 'spce' (value: {'x': 1})", "'spec'"),
        ("kind: A\nname: 7\n", "m.yaml:2: name cannot be 7", "quotes"),
        ("name: b\n", "m.yaml:1: a manifest needs 'kind'", "kind"),
        ("kind: A\nname: b\nspec: [1]\n", "m.yaml:3: spec cannot be [1]", "mapping"),
        ("kind: A\nname: b\nlabels:\n  x: 1\n", "m.yaml:4: labels.x cannot be 1", '"1"'),
        ("- a\n", "m.yaml:1: a manifest must be a mapping, not ['a']", ""),
        ("# nothing\n", "m.yaml holds no manifest", "kind"),
        ("kind: A\nname: b\n---\nkind: a\nname: b\n", "m.yaml:5: a 'b' is already on m.yaml:2", "own name"),
    ],
)
def test_errors_name_line_field_and_value(text: str, message: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_manifests(text, "m.yaml")
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"there is no file .*nothing\.yaml"):
        read_manifests(tmp_path / "nothing.yaml")
    with pytest.raises(Invalid, match="Is a directory"):
        read_manifests(tmp_path)


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    with pytest.raises(Invalid, match=r"m\.yaml:2: not UTF-8"):
        parse_manifests(b"kind: A\nname: \xff\n", "m.yaml")


def test_a_file_too_large_to_be_a_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        read_manifests(path)


def test_the_servers_errors_come_back_with_file_line_and_value() -> None:
    [manifest, _] = parse_manifests(GOOD, "m.yaml")
    error = Invalid("Deployment has no field spec.replicsa", field="spec.replicas.x", hint="valid: …", value=12345)
    located = manifest.located(error)
    assert located.message == "m.yaml:7: Deployment has no field spec.replicsa (value: 12345)"
    assert (located.hint, located.field) == ("valid: …", "spec.replicas.x")
    conflict = manifest.located(Conflict("Deployment/assistant is being deleted"))
    assert isinstance(conflict, Conflict)
    assert conflict.message.startswith("m.yaml:2: ")
