"""Files are replaced whole or not at all; a full disk is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from atoll.core.errors import ResourceExhausted
from atoll.core.files import disk_full_named, read_json, replace_file, write_bytes, write_json


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"one", mode=0o600)
    write_bytes(path, b"two", mode=0o600, durable=False)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), replace_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(tmp_path: Path, code: int) -> None:
    with pytest.raises(ResourceExhausted, match=f"cannot write {tmp_path}"), disk_full_named(tmp_path):
        raise OSError(code, "full")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_full_named(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_json_that_is_absent_torn_or_no_object_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    assert read_json(path) is None
    for data in (b"", b'{"a": 1', b"[1]", b"\xff"):
        path.write_bytes(data)
        assert read_json(path) is None
    write_json(path, {"a": "ä"})
    assert read_json(path) == {"a": "ä"}
