"""The requests of a batch: a file of JSON lines, checked whole before the first is asked.

A line is {"custom_id", "method": "POST", "url", "body"}. Only where each line lies is kept in memory. What the body
asks is judged by the door, but for its model and that it does not stream.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.core.errors import Invalid

REQUESTS_MAX = 100_000
LINE_BYTES_MAX = 32 << 20
CUSTOM_ID_MAX = 512
WRONG_LINES_MAX = 100


class Wrong(Exception):
    """A line that cannot be used: why, as a code and in words."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `body` is what the door is sent."""

    custom_id: str
    body: bytes


class Requests:
    """The requests of the file at `path`, numbered from 0 in the order of their lines.

    Invalid (with `errors`, up to WRONG_LINES_MAX) when a line is wrong, two share a custom_id, or there is none.
    """

    def __init__(self, path: Path, endpoint: str, model: str) -> None:
        self._file = path.open("rb")
        self._starts = array("Q")
        self._lengths = array("I")
        try:
            self._index(endpoint, model)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Request:
        """Not for several threads at once."""
        self._file.seek(self._starts[number])
        line = orjson.loads(self._file.read(self._lengths[number]))
        return Request(line["custom_id"], orjson.dumps(line["body"]))

    def close(self) -> None:
        self._file.close()

    def _index(self, endpoint: str, model: str) -> None:
        seen: dict[str, int] = {}
        wrong: list[dict[str, Any]] = []
        for number, start, line in self._lines():
            try:
                custom_id = check(line, endpoint, model)
                if custom_id in seen:
                    raise Wrong("duplicate_custom_id", f"has the custom_id of line {seen[custom_id]}", "custom_id")
                if len(self) == REQUESTS_MAX:
                    raise Wrong("too_many_requests", f"is one more than the {REQUESTS_MAX} a batch may have")
            except Wrong as error:
                wrong.append({"code": error.code, "line": number, "message": str(error), "param": error.param})
                if len(wrong) == WRONG_LINES_MAX or error.code == "too_many_requests":
                    break
                continue
            seen[custom_id] = number
            self._starts.append(start)
            self._lengths.append(len(line))
        if not wrong and not len(self):
            wrong = [{"code": "empty_file", "line": None, "message": "the file holds no request", "param": None}]
        if wrong:
            raise _refusal(wrong)

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(line number from 1, offset, line) of the lines that are not blank."""
        number = start = 0
        while line := self._file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if line.strip():
                yield number, start, line
            if len(line) > LINE_BYTES_MAX:
                return  # refused: what follows is the rest of it
            start += len(line)


def check(line: bytes, endpoint: str, model: str) -> str:
    """The custom_id of a line that asks `model` at `endpoint`; Wrong says what else it does."""
    if len(line) > LINE_BYTES_MAX:
        raise Wrong("line_too_long", f"is longer than {LINE_BYTES_MAX} bytes")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Wrong("invalid_json_line", f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Wrong("invalid_json_line", "is not a JSON object")
    custom_id, body = value.get("custom_id"), value.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_MAX:
        raise Wrong("missing_required_parameter", f"needs a custom_id of 1 to {CUSTOM_ID_MAX} characters", "custom_id")
    if value.get("method") != "POST":
        raise Wrong("invalid_method", f"method cannot be {value.get('method')!r:.40}; POST", "method")
    if value.get("url") != endpoint:
        raise Wrong("mismatched_endpoint", f"url is {value.get('url')!r:.80}, the batch is for {endpoint}", "url")
    if not isinstance(body, dict):
        raise Wrong("missing_required_parameter", "needs a body, an object", "body")
    if body.get("model") != model:
        raise Wrong("mismatched_model", f"asks model {body.get('model')!r:.80}, the first line {model!r}", "body.model")
    if body.get("stream"):
        raise Wrong("invalid_request", "streams, which a batch cannot", "body.stream")
    return custom_id


def _refusal(wrong: list[dict[str, Any]]) -> Invalid:
    first = wrong[0]
    where = f"line {first['line']} " if first["line"] else ""
    count = f"{len(wrong)}{' or more' if len(wrong) == WRONG_LINES_MAX else ''}"
    words = f"{where}{first['message']}" if len(wrong) == 1 else f"{count} lines are wrong; {where}{first['message']}"
    return Invalid(words, field="input_file_id", hint="correct the file and upload it again", errors=wrong)
