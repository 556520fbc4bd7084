"""OpenAI's Responses API with the official client: events in order, tools, schemas, and what the centre keeps."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import jsonschema_rs
import openai
import pytest
from pydantic import BaseModel

from integration.dialects.conftest import openai_of
from integration.gateway.conftest import Running
from integration.gateway.control import Control, wait_until

KEEP = "/api/v1/gateway/responses"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Shelf:
    """The part of the server that keeps responses."""

    def __init__(self, control: Control) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self._control = control
        control.routes[KEEP] = self._keep

    def offer(self, path: str, messages: list[dict[str, Any]]) -> None:
        """Answer this path with what was said so far."""
        answer = json.dumps({"items": messages}).encode()
        self._control.routes[path] = lambda handler, body: handler.reply(200, answer)  # type: ignore[attr-defined]

    def _keep(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        value = json.loads(body)
        self.kept[value["id"]] = value
        handler.reply(200, b"{}")  # type: ignore[attr-defined]


@pytest.fixture
def shelf(control: Control) -> Shelf:
    return Shelf(control)


def test_response_answers_whole_and_is_kept(small: Running, control: Control, shelf: Shelf) -> None:
    with openai_of(small) as client:
        response = client.responses.create(
            model="small", input="Say hello.", instructions="Be kind.", max_output_tokens=20, metadata={"a": "b"}
        )
    assert response.object == "response" and response.output_text
    assert response.status in ("completed", "incomplete")
    assert response.usage is not None and response.usage.output_tokens > 0
    (kept,) = shelf.kept.values()
    assert (kept["id"], kept["project"], kept["key_id"]) == (response.id, "default", "key-1")
    assert kept["input"][0]["content"][0]["text"] == "Say hello."
    assert kept["output"][0]["content"][0]["text"] == response.output_text
    assert kept["response"]["store"] is True
    (record,) = control.wait_for_usage(1)
    assert (record["endpoint"], record["completion_tokens"]) == ("responses", response.usage.output_tokens)


def test_events_come_in_openais_order(small: Running, shelf: Shelf) -> None:
    with openai_of(small) as client:
        events = list(client.responses.create(model="small", input="Say hello.", max_output_tokens=12, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == last.response.output_text
    assert last.response.id in shelf.kept


def test_cut_off_response_is_incomplete(small: Running, shelf: Shelf) -> None:
    with openai_of(small) as client:
        response = client.responses.create(model="small", input="Tell a long story about islands.", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_tools_are_called_whole_and_streamed(small: Running, shelf: Shelf) -> None:
    with openai_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "input": "Weather in Paris?", "tools": [WEATHER]}
        asked |= {"tool_choice": "required", "store": False}
        (call,) = client.responses.create(**asked).output
        events = list(client.responses.create(**asked, stream=True))
    assert call.type == "function_call" and call.name == "get_weather"
    jsonschema_rs.validate(WEATHER["parameters"], json.loads(call.arguments))
    pieces = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    assert pieces == done.arguments
    jsonschema_rs.validate(WEATHER["parameters"], json.loads(pieces))
    assert shelf.kept == {}


def test_a_conversation_with_a_tools_output_goes_on(small: Running, shelf: Shelf) -> None:
    said: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather in Paris?"}]},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "12 degrees"},
    ]
    with openai_of(small) as client:
        response = client.responses.create(model="small", input=said, max_output_tokens=30)
    assert response.output_text


def test_parsed_text_has_the_asked_form(small: Running, shelf: Shelf) -> None:
    class Island(BaseModel):
        name: str
        reefs: int

    with openai_of(small) as client:
        response = client.responses.parse(model="small", input="An island as JSON.", text_format=Island)
    assert isinstance(response.output_parsed, Island)


def test_previous_response_goes_in_front(tiny: Running, control: Control, shelf: Shelf) -> None:
    earlier = [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y" * 200}]
    shelf.offer(f"{KEEP}/default/resp_1", earlier)
    shelf.offer("/api/v1/gateway/conversations/default/conv_1", earlier)
    with openai_of(tiny) as client:
        for extra in ({}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
            client.responses.create(model="tiny", input="hello", max_output_tokens=2, **extra)  # type: ignore[call-overload]
    alone, after, of_conversation = control.wait_for_usage(3)
    assert after["prompt_tokens"] == of_conversation["prompt_tokens"] >= alone["prompt_tokens"] + 500
    assert [kept["previous_response_id"] for kept in shelf.kept.values()] == [None, "resp_1", None]
    assert [kept["conversation"] for kept in shelf.kept.values()] == [None, None, "conv_1"]


def test_unknown_previous_response_is_404(tiny: Running, control: Control) -> None:
    told = b'{"code":"not_found","message":"No such response.","hint":"","details":{}}'
    control.routes[f"{KEEP}/default/resp_x"] = lambda handler, body: handler.reply(404, told)  # type: ignore[attr-defined]
    with openai_of(tiny) as client, pytest.raises(openai.NotFoundError, match="No such response"):
        client.responses.create(model="tiny", input="hello", previous_response_id="resp_x")


def test_with_the_centre_away_answers_are_not_kept_and_say_so(tiny: Running, control: Control) -> None:
    control.stop()
    with openai_of(tiny) as client:
        whole = client.responses.create(model="tiny", input="hello", max_output_tokens=2)
        last = list(client.responses.create(model="tiny", input="hello", max_output_tokens=2, stream=True))[-1]
        with pytest.raises(openai.InternalServerError) as caught:
            client.responses.create(model="tiny", input="hello", previous_response_id="resp_1")
    assert (whole.model_extra or {})["store"] is False
    assert last.type in ("response.completed", "response.incomplete")
    assert (last.response.model_extra or {})["store"] is False
    assert caught.value.status_code in (502, 503)
    wait_until(lambda: tiny.gateway.in_flight == 0, "nothing is under way")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ],
)
def test_what_cannot_be_done_is_named(tiny: Running, changes: dict[str, Any], field: str) -> None:
    body: dict[str, Any] = {"model": "tiny", "input": "hello"} | changes
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError) as caught:
        client.post("/responses", body=body, cast_to=object)
    assert caught.value.param == field
