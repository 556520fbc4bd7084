"""The door as an errand of a labelling task sees it: rows of the task, and a model to ask; one connection a thread.

What the door cannot answer now (it is away, busy, or has no replica) is asked again after the wait it names, for as
long as it takes; a task that is stopped is stopped in between. Everything else it refuses is raised, a budget that is
used up as ResourceExhausted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from atoll.core import door
from atoll.core.errors import (
    AtollError,
    Forbidden,
    Invalid,
    NotFound,
    ResourceExhausted,
    Unauthorized,
    Unavailable,
    error_from_dict,
)

KEY_VARIABLE = "ATOLL_LABEL_KEY"
PAGE_BYTES_MAX = 256 << 20
AGAIN_S = 1.0
KNOWN_WITHIN_S = 60.0
"""A new key reaches the server and every gateway within this; a refusal before is asked again."""

REFUSALS: dict[int, type[AtollError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}
LATER = (door.AWAY, door.CUT_OFF, 429, 502, 503, 504)


class Door:
    """A kept connection with the key of the errand; for one thread. `task` is the labelling task's name.

    waits: called with the door's words before each wait.
    """

    def __init__(
        self,
        wanted: Mapping[str, Any],
        key: str,
        known_within_s: float | None = None,
        waits: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._waits = waits
        project = str(wanted["project"])
        headers = {"OpenAI-Project": project, "X-Atoll-Priority": "batch"}
        self._door = door.Door(wanted["door"], key, headers, again_s=AGAIN_S, answer_bytes_max=PAGE_BYTES_MAX)
        self._task = f"/api/v1/projects/{quote(project)}/labels/{quote(str(wanted['task']))}"
        within_s = float(wanted.get("known_within_s", KNOWN_WITHIN_S)) if known_within_s is None else known_within_s
        self._known_until = time.monotonic() + within_s

    def rows(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        """All items of the task with all that is known of them, page by page."""
        after: int | None = 0
        while after is not None:
            page = self.call("GET", f"{self._task}/rows?{urlencode({'after': after, 'limit': limit})}")
            if page["rows"]:
                yield page["rows"]
            after = page["after"]

    def send(self, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to a route of the task."""
        return self.call("POST", f"{self._task}/{verb}", orjson.dumps(body))

    def chat(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of /v1/chat/completions, at priority batch."""
        return self.call("POST", "/v1/chat/completions", orjson.dumps(order))

    def check_model(self, model: str) -> None:
        """AtollError when the door knows no such model."""
        self.call("GET", f"/v1/models/{quote(model, safe='')}")

    def call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON of a good answer; AtollError for one that is refused for good."""
        while not (reply := self._door.call(method, path, body)).is_good:
            if reply.is_exhausted:
                hint = "what is done stays; ask again when there is more"
                raise ResourceExhausted(f"a budget is used up: {reply.words}", hint=hint)
            is_new = reply.status in (401, 403) and time.monotonic() < self._known_until
            if reply.status not in LATER and not is_new:
                raise _refusal(reply)
            self._waits(reply.words)
            time.sleep(reply.again_s)
        return reply.body

    def close(self) -> None:
        self._door.close()


def own_key() -> str:
    """The errand's key, taken out of the environment; Unavailable when there is none."""
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        raise Unavailable(f"{KEY_VARIABLE} is not set", hint="the controller of the run sets it")
    return key


def _refusal(reply: door.Reply) -> AtollError:
    error = reply.body.get("error")
    if isinstance(error, dict) and isinstance(error.get("details"), dict):
        return error_from_dict(error)
    words = reply.words if reply.status in (door.TOO_LONG, door.NOT_JSON) else f"the door answered {reply.words}"
    return REFUSALS.get(reply.status, Invalid)(words[:400], field="door", status=reply.status)
