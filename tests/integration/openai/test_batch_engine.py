"""The process that works a batch off, against a door that pushes back, fails, forgets keys and cancels."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from atoll.core.sealed import DataKey, SealedBlobs
from atoll.governance.data_keys import VARIABLE, to_text
from atoll.serving.engine import batch
from atoll.serving.engine.batch_pace import Pace
from running import until
from task_folder import TaskFolder

KEY = {"ATOLL_BATCH_KEY": "sk-atoll-test"}
Reply = tuple[int, Any, dict[str, str]]
WELL: Reply = (200, {"ok": True}, {})


class Door:
    """A door that answers as `decide(body, number of requests so far)` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.labels: dict[str, str] = {}
        self.model_status = 200
        self.decide: Callable[[dict[str, Any], int], Reply] = lambda body, count: WELL
        self.running = self.running_most = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> Reply:
        if body is None:
            is_model = path.startswith("/v1/models/")
            return (self.model_status if is_model else 200), {"labels": self.labels, "error": {"message": "no"}}, {}
        with self.lock:
            self.asked.append(body)
            self.headers.append(headers)
            count = len(self.asked)
            self.running += 1
            self.running_most = max(self.running_most, self.running)
        try:
            return self.decide(body, count)
        finally:
            with self.lock:
                self.running -= 1

    def _handler(door) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(door.answer(self.path, None, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._say(door.answer(self.path, body, {k.lower(): v for k, v in self.headers.items()}))

            def _say(self, reply: Reply) -> None:
                status, value, headers = reply
                data = json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    return TaskFolder(tmp_path, "atoll.serving.engine.batch")


def wanted(folder: TaskFolder, door: Door, count: int, **fields: Any) -> dict[str, Any]:
    lines = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": n}}
        for n in range(count)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    made = {
        "batch": "batch-1",
        "project": "default",
        "door": door.url,
        "endpoint": "/v1/embeddings",
        "file": folder.store.put_bytes(data).digest,
        "model": "m",
        "expires_at": time.time() + 3600,
        "parallel": 8,
    }
    return made | fields


def lines_of(folder: TaskFolder, result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    stored = result[name]
    return [json.loads(line) for line in folder.store.read(stored["digest"]).splitlines()] if stored else []


def test_a_sealed_file_is_worked_off_and_nothing_of_it_or_its_answers_is_stored_in_clear(
    folder: TaskFolder, door: Door
) -> None:
    key = DataKey(bytes(range(32)))
    line = {"custom_id": "very-private", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": 1}}
    sealed = SealedBlobs(folder.store, [key])
    digest = sealed.put_stream([json.dumps(line).encode()], 1000).digest
    code, result = folder.run(wanted(folder, door, 1, file=digest, sealed=True), **KEY, **{VARIABLE: to_text([key])})
    assert code == 0 and result["output"]["sealed"] is True, result
    with sealed.open(result["output"]["digest"]) as stream:
        answer = stream.read()
    assert json.loads(answer)["custom_id"] == "very-private" and len(answer) == result["output"]["size_bytes"]
    stored = [folder.store.read(found) for found in folder.store.digests()]
    assert len(stored) == 3 and not any(b"very-private" in data for data in stored)


def test_requests_go_out_side_by_side_as_batch_with_the_batchs_key(folder: TaskFolder, door: Door) -> None:
    together = threading.Event()

    def decide(body: dict[str, Any], count: int) -> Reply:
        if door.running_most >= 4:
            together.set()
        if count > 20:
            together.wait(50)
        return WELL

    door.decide = decide
    code, result = folder.run(wanted(folder, door, 60), **KEY)
    assert code == 0, folder.log
    assert result["counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert 4 <= door.running_most <= 8
    assert [line["custom_id"] for line in lines_of(folder, result, "output")] == [f"c{n}" for n in range(60)]
    assert {h["x-atoll-priority"] for h in door.headers} == {"batch"}
    assert {h["authorization"] for h in door.headers} == {"Bearer sk-atoll-test"}
    assert {h["openai-project"] for h in door.headers} == {"default"}
    assert len({h["x-request-id"] for h in door.headers}) == 60


@pytest.fixture
def begun(folder: TaskFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], batch.Run]:
    """Runs in this process, whose pace and end are to be seen."""

    def begin(given: dict[str, Any]) -> batch.Run:
        folder.prepare(given)
        monkeypatch.setenv("ATOLL_TASK_DIR", str(folder.path))
        (folder.root / "work").mkdir()
        return batch.Run(given, "sk-atoll-test", folder.store, folder.root / "work")

    return begin


def test_a_door_that_pushes_back_is_left_alone_as_long_as_it_says(folder: TaskFolder, door: Door, begun: Any) -> None:
    """A request is refused while all that may be under way are at the door: they end when its refusal was heard."""
    run: batch.Run = begun(wanted(folder, door, 60))
    refused_at: list[float] = []
    came: list[tuple[int, float]] = []
    turns = iter(range(1, 4))
    turn = 0

    def is_heard() -> bool:
        return len(refused_at) == turn and run._pace._not_before > refused_at[-1]

    def decide(body: dict[str, Any], count: int) -> Reply:
        nonlocal turn
        with door.lock:
            came.append((len(refused_at), time.monotonic()))
            is_refused = count > 10 and (turn == 0 or is_heard()) and turn < 3
            turn = next(turns) if is_refused else turn
        if is_refused:
            until(lambda: door.running == run._pace.limit, "all that may be under way")
            refused_at.append(time.monotonic())
            return 429, {"error": {"message": "busy"}}, {"Retry-After": "1"}
        if turn:
            until(is_heard, "the refusal to be heard")
        return WELL

    door.decide = decide
    counts = run.run()["counts"]
    assert (counts["completed"], counts["failed"]) == (60, 0)
    after = [(turn, at - refused_at[turn - 1]) for turn, at in came if turn]
    assert {turn for turn, _ in after} == {1, 2, 3}
    assert min(waited_s for _, waited_s in after) >= 1.0


def test_a_failing_engine_is_asked_again_and_at_last_believed(folder: TaskFolder, door: Door) -> None:
    def decide(body: dict[str, Any], count: int) -> Reply:
        return (500, {"error": {"message": "broken"}}, {"Retry-After": "0"}) if body["input"] == 1 else WELL

    door.decide = decide
    code, result = folder.run(wanted(folder, door, 3), **KEY)
    assert (code, result["counts"]) == (0, {"total": 3, "completed": 2, "failed": 1})
    (failed,) = lines_of(folder, result, "error")
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("c1", 500)
    assert sum(body["input"] == 1 for body in door.asked) == 5


def test_only_an_answer_that_came_counts(
    folder: TaskFolder, door: Door, begun: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is cut off is asked again for as long as it takes; one that is no answer is believed at last."""
    tries: Counter[int] = Counter()

    def decide(body: dict[str, Any], count: int) -> Reply:
        tries[body["input"]] += 1
        if body["input"] == 1:
            return 200, ["no", "object"], {}
        is_cut_off = body["input"] == 2 and tries[2] <= batch.TRIES_MAX + 2
        return (200, {"ok": True}, {"Content-Length": "4000", "Connection": "close"}) if is_cut_off else WELL

    door.decide = decide
    monkeypatch.setattr(batch, "AGAIN_S", 0.01)
    result = begun(wanted(folder, door, 3, parallel=1)).run()
    assert (result["counts"], tries) == ({"total": 3, "completed": 2, "failed": 1}, {0: 1, 1: 5, 2: 8})
    (failed,) = lines_of(folder, result, "error")
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("c1", 502)
    assert "not a JSON object" in failed["response"]["body"]["error"]["message"]


def test_at_the_end_of_its_window_the_rest_is_given_up_by_name(folder: TaskFolder, door: Door, begun: Any) -> None:
    given = wanted(folder, door, 10)

    def decide(body: dict[str, Any], count: int) -> Reply:
        if count <= 4:
            return WELL
        given["expires_at"] = time.time()
        return 503, {}, {"Retry-After": "15"}

    door.decide = decide
    result = begun(given).run()
    assert result["outcome"] == "expired"
    done, given_up = (lines_of(folder, result, name) for name in ("output", "error"))
    assert len(done) + len(given_up) == 10
    assert len(done) >= 4
    assert {line["error"]["code"] for line in given_up} == {"batch_expired"}


def test_a_cancelled_batch_ends_and_keeps_what_is_done(folder: TaskFolder, door: Door) -> None:
    def decide(body: dict[str, Any], count: int) -> Reply:
        if count == 5:
            door.labels["cancel"] = "1.0"
        return WELL if count <= 5 else (503, {}, {"Retry-After": "15"})

    door.decide = decide
    code, result = folder.run(wanted(folder, door, 50), **KEY)
    assert (code, result["outcome"]) == (0, "cancelled")
    assert 4 <= result["counts"]["completed"] <= 5
    assert result["error"] is None


def test_a_door_that_refuses_the_key_for_long_ends_the_batch(folder: TaskFolder, door: Door) -> None:
    door.decide = lambda body, count: WELL if count <= 5 else (401, {"error": {"message": "revoked"}}, {})
    code, result = folder.run(wanted(folder, door, 20, known_within_s=0.5), **KEY)
    assert (code, result["outcome"]) == (0, "cancelled")
    assert "revoked" in result["reason"]
    assert result["counts"]["completed"] >= 5


def test_an_unknown_model_is_an_error_of_the_input(folder: TaskFolder, door: Door) -> None:
    door.model_status = 404
    code, result = folder.run(wanted(folder, door, 2), **KEY)
    assert code == 3
    assert result["error"]["details"]["errors"][0]["code"] == "model_not_found"
    assert door.asked == []


def test_killed_anywhere_it_asks_nothing_again_that_is_done(folder: TaskFolder, door: Door) -> None:
    pause = threading.Event()

    def decide(body: dict[str, Any], count: int) -> Reply:
        if count > 30 and not pause.is_set():
            pause.wait(120)
        return 200, {"input": body["input"]}, {}

    door.decide = decide
    folder.prepare(wanted(folder, door, 80))
    journal = folder.root / "work" / "journal.jsonl"
    pace = Pace(8)
    for _ in range(30):
        pace.begin()
        pace.answered()

    def all_wait() -> bool:
        """Nothing is on its way that the door has not seen."""
        return door.running == pace.limit and journal.read_bytes().count(b"\n") == 30

    with folder.start(**KEY) as process:
        until(all_wait, "work under way")
        process.send_signal(signal.SIGKILL)
    kept = {json.loads(line)["number"] for line in journal.read_bytes().splitlines()}
    with journal.open("ab") as file:
        file.write(b'{"number": 79, "good": tr')
    pause.set()
    before = len(door.asked)
    with folder.start(**KEY) as process:
        assert process.wait(60) == 0, folder.log
    again = [body["input"] for body in door.asked[before:]]
    assert kept.isdisjoint(again)
    assert len(again) == 80 - len(kept)
    result = folder.read("result.json") or {}
    lines = lines_of(folder, result, "output")
    assert [(line["custom_id"], line["response"]["body"]["input"]) for line in lines] == [
        (f"c{n}", n) for n in range(80)
    ]


def test_a_door_that_is_not_there_is_waited_for(folder: TaskFolder, door: Door) -> None:
    folder.prepare(wanted(folder, door, 6) | {"door": "http://127.0.0.1:9"})

    def said() -> str:
        return str((folder.read("progress.json") or {}).get("message"))

    with folder.start(**KEY) as process:
        until(lambda: "not reached" in said(), "it to say what it waits for")
        assert process.poll() is None
        process.kill()
