"""The errands of labelling: rows become items, models are asked, and a door that pushes back is asked again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, Conflict, Invalid, NotFound, ResourceExhausted, Unavailable
from atoll.data.engine.label.door import KEY_VARIABLE, Door, own_key
from atoll.data.engine.label.items import bring_in
from atoll.data.engine.label.prelabel import Prelabeller, messages, read_answer
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.labelling.intake import item_of
from atoll.data.labelling.schema import AnyField, answer_schema
from atoll.data.manifest import Manifest, write_manifest

SPECS: list[dict[str, Any]] = [{"name": "tone", "type": "class", "options": ["kind", "rude"], "description": "Of it."}]
FIELDS = TypeAdapter(list[AnyField]).validate_python(SPECS)


class Fake(ThreadingHTTPServer):
    """A door that answers from a list per path, the last one again and again, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: dict[str, list[tuple[int, Any]]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, end: str) -> list[Any]:
        return [body for path, body in self.asked if path.endswith(end)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, body: Any) -> None:
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.asked.append((path, body))
            wanted = self.server.answers[path.rpartition("/labels/t/")[2] or path]
            status, value = wanted.pop(0) if len(wanted) > 1 else wanted[0]
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def doors() -> Iterator[Any]:
    made: list[Fake] = []

    def open_one(**answers: list[tuple[int, Any]]) -> Fake:
        door = Fake({name.replace("__", "/"): found for name, found in answers.items()})
        threading.Thread(target=door.serve_forever, args=(0.01,), daemon=True).start()
        made.append(door)
        return door

    yield open_one
    for door in made:
        door.shutdown()
        door.server_close()


def wanted_of(door: Fake, **more: Any) -> dict[str, Any]:
    return {"door": door.url, "project": "default", "task": "t", "known_within_s": 60.0, **more}


def refusal(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": "", "details": {}}}


def test_a_door_that_is_busy_or_does_not_know_the_key_yet_is_asked_again(doors: Any) -> None:
    early = [(401, refusal("unauthorized", "who?")), (503, {}), (429, {}), (200, {"added": 1, "known": 0})]
    door = doors(items=early)
    own = Door(wanted_of(door), "sk")
    assert own.send("items", {"items": []}) == {"added": 1, "known": 0}
    assert len(door.asked) == 4
    own.close()


def test_what_the_door_refuses_for_good_is_raised_as_it_was_said(doors: Any) -> None:
    door = doors(items=[(409, refusal("conflict", "being deleted"))], next=[(400, {"error": {"message": "no"}})])
    own = Door(wanted_of(door), "sk")
    with pytest.raises(Conflict, match="being deleted"):
        own.send("items", {})
    with pytest.raises(Invalid, match="answered 400: no"):
        own.send("next", {})
    own.close()


def test_what_is_no_answer_is_raised_rather_than_taken_for_one(doors: Any) -> None:
    own = Door(wanted_of(doors(items=[(200, ["no", "object"])])), "sk")
    with pytest.raises(Invalid, match="not a JSON object"):
        own.send("items", {})
    own.close()


def test_a_key_that_stays_refused_is_refused(doors: Any) -> None:
    own = Door(wanted_of(doors(items=[(401, refusal("unauthorized", "who?"))])), "sk", known_within_s=0.0)
    with pytest.raises(Exception, match=r"who\?"):
        own.send("items", {})
    own.close()


def test_an_errand_without_its_key_waits_for_better_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-1")
    assert own_key() == "sk-1"
    with pytest.raises(Unavailable):
        own_key()


def test_a_row_is_an_item_with_everything_else_beside_it() -> None:
    row = {"id": 7, "text": "t", "year": 1999, "meta": {"more": 1}, "empty": None}
    assert item_of(row, {}, "row 1") == {"key": "7", "text": "t", "meta": {"year": 1999, "more": 1}}
    renamed = item_of(
        {"no": "k", "chosen": "x", "rejected": "y"}, {"key": "no", "a": "chosen", "b": "rejected"}, "row 1"
    )
    assert renamed == {"key": "k", "a": "x", "b": "y", "meta": {}}


def test_columns_that_only_share_a_name_with_what_an_item_may_say_are_kept_as_they_are() -> None:
    pair = {"id": "d#1", "question": "Why?", "answer": "Because.", "priority": "high", "prelabel": "", "meta": "m"}
    rest = {"priority": "high", "prelabel": "", "meta": "m"}
    asked = item_of(pair, {"prompt": "question", "text": "answer"}, "row 1")
    assert asked == {"key": "d#1", "prompt": "Why?", "text": "Because.", "meta": rest}
    assert item_of(pair, {}, "row 1")["meta"] == rest | {"question": "Why?", "answer": "Because."}
    said = {"by": "u1", "values": {"tone": "kind"}}
    assert item_of({"key": "k", "text": "t", "answer": said, "priority": 3}, {}, "row 1") == {
        **{"key": "k", "text": "t", "priority": 3, "answer": said, "meta": {}}
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "t"}, "row 3 has no 'id'"),
        ({"id": None, "text": "t"}, "row 3 has no 'id'"),
        ({"id": "", "text": "t"}, "row 3 has '' as 'id'"),
        ({"id": [1]}, r"row 3 has \[1\] as 'id'"),
        ({"key": True}, "row 3 has True as 'key'"),
        ({"id": "k" * 201, "text": "t"}, "row 3: key: "),
        ({"id": "k", "text": "t", "prelabel": {"model": "m"}}, "row 3: prelabel.values: "),
    ],
)
def test_a_row_that_is_no_item_is_refused_by_number(row: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        item_of(row, {}, "row 3")


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    return tmp_path


def test_items_come_from_a_split_up_to_a_limit(doors: Any, at_home: Path) -> None:
    store = BlobStore((at_home / "blobs").as_uri())
    columns = {"id": "string", "text": "string"}
    writer = SplitWriter(store, at_home, columns)
    for n in range(9):
        writer.add({"id": str(n), "text": f"t{n}"})
    manifest = Manifest({"train": writer.close()}, {}, [], {}, "MIT", [], schema={"train": columns})
    door = doors(items=[(200, {"added": 5, "known": 2})])
    source = {"manifest": write_manifest(store, manifest), "file": "", "split": "train", "columns": {}, "limit": 7}
    own = Door(wanted_of(door), "sk")
    assert bring_in(wanted_of(door, **source), store, own) == {"counts": {"added": 5, "known": 2}}
    assert [item["key"] for item in door.bodies("items")[0]["items"]] == [str(n) for n in range(7)]
    own.close()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no item"),
        (b'{"id": 1}\n[2]\n', "line 2 is not a JSON object"),
        (b"{", "line 1"),
        (b'\n{"text": "t"}\n', "line 2 has no 'id'"),
    ],
)
def test_a_file_that_holds_no_items_is_refused(data: bytes, said: str, doors: Any, at_home: Path) -> None:
    store = BlobStore((at_home / "blobs").as_uri())
    door = doors(items=[(200, {"added": 1, "known": 0})])
    source = {"manifest": "", "file": store.put_bytes(data).digest, "split": "", "columns": {}, "limit": None}
    own = Door(wanted_of(door), "sk")
    with pytest.raises(Invalid, match=said):
        bring_in(wanted_of(door, **source), store, own)
    own.close()


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"k{number}", "item": {"text": f"t{number}"}, "state": "open", "prelabel_by": "", **more}


def said(content: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"content": content if isinstance(content, str) else json.dumps(content)}}]}


def prelabeller(door: Fake, **more: Any) -> Prelabeller:
    about = {"model": "m", "version": "m.v1", "again": False, "parallel": 2, "instructions": "Judge.", **more}
    return Prelabeller(wanted_of(door, fields=SPECS, schema=answer_schema(FIELDS), **about), "sk")


def test_a_model_is_asked_once_about_each_item_that_needs_it(doors: Any, at_home: Path) -> None:
    page = {"rows": [row(0), row(1, prelabel_by="m@m.v1"), row(2, state="final"), row(3)], "after": None}
    answers = [said({"tone": "kind"})]
    paths = {"/v1/chat/completions": answers, "/v1/models/m": [(200, {})]}
    door = doors(rows=[(200, page)], prelabels=[(200, {})], **paths)
    own = prelabeller(door)
    assert own.run()["counts"] == {"labelled": 2, "failed": 0, "passed_over": 2}
    own.close()
    order = door.bodies("completions")[0]
    assert order["response_format"]["json_schema"]["schema"]["properties"]["tone"]["enum"] == ["kind", "rude"]
    assert [label["item"] for label in door.bodies("prelabels")[0]["labels"]] == ["k0", "k3"]


def test_answers_that_do_not_fit_are_named_and_a_model_that_never_fits_ends_it(doors: Any, at_home: Path) -> None:
    page = {"rows": [row(0), row(1)], "after": None}
    paths = {"/v1/models/m": [(200, {})]}
    mixed = doors(
        rows=[(200, page)],
        prelabels=[(200, {})],
        **paths,
        **{"/v1/chat/completions": [said("nonsense"), said({"tone": "kind"})]},
    )
    own = prelabeller(mixed)
    found = own.run()
    own.close()
    assert (found["counts"]["labelled"], found["counts"]["failed"]) == (1, 1)
    assert "not JSON" in found["errors"][0]["message"]
    never = doors(rows=[(200, page)], **paths, **{"/v1/chat/completions": [said({"tone": "loud"})]})
    own = prelabeller(never)
    with pytest.raises(Invalid, match="no answer of 'm' fits"):
        own.run()
    own.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(429, "insufficient_quota", ResourceExhausted), (404, "model_not_found", NotFound)]
)
def test_a_budget_or_a_model_that_ends_ends_it_with_what_was_said_written(
    status: int, code: str, kind: type[AtollError], doors: Any, at_home: Path
) -> None:
    pages = [{"rows": [row(n) for n in range(start, start + 4)], "after": start or 1} for start in (0, 4)]
    over = (status, {"error": {"code": code, "message": "no more of it"}})
    answers = [said({"tone": "kind"}), (503, {"error": {"message": "busy"}}), said({"tone": "kind"}), over]
    paths = {"/v1/chat/completions": answers, "/v1/models/m": [(200, {})]}
    door = doors(rows=[(200, page) for page in pages], prelabels=[(200, {})], **paths)
    own = prelabeller(door, parallel=1)
    with pytest.raises(kind, match="no more of it"):
        own.run()
    own.close()
    assert [label["item"] for label in door.bodies("prelabels")[0]["labels"]] == ["k0", "k1"]
    assert own.counts == {"labelled": 2, "failed": 0, "passed_over": 0}
    assert len(door.bodies("completions")) == 4
    assert len(door.bodies("rows")) == 1


def test_what_an_errand_waits_for_is_told(doors: Any) -> None:
    told: list[str] = []
    own = Door(wanted_of(doors(items=[(503, {"error": {"message": "busy"}}), (200, {})])), "sk", waits=told.append)
    own.send("items", {})
    own.close()
    assert told == ["503: busy"]


def test_a_model_reads_instructions_fields_and_the_texts() -> None:
    system, user = messages(FIELDS, "Judge.", {"text": "Hello", "meta": {"hidden": 1}})
    assert system["content"].startswith("Judge.")
    assert "- tone: one of kind, rude. Of it." in system["content"]
    assert user["content"] == "text:\nHello"


@pytest.mark.parametrize("answer", [{}, {"choices": []}, said("[1]")[1], said("null")[1], said({"tone": None})[1]])
def test_an_answer_without_values_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read_answer(FIELDS, answer, "t")
