"""The door as a synthesis sees it: a model to ask, and what it said. Nothing is asked twice here."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson

from atoll.core import door
from atoll.core.door import Reply
from atoll.data.engine.synthesis.answers import Said

ANSWER_S = 600.0
ANSWER_BYTES_MAX = 4 << 20


class Door(door.Door):
    """A kept connection to `url` with `key`; for one thread. What it asks is batch work."""

    def __init__(self, url: str, key: str, project: str) -> None:
        headers = {"OpenAI-Project": project, "X-Atoll-Priority": "batch"}
        super().__init__(url, key, headers, timeout_s=ANSWER_S, answer_bytes_max=ANSWER_BYTES_MAX)

    def chat(self, body: dict[str, Any], request_id: str) -> Reply:
        """POST a chat completion."""
        return self.call("POST", "/v1/chat/completions", orjson.dumps(body), {"X-Request-Id": request_id})

    def find_model(self, model: str) -> Reply:
        """Whether the door knows `model`."""
        return self.call("GET", f"/v1/models/{quote(model, safe='')}")


def said_in(reply: Reply) -> Said:
    """The answer of a model; an error is its words. Tokens are -1 where nobody counted them."""
    if not reply.is_good:
        return Said(reply.status, reply.words[:500], "", 0)
    choice = _first(reply.body.get("choices"))
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text = message.get("content") or message.get("refusal") or ""
    usage = reply.body.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    counted = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else -1
    return Said(200, text if isinstance(text, str) else "", str(choice.get("finish_reason") or ""), counted)


def _first(choices: Any) -> dict[str, Any]:
    found = choices[0] if isinstance(choices, list) and choices else {}
    return found if isinstance(found, dict) else {}
