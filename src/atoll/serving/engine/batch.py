"""A batch from its file of requests to its results. `python -m atoll.serving.engine.batch` in a task directory.

Check the whole file; ask the door what is not in the journal yet; write the results in the order of the requests.
Killed at any moment it goes on with what is not done; only what was in flight is asked again. It ends early when the
batch is cancelled or its window is over, and keeps what is done. The journal lives on one node: a batch that moves
to another begins anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.door import CUT_OFF, Door, Reply
from atoll.core.errors import Invalid, Unavailable
from atoll.core.sealed import DataKey
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads
from atoll.serving.engine.batch_journal import Journal
from atoll.serving.engine.batch_pace import Pace
from atoll.serving.engine.batch_requests import Request, Requests

KEY_VARIABLE = "ATOLL_BATCH_KEY"
KNOWN_WITHIN_S = 30.0
"""A new key reaches every gateway within this; `known_within_s` of the input goes before it."""

LOOK_EVERY_S = 1.0
DRAIN_S = 20.0
AGAIN_S = 2.0
TRIES_MAX = 5
"""An answer that says the engine failed counts after so many tries."""


@dataclass(slots=True)
class End:
    """Why no more requests are asked; the first reason counts."""

    outcome: str = "completed"
    reason: str = ""
    came: threading.Event = field(default_factory=threading.Event)

    def call(self, outcome: str, reason: str) -> None:
        if not self.came.is_set():
            self.outcome, self.reason = outcome, reason
            self.came.set()


class Run:
    """One attempt at a batch. `key` opens the door, `data_keys` sealed uploads; `work` outlives the attempt."""

    def __init__(
        self, wanted: Mapping[str, Any], key: str, store: BlobStore, work: Path, data_keys: Sequence[DataKey] = ()
    ) -> None:
        self._wanted = wanted
        self._key = key
        self._uploads = Uploads(store, data_keys)
        self._work = work
        self._end = End()
        self._known_within_s = float(wanted.get("known_within_s", KNOWN_WITHIN_S))
        self._pace = Pace(int(wanted["parallel"]))
        self._lock = threading.Lock()
        self._waiting_for = ""
        self._started_at = 0.0
        self._refused_at = 0.0

    def run(self) -> dict[str, Any]:
        """Do what is left and return the result; Invalid names what is wrong with the file or the model."""
        task.report_progress("validate", 0, None, "request")
        is_sealed = self._wanted.get("sealed", False)
        path = self._uploads.fetch(self._wanted["file"], self._work / "requests.jsonl", is_sealed=is_sealed)
        self._started_at = path.stat().st_mtime  # of the first attempt: it is fetched once
        with closing(Requests(path, self._wanted["endpoint"], self._wanted["model"])) as requests:
            self._check_model()
            with closing(Journal(self._work / "journal.jsonl")) as journal:
                self._work_off(requests, journal)
                self._give_up_rest(requests, journal)
                return self._result(requests, journal)

    # asking

    def _check_model(self) -> None:
        """Until the door knows the batch's key and model; what it refuses for good is Invalid."""
        model = self._wanted["model"]
        deadline = time.monotonic() + self._known_within_s
        with closing(self._door()) as door:
            while not (answer := door.call("GET", f"/v1/models/{quote(model, safe='')}")).is_good:
                is_final = answer.status == 404 or (answer.status in (401, 403) and time.monotonic() > deadline)
                if is_final:
                    wrong = {"code": "model_not_found", "line": None, "message": answer.words, "param": "body.model"}
                    raise Invalid(f"model {model!r} cannot be asked: {answer.words}", field="model", errors=[wrong])
                task.report_progress("validate", 0, None, "request", f"waiting: {answer.words}")
                self._look(door)
                if self._end.came.wait(min(LOOK_EVERY_S, answer.again_s)):
                    return

    def _work_off(self, requests: Requests, journal: Journal) -> None:
        todo = iter([n for n in range(len(requests)) if n not in journal])
        count = min(int(self._wanted["parallel"]), len(requests))
        threads = [
            threading.Thread(target=self._ask_on, args=(todo, requests, journal), daemon=True) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        with closing(self._door(timeout_s=5.0)) as door:
            while any(thread.is_alive() for thread in threads) and not self._end.came.is_set():
                self._report(requests, journal)
                self._look(door)
                self._end.came.wait(LOOK_EVERY_S if len(requests) > count else LOOK_EVERY_S / 4)
        self._pace.stop()
        if self._end.came.is_set():
            self._pace.wait_idle(DRAIN_S)
        self._report(requests, journal)
        left = sum(number not in journal for number in range(len(requests)))
        if left and not self._end.came.is_set():
            raise Unavailable(f"{left} requests were not settled; the log above says why")

    def _ask_on(self, todo: Iterator[int], requests: Requests, journal: Journal) -> None:
        """What each thread does: ask one request after the other."""
        with closing(self._door()) as door:
            while True:
                with self._lock:
                    number = next(todo, None)
                    request = None if number is None else requests[number]
                if number is None or request is None or not self._settle(door, number, request, journal):
                    return

    def _settle(self, door: Door, number: int, request: Request, journal: Journal) -> bool:
        """Ask until the request is done; False when the batch ends before."""
        failures = 0
        while self._pace.begin():
            answer = door.call("POST", self._wanted["endpoint"], request.body, {"X-Request-Id": self._name(number)})
            is_later = answer.is_push_back or answer.status == CUT_OFF
            failures += answer.is_broken and not is_later
            if answer.status in (401, 403):
                self._note_refusal(answer)
            elif not is_later and (not answer.is_broken or failures >= TRIES_MAX):
                journal.add(number, self._record(number, request, answer), is_good=answer.is_good)
                self._waiting_for, self._refused_at = "", 0.0
                self._pace.answered()
                return True
            self._waiting_for = answer.words
            self._pace.pushed_back(answer.again_s)
        return False

    def _note_refusal(self, answer: Reply) -> None:
        """A gateway that just began may not know the key yet; one that refuses for long means it."""
        self._refused_at = self._refused_at or time.monotonic()
        if time.monotonic() - self._refused_at > self._known_within_s:
            self._end.call("cancelled", f"the door refuses the batch's key: {answer.words}")

    def _look(self, door: Door) -> None:
        """Whether the batch shall end: its window is over, or somebody cancelled it."""
        if time.time() >= self._wanted["expires_at"]:
            self._end.call("expired", "its completion window is over")
            return
        answer = door.call("GET", f"/api/v1/projects/{self._wanted['project']}/batches/{self._wanted['batch']}")
        if answer.is_good and (answer.body.get("deleting_at") or "cancel" in answer.body.get("labels", {})):
            self._end.call("cancelled", "cancelled")

    def _report(self, requests: Requests, journal: Journal) -> None:
        good, bad = journal.counts
        counts = {"total": len(requests), "completed": good, "failed": bad}
        message = f"waiting: {self._waiting_for}" if self._waiting_for else f"{self._pace.running} in flight"
        figures = {"counts": counts, "started_at": self._started_at, "parallel": self._pace.limit}
        task.report_progress("ask", good + bad, len(requests), "request", message, **figures)

    # results

    def _give_up_rest(self, requests: Requests, journal: Journal) -> None:
        """Requests the window ended before are in the error file; those of a cancelled batch are in none."""
        if self._end.outcome != "expired":
            return
        error = {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
        for number in range(len(requests)):
            if number not in journal:
                record = {"id": self._name(number), "custom_id": requests[number].custom_id}
                journal.add(number, record | {"response": None, "error": error}, is_good=False)

    def _result(self, requests: Requests, journal: Journal) -> dict[str, Any]:
        finalizing_at = time.time()
        good, bad = journal.counts
        counts = {"total": len(requests), "completed": good, "failed": bad}
        figures: dict[str, Any] = {"counts": counts, "started_at": self._started_at, "finalizing_at": finalizing_at}
        task.report_progress("finalize", good + bad, len(requests), "request", **figures)
        paths = {name: self._work / f"{name}.jsonl" for name in ("output", "error")}
        with paths["output"].open("wb") as output, paths["error"].open("wb") as error:
            written = journal.write_results(output, error)
        stored: dict[str, Any] = {"output": None, "error": None}
        for (name, path), count in zip(paths.items(), written, strict=True):
            if count:
                stored[name] = asdict(self._uploads.put_file(path))
            path.unlink()
        return {**stored, **figures, "outcome": self._end.outcome, "reason": self._end.reason}

    def _record(self, number: int, request: Request, answer: Reply) -> dict[str, Any]:
        name = self._name(number)
        status = answer.status if answer.status < 600 else 502  # our own are no status of HTTP
        response = {"status_code": status, "request_id": answer.request_id or name, "body": answer.body}
        return {"id": name, "custom_id": request.custom_id, "response": response, "error": None}

    def _name(self, number: int) -> str:
        """The same request has the same id in every attempt."""
        text = f"{self._wanted['project']}/{self._wanted['batch']}/{number}"
        return f"batch_req_{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def _door(self, **options: Any) -> Door:
        headers = {"OpenAI-Project": self._wanted["project"], "X-Atoll-Priority": "batch"}
        return Door(self._wanted["door"], self._key, headers, again_s=AGAIN_S, **options)


def work_off(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Run the batch of a task's input."""
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        raise Unavailable(f"{KEY_VARIABLE} is not set", hint="the batch's controller sets it")
    return Run(wanted, key, BlobStore(task.blobs_url()), task.work_dir(), from_environment()).run()


if __name__ == "__main__":
    task.run(work_off)
