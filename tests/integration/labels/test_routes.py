"""Labelling through the API: who may, what is refused, what comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import TONE, Desk, items

People = dict[str, str]


def next_of(desk: Desk, task: str, key: str, count: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = desk.verb("POST", task, "next", {"count": count}, key=key)["items"]
    return found


def say(desk: Desk, task: str, key: str, item: str, tone: str = "kind", code: int = 200) -> Any:
    return desk.verb("POST", task, "answers", {"item": item, "values": {"tone": tone}}, key=key, code=code)


def test_a_task_is_labelled_from_items_to_export(desk: Desk, people: People) -> None:
    desk.task("whole", labels_per_item=2, instructions="Judge the tone.")
    assert desk.fill("whole", 2) == {"added": 2, "known": 0}
    assert desk.fill("whole", 3) == {"added": 1, "known": 2}
    ask = desk.verb("POST", "whole", "next", {"count": 3}, key=people["ada"])
    assert ask["instructions"] == "Judge the tone."
    assert [item["text"] for item in ask["items"]] == ["text 0", "text 1", "text 2"]
    for name, tones in (("ada", ("kind", "rude", "kind")), ("bob", ("kind", "kind", "kind"))):
        for number, tone in enumerate(tones):
            say(desk, "whole", people[name], f"k00{number}", tone)
    assert next_of(desk, "whole", people["bob"]) == []
    status = desk.verb("GET", "whole", "status")
    assert {n: c for n, c in status["counts"].items() if c} == {
        "items": 3,
        "decided": 2,
        "disputed": 1,
        "answers": 6,
        "labellers": 2,
    }
    assert [(p["labeller"], p["name"], p["answers"]) for p in status["labellers"]] == [
        ("L1", "user:ada", 3),
        ("L2", "user:bob", 3),
    ]
    figures = desk.verb("GET", "whole", "agreement")
    assert figures["fields"][0]["percent"] == pytest.approx(2 / 3)
    assert figures["pairs"] == [
        {"field": "tone", "first": "L1", "second": "L2", "pairs": 3, "percent": pytest.approx(2 / 3), "kappa": 0.0}
    ]
    disputes = desk.verb("GET", "whole", "disputes", key=people["cy"])["rows"]
    assert [row["id"] for row in disputes] == ["k001"]
    assert [a["values"]["tone"] for a in disputes[0]["answers"]] == ["rude", "kind"]
    decision = {"item": "k001", "values": {"tone": "neither"}, "comment": "irony"}
    desk.verb("POST", "whole", "adjudicate", decision, key=people["cy"])
    lines = [json.loads(line) for line in desk.verb("GET", "whole", "export?decided_only=true").splitlines()]
    assert [(row["id"], row["final"]["tone"], row["decided_by"]) for row in lines] == [
        ("k000", "kind", "answers"),
        ("k001", "neither", "adjudicator"),
        ("k002", "kind", "answers"),
    ]
    assert {a["labeller"] for row in lines for a in row["answers"]} == {"L1", "L2"}
    assert "ada" not in json.dumps(lines)


def test_answers_are_refused_by_field_with_a_way_out(desk: Desk, people: People) -> None:
    desk.task("strict")
    desk.fill("strict", 1)
    error = say(desk, "strict", people["ada"], "k000", "loud", code=400)["error"]
    assert error["message"] == "field 'tone' cannot be 'loud'"
    assert error["hint"] == "one of kind, rude, neither"
    assert error["details"]["field"] == "values.tone"
    assert say(desk, "strict", people["ada"], "nope", code=404)["error"]["hint"]
    body = {"item": "k000", "values": {"tone": "\ud800"}}
    content = json.dumps(body)
    answer = desk.client.post(
        "/projects/red/labels/strict/answers",
        content=content,
        headers={"Authorization": f"Bearer {people['ada']}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 400


def test_a_task_for_some_is_not_for_others(desk: Desk, people: People) -> None:
    desk.task("private", labellers=["ada"], adjudicators=["bob"])
    desk.fill("private", 1)
    assert next_of(desk, "private", people["ada"])
    refused = desk.verb("POST", "private", "next", {}, key=people["bob"], code=403)["error"]
    assert "is no labeller of 'private'" in refused["message"]
    assert refused["hint"] == "spec.labellers of the task names them"
    desk.verb("GET", "private", "disputes", key=people["bob"])
    refused = desk.verb("GET", "private", "disputes", key=people["ada"], code=403)["error"]
    assert "is no adjudicator" in refused["message"]


def test_only_owners_name_adjudicators(desk: Desk, people: People) -> None:
    desk.task("member-made", key=people["ada"])
    assert desk.task("member-judged", key=people["ada"], adjudicators=["ada"], code=403)["error"]["hint"]
    desk.task("owner-judged", key=people["cy"], adjudicators=["ada"])


def test_a_viewer_reads_and_a_stranger_sees_nothing(desk: Desk) -> None:
    desk.task("seen")
    desk.fill("seen", 1)
    viewer, stranger = desk.key(role="viewer"), desk.key("blue", role="owner")
    for verb in ("status", "agreement", "rows", "export"):
        desk.verb("GET", "seen", verb, key=viewer)
        desk.verb("GET", "seen", verb, key=stranger, code=403)
    bodies = {
        "items": {"items": [{"key": "x", "text": "t"}]},
        "next": {},
        "answers": {"item": "k000", "values": {}},
        "skip": {"item": "k000"},
        "adjudicate": {"item": "k000", "values": {}},
        "prelabels": {"model": "m", "labels": [{"item": "k000", "values": {}}]},
        "prelabel": {"model": "m"},
        "export": {"dataset": "d"},
    }
    for verb, body in bodies.items():
        desk.verb("POST", "seen", verb, body, key=viewer, code=403)
        desk.verb("POST", "seen", verb, body, key=stranger, code=403)
        desk.ask("POST", f"/projects/blue/labels/seen/{verb}", body, key=stranger, code=404)


def test_a_key_of_nobody_is_a_labeller_of_its_own(desk: Desk) -> None:
    desk.task("keys", labels_per_item=2)
    desk.fill("keys", 1)
    for _ in range(2):
        say(desk, "keys", desk.key(), "k000")
    names = [person["name"] for person in desk.verb("GET", "keys", "status")["labellers"]]
    assert len(names) == 2
    assert all(name.startswith("key:red/key-") for name in names)


def test_skips_and_suggestions_reach_the_labeller(desk: Desk, people: People) -> None:
    desk.task("suggested", labels_per_item=2)
    desk.fill("suggested", 2)
    labels = [{"item": "k000", "values": {"tone": "rude"}}]
    written = desk.verb("POST", "suggested", "prelabels", {"model": "m", "version": "m.v1", "labels": labels})
    assert written == {"written": 1, "same": 0, "unknown": 0}
    first = next_of(desk, "suggested", people["ada"])[0]
    assert (first["suggestion"], first["suggested_by"]) == ({"tone": "rude"}, "m@m.v1")
    desk.verb("POST", "suggested", "skip", {"item": "k000", "comment": "unreadable"}, key=people["ada"])
    assert next_of(desk, "suggested", people["ada"])[0]["item"] == "k001"
    skips = desk.verb("GET", "suggested", "rows")["rows"][0]["skips"]
    assert [(skip["labeller"], skip["comment"]) for skip in skips] == [("L1", "unreadable")]
    say(desk, "suggested", people["bob"], "k000", "kind")
    assert desk.verb("GET", "suggested", "agreement")["model"][0]["percent"] == 0.0


def test_pairs_leave_as_examples_of_preference(desk: Desk, people: People) -> None:
    desk.task("pairs", fields=[{"name": "better", "type": "pair"}])
    chats = [{"key": f"c{n}", "prompt": f"Q{n}", "a": "one", "b": "two"} for n in range(3)]
    chats[2]["answer"] = {"by": "app-user", "values": {"better": "b"}}
    desk.verb("POST", "pairs", "items", {"items": chats})
    for item, better in (("c0", "a"), ("c1", "tie")):
        desk.verb("POST", "pairs", "answers", {"item": item, "values": {"better": better}}, key=people["ada"])
    lines = desk.verb("GET", "pairs", "export?form=preferences").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"prompt": "Q0", "chosen": "one", "rejected": "two"},
        {"prompt": "Q2", "chosen": "two", "rejected": "one"},
    ]


def test_owners_take_items_out(desk: Desk, people: People) -> None:
    desk.task("erased")
    desk.fill("erased", 2)
    desk.verb("POST", "erased", "remove", {"items": ["k000"]}, key=people["ada"], code=403)
    assert desk.verb("POST", "erased", "remove", {"items": ["k000", "k000"]}, key=people["cy"]) == {"removed": 1}
    assert [row["id"] for row in desk.verb("GET", "erased", "rows")["rows"]] == ["k001"]


def test_rows_come_in_pages(desk: Desk) -> None:
    desk.task("paged")
    desk.fill("paged", 5)
    seen, after = [], 0
    while after is not None:
        page = desk.verb("GET", "paged", f"rows?limit=2&after={after}")
        seen += [row["id"] for row in page["rows"]]
        after = page["after"]
    assert seen == [item.key for item in items(5)]


def test_items_that_cannot_be_labelled_are_refused_by_place(desk: Desk) -> None:
    desk.task("spans", fields=[{"name": "names", "type": "spans", "options": ["person"]}])
    wanted = {"items": [{"key": "a", "text": "t"}, {"key": "b"}]}
    error = desk.verb("POST", "spans", "items", wanted, code=400)["error"]
    assert error["details"]["field"] == "items[1].text"
    too_many = {"items": [{"key": str(n), "text": "t"} for n in range(1001)]}
    desk.verb("POST", "spans", "items", too_many, code=400)
    assert desk.verb("GET", "spans", "status")["counts"]["items"] == 0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"fields": []}, "spec.fields"),
        ({"fields": TONE, "labels_per_item": 0}, "labels_per_item"),
        ({"fields": [*TONE, *TONE]}, "stands there twice"),
        ({"fields": [{"name": "x", "type": "colour"}]}, "spec.fields.0"),
        ({"fields": TONE, "source": {}}, "either dataset or file"),
    ],
)
def test_a_task_that_cannot_be_is_refused(desk: Desk, spec: dict[str, Any], said: str) -> None:
    answer = desk.ask("PUT", "/projects/red/labeltasks/wrong", {"spec": spec}, code=400)
    assert said in json.dumps(answer)


def test_errands_are_made_by_their_routes_alone(desk: Desk, people: People) -> None:
    desk.task("errands")
    run = desk.verb("POST", "errands", "export", {"dataset": "labels"}, key=people["ada"])
    assert (run["spec"]["action"], run["spec"]["task"]) == ("export", "errands")
    assert run["spec"]["creator"].startswith("red/key-")
    desk.ask("PUT", "/projects/red/labelruns/mine", {"spec": run["spec"]}, code=403)
    desk.verb("POST", "errands", "export", {"dataset": "No Name"}, code=400)
