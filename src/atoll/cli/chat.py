"""`chat`: talk to a deployed model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.session import Session, command

if TYPE_CHECKING:
    from atoll.sdk.chat import ChatUsage
    from atoll.sdk.client import Client

Message = dict[str, str]


def add_to(app: typer.Typer, panel: str) -> None:
    """Declare the command."""
    examples = [
        "atoll chat smollm2",
        'atoll chat smollm2 "What does os.path.join do?"',
        "atoll chat smollm2 --system 'Answer briefly.' < question.txt",
    ]
    command(app, "chat", panel=panel, examples=examples)(chat)


def chat(
    session: Session,
    model: Annotated[str, typer.Argument(help="Name of a deployment.", metavar="MODEL")],
    prompt: Annotated[str | None, typer.Argument(help="What to ask; a conversation without.", metavar="PROMPT")] = None,
    system: Annotated[str | None, typer.Option("--system", help="Instructions put first.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest answer.", min=1)] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0 is the most predictable.", min=0)
    ] = None,
) -> None:
    """Talk to a deployed model; the answer appears as it is generated.

    Without a prompt: a conversation on a terminal, else the prompt is read from standard input. The answer goes
    to standard output, the tokens used to standard error.
    """
    options = {"max_tokens": max_tokens, "temperature": temperature}
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    if prompt is None and sys.stdin.isatty():
        _converse(session.client, model, history, options)
        return
    history.append({"role": "user", "content": prompt if prompt is not None else sys.stdin.read()})
    _answer(session.client, model, history, options)


def _converse(client: Client, model: str, history: list[Message], options: dict[str, Any]) -> None:
    """Question and answer until end of input; a question that fails can be asked again."""
    from atoll.cli.exits import say
    from atoll.cli.render import note
    from atoll.core.errors import RateLimited, Unavailable

    note(f"talking to {model}; Ctrl-D ends")
    while (question := _question()) is not None:
        if not question.strip():
            continue
        asked = [*history, {"role": "user", "content": question}]
        try:
            answer = _answer(client, model, asked, options)
        except (Unavailable, RateLimited) as error:
            say("error", str(error))
            continue
        history[:] = [*asked, {"role": "assistant", "content": answer}]


def _question() -> str | None:
    try:
        return input("> ")
    except EOFError:
        sys.stdout.write("\n")
        return None


def _answer(client: Client, model: str, messages: list[Message], options: dict[str, Any]) -> str:
    """Stream one answer to standard output; returns it whole."""
    from atoll.cli.render import clean, note

    pieces, used, reason = list[str](), None, None
    try:
        for piece in client.chat(model, messages, **options):
            pieces.append(piece.text)
            sys.stdout.write(clean(piece.text))
            sys.stdout.flush()
            used, reason = piece.usage or used, piece.finish_reason or reason
    finally:
        if pieces and not pieces[-1].endswith("\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
    note(footer(used, reason))
    return "".join(pieces)


def footer(used: ChatUsage | None, reason: str | None) -> str:
    """What an answer took."""
    tokens = f"{used.prompt_tokens} + {used.completion_tokens} tokens" if used else "tokens unknown"
    return f"{tokens}, cut at the limit" if reason == "length" else tokens
