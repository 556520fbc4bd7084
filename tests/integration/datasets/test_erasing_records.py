"""An erasure reaches what lies in tables: labels, conversations, responses, events, records of runs. No byte stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll.core.store import Create, Note, SetSpec
from atoll.data.labelling.erasing import LabelRecords
from atoll.data.records import began, go_on
from atoll.data.sought import Sought
from atoll.server.openai.history import History, Stored
from running import files_of, until
from small_datasets import document

from .conftest import Library

MARK = 'zQ7.Ürsula-"Vex"@example.org'
FIELDS = [{"name": "tone", "type": "text"}, {"name": "kind", "type": "class", "options": ["a", "b"]}]


def ask(library: Library, method: str, path: str, body: Any = None, project: str = "default") -> Any:
    headers = {"Authorization": f"Bearer {library.admin}"}
    answer = library.web.request(method, f"/api/v1/projects/{project}{path}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def task(library: Library, name: str, items: list[dict[str, Any]], project: str = "default", **spec: Any) -> str:
    ask(library, "PUT", f"/labeltasks/{name}", {"spec": {"fields": FIELDS, **spec}}, project)
    ask(library, "POST", f"/labels/{name}/items", {"items": items}, project)
    return str(library.scope.get("LabelTask", name, project).uid)


def keys_of(library: Library, name: str, project: str = "default") -> list[str]:
    return [row["id"] for row in ask(library, "GET", f"/labels/{name}/rows", project=project)["rows"]]


def history(library: Library, project: str = "default") -> History:
    return History(library.centre.database, library.centre.clock, project)


def say(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def response(name: str, text: str) -> Stored:
    call = {"type": "function_call", "call_id": "c", "name": "mail", "arguments": json.dumps({"to": text})}
    return Stored(name, None, None, 0, [say("who?")], [call], {"id": name, "output": [call]})


def forms(text: str) -> list[bytes]:
    """The bytes a text may stand as, in lower case: plain, in JSON, in JSON in JSON."""
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    found = (text, once, json.dumps(once, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
    return [form.encode().lower() for form in found]


def files_with(library: Library, text: str) -> list[Path]:
    """Files of the home whose bytes hold the text."""
    found = ((path, data.lower()) for path, data in files_of(library.folder) if path.suffix != ".parquet")
    return [path for path, data in found if any(form in data for form in forms(text))]


def plant(library: Library) -> None:
    """The mark in every place that keeps texts of people, beside what stays."""
    library.add("letters", {"train": [[document("a", f"from {MARK}"), document("b", "stays")]]})
    form = {"file": ("mail.txt", f"to {MARK}".encode())}
    headers = {"Authorization": f"Bearer {library.admin}"}
    sent = library.web.post("/v1/files", files=form, data={"purpose": "user_data"}, headers=headers)
    assert sent.status_code == 200
    items = [{"key": str(n), "text": f"text {n}"} for n in range(4)] + [{"key": "hers", "text": f"by {MARK.upper()}"}]
    items += [{"key": "meant", "text": "t", "meta": {"who": {"mail": [MARK]}}}]
    items += [{"key": "guessed", "text": "t", "prelabel": {"model": "m", "values": {"tone": MARK, "kind": "a"}}}]
    task(library, "tone", items)
    for handed in ask(library, "POST", "/labels/tone/next", {"count": 3})["items"]:
        said = {"values": {"tone": "fine", "kind": "a"}, "comment": f"ask {MARK}" if handed["item"] == "1" else ""}
        ask(library, "POST", "/labels/tone/answers", {"item": handed["item"], **said})
    talk = history(library).create([say("hello"), say(f"I am {MARK}"), say("bye")], {"about": "weather"})
    noted = history(library).create([say("x")], {"user": MARK})
    assert talk.id != noted.id
    history(library).store(response("resp_hers", MARK), "k")
    history(library).store(response("resp_other", "bob"), "k")
    funnel = [{"rule": "short", "dropped": 1, "samples": [f"a: {MARK}"]}]
    for kind, status in (
        ("CurationRun", {"phase": "succeeded", "funnel": funnel}),
        ("DatasetImport", {"phase": "failed", "errors": [{"line": 1, "message": f"is not {MARK}"}]}),
    ):
        spec = {"dataset": "letters", "sources": [], "train": ""} | {"observed": 1}
        status |= {"observed_generation": 1}
        library.scope.write([Create(kind, "default", "quoting", spec, status)])
    dataset = library.scope.get("Dataset", "letters", "default")
    library.scope.write([Note(dataset, "Failed", f"the last line was {MARK}"), Note(dataset, "Fine", "nothing")])


@pytest.fixture
def others(library: Library) -> None:
    """The same in another project, which is none of this one's business."""
    task(library, "tone", [{"key": "hers", "text": "by somebody@example.org"}], "other")


def test_no_byte_of_what_was_erased_is_left(library: Library, clerk: None, tmp_path: Path) -> None:
    plant(library)
    assert files_with(library, MARK), "the test would see it"
    paper = tmp_path / "paper.json"
    said = library.command("erase", "--text", MARK, "--certificate", str(paper), "--yes")
    told = json.loads(paper.read_bytes())
    counts = {"label items": 4, "conversation items": 1, "notes of conversations": 1, "stored responses": 1}
    assert told["records_removed"] == counts | {"events": told["records_removed"]["events"]}
    assert told["records_removed"]["events"] >= 1 and told["scope"]["records"]["label items"] == 7
    assert told["runs_removed"] == ["CurationRun/quoting", "DatasetImport/quoting"]
    assert told["named_elsewhere"] == [] and len(told["files_removed"]) == 1
    assert "label items  4 of 7 removed" in said and "CurationRun/quoting removed" in said
    assert keys_of(library, "tone") == ["0", "2", "3"]
    status = ask(library, "GET", "/labels/tone/status")["counts"]
    assert (status["items"], status["answers"], status["prelabelled"]) == (3, 2, 0)
    assert sorted(status[name] for name in ("open", "taken", "decided", "disputed", "final")) == [0, 0, 0, 1, 2]
    (name,) = told["versions"]
    assert name["removed"] == {"train": 1}
    erasure = told["erasure"]
    until(lambda: library.scope.get("Erasure", erasure, "default").status["stage"] == "forgotten", "the end")
    until(lambda: library.scope.find("CurationRun", "quoting", "default") is None, "the run to be gone")
    until(library.centre.database.scrub, "the log to be written back")
    assert files_with(library, MARK) == []


def test_what_others_have_and_what_people_wrote_themselves_stays(
    library: Library, clerk: None, others: None, tmp_path: Path
) -> None:
    who = "somebody@example.org"
    task(library, "asked", [{"key": "x", "text": f"by {who}"}], instructions=f"is it about {who}?")
    paper = tmp_path / "paper.json"
    said = library.command("erase", "--text", who, "--certificate", str(paper), "--yes")
    assert json.loads(paper.read_bytes())["named_elsewhere"] == ["LabelTask/asked"]
    assert "LabelTask/asked still says it: change it by hand" in said
    assert keys_of(library, "asked") == [] and keys_of(library, "tone", "other") == ["hers"]


@pytest.mark.parametrize(
    ("match", "left"),
    [
        ({"documents": ["doc-1"]}, ["free", "site", "part"]),
        ({"sources": ["https://a.example/*"]}, ["doc-1", "free", "part"]),
        ({"sources": ["https://a.example/1"]}, ["doc-1", "free", "part"]),
        ({"files": ["file-1"]}, []),
        ({"files": ["file-2"]}, ["doc-1", "free", "site", "part"]),
        ({"texts": ["QUARTZ"]}, ["doc-1", "site", "part"]),
        ({"gone": {"web": ["doc-9"]}}, ["doc-1", "free", "site", "part"]),
    ],
)
def test_items_are_matched_as_rows_are(library: Library, match: dict[str, Any], left: list[str]) -> None:
    name = f"matched-{abs(hash(str(match)))}"
    items = [
        {"key": "doc-1", "text": "t"},
        {"key": "free", "text": "a quartz"},
        {"key": "site", "text": "t", "meta": {"source": "s0:https://a.example/1"}},
        {"key": "part", "text": "t", "meta": {"document": "doc-9"}},
    ]
    task(library, name, items)
    found = library.scope.get("LabelTask", name, "default")
    library.scope.write([SetSpec(found, found.spec | {"source": {"file": "file-1", "dataset": "", "columns": {}}})])
    wanted = {kind: match.get(kind, []) for kind in ("texts", "documents", "sources", "files")}
    sought = Sought.of(wanted, match.get("gone"))
    records = [LabelRecords(library.centre.store, library.centre.database, library.centre.clock)]
    state = began()
    while state["place"] < len(records):
        go_on(state, records, "default", sought)  # as if it was killed before what it did was noted
        state = go_on(state, records, "default", sought)
    assert keys_of(library, name) == left
    assert state["removed"]["label items"] == len(items) - len(left)
    ask(library, "DELETE", f"/labeltasks/{name}")
    until(lambda: library.scope.find("LabelTask", name, "default") is None, "the task to be gone")
