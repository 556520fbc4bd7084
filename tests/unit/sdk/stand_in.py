"""A stand-in for the server's protocol: answers in the API's shapes, written down one after the other.

Only for what a real server cannot be made to do at will: break off, stammer, answer as a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx

from atoll.sdk.client import Client

Answer = httpx.Response | Exception

KINDS = {
    "kinds": [
        {"name": "Deployment", "plural": "deployments", "scope": "project", "columns": [["PHASE", "status.phase"]]},
        {"name": "Node", "plural": "nodes", "scope": "system"},
        {"name": "ModelVersion", "plural": "modelversions", "scope": "project", "brand_new_field": 1},
    ]
}


class Broken(httpx.SyncByteStream):
    """A body that breaks off after its pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        raise httpx.ReadError("connection reset")


class StandIn:
    """Gives the answers in turn and remembers the requests; /kinds is always answered."""

    def __init__(self, *answers: Answer | Callable[[httpx.Request], Answer]) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/kinds":
            return httpx.Response(200, json=KINDS)
        self.requests.append(request)
        answer = self._answers.pop(0)
        answer = answer if isinstance(answer, (httpx.Response, Exception)) else answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, patience_s: float = 5.0, **options: Any) -> Client:
        transport = httpx.MockTransport(self)
        return Client("http://127.0.0.1:8400", "sk-atoll-test", transport=transport, patience_s=patience_s, **options)


def resource(name: str = "a", phase: str = "ready", generation: int = 1, seen: int = 1, **more: Any) -> dict[str, Any]:
    """A deployment on the wire."""
    return {
        "kind": "Deployment",
        "project": "default",
        "name": name,
        "uid": f"uid-{name}",
        "version": 1,
        "generation": generation,
        "labels": {},
        "owner": None,
        "created_at": 1.0,
        "updated_at": 2.0,
        "deleting_at": None,
        "spec": {"model": "m"},
        "status": {"phase": phase, "reason": "", "observed_generation": seen},
        **more,
    }
