"""Packages and hubs as sources of a curation: read as the engine reads them, recorded as what they stood for."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore, digest_of_file
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.data.engine.curate.alone import curate_alone
from atoll.data.engine.curate.elsewhere import obtained
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.curate.run import curate
from atoll.data.manifest import Manifest, open_split, read_manifest
from atoll.data.recipes import parse_recipe

COMMIT, LATER = "c" * 40, "d" * 40
RECIPE: dict[str, Any] = {"min_characters": 20, "rule_sets": [], "questions": {"enabled": False}}
PACKAGE = {"kind": "package", "reference": "pypi:tiny-corpus==1.0"}


def text(name: str) -> bytes:
    return " ".join(f"{name} says word number {n} of {name}{n}." for n in range(12)).encode()


def write_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_corpus-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nLicense-Expression: CC-BY-4.0\n"
    own = {"METADATA": about, "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n", "RECORD": "", "licence.txt": "a" * 99}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, content in own.items():
            archive.writestr(f"tiny_corpus-1.0.dist-info/{name}", content)
    return path


def write_sdist(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_corpus-1.0.tar.gz"
    about = b"Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nLicense: MIT\n"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {"PKG-INFO": about, "setup.py": b"raise SystemExit('never run')", **members}.items():
            info = tarfile.TarInfo(f"tiny_corpus-1.0/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder pip looks into."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    return tmp_path / "links"


def run(tmp_path: Path, *sources: dict[str, Any], **recipe: Any) -> Manifest:
    store = BlobStore(str(tmp_path / "blobs"))
    result = curate({"sources": list(sources), "recipe": {**RECIPE, **recipe}}, store, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    return read_manifest(store, result["manifest"])


def ids(tmp_path: Path, made: Manifest) -> list[str]:
    store = BlobStore(str(tmp_path / "blobs"))
    return sorted(row["id"] for side in ("train", "heldout") for row in open_split(store, made, side))


def test_the_files_of_a_wheel_are_documents_and_its_licence_is_the_datasets(tmp_path: Path, links: Path) -> None:
    members = {"tiny/a.md": text("alpha"), "tiny/sub/b.md": text("beta"), "tiny/c.txt": text("gamma")}
    wheel = write_wheel(links, members | {"tiny/__init__.py": b"raise SystemExit('never run')"})
    made = run(tmp_path, PACKAGE)
    assert ids(tmp_path, made) == ["a.md", "c.txt", "sub/b.md"] and made.licence == "CC-BY-4.0"
    told = {"kind": "package", "name": "s0", "reference": "pypi:tiny-corpus==1.0", "resolved": wheel.name}
    assert made.sources == [{**told, "sha256": digest_of_file(wheel), "licence": "CC-BY-4.0"}]
    some = run(tmp_path, {**PACKAGE, "patterns": ["*.MD"], "licence": "MIT"})
    assert ids(tmp_path, some) == ["a.md", "sub/b.md"] and some.licence == "MIT"
    assert run(tmp_path, PACKAGE) == made


def test_a_source_distribution_is_read_and_never_built(tmp_path: Path, links: Path) -> None:
    write_sdist(links, {"docs/a.md": text("alpha"), "tiny.egg-info/SOURCES.txt": text("sources")})
    made = run(tmp_path, PACKAGE)
    assert ids(tmp_path, made) == ["a.md"] and made.licence == "MIT"
    assert made.sources[0]["resolved"] == "tiny_corpus-1.0.tar.gz"


def test_a_package_mixes_with_folders_under_its_own_name(tmp_path: Path, links: Path) -> None:
    write_wheel(links, {"tiny/a.md": text("alpha")})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_bytes(text("beta"))
    made = run(tmp_path, {**PACKAGE, "name": "corpus"}, {"kind": "folder", "path": str(tmp_path / "docs")})
    assert ids(tmp_path, made) == ["corpus/a.md", "s1/a.md"] and made.licence == "CC-BY-4.0 AND unknown"


def test_a_package_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, links: Path) -> None:
    write_wheel(links, {"tiny/a.md": text("alpha")})
    with pytest.raises(Invalid, match=r"holds 0 files like \*\.jsonl") as caught:
        run(tmp_path, {**PACKAGE, "patterns": ["*.jsonl"]})
    assert caught.value.field == "sources[0].patterns" and "tiny/a.md" in caught.value.hint
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(NotFound, match="no wheel"):
        run(tmp_path, {"kind": "package", "reference": "pypi:tiny-corpus==2.0"})


def test_a_package_a_folder_that_is_an_index_does_not_have_is_refused(
    tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    with pytest.raises(NotFound, match="tiny-corpus"):
        run(tmp_path, PACKAGE)


def test_other_bytes_of_one_version_are_another_place(tmp_path: Path, links: Path) -> None:
    def places(folder: str, patterns: tuple[str, ...] = ("*.md",)) -> dict[str, str]:
        source = Source("package", reference=PACKAGE["reference"])
        files = obtained(source, tmp_path / folder, patterns, "sources[0]", lambda *args, **more: None)[1]
        return {name: str(Path(path).relative_to(tmp_path / folder)) for name, path in files}

    write_wheel(links, {"tiny/a.md": text("alpha"), "tiny/b.md": text("beta")})
    first = places("one")
    assert places("one") == first == places("two"), "asked twice, and elsewhere"
    assert places("one", ("a.md",)).items().isdisjoint(first.items())
    write_wheel(links, {"tiny/a.md": text("alpha"), "tiny/b.md": text("gamma")})
    assert places("three").items().isdisjoint(first.items())
    assert not list(tmp_path.glob("*/.s0"))


def test_a_package_on_the_command_line_is_asked_for_once(tmp_path: Path, links: Path) -> None:
    wheel = write_wheel(links, {"tiny/a.md": text("alpha"), "tiny/b.md": text("beta") * 3})
    recipe = parse_recipe(RECIPE)
    made, _ = curate_alone(["pypi:tiny-corpus==1.0"], recipe, tmp_path / "out")
    wheel.unlink()
    stricter = recipe.model_copy(update={"min_characters": 600})
    again, _ = curate_alone(["pypi:tiny-corpus==1.0"], stricter, tmp_path / "out")
    assert made.counts["documents_out"] == 2 and again.counts["documents_out"] == 1
    assert again.sources == made.sources


class _Hub(BaseHTTPRequestHandler):
    """The routes of a dataset's repository the hub's client asks; `promised` are checksums it announces."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    commit = COMMIT
    promised: dict[str, str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith(f"/tree/{self.commit}"):
            return self._send(200, json.dumps([self._about(n, "path") | {"type": "file"} for n in self.files]).encode())
        if path.startswith("/api/datasets/me/texts"):
            siblings = [self._about(name, "rfilename") for name in self.files]
            card = {"license": "cc-by-sa-4.0"}
            told = {"id": "me/texts", "sha": self.commit, "siblings": siblings, "cardData": card, "tags": []}
            return self._send(200, json.dumps(told).encode())
        data = self.files.get(path.removeprefix(f"/datasets/me/texts/resolve/{self.commit}/"))
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        etag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit}
        self._send(200, data, etag | {"X-Linked-Size": str(len(data))})

    def _about(self, name: str, called: str) -> dict[str, Any]:
        size = len(self.files[name])
        sha256 = self.promised.get(name)
        more = {"lfs": {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 100}} if sha256 else {}
        return {called: name, "size": size, "blobId": "b" * 40, "oid": "b" * 40, **more}

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kept = {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    rows = [{"id": f"r{n}", "text": text(f"row{n}").decode()} for n in range(3)]
    files = {
        "data/train.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        "data/notes.md": text("notes"),
        "train.py": b"exit(1)",
    }
    handler = type("Handler", (_Hub,), {"files": files, "promised": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hubs_dataset_is_read_at_the_commit_it_stood_for(tmp_path: Path, hub: type[_Hub]) -> None:
    source = {"kind": "hub", "reference": "hf:me/texts", "patterns": ["*.jsonl"]}
    made = run(tmp_path, source)
    assert ids(tmp_path, made) == ["r0", "r1", "r2"] and made.licence == "cc-by-sa-4.0"
    assert made.sources[0]["resolved"] == f"hf:me/texts@{COMMIT}" and made.sources[0]["reference"] == "hf:me/texts"
    hub.commit = LATER
    hub.files["data/train.jsonl"] += json.dumps({"id": "r3", "text": text("row3").decode()}).encode() + b"\n"
    later = run(tmp_path, source)
    assert ids(tmp_path, later) == ["r0", "r1", "r2", "r3"]
    assert later.sources[0]["resolved"] == f"hf:me/texts@{LATER}"


def test_bytes_that_are_not_those_the_hub_publishes_are_refused(tmp_path: Path, hub: type[_Hub]) -> None:
    hub.promised["data/notes.md"] = "0" * 64
    with pytest.raises(IntegrityError, match=r"notes\.md: expected sha256 000"):
        run(tmp_path, {"kind": "hub", "reference": "hf:me/texts"})
    with pytest.raises(NotFound, match="has no hf:me/none"):
        run(tmp_path, {"kind": "hub", "reference": "hf:me/none"})
