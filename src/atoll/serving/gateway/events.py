"""Server-sent events of an engine on their way to a client: they pass at once while metering looks over the shoulder.

Promises: what the client did not ask for (usage, timings, progress) is taken out, everything else passes unchanged and
in order; `[DONE]` is kept back until `finish`, so that the count is durable before the client can know it is done.
An ordinary event is never parsed; a few byte searches decide, not even of the figures it ends with. Pure: bytes in,
bytes out.
"""

from __future__ import annotations

import re

import orjson

from atoll.core.errors import IntegrityError
from atoll.serving.gateway.usage import NO_TOKENS, Tokens, as_usage, find_usage, from_timings, joined, total

EVENT_BYTES_MAX = 4 * 1024 * 1024
_TIMINGS = re.compile(rb',"timings":(\{[^{}]*\})')  # llama.cpp's own; it writes JSON without spaces
_TIMINGS_BEGIN = b',"timings":{'
_TIMINGS_END = b"}}\n\n"  # of an event whose last member they are
_PROGRESS = re.compile(rb'"prompt_progress"\s*:\s*\{')
_USAGE_MEMBER = re.compile(rb',\s*"usage"\s*:\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_INDEX = re.compile(rb'"choices"\s*:\s*\[\s*\{[^{}]*"index"\s*:\s*(\d+)')
_STOPPED = re.compile(rb'"stop"\s*:\s*true|"finish_reason"\s*:\s*"')  # llama.cpp's own routes say stop
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|arguments)"\s*:\s*"(?!")')


class EventFilter:
    """One stream of events; `feed` what arrives, pass on what it returns, ask `tokens` at any time.

    `choices` is how many the whole stream carries, `choices_per_prompt` how many belong to one prompt. `before` is what
    was used for the part of the answer that another stream brought; it is counted in.
    """

    __slots__ = (
        "_before",
        "_choices",
        "_choices_per_prompt",
        "_contents",
        "_done",
        "_end",
        "_index",
        "_keeps_progress",
        "_keeps_timings",
        "_keeps_usage",
        "_last",
        "_tail",
        "_timed",
        "_timed_of",
        "_usage",
        "_usage_of",
        "last_told",
    )

    def __init__(
        self,
        *,
        keeps_usage: bool = True,
        keeps_timings: bool = True,
        keeps_progress: bool = True,
        choices: int = 1,
        choices_per_prompt: int = 1,
        before: Tokens = NO_TOKENS,
    ) -> None:
        self._before = before
        self._keeps_usage = keeps_usage
        self._keeps_timings = keeps_timings
        self._keeps_progress = keeps_progress
        self._choices = choices
        self._choices_per_prompt = choices_per_prompt
        self._end = b"\n\n"
        self._tail = self._last = b""
        self._done = b""
        self._contents = 0
        self._timed = b""
        self.last_told = b""  # the end of the last events that told a count of their own, from the count on
        self._usage: Tokens | None = None
        self._index = 0
        self._timed_of: dict[int, bytes] = {}
        self._usage_of: dict[int, Tokens] = {}

    def renewed(self, before: Tokens = NO_TOKENS) -> EventFilter:
        """A filter with the same wishes for another stream."""
        return EventFilter(
            keeps_usage=self._keeps_usage,
            keeps_timings=self._keeps_timings,
            keeps_progress=self._keeps_progress,
            choices=self._choices,
            choices_per_prompt=self._choices_per_prompt,
            before=before,
        )

    def feed(self, data: bytes) -> bytes:
        """The whole events among what has arrived, as the client shall see them."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not data.endswith(self._end):
            data = self._cut(data)
            if not data:
                return b""
        self._last = data
        at = data.rfind(_TIMINGS_BEGIN)
        is_timed = at >= 0 and data.find(b"}", at) == len(data) - len(_TIMINGS_END) and data.endswith(_TIMINGS_END)
        end = at if is_timed else len(data)  # behind it are only figures
        if (
            self._choices > 1
            or data.find(b'"usage"', 0, end) >= 0
            or data.find(b"[DONE]", 0, end) >= 0
            or data.find(b'"prompt_progress"', 0, end) >= 0
        ):
            events = data[: -len(self._end)].split(self._end)
            return b"".join([seen + self._end for seen in map(self._screen, events) if seen is not None])
        if not is_timed or data.find(_TIMINGS_BEGIN, 0, at) >= 0:
            return self._note(data)
        self._timed = self.last_told = data[at:]
        return data if self._keeps_timings else data[:at] + _TIMINGS_END[1:]

    def finish(self) -> bytes:
        """What was kept back: the `[DONE]` event, or an event the engine did not end."""
        rest, self._tail, self._done = self._done + self._tail, b"", b""
        return rest

    @property
    def is_ended(self) -> bool:
        """Whether the engine itself ended the stream: by its usage, by `[DONE]`, or by saying why it stopped."""
        return bool(self._done) or self._usage is not None or _STOPPED.search(self._last) is not None

    def tokens(self) -> Tokens:
        """The count up to the last event passed on."""
        mine = self._mine()
        return mine if self._before is NO_TOKENS else joined(self._before, mine)

    def _mine(self) -> Tokens:
        """What this stream tells."""
        if self._choices > 1 and self._timed_of:
            by_choice = {index: _timed_tokens(event) for index, event in self._timed_of.items()}
            return total(by_choice | self._usage_of, self._choices_per_prompt)
        if self._usage is not None:
            return self._usage
        return _timed_tokens(self._timed) if self._timed else Tokens(completion=self._contents)

    def _cut(self, data: bytes) -> bytes:
        """The whole events in `data`; keeps the rest. Finds out whether lines end with CR LF."""
        if self._end == b"\n\n" and b"\r\n\r\n" in data:
            self._end = b"\r\n\r\n"
        at = data.rfind(self._end)
        end = at + len(self._end) if at >= 0 else 0
        self._tail = data[end:]
        if len(self._tail) > EVENT_BYTES_MAX:
            raise IntegrityError(f"the engine sent an event over {EVENT_BYTES_MAX} bytes")
        return data[:end]

    def _screen(self, event: bytes) -> bytes | None:
        """One event that may be special, as the client shall see it, or None."""
        value = event[5:].strip() if event.startswith(b"data:") else event
        if value == b"[DONE]":
            self._done = event + self._end
            return None
        if value == b"null":
            return None
        if self._choices > 1 and (index := _INDEX.search(event)) is not None:
            self._index = int(index[1])
        usage = find_usage(event) if b'"usage"' in event else None
        if usage is not None:
            return self._screen_usage(event, usage)
        passed = self._note(event)
        is_progress = b'"prompt_progress"' in event and _PROGRESS.search(event) is not None
        return None if is_progress and not self._keeps_progress else passed

    def _screen_usage(self, event: bytes, usage: Tokens) -> bytes | None:
        self._usage = self._usage_of[self._index] = usage
        self.last_told = event
        if self._keeps_usage:
            return event if self._before is NO_TOKENS else _with_usage(event, joined(self._before, usage))
        if _NO_CHOICES.search(event) is not None:
            return None
        return _TIMINGS.sub(b"", _USAGE_MEMBER.sub(b"", event))

    def _note(self, data: bytes) -> bytes:
        """Remember what the count may need from ordinary events; the events as the client shall see them."""
        if b'"timings"' not in data:
            self._contents += len(_CONTENT.findall(data))
            return data
        self._timed = self.last_told = data
        if self._choices > 1:
            self._timed_of[self._index] = data
        return data if self._keeps_timings else _TIMINGS.sub(b"", data)


def _with_usage(event: bytes, tokens: Tokens) -> bytes:
    """The event with another usage."""
    return _USAGE_MEMBER.sub(b',"usage":' + orjson.dumps(as_usage(tokens)), event, count=1)


def _timed_tokens(event: bytes) -> Tokens:
    """The count in the last timings of these events."""
    found = _TIMINGS.findall(event)
    return from_timings(orjson.loads(found[-1])) if found else Tokens()
