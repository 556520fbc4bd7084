"""A disk that is full: what was there stays valid, and the error says which file and why.

The child process limits how large a file it may write, which the kernel answers as it answers a full disk.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from atoll.core.blobs import BlobStore, digest_of

OLD, BIG = b"old", bytes(range(256)) * 8192


def in_a_full_disk(code: str, tmp_path: Path) -> str:
    """What `code` prints in a process that may write files of 64 KiB at most; `raises` names the expected error."""
    before = """
        import resource, signal, sys
        from pathlib import Path
        from atoll.core.blobs import BlobStore, digest_of
        from atoll.core.errors import ResourceExhausted
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        OLD, BIG = b"old", bytes(range(256)) * 8192
        home = Path(sys.argv[1])
        def raises(act):
            try:
                act()
            except ResourceExhausted as error:
                print(error)
            else:
                raise SystemExit("it should not have fitted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(before) + textwrap.dedent(code), tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_replaced_file_stays_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    said = in_a_full_disk(
        """
        from atoll.core.files import write_bytes
        raises(lambda: write_bytes(home / "file", BIG))
        """,
        tmp_path,
    )
    assert f"cannot write {tmp_path}/file: File too large" in said
    assert "what was there before is unchanged" in said
    assert (tmp_path / "file").read_bytes() == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("put", ["put_bytes(BIG)", "put_file(home / 'big')"])
def test_a_blob_that_does_not_fit_is_absent_and_others_stay(tmp_path: Path, put: str) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    old = store.put_bytes(OLD)
    (tmp_path / "big").write_bytes(BIG)
    in_a_full_disk(f"raises(lambda: BlobStore(str(home / 'blobs')).{put})", tmp_path)
    assert list(store.digests()) == [old.digest]
    assert store.read(old.digest) == OLD
    assert [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()] == [Path(store.path_of(old.digest))]
    assert store.read(store.put_bytes(BIG).digest) == BIG


def test_a_download_that_does_not_fit_goes_on_once_there_is_space(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    blob = store.put_bytes(BIG)
    (tmp_path / "target").write_bytes(OLD)
    in_a_full_disk("raises(lambda: BlobStore(str(home / 'blobs')).fetch(digest_of(BIG), home / 'target'))", tmp_path)
    assert (tmp_path / "target").read_bytes() == OLD
    assert 0 < (tmp_path / "target.part").stat().st_size < len(BIG)
    assert store.fetch(blob.digest, tmp_path / "target").read_bytes() == BIG


def test_an_upload_that_does_not_fit_goes_on_once_there_is_space(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    upload = store.upload()
    upload.append(0, BIG[:1000])
    in_a_full_disk(
        f"raises(lambda: BlobStore(str(home / 'blobs')).upload({upload.id!r}).append(1000, BIG[1000:]))", tmp_path
    )
    assert upload.size_bytes == 1000
    upload.append(1000, BIG[1000:])
    in_a_full_disk(
        f"raises(lambda: BlobStore(str(home / 'blobs')).upload({upload.id!r}).commit(digest_of(BIG)))", tmp_path
    )
    assert not store.exists(digest_of(BIG))
    assert store.read(upload.commit(digest_of(BIG)).digest) == BIG


def test_a_database_on_a_full_disk_keeps_what_it_has_and_goes_on_once_there_is_space(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from atoll.core.database import Database
        from atoll.core.errors import ResourceExhausted
        from atoll.core.store import Create, Store
        home = Path(sys.argv[1])
        ballast = home / "ballast"
        ballast.write_bytes(bytes(200_000))
        database = Database(f"sqlite:///{home}/atoll.db")
        database.migrate()
        scope = Store(database).scope("red")
        count = 0
        try:
            while count < 1000:
                scope.write([Create("Thing", "red", f"t{count}", {"text": "x" * 4000})])
                count += 1
        except ResourceExhausted as error:
            print(error)
        assert 0 < count < 1000, count
        assert len(scope.find_all("Thing")) == count
        assert [c.seq for c in scope.changes(0)] == list(range(1, count + 1))
        ballast.unlink()
        scope.write([Create("Thing", "red", "last", {})])
        assert len(scope.find_all("Thing")) == count + 1
    """
    mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount no small disk (unshare, tmpfs)")
    command = [*inside, sys.executable, "-c", textwrap.dedent(code), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cannot grow" in done.stdout
