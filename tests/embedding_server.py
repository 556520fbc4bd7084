"""A server that embeds by hashed words: equal words, equal vectors, up to a tremor of the last bits as engines have."""

from __future__ import annotations

import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

WIDTH = 64
Reply = tuple[int, Any, dict[str, str]]


class Embedder:
    """Answers /v1/embeddings, after the replies in `first`; keeps the texts it was asked for."""

    def __init__(self) -> None:
        self.first: list[Reply] = []
        self.asked: list[str] = []
        self.keys: set[str] = set()
        self.width = WIDTH
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

    def answer(self, body: dict[str, Any], key: str) -> Reply:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        with self.lock:
            self.keys.add(key)
            if self.first:
                return self.first.pop(0)
            tremor = 1 + 1e-4 * (len(self.asked) % 7)
            self.asked += texts
        rows = [
            {"index": n, "object": "embedding", "embedding": self._vector(text, tremor)} for n, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return 200, {"object": "list", "model": body["model"], "data": rows[::-1], "usage": usage}, {}

    def _vector(self, text: str, tremor: float) -> list[float]:
        vector = np.zeros(self.width)
        for place, word in enumerate(text.split()):
            vector[zlib.crc32(word.encode()) % self.width] += tremor if place % 2 else 1
        return [float(value) for value in vector]

    def _handler(embedder) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                is_known = self.path.endswith("/models") or self.path.endswith("/words")
                told = (
                    {"id": "words", "data": [{"id": "words"}]} if is_known else {"error": {"message": "no such model"}}
                )
                self._say((200 if is_known else 404, told, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._say(embedder.answer(body, self.headers["authorization"] or ""))

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
