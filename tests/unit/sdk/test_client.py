"""The client against the protocol: paths, typed answers, every failure a typed error, patience with a server away."""

from __future__ import annotations

import json
from itertools import islice

import httpx
import pytest

from atoll.core.errors import AtollError, Conflict, Forbidden, Invalid, NotFound, RateLimited, Unauthorized, Unavailable
from atoll.sdk.connection import checked_address
from atoll.sdk.errors import TimedOut, Unreachable
from atoll.sdk.manifest import parse_manifests
from unit.sdk.stand_in import Broken, StandIn, resource


def ok(value: object) -> httpx.Response:
    return httpx.Response(200, json=value)


def change(name: str, seq: int) -> bytes:
    return (
        b"event: change\ndata: "
        + json.dumps({"type": "put", "resource": resource(name), "seq": seq}).encode()
        + b"\n\n"
    )


def error(status: int, code: str, message: str = "no", **details: object) -> httpx.Response:
    return httpx.Response(
        status, json={"error": {"code": code, "message": message, "hint": "go on", "details": details}}
    )


def test_kinds_are_named_as_people_do_and_system_kinds_live_in_system() -> None:
    stand_in = StandIn(ok({"items": [resource()], "head": 7}), ok(resource()), ok({"items": [], "head": 8}))
    client = stand_in.client(project="team")
    listing = client.find_all("DEPLOYMENT", labels={"a": "b"})
    assert (listing.head, listing.items[0].name, listing.items[0].phase) == (7, "a", "ready")
    client.get("Deployments", "a/b")
    client.find_all("node")
    assert [str(r.url.raw_path, "ascii") for r in stand_in.requests] == [
        "/api/v1/projects/team/deployments?labels=a%3Db",
        "/api/v1/projects/team/deployments/a%2Fb",
        "/api/v1/projects/system/nodes",
    ]
    assert stand_in.requests[0].headers["authorization"] == "Bearer sk-atoll-test"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="nearest: deployments"):
        StandIn().client().get("deploymnet", "a")


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (error(400, "invalid", field="spec.x"), Invalid, "no"),
        (error(401, "unauthorized"), Unauthorized, "no"),
        (error(409, "conflict"), Conflict, "no"),
        (error(503, "unavailable", retry_after_s=3.0), Unavailable, "no"),
        (error(500, "something_new"), AtollError, "no"),
        (httpx.Response(429, json={"error": {"message": "slow"}}, headers={"retry-after": "7"}), RateLimited, "slow"),
        (httpx.Response(503, json={"error": {"message": "x"}}, headers={"retry-after": "soon"}), Unavailable, "x"),
        (httpx.Response(403, text="<html>"), Forbidden, "HTTP 403"),
        (httpx.Response(500, json=["odd"]), AtollError, "not as Atoll does"),
        (httpx.Response(200, text="hello"), AtollError, "not as Atoll does"),
        (httpx.ConnectError("refused"), Unreachable, "cannot reach Atoll at http://127.0.0.1:8400: refused"),
        (httpx.ReadTimeout(""), Unreachable, "ReadTimeout"),
    ],
)
def test_every_failure_is_a_typed_error(
    answer: httpx.Response | Exception, kind: type[AtollError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        StandIn(answer).client().get("deployment", "a")
    assert type(caught.value) is kind
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_s == 7


def test_find_is_none_only_when_there_is_no_such_thing() -> None:
    stand_in = StandIn(error(404, "not_found"), error(403, "forbidden"))
    client = stand_in.client()
    assert client.find("deployment", "a") is None
    with pytest.raises(Forbidden):
        client.find("deployment", "a")


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http://[::1", "http://h:port", "http://h:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="address cannot be"):
        checked_address(address)


def test_an_address_needs_no_scheme() -> None:
    assert checked_address("centre:8400/") == "http://centre:8400"


MANIFESTS = """\
kind: Deployment
name: a
spec: {model: m}
---
kind: Node
name: n
---
kind: deployments
name: b
spec:
  model: m
  replicsa: 2
"""


def test_apply_groups_by_project_and_keeps_the_order() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        resources = json.loads(request.content)["resources"]
        changes = [{"kind": r["kind"], "name": r["name"], "action": "create", "fields": []} for r in resources]
        return ok({"changes": changes, "head": 1})

    stand_in = StandIn(answer, answer)
    changes = stand_in.client().apply(parse_manifests(MANIFESTS, "m.yaml"), dry_run=True)
    assert [(c.name, c.project) for c in changes] == [("a", "default"), ("n", "system"), ("b", "default")]
    assert all(json.loads(r.content)["dry_run"] for r in stand_in.requests)


@pytest.mark.parametrize(
    "details", [{"index": 1, "field": "spec.replicsa", "value": 2}, {"field": "resources.1.spec.replicsa", "value": 2}]
)
def test_an_error_in_a_batch_names_file_line_and_value(details: dict[str, object]) -> None:
    stand_in = StandIn(error(400, "invalid", "Deployment has no field spec.replicsa", **details))
    with pytest.raises(Invalid) as caught:
        stand_in.client().apply(parse_manifests(MANIFESTS, "m.yaml"))
    assert caught.value.message == "m.yaml:12: Deployment has no field spec.replicsa (value: 2)"


def test_an_error_of_no_manifest_stays_as_it_is() -> None:
    with pytest.raises(Forbidden, match=r"^no"):
        StandIn(error(403, "forbidden")).client().apply(parse_manifests(MANIFESTS, "m.yaml"))


def test_an_unknown_kind_in_a_manifest_names_its_line() -> None:
    manifests = parse_manifests("name: a\nkind: Deploymend\n", "m.yaml")
    with pytest.raises(Invalid, match=r"m\.yaml:2: there is no kind 'Deploymend'"):
        StandIn().client().apply(manifests)


def test_a_watch_goes_on_where_it_was_when_the_stream_breaks() -> None:
    gone = {"type": "gone", "resource": {"kind": "Deployment", "project": "default", "name": "a", "uid": "u"}, "seq": 9}
    stand_in = StandIn(
        httpx.Response(200, stream=Broken(b": hi\n\n", change("a", 5), change("b", 6)[:20])),
        httpx.ConnectError("refused"),
        httpx.Response(503, json={"error": {"code": "unavailable", "message": "later", "details": {}}}),
        httpx.Response(200, content=change("b", 6)),
        httpx.Response(200, content=b"event: change\ndata: " + json.dumps(gone).encode() + b"\n\n"),
    )
    events = list(islice(stand_in.client().watch("deployment", seen=4), 3))
    assert [(e.type, e.name, e.seq, e.resource is None) for e in events] == [
        ("put", "a", 5, False),
        ("put", "b", 6, False),
        ("gone", "a", 9, True),
    ]
    assert [r.url.params["seen"] for r in stand_in.requests] == ["4", "5", "5", "5", "6"]


def test_a_watch_gives_up_when_its_patience_ends() -> None:
    stand_in = StandIn(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(Unreachable):
        next(stand_in.client(patience_s=0.2).watch("deployment", seen=0))


def test_a_watch_does_not_retry_what_will_never_work() -> None:
    with pytest.raises(Unauthorized):
        next(StandIn(error(401, "unauthorized")).client().watch("deployment", seen=0))


def test_waiting_ends_when_the_status_speaks_of_the_present_spec() -> None:
    stand_in = StandIn(
        ok(resource(phase="ready", generation=2, seen=1)),
        httpx.ReadError("gone for a moment"),
        ok(resource(phase="starting", generation=2, seen=2)),
        ok(resource(phase="starting", generation=2, seen=2)),
        ok(resource(phase="ready", generation=2, seen=2)),
    )
    seen: list[str] = []
    last = stand_in.client().wait_for(
        "deployment", "a", {"ready", "failed"}, timeout_s=30, on_change=lambda r: seen.append(r.phase)
    )
    assert last.phase == "ready"
    assert seen == ["ready", "starting", "ready"]
    assert len(stand_in.requests) == 5


def test_waiting_too_long_says_how_things_stand() -> None:
    stand_in = StandIn(*[ok(resource(phase="starting"))] * 9)
    with pytest.raises(TimedOut, match=r"Deployment 'a' is still starting after 0\.2 s"):
        stand_in.client().wait_for("deployment", "a", {"ready"}, timeout_s=0.2)


def test_waiting_for_what_is_deleted_ends() -> None:
    with pytest.raises(NotFound):
        StandIn(ok(resource(phase="starting")), error(404, "not_found")).client().wait_for("deployment", "a", {"ready"})


def test_a_log_is_cut_between_any_bytes() -> None:
    text = "größer\n漢字\n".encode()
    stand_in = StandIn(httpx.Response(200, content=(text[i : i + 1] for i in range(len(text)))))
    assert "".join(stand_in.client().logs("deployment", "a")) == "größer\n漢字\n"


def test_usage_is_typed_and_new_fields_are_passed_over() -> None:
    row = {"key": "k", "model": "m", "requests": 2, "prompt_tokens": 3, "cost": 0.5, "currency": "EUR", "carbon": 1}
    total = {"requests": 2, "prompt_tokens": 3, "completion_tokens": 0, "cached_tokens": 0, "cost": {"EUR": 0.5}}
    usage = StandIn(ok({"rows": [row], "total": total})).client().usage(since=1.0)
    assert (usage.rows[0].cost, usage.rows[0].completion_tokens, usage.total.cost) == (0.5, 0, {"EUR": 0.5})


def sse(*datas: str) -> bytes:
    return "".join(f"data: {data}\n\n" for data in datas).encode()


def test_a_chat_arrives_in_pieces_with_its_usage_at_the_end() -> None:
    delta = '{"choices":[{"delta":{"content":"%s"},"finish_reason":%s}]}'
    used = '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    body = sse(delta % ("Hel", "null"), delta % ("lo", '"stop"'), used, "[DONE]")
    stand_in = StandIn(httpx.Response(200, content=body))
    pieces = list(stand_in.client().chat("m", [{"role": "user", "content": "hi"}], max_tokens=5, temperature=None))
    assert "".join(p.text for p in pieces) == "Hello"
    assert pieces[1].finish_reason == "stop"
    assert pieces[2].usage is not None
    assert pieces[2].usage.completion_tokens == 2
    sent = json.loads(stand_in.requests[0].content)
    assert sent["stream"] is True
    assert sent["max_tokens"] == 5
    assert "temperature" not in sent


def test_a_chat_that_breaks_off_or_errs_in_mid_stream_raises() -> None:
    whole = '{"choices":[{"delta":{"content":"Hel"}}]}'
    broken = StandIn(httpx.Response(200, content=sse(whole)))
    with pytest.raises(Unavailable, match="broke off"):
        list(broken.client().chat("m", []))
    wrong = StandIn(httpx.Response(200, content=sse(whole, '{"error":{"message":"engine died","code":503}}')))
    with pytest.raises(Unavailable, match="engine died"):
        list(wrong.client().chat("m", []))


def test_openais_errors_become_ours() -> None:
    body = {"error": {"message": "The model 'x' does not exist.", "type": "invalid_request_error", "param": "model"}}
    with pytest.raises(NotFound, match="does not exist"):
        list(StandIn(httpx.Response(404, json=body)).client().chat("x", []))
    with pytest.raises(Invalid) as caught:
        list(StandIn(httpx.Response(400, json=body)).client().chat("x", []))
    assert caught.value.field == "model"
