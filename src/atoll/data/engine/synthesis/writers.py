"""The writers: threads that ask the door for every target until each has come to its end or nothing more may be asked.

Every answer is in the journal before the next step; only what was in flight is asked again after a kill. In which order
answers come has no effect on what is made of them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing

from atoll.core.door import Reply
from atoll.core.errors import Invalid, Unavailable
from atoll.data.engine.synthesis.answers import Said
from atoll.data.engine.synthesis.door import Door, said_in
from atoll.data.engine.synthesis.journal import Journal
from atoll.data.engine.synthesis.pace import Pace
from atoll.data.engine.synthesis.passages import Target
from atoll.data.engine.synthesis.prompts import Ask
from atoll.data.engine.synthesis.steps import next_step
from atoll.data.engine.synthesis.wanted import Wanted

TRIES_MAX = 4
"""An answer that says the model's server failed, or that was cut off, counts after so many tries."""

REFUSED_MAX = 20
"""So many requests refused for what they are, and none answered, end the run: all others would be, too."""

LOOK_EVERY_S = 0.5

Find = Callable[[int], Target]
Report = Callable[..., None]


class Writers:
    """Works targets off, `find(number)` for each of `order`; `key` opens the door."""

    def __init__(self, wanted: Wanted, key: str, journal: Journal, find: Find, report: Report) -> None:
        self._wanted, self._key, self._journal, self._find, self._report = wanted, key, journal, find, report
        self._pace = Pace(wanted.tokens_max, journal.tokens)
        self._lock = threading.Lock()
        self._done = self._answered = self._refused = 0
        self._waiting_for = ""
        self._missing: dict[str, float] = {}

    def run(self, order: Sequence[int]) -> str:
        """Ask for all targets in `order`; why not all were asked, or "".

        Invalid when the door knows no such model or refuses every request; Unavailable when it refuses the key.
        """
        for model in filter(None, (self._wanted.model, self._wanted.judge)):
            self._wait_for_model(model)
        numbers, workers = iter(order), max(1, min(self._wanted.parallel, len(order)))
        with ThreadPoolExecutor(workers, "writer") as pool:
            running = {pool.submit(self._work, numbers) for _ in range(workers)}
            for future in running:
                future.add_done_callback(self._end_on_failure)
            while running:
                done, running = wait(running, LOOK_EVERY_S, FIRST_COMPLETED)
                self._tell(len(order))
                for future in done:
                    future.result()
        return self._pace.ended

    @property
    def tokens(self) -> int:
        """Tokens used by all attempts together."""
        return self._pace.spent

    def _wait_for_model(self, model: str) -> None:
        """Until the door knows the run's key and the model, which may take a while after they were made."""
        deadline = time.monotonic() + self._wanted.known_within_s
        with closing(self._door()) as door:
            while not (reply := door.find_model(model)).is_good:
                if reply.status in (401, 403, 404) and time.monotonic() > deadline:
                    hint = "name a deployment, a route or a provider's model of this project"
                    raise Invalid(f"model {model!r} cannot be asked: {reply.words}", field="model", hint=hint)
                self._report("ask", 0, None, "item", f"waiting: {reply.words}")
                time.sleep(LOOK_EVERY_S)

    def _end_on_failure(self, future: Future[None]) -> None:
        if error := future.exception():
            self._pace.end(str(error))

    def _work(self, numbers: Iterator[int]) -> None:
        """What each thread does: work off one target after the other."""
        with closing(self._door()) as door:
            while not self._pace.ended:
                with self._lock:
                    number = next(numbers, None)
                if number is None or not self._write(door, number):
                    return
                with self._lock:
                    self._done += 1

    def _write(self, door: Door, number: int) -> bool:
        """Ask all steps of a target; False when the run ends before."""
        target = self._find(number)
        said = self._journal.said(number)
        while isinstance(step := next_step(target, said, self._wanted), tuple):
            name, ask = step
            answer = self._asked(door, ask, _request_id(self._wanted, target, name))
            if answer is None:
                return False
            self._journal.add(number, name, answer)
            said[name] = answer
        return True

    def _asked(self, door: Door, ask: Ask, request_id: str) -> Said | None:
        """The answer that counts; None when the run ends before there is one."""
        tries = 0
        while self._pace.begin(ask.tokens_max):
            reply = door.chat(ask.body, request_id)
            tries += reply.is_broken
            if reply.is_exhausted:
                self._pace.end(f"a budget above this run is used up: {reply.words}")
            is_missing = reply.status == 404 and self._is_missing(door, ask.body["model"], reply.words)
            if reply.is_exhausted or is_missing or reply.is_push_back or (reply.is_broken and tries < TRIES_MAX):
                self._waiting_for = reply.words
                self._pace.pushed_back(ask.tokens_max, reply.again_s)
                continue
            self._waiting_for = ""
            self._missing.pop(ask.body["model"], None)
            self._judge_refusals(reply)
            said = _counted(said_in(reply), ask)
            self._pace.settle(ask.tokens_max, said.tokens)
            return said
        return None

    def _is_missing(self, door: Door, model: str, words: str) -> bool:
        """Whether the door knows the model no more; one that does not come back in time ends the run."""
        if door.find_model(model).status != 404:
            return False
        now = time.monotonic()
        if now - self._missing.setdefault(model, now) >= self._wanted.known_within_s:
            self._pace.end(f"model {model!r} is gone: {words}")
        return True

    def _judge_refusals(self, reply: Reply) -> None:
        """A key or a request that is always refused ends the run, saying why."""
        if reply.status in (401, 403):
            raise Unavailable(f"the door refuses the run's key: {reply.words}")
        with self._lock:
            self._answered += reply.is_good
            self._refused += 400 <= reply.status < 500
            if self._refused >= REFUSED_MAX and not self._answered:
                hint = "the model may take no JSON schema, or too short a prompt; ask it by hand"
                raise Invalid(f"the model refuses every request: {reply.words}", field="model", hint=hint)

    def _tell(self, total: int) -> None:
        message = f"waiting: {self._waiting_for}" if self._waiting_for else ""
        self._report("ask", self._done, total, "item", message, tokens=self._pace.spent)

    def _door(self) -> Door:
        return Door(self._wanted.door, self._key, self._wanted.project)


def _counted(said: Said, ask: Ask) -> Said:
    """`said` with its tokens; where the model's server tells none, the most there could have been."""
    return said if said.tokens >= 0 else Said(said.status, said.text, said.finish, ask.tokens_max)


def _request_id(wanted: Wanted, target: Target, step: str) -> str:
    """The same request has the same id in every attempt."""
    text = f"{wanted.project}/{wanted.manifest}/{wanted.seed}/{target.id}/{step}"
    return f"synthesis_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
