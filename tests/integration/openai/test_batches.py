"""Batches on a real platform: worked off in order, through every kill, within their key, and ended when asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from running import Platform, processes, until

from .conftest import Doors

ENGINE = "atoll.serving.engine.batch"


def line(number: int, model: str = "tiny", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Say something about {number}."}]
    asked = {"model": model, "messages": messages, "max_tokens": 4, **body}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def begin(door: openai.OpenAI, lines: list[Any], **options: Any) -> Batch:
    data = "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in lines)
    file = door.files.create(file=("requests.jsonl", data.encode()), purpose="batch")
    options = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **options}
    return door.batches.create(input_file_id=file.id, **options)


def ended(door: openai.OpenAI, batch: Batch, limit_s: float = 120.0) -> Batch:
    def look() -> Batch | None:
        found = door.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "expired", "cancelled") else None

    return until(look, f"{batch.id} to end", limit_s)


def results(door: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file is not None
    return [json.loads(text) for text in door.files.content(file).content.splitlines()]


def completed(door: openai.OpenAI, batch: Batch) -> int:
    counts = door.batches.retrieve(batch.id).request_counts
    return counts.completed if counts else 0


def journal_of(up: Platform) -> Path:
    """The journal of the batch that was begun last; folders of tasks come and go all the while."""
    found: dict[Path, float] = {}
    for folder, _, names in os.walk(up.home):
        path = Path(folder, "journal.jsonl")
        with contextlib.suppress(FileNotFoundError):
            found |= {path: path.stat().st_ctime} if path.name in names else {}
    return max(found, key=lambda path: found[path])


def knows(door: openai.OpenAI) -> bool:
    """Whether the gateway has heard of a new key."""
    with contextlib.suppress(openai.AuthenticationError):
        return bool(door.models.list().data)
    return False


def test_a_batch_comes_back_in_the_order_it_was_asked(door: openai.OpenAI, up: Platform) -> None:
    lines = [line(n) for n in range(12)]
    lines[3], lines[7] = line(3, max_tokens="many"), line(7, temperature=-5)
    batch = begin(door, lines, metadata={"run": "7"})
    assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"run": "7"})
    done = ended(door, batch)
    assert done.status == "completed", done
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 12, "completed": 10, "failed": 2}
    answers, refusals = results(door, done.output_file_id), results(door, done.error_file_id)
    assert [r["custom_id"] for r in answers] == [f"r{n}" for n in range(12) if n not in (3, 7)]
    assert [r["custom_id"] for r in refusals] == ["r3", "r7"]
    assert {r["response"]["status_code"] for r in answers} == {200}
    assert all(r["response"]["body"]["choices"][0]["message"] is not None for r in answers)
    assert [r["response"]["status_code"] for r in refusals] == [400, 400]
    assert refusals[0]["response"]["body"]["error"]["param"] == "max_tokens"
    assert done.in_progress_at and done.finalizing_at and done.completed_at
    assert door.files.retrieve(str(done.output_file_id)).purpose == "batch_output"
    assert door.batches.list(limit=1).data[0].id == batch.id


def test_its_key_can_only_this_and_ends_with_it(door: openai.OpenAI, up: Platform) -> None:
    done = ended(door, begin(door, [line(0)]))
    with up.client() as client:
        key = client.get("ApiKey", f"key-batch-{done.id}")
        assert (key.spec["models"], key.spec["priority"]) == (["tiny"], "batch")
        assert key.spec["charged_to"] == "default/admin"
        until(lambda: client.get("ApiKey", key.name).spec["revoked"], "the key to be revoked")
        until(lambda: client.find("Secret", key.name) is None, "the secret to go")
        tasks = [t for t in client.find_all("Task").items if done.id in t.spec["workload"]]
    assert tasks
    assert "sk-atoll-" not in json.dumps([t.spec for t in tasks])


def test_wrong_lines_are_named_before_anything_is_asked(door: openai.OpenAI) -> None:
    wrong_url = {**line(5), "url": "/v1/embeddings"}
    lines = [line(0), "{torn", line(0), "", line(3, model="other"), line(4, stream=True), wrong_url]
    failed = ended(door, begin(door, lines))
    assert failed.status == "failed"
    assert failed.errors is not None and failed.errors.data is not None
    assert [(e.line, e.code) for e in failed.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (5, "mismatched_model"),
        (6, "invalid_request"),
        (7, "mismatched_endpoint"),
    ]
    assert failed.output_file_id is None


@pytest.mark.parametrize(("content", "code"), [("", "empty_file"), ("{", "invalid_json_line"), ("[1]", "missing_re")])
def test_a_file_without_a_request_fails(door: openai.OpenAI, content: str, code: str) -> None:
    failed = ended(door, begin(door, [content]))
    assert failed.status == "failed"
    assert failed.errors is not None and failed.errors.data


def test_an_unknown_model_fails_the_batch(door: openai.OpenAI) -> None:
    failed = ended(door, begin(door, [line(0, model="tinny")]))
    assert failed.errors is not None and failed.errors.data is not None
    assert failed.errors.data[0].code == "model_not_found"


def test_a_file_for_something_else_is_refused(door: openai.OpenAI) -> None:
    file = door.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as caught:
        door.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    assert caught.value.param == "input_file_id"
    with pytest.raises(openai.NotFoundError):
        door.batches.create(input_file_id="file-no", endpoint="/v1/embeddings", completion_window="24h")


def test_a_cancelled_batch_keeps_what_is_done(door: openai.OpenAI) -> None:
    batch = begin(door, [line(n, max_tokens=100) for n in range(4000)])
    until(lambda: completed(door, batch) >= 3, "some answers", 90)
    asked = door.batches.cancel(batch.id)
    assert asked.status in ("cancelling", "cancelled")
    done = ended(door, batch)
    assert done.status == "cancelled"
    assert done.request_counts is not None
    answers = results(door, done.output_file_id)
    assert 3 <= len(answers) == done.request_counts.completed < 4000
    numbers = [int(r["custom_id"][1:]) for r in answers]
    assert numbers == sorted(numbers)
    with pytest.raises(openai.ConflictError):
        door.batches.cancel(ended(door, begin(door, [line(0)])).id)


@pytest.mark.timeout(900)
def test_a_batch_goes_on_after_every_kill_and_asks_nothing_done_again(door: openai.OpenAI, up: Platform) -> None:
    count = 1500
    door = door.with_options(max_retries=8)
    batch = begin(door, [line(n, max_tokens=100) for n in range(count)])
    kept: dict[int, Any] = {}

    def remember() -> None:
        entries = [json.loads(text) for text in journal_of(up).read_bytes().splitlines(True) if text.endswith(b"\n")]
        for entry in entries:
            assert kept.setdefault(entry["number"], entry["record"]) == entry["record"]

    for done, victim in ((5, "batch"), (100, "server"), (300, "batch"), (500, "gateway")):
        until(lambda least=done: completed(door, batch) >= least, f"{done} answers", 90)
        if victim == "batch":
            for pid in until(lambda: processes(up.home, ENGINE), "the batch's process"):
                with contextlib.suppress(ProcessLookupError):  # it ended with its shim
                    os.kill(pid, signal.SIGKILL)
        else:
            up.kill(victim)
        remember()
        until(up.is_healthy, "the door to answer")
    finished = ended(door, batch, 400)
    assert finished.status == "completed", finished
    answers = results(door, finished.output_file_id)
    assert [r["custom_id"] for r in answers] == [f"r{n}" for n in range(count)]
    assert len(kept) >= 60
    assert all(answers[number] == record for number, record in kept.items())


def test_its_requests_are_charged_to_the_key_that_made_it(up: Platform, door_of: Doors) -> None:
    with up.client() as client:
        key = client.create_key(description="makes batches")
    maker = door_of(key.key, retries=5)
    until(lambda: knows(maker), "the key to be known")
    done = ended(maker, begin(maker, [line(n) for n in range(5)]))
    assert done.status == "completed", done
    told = sum(r["response"]["body"]["usage"]["total_tokens"] for r in results(maker, done.output_file_id))

    def charged() -> tuple[int, int]:
        with up.client() as client:
            rows = [row for row in client.usage().rows if row.key == key.id]
        return sum(r.requests for r in rows), sum(r.prompt_tokens + r.completion_tokens for r in rows)

    until(lambda: charged() == (5, told), f"5 requests and {told} tokens on its bill")


def test_a_batch_never_spends_more_than_the_budget_of_its_makers_key(up: Platform, door_of: Doors) -> None:
    with up.client() as client:
        key = client.create_key(description="has little")
        client.put("Budget", "little", {"key": key.id, "tokens": 100})
    maker = door_of(key.key, retries=8)
    until(lambda: knows(maker), "the key to be known")
    batch = begin(maker, [line(n) for n in range(200)])

    def said() -> str:
        return str(maker.batches.retrieve(batch.id).model_dump().get("reason"))

    def spent() -> int:
        with up.client() as client:
            return sum(r.prompt_tokens + r.completion_tokens for r in client.usage().rows if r.key == key.id)

    until(lambda: "little" in said(), "it to say what it waits for", 120)
    assert spent() <= 100
    with up.client() as client:
        client.put("Budget", "little", {"key": key.id, "tokens": 1_000_000})
    done = ended(maker, batch)
    assert done.status == "completed"
    assert done.request_counts is not None and done.request_counts.completed == 200
    until(lambda: spent() > 100, "the rest on the bill")


def test_another_tenant_sees_no_batch(door: openai.OpenAI, stranger: openai.OpenAI) -> None:
    batch = begin(door, [line(0)])
    for ask in (stranger.batches.retrieve, stranger.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    assert stranger.batches.list().data == []
    with pytest.raises(openai.NotFoundError):
        stranger.batches.create(
            input_file_id=str(batch.input_file_id), endpoint="/v1/chat/completions", completion_window="24h"
        )
    ended(door, batch)


def test_a_key_that_may_only_read_begins_nothing(door_of: Doors, up: Platform, door: openai.OpenAI) -> None:
    with up.client() as client:
        viewer = door_of(client.create_key(description="reads", role="viewer").key)
    file = door.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert viewer.files.retrieve(file.id).id == file.id
    for ask in (
        lambda: viewer.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"),
        lambda: viewer.files.delete(file.id),
        lambda: viewer.files.create(file=("a", b"x"), purpose="batch"),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            ask()
