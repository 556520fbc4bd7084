"""Server-sent events read the same however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.sdk.sse import ServerEvent, read_events, read_lines

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
TEXT = st.text(st.characters(exclude_characters="\r\n\0\ufeff", exclude_categories=["Cs"]), max_size=12)
EVENTS = st.lists(
    st.builds(ServerEvent, st.sampled_from(["message", "change", "ünlü"]), TEXT, st.sampled_from(["", "7"])), max_size=5
)


def wire(events: list[ServerEvent], end: bytes) -> bytes:
    """The events as a server may write them."""
    lines = [b": a comment"]
    for event in events:
        lines += [b"event: " + event.event.encode(), b"id: " + event.id.encode(), b"data: " + event.data.encode(), b""]
    return b"".join(line + end for line in lines)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(borders)]


@settings(deadline=None)
@given(EVENTS, LINE_ENDS, st.lists(st.integers(0, 10_000), max_size=20))
def test_events_survive_any_cut_and_any_line_end(events: list[ServerEvent], end: bytes, places: list[int]) -> None:
    data = wire(events, end)
    assert list(read_events(cut(data, places))) == events


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_bytes_read_the_same_whole_and_cut(data: bytes, places: list[int]) -> None:
    assert list(read_lines(cut(data, places))) == list(read_lines([data]))


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_byte_by_byte_is_no_different(data: bytes) -> None:
    assert list(read_events(bytes([b]) for b in data)) == list(read_events([data]))


def test_data_lines_are_joined_and_comments_dropped() -> None:
    text = b": hello\nevent: change\ndata: one\ndata:two\n: alive\ndata\n\n"
    assert list(read_events([text])) == [ServerEvent("change", "one\ntwo\n", "")]


def test_an_event_without_data_is_no_event() -> None:
    assert list(read_events([b"event: change\n\ndata: x\n\n"])) == [ServerEvent("message", "x", "")]


def test_an_event_the_stream_breaks_off_in_is_discarded() -> None:
    assert list(read_events([b"data: whole\n\ndata: half\n"])) == [ServerEvent("message", "whole", "")]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert list(read_events([b"\xef\xbb", b"\xbfdata: x\n\n"])) == [ServerEvent("message", "x", "")]
