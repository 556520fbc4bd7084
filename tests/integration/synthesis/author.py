"""A model server of one's own making: it answers from the passage it is shown, or as badly as a test wants it to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Reply = tuple[int, Any, dict[str, str]]

_PASSAGE = re.compile(r"<<<\n(.*)\n>>>", re.S)
_SENTENCE = re.compile(r"sentence of the text: (.*)\n|写一个问题.(.*)\n")


def completion(content: str, finish: str = "stop", tokens: int | None = 100) -> Reply:
    """A chat completion as servers send it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": tokens}}
    return 200, {"id": "c", "object": "chat.completion", "choices": [choice], **usage}, {}


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    return status, {"error": {"message": message, "code": code}}, headers


def said_in(body: Body) -> str:
    return str(body["messages"][-1]["content"])


def passage_in(body: Body) -> str:
    found = _PASSAGE.search(said_in(body))
    assert found is not None
    return found[1]


def sentence_in(body: Body) -> str:
    found = _SENTENCE.search(said_in(body))
    assert found is not None
    return (found[1] or found[2]).strip()


def written(body: Body) -> dict[str, str]:
    """A truthful answer to any request: its evidence is a sentence of the passage, and so is what it says."""
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "supported" in properties:
        return {"supported": "yes"}
    if "instruction" in properties:
        sentence = passage_in(body).split(". ")[0]
        return {"instruction": "Say shortly what this is about.", "evidence": sentence, "response": sentence}
    sentence = sentence_in(body)
    if re.search(r"[\u4e00-\u9fff]", sentence):
        return {"question": f"关于{sentence[:9]}有什么说明", "evidence": sentence, "answer": sentence}
    words = " ".join(sentence.split()[:6])
    return {"question": f"What is known about {words}?", "evidence": sentence, "answer": sentence}


def honest(body: Body, count: int) -> Reply:
    return completion(json.dumps(written(body), ensure_ascii=False))


class Author:
    """Answers as `decide(body, number of requests so far)` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.model_status = 200
        self.decide: Callable[[Body, int], Reply] = honest
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

    def answer(self, body: Body, headers: dict[str, str]) -> Reply:
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

    def _handler(author) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say((author.model_status, {"error": {"message": "no such model"}}, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._say(author.answer(body, {k.lower(): v for k, v in self.headers.items()}))

            def _say(self, reply: Reply) -> None:
                status, value, headers = reply
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = "Content-Length" in headers

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
