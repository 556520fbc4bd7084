"""Everything an application does with the service, with the official clients: `python ask.py`.

Reads the address and the key from ATOLL_ADDRESS and ATOLL_KEY, or from the credentials of ATOLL_HOME.
"""

from __future__ import annotations

import json
import sys

import anthropic
import openai

from atoll.sdk import resolve_credentials

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
        },
    },
}


def stream(client: openai.OpenAI) -> None:
    """The answer as it is generated; the first request wakes a sleeping model."""
    events = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Say hello in five words."}],
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    for event in events:
        print("".join(choice.delta.content or "" for choice in event.choices), end="", flush=True)
        if event.usage is not None:
            print(f"\n  {event.usage.prompt_tokens} + {event.usage.completion_tokens} tokens")


def answer_as_schema(client: openai.OpenAI) -> None:
    """An answer that holds to a JSON schema, whatever the size of the model."""
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Name a city and how many people live there."}],
        max_tokens=80,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}},
    )
    print("schema:", json.loads(answer.choices[0].message.content or ""))


def call_tool(client: openai.OpenAI) -> None:
    """A tool call whose arguments hold to the tool's schema."""
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
        max_tokens=80,
        temperature=0,
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
    )
    for call in answer.choices[0].message.tool_calls or []:
        print("tool:", call.function.name, json.loads(call.function.arguments))  # type: ignore[union-attr]


def embed(client: openai.OpenAI) -> None:
    """Two texts as vectors."""
    answer = client.embeddings.create(model="vectors", input=["an atoll", "a ring of islands"])
    print("vectors:", len(answer.data), "of", len(answer.data[0].embedding), "numbers")


def converse(client: openai.OpenAI) -> None:
    """A conversation the platform remembers."""
    first = client.responses.create(model="default", input="My name is Mira.", max_output_tokens=20)
    second = client.responses.create(
        model="default", input="What is my name?", previous_response_id=first.id, max_output_tokens=20
    )
    print("response:", second.output_text)


def ask_as_message(client: anthropic.Anthropic) -> None:
    """The same model through the other common API."""
    answer = client.messages.create(
        model="default", max_tokens=20, messages=[{"role": "user", "content": "Name a colour."}]
    )
    print("message:", answer.content[0].text, answer.usage.output_tokens)  # type: ignore[union-attr]


def main() -> int:
    credentials = resolve_credentials()
    address, key = credentials.address, credentials.key
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, timeout=300) as client:
        for step in (stream, answer_as_schema, call_tool, embed, converse):
            step(client)
    with anthropic.Anthropic(base_url=address, api_key=key, timeout=300) as other:
        ask_as_message(other)
    return 0


if __name__ == "__main__":
    sys.exit(main())
