"""Records are gone through and removed alike on both databases, however often a step is repeated."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.store import Create, Note, Store
from atoll.data.labelling.erasing import LabelRecords
from atoll.data.labelling.resources import LABEL_TASK, terms_of
from atoll.data.labelling.schema import Item
from atoll.data.labelling.store import Labels
from atoll.data.quotes import quotes_in
from atoll.data.records import Events, Records, began, go_on
from atoll.data.resources import DATASET
from atoll.data.sought import Sought
from atoll.server.openai.erasing import ConversationRecords, ItemRecords, ResponseRecords
from atoll.server.openai.history import History, Stored

MARK = 'Ödön "X" <x@example.org>'
MATCH: dict[str, list[str]] = {"texts": [MARK], "documents": [], "sources": [], "files": []}
COUNT = 7


def said(number: int, text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": f"{number} {text}"}


def fill(store: Store, database: Database, clock: VirtualClock, project: str) -> None:
    scope = store.everything("test")
    spec = LABEL_TASK.parse_spec({"fields": [{"name": "tone", "type": "text"}]})
    scope.write([Create("LabelTask", project, name, spec) for name in ("one", "two")])
    scope.write([Create("Dataset", project, "d", DATASET.parse_spec({}))])
    for name in ("one", "two"):
        items = [Item(key=f"k{n}", text=MARK.upper() if n % 2 else "fine") for n in range(COUNT)]
        Labels(database, clock, project).append(scope.get("LabelTask", name, project).uid, terms_of(spec), items)
    history = History(database, clock, project)
    history.create([said(n, MARK if n % 2 else "fine") for n in range(COUNT)], {"who": MARK})
    for n in range(COUNT):
        text = MARK if n % 2 else "fine"
        history.store(Stored(f"resp_{n}", None, None, 0, [said(n, "?")], [said(n, text)], {"id": n}), "k")
    dataset = scope.get("Dataset", "d", project)
    scope.write([Note(dataset, "Said", f"{n} {MARK if n % 2 else 'fine'}") for n in range(COUNT)])


def gone_through(records: list[Records], sought: Sought) -> dict[str, Any]:
    state = began()
    while state["place"] < len(records):
        go_on(state, records, "red", sought)  # killed before what it did was kept
        state = go_on(state, records, "red", sought)
    return state


def test_what_is_meant_goes_and_all_else_stays(database: Database, clock: VirtualClock) -> None:
    store = Store(database, clock)
    for project in ("red", "blue"):
        fill(store, database, clock, project)
    records: list[Records] = [
        LabelRecords(store, database, clock),
        ItemRecords(database),
        ConversationRecords(database),
        ResponseRecords(database),
        Events(database),
    ]
    assert gone_through(records, Sought.of(MATCH | {"texts": ["nobody at all"]}))["removed"]["events"] == 0
    state = gone_through(records, Sought.of(MATCH))
    half = COUNT // 2
    assert state["removed"] == {
        **{"label items": 2 * half, "conversation items": half, "notes of conversations": 1},
        **{"stored responses": half, "events": half},
    }
    assert state["seen"]["label items"] == 2 * COUNT and state["seen"]["stored responses"] == COUNT
    again = gone_through(records, Sought.of(MATCH))
    assert not any(again["removed"].values()) and again["seen"]["stored responses"] == COUNT - half
    for kept in records:
        page = kept.look("blue", Sought.of(MATCH), "")
        assert page.doomed, f"{kept.name} of another project are none of its business"
    messages = [e.message for e in store.scope("red").events() if e.reason == "Said"]
    assert messages == [f"{n} fine" if n % 2 == 0 else "(erased)" for n in range(COUNT)]


@pytest.mark.parametrize("where", ["Workload", "Task"])
def test_the_record_of_a_run_that_ended_goes_and_words_of_people_are_named(
    database: Database, clock: VirtualClock, where: str
) -> None:
    store = Store(database, clock)
    scope = store.everything("test")
    role = {"command": ["x"]}
    tail = {"log_tail": [f"line of {MARK}"]}
    load = WORKLOAD.parse_spec({"roles": [role]})
    scope.write([Create("Workload", "red", "w", load, {"phase": "failed"} | (tail if where == "Workload" else {}))])
    workload = scope.get("Workload", "w", "red")
    fields = {"workload": "w", "workload_uid": workload.uid, "node": "n", "role": "r", "command": ["x"]}
    task = {**fields, "index": 0, "rank": 0, "world_size": 1, "epoch": 1}
    status = {"phase": "failed"} | (tail if where == "Task" else {})
    scope.write([Create("Task", "red", "t", task, status, owner=workload.uid)])
    scope.write([Create("Workload", "red", "living", load, {"phase": "running"} | tail)])
    scope.write([Create("Dataset", "red", "d", DATASET.parse_spec({"description": f"letters of {MARK}"}))])
    found = quotes_in(scope.within("red"), Sought.of(MATCH), "nobody")
    assert [r.name for r in found.records] == ["w"]
    assert found.others == ["Dataset/d", "Workload/living"]
    assert quotes_in(scope.within("red"), Sought.of(MATCH), workload.uid).records == []
