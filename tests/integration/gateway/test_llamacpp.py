"""The gateway before a real llama.cpp server: what is billed is what that server says it did."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

import tiny_gguf
from integration.gateway.conftest import Running
from integration.gateway.control import Control, wait_until
from integration.gateway.wire import chat, post, read_to_end, read_until

pytestmark = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")

HELLO = [{"role": "user", "content": "hello"}]
ENDLESS = {"max_tokens": 100_000, "ignore_eos": True}
SERVER = """
    import sys, time
    from xllamacpp import CommonParams, Server
    parameters = CommonParams()
    parameters.model.path, parameters.n_parallel, parameters.n_ctx = sys.argv[1], 3, 3 * 65536
    parameters.api_keys, parameters.port, parameters.endpoint_slots = ["engine-key"], 0, True
    parameters.cpuparams.n_threads, parameters.warmup, parameters.fit_params = 1, False, False
    server = Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return Path(tiny_gguf.write_model(tmp_path_factory.mktemp("llama") / "tiny.gguf", context=1 << 20))


@contextmanager
def served(model: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A llama.cpp server with the model: its address and its process."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), str(model)]
    with (
        open(model.parent / "log", "ab") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"http://"):
                break
        yield line.decode().strip(), process
        process.kill()


@pytest.fixture(scope="module")
def llama(model: Path) -> Iterator[str]:
    """The address of a llama.cpp server with a tiny model."""
    with served(model) as (url, _):
        yield url


@pytest.fixture
def running(start: Callable[..., Running], control: Control, llama: str) -> Running:
    control.add_model("tiny", [llama], context=65536)
    return start()


def last(stream: bytes, member: str) -> dict[str, Any]:
    """This member of the last event that has it."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    found: dict[str, Any] = [event[member] for event in events if member in event][-1]
    return found


def is_idle(llama: str) -> bool:
    with socket.create_connection(("127.0.0.1", int(llama.rpartition(":")[2])), 60) as connection:
        connection.sendall(b"GET /slots HTTP/1.1\r\nauthorization: Bearer engine-key\r\nconnection: close\r\n\r\n")
        return b'"is_processing":true' not in read_to_end(connection)


def test_stream_and_whole_answer_are_billed_alike(running: Running, control: Control) -> None:
    with running.client() as client:
        for stream in (False, True, True):
            answer = client.chat.completions.create(model="tiny", messages=HELLO, stream=stream, max_tokens=20, seed=1)
            if stream:
                assert all(chunk.choices and chunk.usage is None for chunk in answer)
    whole, streamed, again = control.wait_for_usage(3)
    assert whole["prompt_tokens"] == streamed["prompt_tokens"] == again["prompt_tokens"] > 0
    assert again["cached_tokens"] > 0
    assert 0 < streamed["completion_tokens"] <= 20


def test_leaving_client_frees_the_slot_and_pays_to_the_token(running: Running, control: Control, llama: str) -> None:
    with running.connect() as connection:
        connection.sendall(chat(stream=True, timings_per_token=True, **ENDLESS))
        data = read_until(connection, b'"predicted_n":3')
        connection.shutdown(socket.SHUT_WR)
        data += read_to_end(connection)
    (record,) = control.wait_for_usage(1)
    timings = last(data, "timings")
    assert record["status"] == "cancelled"
    assert record["completion_tokens"] == timings["predicted_n"] >= 3
    assert record["prompt_tokens"] == timings["prompt_n"] + timings["cache_n"]
    wait_until(lambda: is_idle(llama), "the slot is free")


def test_long_prompt_left_half_read_is_billed_so_far(running: Running, control: Control, llama: str) -> None:
    body = {"model": "tiny", "prompt": "word " * 9000, "stream": True, "return_progress": True, "max_tokens": 1}
    with running.connect() as connection:
        connection.sendall(post(json.dumps(body).encode(), "/v1/completions"))
        data = read_until(connection, b'"processed":2')
        connection.shutdown(socket.SHUT_WR)
        data += read_to_end(connection)
    (record,) = control.wait_for_usage(1)
    assert record["status"] == "cancelled" and record["completion_tokens"] == 0
    assert record["prompt_tokens"] == last(data, "prompt_progress")["processed"] > 0
    wait_until(lambda: is_idle(llama), "the slot is free")


def test_every_choice_is_billed(running: Running, control: Control) -> None:
    with running.client() as client:
        answer = client.chat.completions.create(
            model="tiny", messages=HELLO, n=2, max_tokens=8, extra_body={"ignore_eos": True}
        )
    assert len(answer.choices) == 2 and answer.usage is not None
    assert answer.usage.completion_tokens == 16
    (record,) = control.wait_for_usage(1)
    assert record["completion_tokens"] == 16
    assert record["prompt_tokens"] == answer.usage.prompt_tokens < 100


def test_too_long_a_request_tells_both_numbers(running: Running) -> None:
    with running.client() as client, pytest.raises(openai.BadRequestError, match="65536 tokens") as caught:
        client.completions.create(model="tiny", prompt="word " * 20_000)
    assert caught.value.code == "context_length_exceeded"


def test_wrong_engine_parameter_is_the_clients_error(running: Running) -> None:
    with running.client() as client, pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="a", extra_body={"grammar": "root ::= ["})


def test_stream_outlives_a_killed_llamacpp(start: Callable[..., Running], control: Control, model: Path) -> None:
    """A real server is killed with -9 in the middle of an answer; another goes on to the very last token asked for."""
    with served(model) as first, served(model) as second:
        control.add_model("tiny", [first[0], second[0]], context=65536)
        gateway = start()
        with gateway.connect() as connection:
            connection.sendall(chat(stream=True, max_tokens=3000, ignore_eos=True, temperature=0))
            data = read_until(connection, b"data: {")
            data = read_until(connection, b'"content":"', data)
            connections = gateway.ask(lambda: list(gateway.gateway.http.connections))
            (asked,) = [c.handler for c in connections if c.handler is not None]
            url = asked._relay.place.replica.url
            next(process for address, process in (first, second) if address == url).kill()
            data = read_until(connection, b"0\r\n\r\n", data)
        events = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
        assert {event["id"] for event in events} == {events[0]["id"]}
        assert [e["choices"][0]["delta"].get("role") for e in events].count("assistant") == 1
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        (record,) = control.wait_for_usage(1)
        assert (record["status"], record["completion_tokens"]) == ("ok", 3000)
        assert "went on after" in record["note"]
        gateway.wait_for_rest()
