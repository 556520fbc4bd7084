from typing import Any

import pytest

from atoll.data.engine.questions.conversation import Message, NotAChat, chat_text, messages_in, messages_of

ASKED = [Message("user", "What is 2 + 2?"), Message("assistant", "4")]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]},
        {
            "messages": [
                {"role": "user", "content": [{"text": "What is "}, {"text": "2 + 2?"}]},
                {"role": "Assistant", "content": "4"},
            ]
        },
        {"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]},
        {"prompt": "What is 2 + 2?", "completion": "4"},
        {
            "prompt": [{"role": "user", "content": "What is 2 + 2?"}],
            "completion": [{"role": "assistant", "content": "4"}],
        },
        {"instruction": "What is 2 + 2?", "input": "", "output": "4"},
        {"instruction": "What is 2 + 2?", "response": "4"},
    ],
)
def test_every_known_form_gives_the_same_messages(record: dict[str, Any]) -> None:
    assert messages_in(record) == ASKED


def test_an_input_follows_its_instruction_and_a_system_text_comes_first() -> None:
    record = {"system": "Be brief.", "instruction": "Sum up", "input": "a long text", "output": "short"}
    assert messages_in(record) == [("system", "Be brief."), ("user", "Sum up\n\na long text"), ("assistant", "short")]


@pytest.mark.parametrize("record", [{}, {"text": "x"}, {"messages": "x"}, {"prompt": "x"}, {"instruction": "x"}])
def test_other_records_are_no_chats(record: dict[str, Any]) -> None:
    assert messages_in(record) is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": []}, "messages is empty"),
        ({"messages": ["x"]}, r"messages\[0\] is no object"),
        ({"messages": [{"role": 5, "content": "x"}]}, r"messages\[0\] has no role such as"),
        ({"messages": [{"role": "a b", "content": "x"}]}, r"messages\[0\] has no role such as"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\] is not a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            r"messages\[0\] has parts that are not texts",
        ),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "calls a tool"),
        ({"prompt": 5, "completion": "x"}, "prompt is not a text"),
    ],
)
def test_a_chat_that_text_cannot_say_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotAChat, match=reason):
        messages_in(record)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "ann@corp.org", "content": "x"},
        {"role": "user", "content": {"mail": "ann@corp.org"}},
        {"role": "user", "content": [{"type": "mail", "value": "ann@corp.org"}]},
    ],
)
def test_why_a_chat_is_refused_says_nothing_of_what_it_holds(message: dict[str, Any]) -> None:
    with pytest.raises(NotAChat) as refused:
        messages_in({"messages": [message]})
    assert "ann" not in str(refused.value)


def test_marks_inside_a_message_do_not_break_it() -> None:
    assert messages_of(chat_text([Message("user", "a\x1eb\x1fc")])) == [("user", "abc")]


def test_a_text_that_is_no_chat_is_said_by_the_user() -> None:
    assert messages_of("plain") == [("user", "plain")]
