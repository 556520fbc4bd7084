"""Importing from a hub: a small local server speaks the few routes the real client needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import tiny_gguf
from task_folder import TaskFolder

COMMIT = "a" * 40


@dataclass
class Hub:
    """What the server holds: repository -> file -> bytes. Faults are switched on by the fields."""

    files: dict[str, dict[str, bytes]]
    licence: str = "apache-2.0"
    status: int = 200
    announced: dict[str, str] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    url: str = ""

    def info(self, repository: str) -> dict[str, Any]:
        siblings = [self._sibling(name, data) for name, data in self.files[repository].items()]
        card = {"license": self.licence}
        return {"id": repository, "sha": COMMIT, "siblings": siblings, "cardData": card, "tags": []}

    def tree(self, repository: str) -> list[dict[str, Any]]:
        siblings = self.info(repository)["siblings"]
        return [{"type": "file", "path": s["rfilename"], "size": s["size"], "oid": s["blobId"]} for s in siblings]

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        sha256 = self.announced.get(name, hashlib.sha256(data).hexdigest())
        is_large = name.endswith((".gguf", ".safetensors"))
        lfs = {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 100}} if is_large else {}
        return {"rfilename": name, "size": len(data), "blobId": "b" * 40, **lfs}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if self.hub.status != 200:
            return self._send(self.hub.status, b'{"error": "no"}')
        if path.startswith("/api/models/"):
            return self._send_info(path.removeprefix("/api/models/"))
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        data = self.hub.files.get(repository, {}).get(rest.partition("/")[2])
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.hub.downloads.append(rest.partition("/")[2])
        etag = hashlib.sha256(data).hexdigest()
        self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))})

    def _send_info(self, rest: str) -> None:
        repository, _, tail = rest.partition("/tree/")
        if tail == COMMIT:
            return self._send(200, json.dumps(self.hub.tree(repository)).encode())
        repository, _, tail = rest.partition("/revision/")
        if repository not in self.hub.files:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if tail and tail not in ("main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        self._send(200, json.dumps(self.hub.info(repository)).encode())

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model = tiny_gguf.write_model(tmp_path / "tiny.gguf").read_bytes()
    other = tiny_gguf.write_model(tmp_path / "other.gguf", seed=1).read_bytes()
    weights = save({"a": np.zeros((4, 8), np.float32)})
    config = json.dumps({"architectures": ["X"], "max_position_embeddings": 64}).encode()
    hub = Hub(
        {
            "me/one": {"tiny.gguf": model, "README.md": b"# one"},
            "me/many": {"a/tiny.gguf": model, "b/other.gguf": other},
            "me/folder": {"config.json": config, "model.safetensors": weights, "pytorch_model.bin": b"x"},
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def task(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path, "atoll.models.engine.fetch")


def _settings(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": ""}


def test_a_repository_is_imported_at_the_commit_it_stands_for(task: TaskFolder, hub: Hub) -> None:
    code, result = task.run({"source": "hf:me/one"}, **_settings(hub))
    assert code == 0, task.log
    assert [file["name"] for file in result["files"]] == ["tiny.gguf"]
    assert result["origin"]["resolved"] == f"hf:me/one@{COMMIT}"
    assert result["licence"] == "apache-2.0"
    assert hub.downloads == ["tiny.gguf"]
    code, again = task.run({"source": f"hf:me/one@{COMMIT}"}, **_settings(hub))
    assert (code, again["files"]) == (0, result["files"])
    assert hub.downloads == ["tiny.gguf"], "the second import must come from the cache"


def test_a_safetensors_repository_is_imported_without_its_pickles(task: TaskFolder, hub: Hub) -> None:
    code, result = task.run({"source": "hf:me/folder@main"}, **_settings(hub))
    assert code == 0, task.log
    assert [file["name"] for file in result["files"]] == ["config.json", "model.safetensors"]
    assert "pytorch_model.bin" not in hub.downloads


def test_one_of_several_models_is_chosen_before_anything_is_fetched(task: TaskFolder, hub: Hub) -> None:
    code, result = task.run({"source": "hf:me/many"}, **_settings(hub))
    assert code == 3 and "a/tiny.gguf" in result["error"]["hint"]
    assert hub.downloads == []
    code, result = task.run({"source": "hf:me/many", "files": ["other.gguf"]}, **_settings(hub))
    assert code == 0, task.log
    assert [file["name"] for file in result["files"]] == ["other.gguf"]


def test_bytes_that_differ_from_what_the_hub_announced_are_refused(task: TaskFolder, hub: Hub) -> None:
    hub.announced["tiny.gguf"] = "0" * 64
    code, result = task.run({"source": "hf:me/one"}, **_settings(hub))
    assert (code, result["error"]["code"]) == (3, "integrity")
    assert list(task.store.digests()) == []


@pytest.mark.parametrize("source", ["hf:me/absent", "hf:me/one@nowhere"])
def test_what_the_hub_does_not_have_is_a_permanent_failure(task: TaskFolder, hub: Hub, source: str) -> None:
    code, result = task.run({"source": source}, **_settings(hub))
    assert (code, result["error"]["code"]) == (3, "not_found")
    assert source in result["error"]["message"]


@pytest.mark.parametrize(("status", "code", "name"), [(401, 3, "forbidden"), (403, 3, "forbidden"), (503, 1, "")])
def test_the_answer_of_the_hub_decides_whether_to_try_again(
    task: TaskFolder, hub: Hub, status: int, code: int, name: str
) -> None:
    hub.status = status
    got, result = task.run({"source": "hf:me/one"}, **_settings(hub))
    assert got == code, task.log
    assert result.get("error", {}).get("code", "") == name


def test_a_hub_out_of_reach_is_worth_another_try(task: TaskFolder) -> None:
    code, result = task.run({"source": "hf:me/one"}, HF_ENDPOINT="http://127.0.0.1:9")
    assert (code, result) == (1, {}), task.log
    assert "cannot fetch hf:me/one" in task.log
